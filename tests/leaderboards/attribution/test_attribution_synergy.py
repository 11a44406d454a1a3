"""Eq. 4: the paper's own numbers, directions, what is undefined, and intervals against naive loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtv.errors import CacheError, UsageError
from mtv.leaderboards.attribution.cells import draw_cells
from mtv.leaderboards.attribution.synergy import PAIRS, average_synergy, study_synergy, synergy, synergy_of

Table = dict[str, np.ndarray]
Make = Callable[..., Table]
VL, SSL, GROUND, BOTH = ("vl",), ("vl", "ssl"), ("vl", "ground"), ("vl", "ssl", "ground")
# Table 3, ViT-L/16, 10M: VL, VL + SSL, VL + SSL + Ground; Table 4's SSL + Ground cell. SSL is the larger gain there.
PAPER = {
    "imagenet/top1": (35.0, 49.4, 53.4, 27.8),
    "coco/i2t_r1": (21.6, 34.0, 37.8, 30.6),
    "ade20k/miou": (30.0, 40.4, 43.6, 30.8),
    "navi/avg_recall": (40.1, 43.4, 44.3, 27.3),
    "spair/avg_recall": (18.1, 25.6, 27.0, 18.7),
    "nyuv2/rmse": (-0.630, -0.535, -0.498, 38.9),
}


def test_eq4_gives_the_cells_of_table_4_that_table_3_determines() -> None:
    found = {k: synergy(ssl - vl, 0.0, both - vl) for k, (vl, ssl, both, _) in PAPER.items()}
    assert {k: round(100 * (v or 0), 1) for k, v in found.items()} == {k: v[3] for k, v in PAPER.items()}
    assert round(np.mean([100 * (v or 0) for v in found.values()]), 1) == 29.0


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (-1.0, 0.0), (-2.0, -0.5), (0.0, -1e300)])
def test_without_an_individual_gain_there_is_no_number(a: float, b: float) -> None:
    assert synergy(a, b, 5.0) is None


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(1e-2, 1e2))
def test_synergy_is_free_of_units_and_symmetric(a: float, b: float, ab: float, unit: float) -> None:
    value = synergy(a, b, ab)
    assert value is not None
    assert value == synergy(b, a, ab)
    assert synergy(unit * a, unit * b, unit * ab) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert max(a, b) * (1 + value) == pytest.approx(ab, abs=1e-6)


def constant(value: float, n: int = 20) -> Table:
    ids = np.array([f"s{k}" for k in range(n)], dtype=object)
    return {"sample_id": ids, "cluster_id": ids, "rmse": np.full(n, value) + np.linspace(0, 1, n)}


def test_a_falling_rmse_is_a_gain(writer: Any) -> None:
    for objectives, rmse in ((VL, 0.630), (SSL, 0.535), (GROUND, 0.600), (BOTH, 0.498)):
        writer.cell(objectives, {"nyuv2": constant(rmse)})
    found = study_synergy(writer.study(), ("ssl", "ground"), "nyuv2/rmse")
    assert found.value == pytest.approx(0.132 / 0.095 - 1)
    assert found.gains is not None
    assert [g.value for g in found.gains] == pytest.approx([0.095, 0.03, 0.132])
    # Every sample falls by the same amount, so no resample can tell anything else: the matrix is shared.
    assert found.ci95 == pytest.approx((found.value, found.value))
    assert all(g.ci95 == pytest.approx((g.value, g.value)) for g in found.gains)


def test_a_rising_rmse_is_undefined_and_says_by_how_much(writer: Any) -> None:
    for objectives, rmse in ((VL, 0.5), (SSL, 0.6), (GROUND, 0.51), (BOTH, 0.4)):
        writer.cell(objectives, {"nyuv2": constant(rmse)})
    found = study_synergy(writer.study(), ("ssl", "ground"), "nyuv2/rmse")
    assert (found.value, found.ci95, found.undefined_share) == (None, None, 1.0)
    assert found.reason == "no individual gain (SSL −0.1000, Ground −0.0100)"
    assert not found.missing


@pytest.mark.parametrize("task", ["imagenet", "ade20k", "navi", "nyuv2"])
def test_identical_cells_have_exactly_no_gain(writer: Any, table_of: Make, recipes: dict[str, Any], task: str) -> None:
    for objectives in (VL, SSL, GROUND, BOTH):
        writer.cell(objectives, {task: table_of(task, 0.4)})
    key = next(k for k, r in recipes[task].items() if r.headline)
    found = study_synergy(writer.study(), ("ssl", "ground"), key)
    assert found.value is None
    assert found.undefined_share == 1.0
    assert found.gains is not None
    assert all(g.value == 0.0 and g.ci95 == (0.0, 0.0) for g in found.gains)


def test_gains_of_rounding_are_no_gains(writer: Any) -> None:
    # (0.1 + 0.2) / 2 and (0.2 + 0.1 + 1e-17) / 2 are the same number up to the order of summation.
    ids = np.array([f"s{k}" for k in range(3)], dtype=object)
    for objectives, own in (
        (VL, [0.1, 0.2, 0.3]),
        (SSL, [0.3, 0.2, 0.1]),
        (GROUND, [0.2, 0.1, 0.3]),
        (BOTH, [1, 1, 1]),
    ):
        hits = np.array(own, dtype=float)
        writer.cell(objectives, {"navi": {"sample_id": ids, "cluster_id": ids, "hit_1": hits, "hit_2": hits}})
    draws = draw_cells(writer.study(), "navi/avg_recall", resamples=10)
    assert {draws.gains((SSL, GROUND)).points[o] for o in (SSL, GROUND)} == {0.0}
    assert synergy_of(draws, ("ssl", "ground")).value is None


def test_with_one_seed_only_samples_vary(writer: Any, table_of: Make, skills: Callable[[Sequence[str]], float]) -> None:
    writer.lattice(skills, ["imagenet"])
    one = study_synergy(writer.study(), ("ssl", "depth"), "imagenet/top1")
    assert one.n_seeds == 1
    writer.lattice(skills, ["imagenet"], seeds=[1, 2])
    three = study_synergy(writer.study(), ("ssl", "depth"), "imagenet/top1")
    assert three.n_seeds == 3


def test_seeds_that_lack_a_cell_are_left_out(writer: Any, table_of: Make) -> None:
    for objectives in (VL, SSL, GROUND, BOTH):
        for seed in (0, 1) if objectives != GROUND else (1,):
            writer.cell(
                objectives, {"imagenet": table_of("imagenet", 0.2 + 0.1 * len(objectives), seed=seed)}, seed=seed
            )
    assert study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1", resamples=20).seeds == (1,)


def test_a_gain_that_is_not_clear_has_a_value_but_no_interval(writer: Any) -> None:
    ids = np.array([f"s{k:03d}" for k in range(200)], dtype=object)
    vl = np.where(np.arange(200) < 80, 1, 2)
    better, worse, best = vl.copy(), vl.copy(), vl.copy()
    better[75:80], better[80:87] = 2, 1  # seven more right, five fewer
    worse[60:80], best[80:140] = 2, 1
    for objectives, rank in ((VL, vl), (SSL, better), (GROUND, worse), (BOTH, best)):
        writer.cell(objectives, {"imagenet": {"sample_id": ids, "cluster_id": ids, "rank": rank}})
    found = study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1")
    assert found.value == pytest.approx(60 / 2 - 1)
    assert found.undefined_share is not None
    # A sum of twelve signed draws with mean 2 and variance about 12 is at most 0 in a third of all cases.
    assert 0.25 < found.undefined_share < 0.4
    assert found.ci95 is None
    assert found.reason == f"no interval: no individual gain in {found.undefined_share:.1%} of resamples (limit 2.5%)"


def test_what_is_missing_is_named(writer: Any, table_of: Make) -> None:
    table = table_of("imagenet", 0.4)
    writer.cell(VL, {"imagenet": table, "navi": table_of("navi", 0.4)})
    writer.cell(SSL, {"imagenet": table})
    writer.cell(GROUND, {}, failed=["imagenet"])
    writer.cell(BOTH, {"imagenet": table}, seed=3)
    study = writer.study()
    found = {p: study_synergy(study, p, "imagenet/top1", resamples=5) for p in PAIRS}
    assert all(v.missing and v.value is None and v.ci95 is None for v in found.values())
    assert found["ssl", "ground"].reason == "VL + Ground: imagenet failed (DataError)"
    assert found["ssl", "depth"].reason == "VL + Depth, VL + SSL + Depth: not run"
    other = study_synergy(study, ("ssl", "ground"), "navi/avg_recall", resamples=5).reason
    assert other == "VL + SSL, VL + Ground, VL + SSL + Ground: navi not measured"
    writer.cell(GROUND, {"imagenet": table}, seed=3)
    late = study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1", resamples=5).reason
    assert late == (
        "no training seed has them all (VL: seed 0; VL + SSL: seed 0; VL + Ground: seed 3; VL + SSL + Ground: seed 3)"
    )


def test_average_is_over_defined_metrics_and_counts_the_others(writer: Any, table_of: Make) -> None:
    for objectives, skill in ((VL, 0.3), (SSL, 0.6), (GROUND, 0.5), (BOTH, 0.8)):
        tables = {t: table_of(t, skill) for t in ("imagenet", "ade20k", "nyuv2")}
        writer.cell(objectives, {**tables, "navi": table_of("navi", 0.4)})
    study = writer.study()
    keys = ("imagenet/top1", "ade20k/miou", "nyuv2/rmse", "navi/avg_recall", "spair/avg_recall")
    values = [study_synergy(study, ("ssl", "ground"), k, resamples=400) for k in keys]
    found = average_synergy(values)
    assert (found.n_defined, found.n_undefined, found.n_missing) == (3, 1, 1)
    assert found.value == pytest.approx(np.mean([v.value for v in values[:3]]))
    drawn = np.mean([v.drawn for v in values[:3] if v.drawn is not None], axis=0)
    assert found.ci95 == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    only_undefined = average_synergy(values[3:4])
    assert (only_undefined.value, only_undefined.ci95, only_undefined.n_undefined) == (None, None, 1)
    with pytest.raises(UsageError, match="one pair"):
        average_synergy([values[0], study_synergy(study, ("ssl", "depth"), keys[0], resamples=5)])


def test_equal_seeds_give_equal_numbers(writer: Any, skills: Callable[[Sequence[str]], float]) -> None:
    writer.lattice(skills, ["imagenet"], seeds=[0, 1])
    first, again = (study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1", resamples=200) for _ in range(2))
    other = study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1", resamples=200, seed=1)
    assert first == again
    assert first.value == other.value
    assert first.ci95 != other.ci95


def test_results_that_cannot_be_joined_are_refused(writer: Any, table_of: Make) -> None:
    table = table_of("imagenet", 0.4)
    writer.cell(VL, {"imagenet": table})
    writer.cell(SSL, {"imagenet": {k: v[:-2] for k, v in table.items()}})
    with pytest.raises(UsageError, match=r"different samples: 2 only in the first \(such as s0118, s0119\)"):
        study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1")


def test_an_edited_record_is_refused(writer: Any, table_of: Make) -> None:
    for objectives in (VL, SSL, GROUND, BOTH):
        edited = {"imagenet/top1": 99.0} if objectives == SSL else {}
        writer.cell(objectives, {"imagenet": table_of("imagenet", 0.4)}, values=edited)
    with pytest.raises(CacheError, match=r"mtv:vl-ssl-.*imagenet/top1 is 99.0 in the record"):
        study_synergy(writer.study(), ("ssl", "ground"), "imagenet/top1")


def test_wrong_arguments_are_named(writer: Any, table_of: Make) -> None:
    writer.cell(VL, {"imagenet": table_of("imagenet", 0.4)})
    study = writer.study()
    with pytest.raises(UsageError, match=r"pair: two different ones of ssl, ground, depth, got \('ssl', 'ssl'\)"):
        study_synergy(study, ("ssl", "ssl"), "imagenet/top1")
    with pytest.raises(UsageError, match="pair: two different ones"):
        study_synergy(study, ("vl", "ssl"), "imagenet/top1")
    with pytest.raises(UsageError, match="expected task/metric"):
        study_synergy(study, ("ssl", "ground"), "imagenet")
    with pytest.raises(UsageError, match="resamples: must be at least 1, got 0"):
        study_synergy(study, ("ssl", "ground"), "imagenet/top1", resamples=0)
