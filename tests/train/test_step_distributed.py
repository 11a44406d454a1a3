"""A step on several processes is the step of one: losses, gradients, teacher, centres, optimiser (S11, G2, X4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import start_script
from step_cases import CASES, outcome
from torch import Tensor

PLACES = [(name, world) for name, case in CASES.items() for world in case.worlds]
# Which prototypes the samples of one rank use together says something else for smaller local batches.
LOCAL_VALUES = ("prototype_entropy",)
SHIFT = "dpt.out3.bias"
"""Its true gradient is 0, since the loss does not change under a shift: what is there is rounding."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what every rank found."""
    folder = tmp_path_factory.mktemp("step-ranks")
    start_script("step_worker.py", folder)
    return folder


@pytest.fixture(scope="module")
def single() -> dict[str, dict[str, Tensor]]:
    """What one process finds, by case."""
    return {name: outcome(case, case.reference) for name, case in CASES.items()}


def difference(a: dict[str, Tensor], b: dict[str, Tensor], prefix: str) -> float:
    """Largest relative difference over the tensors with this prefix."""
    names = [name for name in b if name.startswith(prefix) and SHIFT not in name]
    assert names
    assert a.keys() == b.keys()
    return max(float((a[n].double() - b[n].double()).norm() / (b[n].double().norm() or 1.0)) for n in names)


@pytest.mark.parametrize(("case", "world"), PLACES)
def test_many_processes_take_the_step_of_one(
    case: str, world: int, ranks: Path, single: dict[str, dict[str, Tensor]]
) -> None:
    reference = single[case]
    # Positions of local views and logged values are float32 in any case.
    exact = CASES[case].dtype == torch.float64
    for place in range(world):
        found: dict[str, Tensor] = torch.load(ranks / f"{case}-{world}-{place}.pt", weights_only=True)
        for name in [n for n in reference if "loss" in n or n.startswith(("ssl/", "ground/", "depth/", "vl/"))]:
            if not any(local in name for local in LOCAL_VALUES):
                torch.testing.assert_close(found[name], reference[name], rtol=1e-6, atol=1e-6)
        whole = [torch.cat([t[n].flatten() for n in t if n.startswith("d ")]) for t in (found, reference)]
        assert float((whole[0] - whole[1]).norm() / whole[1].norm()) < 1e-6
        assert difference(found, reference, "norm") < 1e-6
        assert difference(found, reference, "d ") < (1e-7 if exact else 1e-4)
        assert difference(found, reference, "state ") < (1e-7 if exact else 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_cases_have_something_to_lose(case: str, single: dict[str, dict[str, Tensor]]) -> None:
    reference = single[case]
    assert all(float(reference[f"{loss} 1"]) > 1e-2 for loss in ("loss/vl", "loss/ground", "loss/dino", "loss/depth"))
    silent = [n for n, t in reference.items() if n.startswith("d ") and SHIFT not in n and float(t.norm()) < 1e-7]
    assert not silent


def test_shares_of_a_batch_give_other_gradients(single: dict[str, dict[str, Tensor]]) -> None:
    """The comparison would see negatives that stay within a micro-batch."""
    whole, local = single["replicas, cached micro-batches"], single["replicas, micro-batches"]
    assert difference(local, whole, "d text") > 0.1
    assert difference(local, whole, "state model.text") > 1e-3


def test_one_bad_rank_skips_the_step_of_all_and_names_its_samples(ranks: Path) -> None:
    good, bad = (torch.load(ranks / f"nan-{place}.pt", weights_only=True) for place in range(2))
    assert _verdict(good) == (True, True, {})
    assert _verdict(bad) == (True, True, {"depth": bad["keys"]})


def _verdict(found: dict[str, Any]) -> tuple[bool, bool, dict[str, Any]]:
    return found["skipped"], found["same"], found["wrong"]
