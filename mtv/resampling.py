"""From the per-sample table to resampled metric values, with numpy alone.

Rows are summed once per sampling unit (`cluster_id`); a bootstrap resample is then a vector of unit counts and every
metric a matrix product with those sums. One count matrix per (units, strata, seed) serves all metrics and both models
of a comparison, so that differences and averages get joint intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtv.errors import NumericalError, UsageError
from mtv.recipes import Recipe

Table = Mapping[str, np.ndarray]
"""Column name to one value per row; `cluster_id` is required, `sample_id` and `stratum` are used where present."""

_DENSE_CELLS = 4_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Units:
    """The sampling units of a table, in sorted order of their ids."""

    n: int
    """Number of units U."""
    index: np.ndarray
    """int64 R: unit of each row."""
    strata: np.ndarray | None
    """int64 U: stratum of each unit, or None where the units are one population."""


def units_of(table: Table) -> Units:
    """Find the units of `table`.

    Raises:
        UsageError: no `cluster_id` column, or a unit that lies in two strata.
    """
    index, first, _ = _codes(_column(table, "cluster_id", "the per-sample table"))
    if "stratum" not in table:
        return Units(n=len(first), index=index, strata=None)
    stratum, _, _ = _codes(table["stratum"])
    own = stratum[first]
    if (bad := np.flatnonzero(own[index] != stratum)).size:
        raise UsageError(f"cluster {table['cluster_id'][bad[0]]!r} lies in more than one stratum")
    return Units(n=len(first), index=index, strata=own)


def resample_counts(
    n_units: int, *, strata: np.ndarray | None = None, n_resamples: int = 2000, seed: int = 0, chunk: int | None = None
) -> Iterator[np.ndarray]:
    """How often each unit is drawn in each bootstrap resample.

    Args:
        n_units: number of units U.
        strata: stratum code of each unit; units are drawn within their stratum, whose size stays what it is.
        n_resamples: number of resamples B.
        seed: the only source of randomness; the counts do not depend on `chunk`.
        chunk: resamples per block; chosen for about 8 MB when absent.

    Yields:
        float64 (b, U) blocks, in all B rows; every row sums to U.
    """
    rng = np.random.default_rng(seed)
    order = np.arange(n_units) if strata is None else np.argsort(strata, kind="stable")
    codes = np.zeros(n_units, dtype=np.int64) if strata is None else np.asarray(strata)[order]
    start = np.searchsorted(codes, codes, side="left")
    size = (np.searchsorted(codes, codes, side="right") - start).astype(np.float64)
    step = chunk or max(1, _BLOCK // max(n_units, 1))
    for done in range(0, n_resamples, step):
        b = min(step, n_resamples - done)
        # u < 1 implies fl(u * size) < size in double precision, so no draw leaves its stratum.
        drawn = (rng.random((b, n_units)) * size).astype(np.int64) + start + (np.arange(b) * n_units)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=b * n_units).reshape(b, n_units)
        block = np.empty((b, n_units), dtype=np.float64)
        block[:, order] = counts
        yield block


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One ratio, median or present metric, prepared for one table."""

    rows: np.ndarray
    """bool R: rows that enter."""
    x: np.ndarray
    """float64: outcome of those rows, after the indicator."""
    unit: np.ndarray
    """int64: unit of those rows."""
    sums: _Sums | _Values
    """What a resample needs."""
    plain: bool
    """No group, no inner average, no denominator column: a mean over rows."""

    @property
    def n(self) -> int:
        """Rows that enter."""
        return len(self.x)

    @property
    def n_clusters(self) -> int:
        """Units that enter."""
        return len(np.unique(self.unit))

    @property
    def binary(self) -> bool:
        """Whether every outcome is 0 or 1."""
        return bool(np.isin(self.x, (0.0, 1.0)).all())

    @property
    def binomial(self) -> bool:
        """A plain mean of independent 0/1 outcomes: closed forms apply instead of the bootstrap."""
        return self.plain and self.binary and self.n_clusters == self.n

    def values(self, counts_BU: np.ndarray) -> np.ndarray:
        """The metric under each row of unit counts; float64 B, NaN where it is undefined."""
        return self.sums.values(counts_BU)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Numerators and denominators per (unit, group), sorted by group."""

    scale: float
    n_units: int
    starts: np.ndarray
    unit: np.ndarray
    num: np.ndarray
    den: np.ndarray

    def values(self, counts_BU: np.ndarray) -> np.ndarray:
        num_BG, den_BG = self._totals(counts_BU)
        here = den_BG > 0
        ratio = np.divide(num_BG, den_BG, out=np.zeros_like(num_BG), where=here)
        groups = here.sum(axis=1)
        mean = np.divide(ratio.sum(axis=1), groups, out=np.full(len(groups), np.nan), where=groups > 0)
        return mean * self.scale

    def _totals(self, counts_BU: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        G = len(self.starts)
        if G * self.n_units <= _DENSE_CELLS:
            group = np.repeat(np.arange(G), np.diff([*self.starts, len(self.unit)]))
            dense = np.zeros((self.n_units, 2 * G))
            dense[self.unit, group] = self.num
            dense[self.unit, G + group] = self.den
            totals = counts_BU @ dense
            return totals[:, :G], totals[:, G:]
        drawn = counts_BU[:, self.unit]
        return np.add.reduceat(drawn * self.num, self.starts, axis=1), np.add.reduceat(
            drawn * self.den, self.starts, axis=1
        )


class _Present(_Sums):
    """The number of groups with a sum above 0."""

    def values(self, counts_BU: np.ndarray) -> np.ndarray:
        present_B: np.ndarray = (self._totals(counts_BU)[0] > 0).sum(axis=1) * self.scale
        return present_B


@dataclass(frozen=True, kw_only=True)
class _Values:
    """Rows sorted by value: for weighted medians."""

    scale: float
    distinct: np.ndarray
    """float64 K: distinct values, ascending."""
    last: np.ndarray
    """int64 K: last row of each distinct value."""
    unit: np.ndarray
    """int64: unit of each row, in the order of the values."""
    weight: np.ndarray
    """float64: weight of each row, in the order of the values."""

    def values(self, counts_BU: np.ndarray) -> np.ndarray:
        """Midpoint of lower and upper weighted median, which for counts is the ordinary median of the repeated rows."""
        up_to_BK = np.cumsum(counts_BU[:, self.unit] * self.weight, axis=1)[:, self.last]
        total_B1 = up_to_BK[:, -1:]
        top = len(self.distinct) - 1
        lower = np.minimum((up_to_BK < total_B1 / 2).sum(axis=1), top)
        upper = np.minimum((up_to_BK <= total_B1 / 2).sum(axis=1), top)
        middle = (self.distinct[lower] + self.distinct[upper]) / 2 * self.scale
        return np.where(total_B1[:, 0] > 0, middle, np.nan)


def plan(name: str, recipe: Recipe, table: Table, units: Units) -> Plan | None:
    """Prepare a `ratio`, `median` or `present` metric; None where no row passes `where`.

    Raises:
        UsageError: a column is missing, a `within` value spans clusters, or the recipe asks for what medians cannot do.
        NumericalError: NaN or infinity in a used column; names the first sample.
    """
    rows = np.ones(len(units.index), dtype=bool)
    for column, wanted in recipe.where.items():
        rows &= np.asarray(_column(table, column, name) == wanted, dtype=bool)
    if not rows.any():
        return None
    raw = _column(table, recipe.column, name)[rows]
    x = _finite(raw, table, rows, recipe.column, name)
    # The indicator compares in the column's own precision: float32(0.02) is not below 0.02.
    if recipe.at_most is not None:
        x = np.asarray(raw <= recipe.at_most, dtype=np.float64)
    elif recipe.below is not None:
        x = np.asarray(raw < recipe.below, dtype=np.float64)
    weight = np.ones(len(x))
    if recipe.weight is not None:
        weight = _finite(_column(table, recipe.weight, name)[rows], table, rows, recipe.weight, name)
    unit = units.index[rows]
    if recipe.kind == "median":
        sums: _Sums | _Values = _median(name, recipe, x, weight, unit)
    else:
        sums = _ratio(name, recipe, table, rows, x, weight, unit, units.n)
    plain = recipe.kind == "ratio" and recipe.group is None and recipe.within is None and recipe.weight is None
    return Plan(rows=rows, x=x, unit=unit, sums=sums, plain=plain)


def _median(name: str, recipe: Recipe, x: np.ndarray, weight: np.ndarray, unit: np.ndarray) -> _Values:
    if recipe.group or recipe.within:
        raise UsageError(f"metric {name}: a median takes neither group nor within")
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    return _Values(scale=recipe.scale, distinct=ordered[last], last=last, unit=unit[order], weight=weight[order])


def _ratio(
    name: str,
    recipe: Recipe,
    table: Table,
    rows: np.ndarray,
    x: np.ndarray,
    d: np.ndarray,
    unit: np.ndarray,
    n_units: int,
) -> _Sums:
    group = np.zeros(len(x), dtype=np.int64)
    if recipe.group:
        group = _codes(_column(table, recipe.group, name)[rows])[0]
    if recipe.within:
        inner, first, values = _codes(_column(table, recipe.within, name)[rows])
        if (bad := np.flatnonzero(unit[first][inner] != unit)).size:
            raise UsageError(f"metric {name}: {recipe.within} {values[inner[bad[0]]]!r} spans several clusters")
        x, d, (inner, group) = _sum_by((inner, group), x, d)
        x, unit, group = x[d > 0] / d[d > 0], unit[first][inner[d > 0]], group[d > 0]
        d = np.ones(len(x))
    num, den, (group, unit) = _sum_by((group, unit), x, d)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else np.zeros(0, dtype=np.int64)
    sums = _Present if recipe.kind == "present" else _Sums
    return sums(scale=recipe.scale, n_units=n_units, starts=starts, unit=unit, num=num, den=den)


def _sum_by(
    keys: tuple[np.ndarray, np.ndarray], x: np.ndarray, d: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Sums of x and d over equal key pairs, ordered by the first key, then the second."""
    span = int(keys[1].max(initial=0)) + 1
    pair, where = np.unique(keys[0] * span + keys[1], return_inverse=True)
    n = len(pair)
    return np.bincount(where, x, minlength=n), np.bincount(where, d, minlength=n), (pair // span, pair % span)


def replicates(plans: Sequence[Plan], units: Units, *, n_resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Every plan's value under the same resamples; float64 (len(plans), B), NaN where undefined."""
    out = np.empty((len(plans), n_resamples))
    done = 0
    for counts_BU in resample_counts(units.n, strata=units.strata, n_resamples=n_resamples, seed=seed):
        for k, p in enumerate(plans):
            out[k, done : done + len(counts_BU)] = p.values(counts_BU)
        done += len(counts_BU)
    return out


def _column(table: Table, column: str, metric: str) -> np.ndarray:
    if column not in table:
        raise UsageError(f"metric {metric}: the per-sample table has no column {column!r}; it has {sorted(table)}")
    return table[column]


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """Integer code of each value in sorted order, first position of each distinct value, the distinct values."""
    # Strings read from Parquet arrive as Python objects, which sort ten times slower than a fixed-width array.
    if values.dtype == object:
        values = np.asarray(values.tolist())
    distinct, first, code = np.unique(values, return_index=True, return_inverse=True)
    return code.astype(np.int64), first, distinct


def _finite(values: np.ndarray, table: Table, rows: np.ndarray, column: str, metric: str) -> np.ndarray:
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise UsageError(f"metric {metric}: column {column!r} does not hold numbers ({e})") from e
    if (bad := np.flatnonzero(~np.isfinite(x))).size:
        row = int(np.flatnonzero(rows)[bad[0]])
        sample = table["sample_id"][row] if "sample_id" in table else f"in row {row}"
        raise NumericalError(
            f"metric {metric}: column {column!r} is {x[bad[0]]} for sample {sample}",
            f"{bad.size} of {x.size} rows are not finite.",
        )
    return x
