"""Uncertainty and comparison of results, in numpy and the standard library (`protocols/harness.md` section 6).

* `evaluate`: per-sample table and recipes to values with 95 % intervals: Wilson for plain binary means, percentile
  cluster bootstrap for everything else, joint over the metrics of a result.
* `paired_difference`: exact McNemar for binary outcomes with one sample per cluster, else paired cluster bootstrap.
* `holm`, `wilson`, `mcnemar`, `newcombe`, `power`: the closed forms.

An interval covers the choice of test samples only: not training seeds, not the fitting of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtv.closed_forms import Power, holm, mcnemar, newcombe, power, wilson
from mtv.errors import UsageError
from mtv.joint import aligned, combined, leaves_of
from mtv.recipes import Recipe
from mtv.resampling import Plan, Table, Units, plan, replicates, resample_counts, units_of
from mtv.results import MetricValue

__all__ = [
    "PairedDifference",
    "Power",
    "evaluate",
    "holm",
    "mcnemar",
    "newcombe",
    "paired_difference",
    "power",
    "resample_counts",
    "wilson",
]


def evaluate(
    recipes: Mapping[str, Recipe], table: Table, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, MetricValue]:
    """Values and 95 % intervals of all metrics of one result.

    Args:
        recipes: metric name to recipe. `of` of a combination names other entries, with or without their `task/` prefix;
            a combination ignores `scale`, because its parts are scaled already.
        table: the per-sample table. Units are the values of `cluster_id`; where a column `stratum` exists, units are
            resampled within it.
        n_resamples: bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        Values in the order of `recipes`. A metric without rows has value None and n = 0; a bootstrapped one with a
        single cluster has no interval. Resamples in which a metric is undefined (an empty bin) do not enter the
        interval.

    Raises:
        UsageError: a missing column or metric name, contradictory clusters.
        NumericalError: NaN or infinity in a column in use; names the sample.
    """
    units = units_of(table)
    parts = {name: leaves_of(name, recipes) for name in recipes}
    plans = {name: plan(name, r, table, units) for name, r in recipes.items() if not r.of}
    drawn = _draw([plans], _needed(recipes, parts, plans), units, n_resamples, seed)[0]
    ones = np.ones((1, units.n))
    points = {name: p.values(ones) for name, p in plans.items() if p is not None}
    return {name: _metric(name, recipes, parts[name], plans, points, drawn) for name in recipes}


def _needed(
    recipes: Mapping[str, Recipe], parts: Mapping[str, tuple[str, ...]], plans: Mapping[str, Plan | None]
) -> list[str]:
    """The metrics whose bootstrap distribution is used: Wilson serves the others."""
    combined = {leaf for name, leaves in parts.items() if recipes[name].of for leaf in leaves}
    return [n for n, p in plans.items() if p is not None and (n in combined or not _uses_wilson(p, recipes[n]))]


def _uses_wilson(p: Plan, recipe: Recipe) -> bool:
    return p.binomial and recipe.kind == "ratio"


def _draw(
    sides: Sequence[Mapping[str, Plan | None]], names: Sequence[str], units: Units, n_resamples: int, seed: int
) -> list[dict[str, np.ndarray]]:
    """Bootstrap distributions of `names` for each side, under the same resamples."""
    jobs = [(k, name, p) for k, side in enumerate(sides) for name in names if (p := side[name]) is not None]
    values = (
        replicates([p for _, _, p in jobs], units, n_resamples=n_resamples, seed=seed) if jobs else np.empty((0, 0))
    )
    out: list[dict[str, np.ndarray]] = [{} for _ in sides]
    for (k, name, _), row in zip(jobs, values, strict=True):
        out[k][name] = row
    return out


def _metric(
    name: str,
    recipes: Mapping[str, Recipe],
    leaves: Sequence[str],
    plans: Mapping[str, Plan | None],
    points: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
) -> MetricValue:
    recipe, point = recipes[name], combined(name, recipes, points)
    value = None if point is None or math.isnan(point[0]) else float(point[0])
    used = [p for leaf in leaves if (p := plans[leaf]) is not None] if value is not None else []
    n = int(np.logical_or.reduce([p.rows for p in used]).sum()) if used else 0
    clusters = len(np.unique(np.concatenate([p.unit for p in used]))) if used else 0
    ci: tuple[float, float] | None = None
    if value is not None and not recipe.of and _uses_wilson(used[0], recipe):
        lo, hi = wilson(float(used[0].x.sum()), used[0].n)
        ci = (lo * recipe.scale, hi * recipe.scale)
    elif clusters > 1:
        ci = _percentiles(combined(name, recipes, drawn))
    return MetricValue(
        value=value,
        unit=recipe.unit,
        ci95=ci,
        n=n,
        n_clusters=clusters,
        higher_is_better=recipe.higher_is_better,
        chance=recipe.chance,
        headline=recipe.headline,
        recipe=recipe.to_dict(),
    )


def _percentiles(values: np.ndarray | None) -> tuple[float, float] | None:
    defined = values[np.isfinite(values)] if values is not None else np.empty(0)
    if not defined.size:
        return None
    lo, hi = np.percentile(defined, [2.5, 97.5])
    return float(lo), float(hi)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """B minus A on the same samples."""

    a: float | None
    """Value of A in the metric's unit."""
    b: float | None
    """Value of B."""
    delta: float | None
    """B - A; None where a value is undefined, or an average has other parts in A than in B."""
    ci95: tuple[float, float] | None
    """95 % interval of `delta` over the choice of test samples."""
    n01: int | None
    """Samples wrong in A and right in B; None where outcomes are not binary."""
    n10: int | None
    """Samples right in A and wrong in B."""
    p: float | None
    """Two-sided p of no difference."""
    method: Literal["mcnemar", "bootstrap", "none"]
    """How `p` was found; `none` without a value or with a single cluster."""
    n: int
    """Rows that entered."""
    n_clusters: int
    """Units that entered."""


