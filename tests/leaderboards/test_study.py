"""Results of checkpoints become studies: what belongs together, what may not, what failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_store import LATTICE, ORDER, additive, lattice, training, write, write_failure

from mtv.errors import UsageError
from mtv.leaderboards.frame import load
from mtv.leaderboards.study import studies


def test_a_lattice_is_one_study(tmp_path: Path) -> None:
    root = lattice(tmp_path, additive, seeds=(0, 1))
    write(root, None, {"imagenet/top1": 50.0}, name="someone-else")
    (study,) = studies(load(root))
    assert set(study.cells) == {(o, s) for o in LATTICE for s in (0, 1)}
    assert study.seeds == (0, 1)
    assert study.subsets[0] == ("vl",)
    assert study.subsets[1:4] == (("vl", "ssl"), ("vl", "ground"), ("vl", "depth"))
    assert study.subsets[-1] == ORDER
    assert [c.training.seed for c in study.of(ORDER)] == [0, 1]
    value = study.cells[("vl", "ssl"), 1].metric("imagenet/top1")
    assert value is not None
    assert value.value == pytest.approx(additive(("vl", "ssl"), "imagenet/top1", 1))
    assert study.cells[("vl",), 0].metric("vqa/score") is None


def test_recipes_and_numbers_of_samples_are_studies_of_their_own(tmp_path: Path) -> None:
    lattice(tmp_path, additive, subsets=[("vl",), ORDER])
    lattice(tmp_path, additive, subsets=[("vl",)], samples=16_000)
    lattice(tmp_path, additive, subsets=[("vl",)], recipe="small")
    found = studies(load(tmp_path))
    assert [(s.recipe, s.samples, len(s.cells)) for s in found] == [
        ("mini", 32_000, 2),
        ("mini", 16_000, 1),
        ("small", 32_000, 1),
    ]
    half = training(samples=8_000, samples_total=16_000)
    write(tmp_path / "half", half, {"imagenet/top1": 20.0})
    (study,) = studies(load(tmp_path / "half"))
    assert study.title == "mini, 8,000 of 16,000 samples"


def test_protocols_do_not_mix(tmp_path: Path) -> None:
    lattice(tmp_path, additive, subsets=[("vl",), ("vl", "ssl")], keys=["imagenet/top1"])
    lattice(tmp_path, additive, subsets=[ORDER], keys=["imagenet/top1"], params={"limit": 10})
    with pytest.raises(UsageError, match="imagenet"):
        studies(load(tmp_path))
    (study,) = studies(load(tmp_path), allow_mixed=True)
    assert set(study.cells) == {(("vl",), 0), (("vl", "ssl"), 0)}


def test_failures_do_not_hide_results(tmp_path: Path) -> None:
    lattice(tmp_path, additive, subsets=[("vl",)], keys=["imagenet/top1"])
    write_failure(tmp_path, training(("vl",)), "nyuv2", message="no such file")
    (study,) = studies(load(tmp_path))
    cell = study.cells[("vl",), 0]
    assert set(cell.results) == {"imagenet"}
    assert set(cell.failed) == {"nyuv2"}


def test_two_checkpoints_in_one_place_are_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, training(("vl",)), {"imagenet/top1": 20.0}, name=name)
    with pytest.raises(UsageError, match="runs/one and mtv:runs/two are different checkpoints"):
        studies(load(tmp_path))
