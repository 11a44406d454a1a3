"""Resampling, evaluation of recipes and paired differences against naive loops over repeated rows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import NumericalError, UsageError
from mtv.recipes import Recipe
from mtv.stats import evaluate, mcnemar, newcombe, paired_difference, resample_counts, wilson

Rows = list[dict[str, Any]]


def naive(name: str, recipes: Mapping[str, Recipe], rows: Rows) -> float:
    """A metric by plain loops; NaN where it is undefined. `copy` tells apart repeated draws of one cluster."""
    r = recipes[name]
    if r.of:
        parts = [naive(p, recipes, rows) for p in r.of]
        return sum(parts) / (len(parts) if r.kind == "average" else 1)
    rows = [x for x in rows if all(x[k] == v for k, v in r.where.items())]
    if not rows:
        return float("nan")
    outcome = [
        (
            float(x[r.column] <= r.at_most)
            if r.at_most is not None
            else float(x[r.column] < r.below)
            if r.below is not None
            else float(x[r.column])
        )
        for x in rows
    ]
    weight = [float(x[r.weight]) if r.weight else 1.0 for x in rows]
    if r.kind == "median":
        return float(np.median(np.repeat(outcome, np.asarray(weight, dtype=int)))) * r.scale
    group = [x[r.group] if r.group else 0 for x in rows]
    if r.within:
        inner = [(x[r.within], x.get("copy", 0), g) for x, g in zip(rows, group, strict=True)]
        sums: dict[Any, list[float]] = {}
        for key, o, w in zip(inner, outcome, weight, strict=True):
            total = sums.setdefault(key, [0.0, 0.0])
            total[0], total[1] = total[0] + o, total[1] + w
        outcome, weight, group = [a / b for a, b in sums.values()], [1.0] * len(sums), [k[2] for k in sums]
    ratios = []
    for g in sorted(set(group)):
        num = sum(o for o, h in zip(outcome, group, strict=True) if h == g)
        den = sum(w for w, h in zip(weight, group, strict=True) if h == g)
        if den > 0:
            ratios.append(num / den)
    return r.scale * sum(ratios) / len(ratios) if ratios else float("nan")


def rows_of(table: Mapping[str, np.ndarray]) -> Rows:
    names = list(table)
    return [dict(zip(names, values, strict=True)) for values in zip(*(table[n].tolist() for n in names), strict=True)]


def naive_replicates(
    name: str, recipes: Mapping[str, Recipe], table: Mapping[str, np.ndarray], n: int, seed: int
) -> np.ndarray:
    """The bootstrap distribution by writing every resampled table out in full."""
    rows = rows_of(table)
    clusters = sorted({r["cluster_id"] for r in rows})
    strata = None
    if "stratum" in table:
        of = {r["cluster_id"]: r["stratum"] for r in rows}
        strata = np.unique([of[c] for c in clusters], return_inverse=True)[1]
    (counts,) = resample_counts(len(clusters), strata=strata, n_resamples=n, seed=seed, chunk=n)
    out = []
    for drawn in counts:
        times = dict(zip(clusters, drawn.astype(int), strict=True))
        out.append(naive(name, recipes, [{**r, "copy": k} for r in rows for k in range(times[r["cluster_id"]])]))
    return np.asarray(out)


def random_table(rng: np.random.Generator, n_clusters: int = 12, *, strata: bool = False) -> dict[str, np.ndarray]:
    sizes = rng.integers(1, 5, n_clusters)
    cluster = np.repeat(np.arange(n_clusters), sizes)
    n = len(cluster)
    table = {
        "sample_id": np.array([f"s{i:03d}" for i in range(n)], dtype=object),
        "cluster_id": np.array([f"img{c:02d}" for c in cluster], dtype=object),
        "rank": rng.integers(1, 7, n),
        "error": rng.exponential(0.03, n).astype(np.float32),
        "hit": rng.random(n) < 0.6,
        "inter": rng.integers(0, 50, n),
        "union": rng.integers(50, 90, n),
        "kind": np.array([("car", "dog", "cow")[k] for k in rng.integers(0, 3, n)], dtype=object),
        "vp": rng.integers(0, 3, n),
        "times": rng.integers(1, 4, n),
    }
    if strata:
        table["stratum"] = np.array([f"c{c % 3}" for c in cluster], dtype=object)
    return table


RECIPES = {
    "t/r1": Recipe(kind="ratio", column="rank", at_most=1, headline=True, chance=16.7),
    "t/r3": Recipe(kind="ratio", column="rank", at_most=3),
    "t/near": Recipe(kind="ratio", column="error", below=0.02),
    "t/mean_error": Recipe(kind="ratio", column="error", scale=1.0, unit="m", higher_is_better=False),
    "t/macro": Recipe(kind="ratio", column="hit", group="kind"),
    "t/vp0": Recipe(kind="ratio", column="hit", where={"vp": 0}),
    "t/vp0_macro": Recipe(kind="ratio", column="hit", where={"vp": 0}, group="kind"),
    "t/cars": Recipe(kind="ratio", column="hit", where={"kind": "car", "hit": True}),
    "t/per_pair": Recipe(kind="ratio", column="hit", within="cluster_id"),
    "t/miou": Recipe(kind="ratio", column="inter", weight="union", group="kind"),
    "t/medr": Recipe(kind="median", column="rank", scale=1.0, unit="rank", higher_is_better=False),
    "t/medr_times": Recipe(kind="median", column="rank", weight="times", scale=1.0),
    "t/avg": Recipe(kind="average", of=("t/r1", "t/vp0", "t/macro")),
    "t/rsum": Recipe(kind="sum", of=("t/r1", "t/r3", "t/avg")),
}


def test_counts_do_not_depend_on_the_chunk() -> None:
    strata = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0])
    for s in (None, strata):
        whole = np.concatenate(list(resample_counts(9, strata=s, n_resamples=50, seed=3)))
        for chunk in (1, 7, 50, 1000):
            again = np.concatenate(list(resample_counts(9, strata=s, n_resamples=50, seed=3, chunk=chunk)))
            np.testing.assert_array_equal(whole, again)
        assert whole.dtype == np.float64
        assert whole.shape == (50, 9)
    assert not np.array_equal(whole, np.concatenate(list(resample_counts(9, strata=strata, n_resamples=50, seed=4))))


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_counts_keep_the_size_of_every_stratum(n: int, n_strata: int, seed: int) -> None:
    strata = np.random.default_rng(seed).integers(0, n_strata + 1, n) * 7 - 3
    (counts,) = resample_counts(n, strata=strata, n_resamples=20, seed=seed)
    for s in np.unique(strata):
        np.testing.assert_array_equal(counts[:, strata == s].sum(axis=1), (strata == s).sum())


def test_counts_are_multinomial() -> None:
    counts = np.concatenate(list(resample_counts(40, n_resamples=20_000, seed=1)))
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.04)
    np.testing.assert_allclose(counts.var(axis=0), 1 - 1 / 40, atol=0.06)
    np.testing.assert_allclose(np.cov(counts[:, 0], counts[:, 1])[0, 1], -1 / 40, atol=0.03)


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_evaluate_equals_a_naive_bootstrap_over_written_out_tables(seed: int, strata: bool) -> None:
    table = random_table(np.random.default_rng(seed), strata=strata)
    got = evaluate(RECIPES, table, n_resamples=120, seed=seed)
    for name, m in got.items():
        expected = naive(name, RECIPES, rows_of(table))
        assert m.value == pytest.approx(expected, rel=1e-12, nan_ok=True), name
        if name == "t/cars" and m.n == m.n_clusters:
            # The filter happens to leave one row per cluster: a plain binary mean.
            assert m.ci95 == pytest.approx(tuple(100 * v for v in wilson(m.n, m.n)))
            continue
        draws = naive_replicates(name, RECIPES, table, 120, seed)
        draws = draws[np.isfinite(draws)]
        assert m.ci95 == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("n_rows", [1, 2, 40, 600])
def test_medians_over_many_distinct_values(n_rows: int) -> None:
    rng = np.random.default_rng(n_rows)
    table = {"cluster_id": np.arange(n_rows) // 2, "x": rng.normal(size=n_rows).round(3)}
    recipes = {"m": Recipe(kind="median", column="x", scale=1.0)}
    got = evaluate(recipes, table, n_resamples=60)["m"]
    assert got.value == pytest.approx(np.median(table["x"]), abs=1e-12)
    if n_rows > 2:
        draws = naive_replicates("m", recipes, table, 60, 0)
        assert got.ci95 == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=1e-12)


def test_large_group_tables_take_the_sparse_path_and_agree() -> None:
    """3,000 units in 1,500 groups exceed the dense limit; a macro mean of complete groups equals the plain mean."""
    rng = np.random.default_rng(0)
    n = 3_000
    table = {"cluster_id": np.arange(n), "label": rng.permutation(np.arange(n) // 2), "rank": rng.integers(1, 4, n)}
    recipes = {"acc": Recipe(kind="ratio", column="rank", at_most=1, group="label")}
    got = evaluate(recipes, table, n_resamples=10)["acc"]
    assert got.value == pytest.approx(100 * (table["rank"] == 1).mean(), rel=1e-12)
    (counts,) = resample_counts(n, n_resamples=10, chunk=10)
    draws = []
    for c in counts:
        per_label = [
            np.average(table["rank"][at] == 1, weights=c[at])
            for label in range(n // 2)
            if c[at := np.flatnonzero(table["label"] == label)].sum()
        ]
        draws.append(100 * np.mean(per_label))
    assert got.ci95 == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), rel=1e-12)


def test_plain_binary_mean_with_one_row_per_cluster_gets_wilson() -> None:
    table = {"cluster_id": np.arange(200), "rank": np.r_[np.ones(137), np.full(63, 4)]}
    m = evaluate({"top1": Recipe(kind="ratio", column="rank", at_most=1)}, table)["top1"]
    assert m.value == 68.5
    assert m.ci95 == pytest.approx(tuple(100 * v for v in wilson(137, 200)))
    assert (m.n, m.n_clusters) == (200, 200)


def test_two_rows_per_cluster_do_not_get_wilson() -> None:
    """Fully dependent pairs: the interval is that of 100 samples, not of 200."""
    hit = np.repeat(np.r_[np.ones(60), np.zeros(40)], 2)
    recipes = {"r1": Recipe(kind="ratio", column="hit")}
    m = evaluate(recipes, {"cluster_id": np.arange(200) // 2, "hit": hit})["r1"]
    lo, hi = wilson(60, 100)
    assert m.ci95 is not None
    assert m.ci95[1] - m.ci95[0] == pytest.approx(100 * (hi - lo), rel=0.1)


def test_imagenet_z5_class_sizes_3_and_1() -> None:
    table = {
        "sample_id": np.array(["a", "b", "c", "d"]),
        "cluster_id": np.array(["a", "b", "c", "d"]),
        "rank": np.array([1, 1, 1, 5]),
        "label": np.array([0, 0, 0, 1]),
    }
    recipes = {
        "imagenet/top1": Recipe(kind="ratio", column="rank", at_most=1),
        "imagenet/mean_class_acc": Recipe(kind="ratio", column="rank", at_most=1, group="label"),
    }
    got = evaluate(recipes, table)
    assert got["imagenet/top1"].value == 75
    assert got["imagenet/mean_class_acc"].value == 50


def test_coco_r1_both_directions_from_one_table() -> None:
    """R1 of the retrieval page: t2i ranks 1, 2, 1, 2 and i2t ranks 1, 1."""
    table = {
        "sample_id": np.array(["c0", "c1", "c2", "c3", "i0", "i1"]),
        "cluster_id": np.array(["0", "0", "1", "1", "0", "1"]),
        "part": np.array(["t2i"] * 4 + ["i2t"] * 2, dtype=object),
        "rank": np.array([1, 2, 1, 2, 1, 1]),
    }
    recipes = {
        f"{d}_r{k}": Recipe(kind="ratio", column="rank", at_most=k, where={"part": d})
        for d in ("t2i", "i2t")
        for k in (1, 5)
    }
    recipes["rsum"] = Recipe(kind="sum", of=tuple(recipes))
    got = evaluate(recipes, table)
    assert (got["t2i_r1"].value, got["i2t_r1"].value, got["rsum"].value) == (50, 100, 350)
    assert (got["t2i_r1"].n, got["t2i_r1"].n_clusters, got["rsum"].n, got["rsum"].n_clusters) == (4, 2, 6, 2)


def test_spair_s7_point_image_and_absent_viewpoint() -> None:
    """Two pairs with 1/1 and 0/3 correct: point 25, image 50; a class without viewpoint 2 is left out of its mean."""
    table = {
        "cluster_id": np.array(["p0", "p1", "p1", "p1", "p2"]),
        "category": np.array(["cat", "cat", "cat", "cat", "dog"], dtype=object),
        "stratum": np.array(["cat", "cat", "cat", "cat", "dog"], dtype=object),
        "vp": np.array([0, 0, 0, 0, 2]),
        "in_vp": np.array([True] * 5),
        "hit_0.10": np.array([True, False, False, False, True]),
    }
    where = {"vp": 0, "in_vp": True}
    recipes = {
        "pck_point": Recipe(kind="ratio", column="hit_0.10", where=where),
        "pck_image": Recipe(kind="ratio", column="hit_0.10", within="cluster_id", where=where),
        "recall_vp0": Recipe(kind="ratio", column="hit_0.10", where=where, group="category"),
        "recall_vp1": Recipe(kind="ratio", column="hit_0.10", where={"vp": 1, "in_vp": True}, group="category"),
        "recall_vp2": Recipe(kind="ratio", column="hit_0.10", where={"vp": 2, "in_vp": True}, group="category"),
        "avg_recall": Recipe(kind="average", of=("recall_vp0", "recall_vp1", "recall_vp2")),
        "sum_recall": Recipe(kind="sum", of=("recall_vp0", "recall_vp1", "recall_vp2")),
        "avg_02": Recipe(kind="average", of=("recall_vp0", "recall_vp2")),
    }
    got = evaluate(recipes, table)
    assert (got["pck_point"].value, got["pck_image"].value, got["recall_vp2"].value) == (25, 50, 100)
    assert (got["recall_vp1"].value, got["recall_vp1"].n, got["recall_vp1"].ci95) == (None, 0, None)
    assert (got["sum_recall"].value, got["sum_recall"].n) == (None, 0)
    assert (got["avg_recall"].value, got["avg_recall"].n) == (62.5, 5)
    assert got["avg_02"].value == 62.5
    # One cluster in a stratum of its own cannot vary, and one cluster alone has no interval.
    assert got["recall_vp2"].ci95 is None or got["recall_vp2"].ci95 == pytest.approx(
        tuple(100 * v for v in wilson(1, 1))
    )


def test_navi_n9_the_indicator_compares_in_the_precision_of_its_column() -> None:
    """float32(0.02) lies below 0.02 in double precision but is not below 2 cm."""
    table = {"cluster_id": np.arange(2), "err3d": np.array([0.02, 0.01], dtype=np.float32)}
    assert float(table["err3d"][0]) < 0.02
    assert evaluate({"recall_2cm": Recipe(kind="ratio", column="err3d", below=0.02)}, table)["recall_2cm"].value == 50


def test_empty_table_and_empty_filter_have_no_value() -> None:
    recipes = {
        "a": Recipe(kind="ratio", column="x"),
        "b": Recipe(kind="median", column="x"),
        "c": Recipe(kind="sum", of=("a", "b")),
    }
    for name, m in evaluate(recipes, {"cluster_id": np.array([]), "x": np.array([])}).items():
        assert (m.value, m.ci95, m.n, m.n_clusters) == (None, None, 0, 0), name
    table = {"cluster_id": np.arange(3), "x": np.arange(3), "vp": np.zeros(3)}
    m = evaluate({"a": Recipe(kind="ratio", column="x", where={"vp": 2})}, table)["a"]
    assert (m.value, m.n) == (None, 0)


def test_intervals_of_combinations_are_joint() -> None:
    """Hits and misses vary oppositely: their average never varies, whatever each of them does."""
    rng = np.random.default_rng(5)
    hit = rng.random(90) < 0.4
    table = {"cluster_id": np.arange(90) // 3, "hit": hit, "miss": ~hit}
    recipes = {
        "hit": Recipe(kind="ratio", column="hit"),
        "miss": Recipe(kind="ratio", column="miss"),
        "avg": Recipe(kind="average", of=("hit", "miss")),
    }
    got = evaluate(recipes, table)
    assert got["avg"].ci95 == pytest.approx((50, 50))
    assert got["hit"].ci95 is not None
    assert got["hit"].ci95[1] - got["hit"].ci95[0] > 5


def test_parts_may_be_named_without_the_task() -> None:
    table = {"cluster_id": np.arange(4), "x": np.array([1.0, 2, 3, 4])}
    recipes = {
        "navi/a": Recipe(kind="ratio", column="x"),
        "navi/b": Recipe(kind="average", of=("a",)),
    }
    assert evaluate(recipes, table)["navi/b"].value == 250


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_outcomes_name_the_sample(bad: float) -> None:
    table = {
        "sample_id": np.array(["a", "b", "c"], dtype=object),
        "cluster_id": np.arange(3),
        "x": np.array([0.0, 1.0, bad]),
        "part": np.array([0, 1, 1]),
    }
    with pytest.raises(NumericalError, match=r"'x'.*sample c"):
        evaluate({"m": Recipe(kind="ratio", column="x", where={"part": 1})}, table)
    assert evaluate({"m": Recipe(kind="ratio", column="x", where={"part": 0})}, table)["m"].value == 0


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        ({"m": Recipe(kind="ratio", column="rnak")}, "no column 'rnak'"),
        ({"m": Recipe(kind="ratio", column="rank", where={"part": 1})}, "no column 'part'"),
        ({"m": Recipe(kind="average", of=("x",))}, "combines 'x'"),
        ({"a": Recipe(kind="sum", of=("b",)), "b": Recipe(kind="sum", of=("a",))}, "through itself"),
        ({"m": Recipe(kind="ratio", column="kind")}, "numbers"),
        ({"m": Recipe(kind="median", column="rank", group="kind")}, "median"),
        ({"m": Recipe(kind="ratio", column="rank", within="kind")}, "spans several clusters"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(recipes: dict[str, Recipe], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(recipes, random_table(np.random.default_rng(0)))


def test_contradictory_strata_and_missing_clusters_are_named() -> None:
    recipes = {"m": Recipe(kind="ratio", column="x")}
    with pytest.raises(UsageError, match=r"'a'.*more than one stratum"):
        evaluate(recipes, {"cluster_id": np.array(["a", "a"]), "stratum": np.array([0, 1]), "x": np.arange(2)})
    with pytest.raises(UsageError, match="cluster_id"):
        evaluate(recipes, {"x": np.arange(2)})


def test_same_units_and_seed_give_the_same_interval_whatever_the_row_order() -> None:
    table = random_table(np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(table["rank"]))
    first = evaluate(RECIPES, table, n_resamples=200)
    again = evaluate(RECIPES, {k: v[order] for k, v in table.items()}, n_resamples=200)
    for name, m in first.items():
        assert m.value == pytest.approx(again[name].value)
        assert m.ci95 == pytest.approx(again[name].ci95)


def test_cluster_bootstrap_covers_where_the_naive_interval_does_not() -> None:
    """Ten dependent rows per cluster: the percentile interval covers near 95 %, an interval over rows far less."""
    rng = np.random.default_rng(11)
    recipes = {"m": Recipe(kind="ratio", column="x")}
    covered = naive_covered = 0
    for seed in range(150):
        rate = rng.beta(0.5, 0.5, 60)
        x = rng.random((60, 10)) < rate[:, None]
        m = evaluate(recipes, {"cluster_id": np.repeat(np.arange(60), 10), "x": x.ravel()}, n_resamples=300, seed=seed)[
            "m"
        ]
        assert m.ci95 is not None
        covered += m.ci95[0] <= 50 <= m.ci95[1]
        lo, hi = wilson(int(x.sum()), 600)
        naive_covered += lo <= 0.5 <= hi
    assert 0.89 <= covered / 150 <= 0.99
    assert naive_covered / 150 < 0.8


def test_two_thousand_resamples_of_five_thousand_clusters_are_quick() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(5_000), 5)
    table = {"cluster_id": cluster, "rank": rng.geometric(0.4, len(cluster))}
    start = time.process_time()
    evaluate({"t2i_r1": Recipe(kind="ratio", column="rank", at_most=1)}, table)
    assert time.process_time() - start < 2.0


def changed(table: dict[str, np.ndarray], rng: np.random.Generator, share: float) -> dict[str, np.ndarray]:
    """Another model on the same samples, rows in another order."""
    flip = rng.random(len(table["hit"])) < share
    other = {**table, "hit": table["hit"] ^ flip, "rank": np.where(flip, table["rank"] + 1, table["rank"])}
    order = rng.permutation(len(flip))
    return {k: v[order] for k, v in other.items()}


def test_a_model_against_itself_differs_by_nothing() -> None:
    table = random_table(np.random.default_rng(0))
    for name in RECIPES:
        d = paired_difference(RECIPES, name, table, table, n_resamples=50)
        assert d.delta in (0.0, None), name
        assert d.p in (1.0, None), name
        if d.method == "bootstrap":
            assert d.ci95 == (0.0, 0.0), name


@pytest.mark.parametrize("name", [n for n in RECIPES if n not in ("t/near", "t/mean_error", "t/miou", "t/cars")])
def test_paired_bootstrap_equals_the_naive_one(name: str) -> None:
    rng = np.random.default_rng(7)
    a = random_table(rng)
    b = changed(a, rng, 0.3)
    d = paired_difference(RECIPES, name, a, b, n_resamples=100, seed=2)
    order = np.argsort(b["sample_id"].astype(str))
    b_sorted = {k: v[order] for k, v in b.items()}
    draws = naive_replicates(name, RECIPES, b_sorted, 100, 2) - naive_replicates(name, RECIPES, a, 100, 2)
    draws = draws[np.isfinite(draws)]
    assert d.method == "bootstrap"
    assert d.delta == pytest.approx(naive(name, RECIPES, rows_of(b)) - naive(name, RECIPES, rows_of(a)))
    assert d.ci95 == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=1e-9)
    draws = np.where(np.abs(draws) < 1e-9, 0, draws)
    expected = min(1, 2 * (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (len(draws) + 1))
    assert d.p == pytest.approx(expected, abs=0.03)


def test_binary_outcomes_with_one_sample_per_cluster_get_mcnemar() -> None:
    n11, n10, n01, n00 = 500, 30, 50, 220
    right_a = np.r_[np.ones(n11 + n10), np.zeros(n01 + n00)].astype(bool)
    right_b = np.r_[np.ones(n11), np.zeros(n10), np.ones(n01), np.zeros(n00)].astype(bool)
    ids = np.array([f"i{k:04d}" for k in range(800)], dtype=object)
    order = np.random.default_rng(1).permutation(800)
    a = {"sample_id": ids, "cluster_id": ids, "rank": np.where(right_a, 1, 9)}
    b = {"sample_id": ids[order], "cluster_id": ids[order], "rank": np.where(right_b, 1, 3)[order]}
    recipes = {"imagenet/top1": Recipe(kind="ratio", column="rank", at_most=1)}
    d = paired_difference(recipes, "imagenet/top1", a, b)
    assert (d.method, d.n01, d.n10, d.n, d.n_clusters) == ("mcnemar", 50, 30, 800, 800)
    assert d.delta == pytest.approx(100 * 20 / 800)
    assert d.p == mcnemar(50, 30)
    assert d.ci95 == pytest.approx(tuple(100 * v for v in newcombe(n11, n10, n01, n00)))
    back = paired_difference(recipes, "imagenet/top1", b, a)
    assert (back.n01, back.n10, back.p) == (30, 50, d.p)
    assert back.delta == pytest.approx(-d.delta)


def test_no_discordant_pair_gives_p_one_and_a_finite_interval() -> None:
    ids = np.arange(100)
    table = {"sample_id": ids, "cluster_id": ids, "hit": ids < 60}
    d = paired_difference({"m": Recipe(kind="ratio", column="hit")}, "m", table, table)
    assert (d.p, d.delta, d.n01, d.n10) == (1.0, 0.0, 0, 0)
    assert d.ci95 is not None
    assert d.ci95[0] < 0 < d.ci95[1]


def test_t2i_uses_the_bootstrap_and_still_counts_discordant_captions() -> None:
    table = {
        "sample_id": np.arange(40),
        "cluster_id": np.arange(40) // 5,
        "rank": np.r_[np.ones(20), np.full(20, 2)].astype(int),
    }
    other = {**table, "rank": np.r_[np.ones(26), np.full(14, 2)].astype(int)}
    d = paired_difference({"r1": Recipe(kind="ratio", column="rank", at_most=1)}, "r1", table, other)
    assert (d.method, d.n01, d.n10, d.n, d.n_clusters) == ("bootstrap", 6, 0, 40, 8)
    assert d.delta == pytest.approx(15)


def test_an_overwhelming_difference_has_the_smallest_possible_p() -> None:
    table = {"sample_id": np.arange(40), "cluster_id": np.arange(40) // 2, "x": np.linspace(0, 1, 40)}
    d = paired_difference({"m": Recipe(kind="ratio", column="x")}, "m", table, {**table, "x": table["x"] + 5})
    assert d.p == pytest.approx(2 / 2001)


def test_bootstrap_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(2)
    recipes = {"m": Recipe(kind="ratio", column="x")}
    ps = []
    for seed in range(120):
        base = rng.normal(size=80)
        a, b = (
            {"sample_id": np.arange(80), "cluster_id": np.arange(80), "x": base + rng.normal(size=80)} for _ in range(2)
        )
        ps.append(paired_difference(recipes, "m", a, b, n_resamples=300, seed=seed).p)
    assert np.mean(np.asarray(ps) < 0.05) < 0.12
    assert 0.35 < np.mean(np.asarray(ps) < 0.5) < 0.65


def test_averages_over_different_parts_are_not_subtracted() -> None:
    recipes = {
        "a": Recipe(kind="ratio", column="hit", where={"bin": 0}),
        "b": Recipe(kind="ratio", column="hit", where={"bin": 1}),
        "avg": Recipe(kind="average", of=("a", "b")),
    }
    table = {
        "sample_id": np.arange(6),
        "cluster_id": np.arange(6) // 2,
        "hit": np.array([1, 0, 1, 1, 0, 0]),
        "bin": np.array([0, 0, 0, 1, 1, 1]),
    }
    d = paired_difference(recipes, "avg", table, {**table, "bin": np.zeros(6, dtype=int)})
    assert (d.a, d.b) == (pytest.approx(50), pytest.approx(50))
    assert (d.delta, d.ci95, d.p, d.method) == (None, None, None, "none")


def test_differing_sample_ids_are_an_error_with_examples() -> None:
    recipes = {"m": Recipe(kind="ratio", column="hit")}
    a = {"sample_id": np.array(["x", "y"], dtype=object), "cluster_id": np.arange(2), "hit": np.ones(2)}
    b = {"sample_id": np.array(["x", "z"], dtype=object), "cluster_id": np.arange(2), "hit": np.ones(2)}
    with pytest.raises(UsageError, match=r"1 only in the first \(such as y\); 1 only in the second \(such as z\)"):
        paired_difference(recipes, "m", a, b)
    more = {k: np.concatenate([v, v[:1]]) for k, v in a.items()}
    with pytest.raises(UsageError, match="'x' occurs more than once in the second table"):
        paired_difference(recipes, "m", a, more)
    moved = {**a, "cluster_id": np.array([0, 7])}
    with pytest.raises(UsageError, match="sample y: cluster_id is 1 in the first table, 7 in the second"):
        paired_difference(recipes, "m", a, moved)
    with pytest.raises(UsageError, match="no metric 'n'"):
        paired_difference(recipes, "n", a, a)
    with pytest.raises(UsageError, match=r"second .* lacks \['sample_id'\]"):
        paired_difference(recipes, "m", a, {k: v for k, v in a.items() if k != "sample_id"})


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_swapping_the_models_mirrors_the_difference(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    a = random_table(rng, 6)
    b = changed(a, rng, share)
    for name in ("t/r1", "t/macro", "t/avg", "t/medr"):
        d, back = (paired_difference(RECIPES, name, x, y, n_resamples=40) for x, y in ((a, b), (b, a)))
        if d.delta is None or back.delta is None:
            assert d.delta is back.delta is None
            continue
        assert d.delta == pytest.approx(-back.delta)
        assert (d.n01, d.n10) == (back.n10, back.n01)
        if d.ci95 is not None and back.ci95 is not None:
            assert d.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]), abs=1e-9)


def test_statistics_import_no_heavy_library() -> None:
    code = (
        "import sys, mtv.stats; print([m for m in ('torch', 'scipy', 'pandas', 'pyarrow', 'rich') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_median_of_widely_spread_values_ends_and_is_right() -> None:
    """Ranks of a random model: hundreds of distinct values, and medians of resamples all over them."""
    rng = np.random.default_rng(0)
    n_images, per_image = 300, 5
    rank = rng.integers(1, 1000, n_images * per_image)
    cluster = np.repeat(np.arange(n_images).astype(str), per_image)
    table = {"sample_id": np.arange(len(rank)).astype(str), "cluster_id": cluster, "rank": rank}
    recipe = Recipe(kind="median", column="rank", scale=1.0, unit="rank", higher_is_better=False)
    value = evaluate({"t/medr": recipe}, table, n_resamples=400, seed=3)["t/medr"]
    assert value.value == np.median(rank)
    counts = np.concatenate(list(resample_counts(n_images, n_resamples=400, seed=3)))
    order = {c: i for i, c in enumerate(np.unique(cluster))}
    unit = np.array([order[c] for c in cluster])
    medians = [np.median(np.repeat(rank, c[unit].astype(int))) for c in counts]
    assert value.ci95 == pytest.approx(tuple(np.percentile(medians, [2.5, 97.5])))