def paired_difference(
    recipes: Mapping[str, Recipe],
    name: str,
    table_a: Table,
    table_b: Table,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Difference of metric `name` between two results on the same samples.

    Tables are joined on `sample_id`, which is unique within a table. Plain binary outcomes with one sample per cluster
    get the exact McNemar test and Newcombe's interval. Everything else gets the paired cluster bootstrap: percentile
    interval, and p = 2 min(1 + #{d <= 0}, 1 + #{d >= 0}) / (B + 1), at most 1.

    Raises:
        UsageError: unknown metric, differing or repeated sample ids, a sample in different clusters.
    """
    if name not in recipes:
        raise UsageError(f"no metric {name!r} in this result; it has {sorted(recipes)}")
    table_b = aligned(table_a, table_b)
    units, leaves = units_of(table_a), leaves_of(name, recipes)
    sides = [{leaf: plan(leaf, recipes[leaf], t, units) for leaf in leaves} for t in (table_a, table_b)]
    a, b = (_point(name, recipes, side, units) for side in sides)
    plans_a, plans_b = ([p for p in side.values() if p is not None] for side in sides)
    table = _discordance(plans_a, plans_b) if not recipes[name].of else None
    # Averages over other parts are other metrics.
    same = all((sides[0][leaf] is None) == (sides[1][leaf] is None) for leaf in leaves)
    rows = int(np.logical_or.reduce([p.rows for p in plans_a]).sum()) if plans_a else 0
    clusters = len(np.unique(np.concatenate([p.unit for p in plans_a]))) if plans_a else 0

    def result(
        ci95: tuple[float, float] | None, p: float | None, method: Literal["mcnemar", "bootstrap", "none"]
    ) -> PairedDifference:
        delta = None if a is None or b is None or not same else b - a
        n01, n10 = (table[2], table[1]) if table else (None, None)
        return PairedDifference(
            a=a, b=b, delta=delta, ci95=ci95, n01=n01, n10=n10, p=p, method=method, n=rows, n_clusters=clusters
        )

    if a is None or b is None or not same:
        return result(None, None, "none")
    if table and plans_a[0].binomial and recipes[name].kind == "ratio":
        lo, hi = newcombe(*table)
        return result((lo * recipes[name].scale, hi * recipes[name].scale), mcnemar(table[2], table[1]), "mcnemar")
    if clusters < 2:
        return result(None, None, "none")
    drawn_a, drawn_b = (combined(name, recipes, d) for d in _draw(sides, leaves, units, n_resamples, seed))
    assert drawn_a is not None, "A has a value, so every part was drawn"
    assert drawn_b is not None, "B has a value, so every part was drawn"
    difference = drawn_b - drawn_a
    return result(_percentiles(difference), _bootstrap_p(difference), "bootstrap")


def _point(name: str, recipes: Mapping[str, Recipe], plans: Mapping[str, Plan | None], units: Units) -> float | None:
    ones = np.ones((1, units.n))
    value = combined(name, recipes, {k: p.values(ones) for k, p in plans.items() if p is not None})
    return None if value is None or math.isnan(value[0]) else float(value[0])


def _discordance(plans_a: Sequence[Plan], plans_b: Sequence[Plan]) -> tuple[int, int, int, int] | None:
    """(n11, n10, n01, n00) of one binary metric over the same rows; None for other outcomes."""
    if len(plans_a) != 1 or len(plans_b) != 1 or not np.array_equal(plans_a[0].rows, plans_b[0].rows):
        return None
    if not (plans_a[0].binary and plans_b[0].binary):
        return None
    a, b = plans_a[0].x > 0, plans_b[0].x > 0
    return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())


def _bootstrap_p(differences: np.ndarray) -> float | None:
    d = differences[np.isfinite(differences)]
    if not d.size:
        return None
    return min(1.0, 2 * (1 + min(int((d <= 0).sum()), int((d >= 0).sum()))) / (d.size + 1))
