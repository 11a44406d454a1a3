"""Two and four gloo processes give the loss and gradients of one (V4, G2, S11, S13, D8, X4), and wrong forms do not."""

from __future__ import annotations

import pytest
import torch
from distributed_cases import CASES
from torch import Tensor

Outcomes = dict[str, dict[str, Tensor]]


def relative(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the norm of the reference (absolute where that is 0)."""
    scale = float(b.double().norm())
    return float((a.double() - b.double()).norm()) / (scale or 1.0)


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("case", CASES)
def test_every_rank_has_the_global_loss_and_gradients(
    case: str, kind: str, tolerance: float, one_process: Outcomes, many_processes: dict[tuple[int, int], Outcomes]
) -> None:
    reference = one_process[f"{case}/{kind}"]
    for place, outcomes in many_processes.items():
        found = outcomes[f"{case}/{kind}"]
        assert found.keys() == reference.keys()
        for name, value in reference.items():
            assert torch.isfinite(found[name]).all(), (place, name)
            assert relative(found[name], value) < tolerance, (place, name)


@pytest.mark.parametrize(
    "case", ["vl", "koleo", "dino", "ibot", "depth", "ground literal ignore", "ground unique ignore"]
)
def test_the_cases_have_something_to_lose(case: str, one_process: Outcomes) -> None:
    for name, value in one_process[f"{case}/float64"].items():
        assert value.abs().sum() > 1e-3, name


@pytest.mark.parametrize("case", ["ground literal none", "ground unique none", "depth none"])
def test_nothing_valid_in_the_world_is_a_zero_with_a_gradient_path(case: str, one_process: Outcomes) -> None:
    assert all((value == 0).all() for value in one_process[f"{case}/float64"].values())


@pytest.mark.parametrize("duplicates", ["ignore", "negative", "positive", "cosine"])
def test_unique_form_equals_literal_form_on_four_ranks(
    duplicates: str, many_processes: dict[tuple[int, int], Outcomes]
) -> None:
    outcomes = many_processes[4, 3]
    literal, unique = (outcomes[f"ground {form} {duplicates}/float64"] for form in ("literal", "unique"))
    assert all(relative(unique[name], literal[name]) < 1e-10 for name in literal)


def test_wrong_forms_would_be_seen(one_process: Outcomes, many_processes: dict[tuple[int, int], Outcomes]) -> None:
    right, four = one_process["vl/float64"], many_processes[4, 2]

    def error(form: str, name: str) -> float:
        return relative(four[f"wrong/{form}"][name], right[name])

    assert (four["wrong/no gradient"]["d tower"] == 0).all()
    assert error("own slot only", "d tower") > 0.1
    assert error("no offset", "d tower") > 0.1
    assert error("no offset", "loss") > 0.01
    torch.testing.assert_close(four["wrong/global divisor"]["d image"] * 4, right["d image"])
    for form, name in (("depth", "d prediction"), ("ground", "d region"), ("koleo", "d x")):
        assert relative(four[f"wrong/{form}"][name], one_process[f"wrong/{form}"][name]) > 0.1
    # and in one process none of them can be told from the right form, which is why these tests run several
    for form in ("own slot only", "no offset", "global divisor"):
        assert relative(one_process[f"wrong/{form}"]["d tower"], right["d tower"]) < 1e-12
