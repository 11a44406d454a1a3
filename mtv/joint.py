"""One metric of several results on the same samples: their values, and their values under the same resamples.

Whatever is computed from several results (a difference, a ratio of gains, a Shapley value) gets its interval by being
computed in every resample from these values. The results share one count matrix, so what all of them find hard moves
all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtv.errors import UsageError
from mtv.recipes import Recipe
from mtv.resampling import Table, Units, plan, resample_counts, units_of


@dataclass(frozen=True, kw_only=True)
class JointDraws:
    """One metric of K results."""

    points_K: np.ndarray
    """float64 K: values; NaN where undefined."""
    drawn_KB: np.ndarray
    """float64 (K, B): values in each resample, the same samples in every row; NaN where undefined."""
    n_clusters: int
    """Sampling units that were resampled."""


def joint_draws(
    recipes: Mapping[str, Recipe], name: str, tables: Iterable[Table], *, n_resamples: int = 2000, seed: int = 0
) -> JointDraws:
    """Metric `name` of several results, joined on `sample_id`.

    Args:
        recipes: metric name to recipe, the same for all results.
        name: one of them.
        tables: per-sample tables, one per result; read one after the other, so a generator keeps one in memory.
        n_resamples: bootstrap resamples B.
        seed: of the resamples.

    Raises:
        UsageError: unknown metric, no tables, differing samples, or an average over other parts in one than in another.
        NumericalError: NaN or infinity in a column in use.
    """
    if name not in recipes:
        raise UsageError(f"no metric {name!r} in this result; it has {sorted(recipes)}")
    leaves = leaves_of(name, recipes)
    first: Table | None = None
    units: Units | None = None
    sides = []
    for table in tables:
        if first is None or units is None:
            first = {k: table[k] for k in ("sample_id", "cluster_id", "stratum") if k in table}
            units = units_of(first)
        rows = aligned(first, table)
        plans = {leaf: plan(leaf, recipes[leaf], rows, units) for leaf in leaves}
        # Of a plan only the sums are kept: rows of eight results of a large set need not be in memory together.
        sides.append({leaf: p.sums for leaf, p in plans.items() if p is not None})
    if units is None:
        raise UsageError(f"metric {name}: no results to draw from")
    if any(side.keys() != sides[0].keys() for side in sides):
        raise UsageError(f"metric {name}: the results average over different parts, so they are different metrics")

    def values(counts_BU: np.ndarray) -> np.ndarray:
        nothing = np.full(len(counts_BU), np.nan)
        found = [combined(name, recipes, {leaf: s.values(counts_BU) for leaf, s in side.items()}) for side in sides]
        return np.stack([nothing if v is None else v for v in found])

    blocks = resample_counts(units.n, strata=units.strata, n_resamples=n_resamples, seed=seed)
    return JointDraws(
        points_K=values(np.ones((1, units.n)))[:, 0],
        drawn_KB=np.concatenate([values(block) for block in blocks], axis=1),
        n_clusters=units.n,
    )


def leaves_of(name: str, recipes: Mapping[str, Recipe], seen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The ratio, median and present metrics below `name`.

    Raises:
        UsageError: a part that does not exist, or a metric defined through itself.
    """
    if name in seen:
        raise UsageError(f"metric {name} is defined through itself: {' -> '.join((*seen, name))}")
    if not recipes[name].of:
        return (name,)
    below = [leaves_of(_resolved(name, part, recipes), recipes, (*seen, name)) for part in recipes[name].of]
    return tuple(dict.fromkeys(leaf for leaves in below for leaf in leaves))


def combined(name: str, recipes: Mapping[str, Recipe], values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The metric `name` from the values of its leaves: `average` of those that have one, the others only of all."""
    recipe = recipes[name]
    if not recipe.of:
        return values.get(name)
    of = [combined(_resolved(name, part, recipes), recipes, values) for part in recipe.of]
    arrays = [v for v in of if v is not None]
    if not arrays or (recipe.kind == "sum" and len(arrays) < len(of)):
        return None
    if recipe.kind == "root":
        return np.sqrt(arrays[0])
    total = np.sum(arrays, axis=0)
    return total / len(arrays) if recipe.kind == "average" else total


def _resolved(name: str, part: str, recipes: Mapping[str, Recipe]) -> str:
    sibling = f"{name.rsplit('/', 1)[0]}/{part}"
    if part in recipes or sibling in recipes:
        return part if part in recipes else sibling
    raise UsageError(f"metric {name} combines {part!r}, which the result does not have; it has {sorted(recipes)}")


def aligned(first: Table, other: Table) -> dict[str, np.ndarray]:
    """The rows of `other` in the order of `first`, joined on `sample_id`.

    Raises:
        UsageError: differing or repeated sample ids, a sample in different clusters or strata.
    """
    for side, table in (("first", first), ("second", other)):
        if missing := {"sample_id", "cluster_id"} - set(table):
            raise UsageError(f"the {side} per-sample table lacks {sorted(missing)}; it has {sorted(table)}")
    ids_a, ids_b = (t["sample_id"].tolist() for t in (first, other))
    place = {s: k for k, s in enumerate(ids_b)}
    _refuse_different_ids(ids_a, ids_b)
    order = np.fromiter((place[s] for s in ids_a), dtype=np.int64, count=len(ids_a))
    out = {name: values[order] for name, values in other.items()}
    for column in {"cluster_id", "stratum"} & set(first) & set(other):
        if (bad := np.flatnonzero(out[column] != first[column])).size:
            k, (in_a, in_b) = bad[0], (first[column][bad[0]], out[column][bad[0]])
            raise UsageError(
                f"sample {ids_a[k]}: {column} is {in_a} in the first table, {in_b} in the second",
                "The two results were made with different readers; run the older one again.",
            )
    return out


def _refuse_different_ids(ids_a: Sequence[str], ids_b: Sequence[str]) -> None:
    a, b = set(ids_a), set(ids_b)
    for side, ids, unique in (("first", ids_a, a), ("second", ids_b, b)):
        if len(unique) < len(ids):
            twice = next(s for k, s in enumerate(ids) if s in ids[:k])
            raise UsageError(f"sample id {twice!r} occurs more than once in the {side} table; ids are unique per table")
    if a == b:
        return
    sides = (("first", sorted(a - b)), ("second", sorted(b - a)))
    found = [
        f"{len(only)} only in the {side} (such as {', '.join(map(str, only[:3]))})" for side, only in sides if only
    ]
    raise UsageError(
        f"the two results have different samples: {'; '.join(found)}",
        "Compare runs over the same data, split and limit.",
    )
