"""Joint resamples: naive loops, the paired comparison, two levels, undefined resamples, coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from mtv.joint import joint_draws
from mtv.leaderboards.attribution.cells import UNDEFINED_LIMIT, data_seed, draw_cells, interval
from mtv.leaderboards.attribution.synergy import study_synergy, synergy, synergy_of
from mtv.recipes import Recipe
from mtv.stats import paired_difference

Table = dict[str, np.ndarray]
Make = Callable[..., Table]
VL, SSL, GROUND, BOTH = ("vl",), ("vl", "ssl"), ("vl", "ground"), ("vl", "ssl", "ground")


def naive(table: Mapping[str, np.ndarray], rows: np.ndarray, task: str) -> float:
    """The headline of the drawn rows, computed from the rows themselves."""
    if task == "imagenet":
        return 100 * float(np.mean(table["rank"][rows] <= 1))
    if task == "coco":
        rows = rows[table["part"][rows] == "i2t"]
        return 100 * float(np.mean(table["rank"][rows] <= 1))
    if task == "nyuv2":
        return float(np.mean(table["rmse"][rows]))
    classes = table["class"][rows]
    own = [rows[classes == c] for c in np.unique(classes)]
    return 100 * float(np.mean([table["intersection"][r].sum() / table["union"][r].sum() for r in own]))


def drawn_rows(table: Mapping[str, np.ndarray], n_resamples: int, seed: int) -> list[np.ndarray]:
    """Rows of every resample: clusters drawn with replacement, all their rows with them."""
    names = sorted(set(table["cluster_id"]))
    of = [np.flatnonzero(table["cluster_id"] == n) for n in names]
    picks = (np.random.default_rng(seed).random((n_resamples, len(names))) * len(names)).astype(int)
    return [np.concatenate([of[k] for k in pick]) for pick in picks]


@pytest.mark.parametrize("task", ["imagenet", "coco", "ade20k", "nyuv2"])
def test_joint_draws_equal_a_naive_loop(table_of: Make, recipes: dict[str, Any], task: str) -> None:
    tables = [table_of(task, skill, n=15) for skill in (0.3, 0.5, 0.4, 0.6)]
    shuffled = {k: v[::-1] for k, v in tables[2].items()}
    key = next(k for k in recipes[task] if k != "coco/t2i_r1")
    found = joint_draws(recipes[task], key, [tables[0], tables[1], shuffled, tables[3]], n_resamples=40, seed=3)
    drawn = drawn_rows(tables[0], 40, 3)
    expected = [[naive(t, rows, task) for rows in drawn] for t in tables]
    np.testing.assert_allclose(found.drawn_KB, expected, rtol=1e-12)
    every = np.arange(len(tables[0]["sample_id"]))
    np.testing.assert_allclose(found.points_K, [naive(t, every, task) for t in tables], rtol=1e-12)
    assert found.n_clusters == 15


def test_joint_differences_agree_with_the_paired_comparison(table_of: Make, recipes: dict[str, Any]) -> None:
    a, b = table_of("navi", 0.3), table_of("navi", 0.5)
    key = "navi/avg_recall"
    joint = joint_draws(recipes["navi"], key, [a, b], n_resamples=500, seed=7)
    pair = paired_difference(recipes["navi"], key, a, b, n_resamples=500, seed=7)
    assert joint.points_K[1] - joint.points_K[0] == pytest.approx(pair.delta)
    assert interval(joint.drawn_KB[1] - joint.drawn_KB[0]) == pytest.approx(pair.ci95)


def test_synergy_interval_equals_a_naive_loop_over_the_stored_tables(writer: Any, table_of: Make) -> None:
    tables = {o: table_of("imagenet", s, n=60) for o, s in ((VL, 0.3), (SSL, 0.6), (GROUND, 0.5), (BOTH, 0.8))}
    for objectives, table in tables.items():
        writer.cell(objectives, {"imagenet": table})
    draws = draw_cells(writer.study(), "imagenet/top1", resamples=300, seed=5)
    found = synergy_of(draws, ("ssl", "ground"))
    fingerprint = writer.study().cells[VL, 0].results["imagenet"].setting[1]
    expected = []
    for rows in drawn_rows(tables[VL], 300, data_seed(5, fingerprint)):
        vl, ssl, ground, both = (naive(tables[o], rows, "imagenet") for o in (VL, SSL, GROUND, BOTH))
        best = max(ssl - vl, ground - vl)
        expected.append((both - vl - best) / best if best > 0 else math.nan)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found.drawn, expected, rtol=1e-9, atol=1e-12)
    assert found.ci95 == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
    assert found.undefined_share == 0.0
    assert found.reason == ""


def test_seeds_are_drawn_first_and_the_same_ones_for_every_cell(writer: Any) -> None:
    ids = np.array([f"s{k}" for k in range(20)], dtype=object)
    # No variance over samples: what is left is the choice of seeds.
    for seed, lift in ((0, 0.0), (1, 0.1), (2, 0.4)):
        for objectives, rmse in ((VL, 2.0), (SSL, 1.8 - lift), (GROUND, 1.9), (BOTH, 1.7 - 2 * lift)):
            table = {"sample_id": ids, "cluster_id": ids, "rmse": np.full(20, rmse + 0.05 * seed)}
            writer.cell(objectives, {"nyuv2": table}, seed=seed)
    found = study_synergy(writer.study(), ("ssl", "ground"), "nyuv2/rmse", resamples=4000)
    assert found.seeds == (0, 1, 2)
    assert found.n_seeds == 3
    mean = 0.5 / 3
    assert found.value == pytest.approx((0.3 + 2 * mean) / (0.2 + mean) - 1), (
        "the ratio of means, not the mean of ratios"
    )
    assert found.gains is not None
    assert found.gains[0].value == pytest.approx(0.2 + mean)
    # Means of three draws from {0, 0.1, 0.4}: the extreme ones have probability 1/27 each, more than 2.5 %.
    assert found.gains[0].ci95 == pytest.approx((0.2, 0.6))
    assert found.gains[1].ci95 == pytest.approx((0.1, 0.1)), "VL moves with the seed, and so does Ground"
    assert found.drawn is not None
    shares = {round(float(v), 6): float(np.mean(np.isclose(found.drawn, v))) for v in np.unique(found.drawn.round(6))}
    assert len(shares) == 10, "multisets of three seeds"
    assert shares[0.5] == pytest.approx(1 / 27, abs=0.01)


@pytest.mark.parametrize(("without", "n"), [(0, 1000), (10, 1000), (25, 1000), (26, 1000), (1000, 1000)])
def test_an_undefined_resample_counts_against_both_ends(without: int, n: int) -> None:
    drawn = np.random.default_rng(0).normal(size=n)
    drawn[:without] = np.nan
    found = interval(drawn)
    if without > UNDEFINED_LIMIT * n:
        assert found is None
        return
    assert found is not None
    if not without:
        assert found == tuple(np.percentile(drawn, [2.5, 97.5]))
    low = np.sort(np.where(np.isnan(drawn), -np.inf, drawn))
    high = np.sort(np.where(np.isnan(drawn), np.inf, drawn))
    k = round(UNDEFINED_LIMIT * n)
    assert low[k - 2] <= found[0] <= low[k + 1]
    assert high[n - k - 2] <= found[1] <= high[n - k + 1]


def test_data_sets_of_one_size_are_resampled_independently(writer: Any, table_of: Make) -> None:
    for objectives, skill in ((VL, 0.3), (SSL, 0.6)):
        writer.cell(objectives, {t: table_of(t, skill) for t in ("imagenet", "coco")})
    study = writer.study()
    top1, i2t, t2i = (
        draw_cells(study, k, resamples=2000).drawn[SSL, 0] for k in ("imagenet/top1", "coco/i2t_r1", "coco/t2i_r1")
    )
    assert abs(np.corrcoef(top1, i2t)[0, 1]) < 0.08, "120 samples each, but other ones"
    assert np.corrcoef(i2t, t2i)[0, 1] > 0.3, "the same pictures"


def test_intervals_cover_the_true_synergy() -> None:
    # Each cell is right on a sample with its own probability; difficulties are shared, so cells are dependent.
    recipes = {"m": Recipe(kind="ratio", column="hit")}
    probabilities = (0.30, 0.50, 0.45, 0.62)
    truth = synergy(0.20, 0.15, 0.32)
    assert truth == pytest.approx(0.6)
    rng = np.random.default_rng(4)
    n, inside, repeats = 500, 0, 150
    ids = np.array([f"s{k:03d}" for k in range(n)])
    for k in range(repeats):
        hard = rng.random(n)
        tables = []
        for p in probabilities:
            # Half of the samples share their draw between cells.
            level = np.where(np.arange(n) % 2 == 0, hard, rng.random(n))
            tables.append({"sample_id": ids, "cluster_id": ids, "hit": (level < p).astype(float)})
        drawn = joint_draws(recipes, "m", tables, n_resamples=300, seed=k).drawn_KB
        best = np.maximum(drawn[1], drawn[2]) - drawn[0]
        found = interval(np.where(best > 0, (drawn[3] - drawn[0] - best) / best, np.nan))
        assert found is not None
        inside += found[0] <= truth <= found[1]
    assert 0.89 <= inside / repeats <= 0.99
