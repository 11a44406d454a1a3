"""One metric in the cells of a study, resampled jointly: what synergy and Shapley values are computed from.

* All cells of all training seeds share one count matrix per (data set, seed of the bootstrap), so a ratio or a
  difference of gains is computed from the same test samples in every resample. Data sets have independent matrices.
* Training seeds are a second level: a resample draws seeds with replacement, the same ones for every objective set
  (runs of one seed share initial weights and the order of the data), then test samples, and averages the metric over
  the drawn seeds. With one seed only the samples vary, and the interval says nothing about training.
* The bootstrap of K seeds is too narrow by about sqrt((K - 1) / K) in the seed part: K is always told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtv.errors import CacheError, UsageError
from mtv.hashing import sha256_json
from mtv.joint import joint_draws
from mtv.leaderboards.frame import metrics_of
from mtv.leaderboards.study import Objectives, Study
from mtv.recipes import Recipe
from mtv.results import MetricValue, read_samples

BASELINE = "vl"
ADDED = ("ssl", "ground", "depth")
"""Objectives that join the baseline, in the order of the paper's Table 3."""
NAMES = {"vl": "VL", "ssl": "SSL", "ground": "Ground", "depth": "Depth"}
ZERO = 1e-12
"""A gain below this share of the values is rounding, and counts as none."""
UNDEFINED_LIMIT = 0.025
"""Share of resamples without a value above which there is no 95 % interval: its ends would be among them."""


def objectives_of(added: Sequence[str]) -> Objectives:
    """VL with these objectives, in the order of the records."""
    return (BASELINE, *(o for o in ADDED if o in added))


def label(objectives: Sequence[str]) -> str:
    """`VL + SSL + Ground`."""
    return " + ".join(NAMES[o] for o in objectives)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval."""

    value: float
    """In the unit of the metric."""
    ci95: tuple[float, float] | None
    """95 % interval; None where there is a single sampling unit or too many resamples have no value."""


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Gains of objective sets over VL alone, on the training seeds that have them all."""

    seeds: tuple[int, ...]
    """Training seeds that entered."""
    points: Mapping[Objectives, float]
    """Mean over seeds, positive is better, in the unit of the metric."""
    drawn: Mapping[Objectives, np.ndarray]
    """float64 B: the same in each resample; NaN where the metric is undefined."""


@dataclass(frozen=True, kw_only=True)
class CellDraws:
    """One metric in every cell of a study that has it."""

    key: str
    """`task/metric`."""
    metric: MetricValue | None
    """One of the values, for unit and direction; None where no cell has it."""
    points: Mapping[tuple[Objectives, int], float]
    """Objectives and seed to the value."""
    drawn: Mapping[tuple[Objectives, int], np.ndarray]
    """The same to float64 B: the value in each resample."""
    absent: Mapping[tuple[Objectives, int], str]
    """Cells of the study without the metric, and why."""
    n_clusters: int
    """Sampling units that were resampled."""
    seed: int
    """Of the bootstrap."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds of any cell with the metric."""
        return tuple(sorted({k for _, k in self.points}))

    def common_seeds(self, subsets: Sequence[Objectives]) -> tuple[int, ...]:
        """Training seeds for which every one of `subsets` has the metric."""
        return tuple(k for k in self.seeds if all((s, k) in self.points for s in subsets))

    def missing(self, subsets: Sequence[Objectives]) -> str:
        """What keeps gains of `subsets` from being computed, in words; empty where nothing does."""
        if self.common_seeds(subsets):
            return ""
        without = [s for s in subsets if not any(o == s for o, _ in self.points)]
        if not without:
            own = "; ".join(f"{label(s)}: {_listing([k for o, k in self.points if o == s])}" for s in subsets)
            return f"no training seed has them all ({own})"
        reasons: dict[str, list[str]] = {}
        for s in without:
            reason = next((r for (o, _), r in self.absent.items() if o == s), "not run")
            reasons.setdefault(reason, []).append(label(s))
        if len(reasons) == 1 and not self.points:
            return next(iter(reasons))
        return "; ".join(f"{', '.join(sets)}: {reason}" for reason, sets in reasons.items())

    def gains(self, subsets: Sequence[Objectives]) -> Gains:
        """Gains of `subsets` over VL alone.

        Raises:
            UsageError: a subset, or VL alone, has no value (names what is missing).
        """
        base = (BASELINE,)
        wanted = tuple(dict.fromkeys((base, *subsets)))
        if reason := self.missing(wanted):
            raise UsageError(f"{self.key}: {reason}")
        seeds, sign = self.common_seeds(wanted), 1.0 if self.metric is None or self.metric.higher_is_better else -1.0
        weights_BK = self._seed_weights(seeds)
        points = {s: np.array([np.mean([self.points[s, k] for k in seeds])]) for s in wanted}
        drawn = {s: _mean_over_seeds(weights_BK, [self.drawn[s, k] for k in seeds]) for s in wanted}
        return Gains(
            seeds=seeds,
            points={s: float(_gain(points[s], points[base], sign)[0]) for s in wanted},
            drawn={s: _gain(drawn[s], drawn[base], sign) for s in wanted},
        )

    def mean(self, objectives: Objectives, seeds: Sequence[int]) -> Estimate:
        """The metric of one objective set, averaged over `seeds`; in its own direction, not that of gain."""
        point = np.mean([self.points[objectives, k] for k in seeds])
        drawn = _mean_over_seeds(self._seed_weights(seeds), [self.drawn[objectives, k] for k in seeds])
        return self.estimate(float(point), drawn)

    def estimate(self, point: float, drawn: np.ndarray) -> Estimate:
        """A number computed from gains, with the interval of the same computed in every resample."""
        return Estimate(value=float(point), ci95=interval(drawn) if self.n_clusters > 1 else None)

    def _seed_weights(self, seeds: Sequence[int]) -> np.ndarray:
        """float64 (B, K): share of each training seed in each resample."""
        n_resamples = len(next(iter(self.drawn.values())))
        # Keyed by the seeds, not by the metric: the same trained models are drawn for all metrics of a resample.
        rng = np.random.default_rng([self.seed, *seeds])
        return rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=n_resamples) / len(seeds)


def draw_cells(study: Study, key: str, *, resamples: int = 2000, seed: int = 0) -> CellDraws:
    """Metric `key` in all cells of `study`, with joint resamples.

    Args:
        study: of `mtv.leaderboards.study.studies`.
        key: `task/metric`.
        resamples: bootstrap resamples B.
        seed: of the bootstrap.

    Raises:
        UsageError: a key without a task, `resamples` below 1; results of one task with different settings, samples or
            metric definitions.
        CacheError: a sample table is missing, or does not give the recorded value.
    """
    task, slash, _ = key.partition("/")
    if not slash:
        raise UsageError(f"metric {key!r}: expected task/metric, for example imagenet/top1")
    if resamples < 1:
        raise UsageError(f"resamples: must be at least 1, got {resamples}")
    absent = {place: _absence(study, place, key) for place in study.cells}
    placed = {p: study.cells[p].results[task] for p, reason in absent.items() if not reason}
    absent = {p: reason for p, reason in absent.items() if reason}
    if not placed:
        return CellDraws(key=key, metric=None, points={}, drawn={}, absent=absent, n_clusters=0, seed=seed)
    records = list(placed.values())
    of_first = metrics_of(records[0].record)
    if other := [s for s in records[1:] if s.setting != records[0].setting or s.shard != records[0].shard]:
        raise UsageError(f"{task}: {records[0].model[0]} and {other[0].model[0]} were measured under other settings")
    if other := [s for s in records[1:] if metrics_of(s.record)[key].recipe != of_first[key].recipe]:
        raise UsageError(f"{key} is defined differently in {other[0].model[0]}", "Run the older result again.")
    joint = joint_draws(
        {k: Recipe.from_dict(m.recipe) for k, m in of_first.items()},
        key,
        (read_samples(s.path, s.record) for s in records),
        n_resamples=resamples,
        seed=data_seed(seed, records[0].setting[1]),
    )
    for stored, value in zip(records, joint.points_K, strict=True):
        recorded = metrics_of(stored.record)[key].value
        if recorded is None or abs(recorded - value) > 1e-6 * max(1.0, abs(recorded)):
            raise CacheError(
                f"{stored.record.protocol['id']} of {stored.model[0]}: {key} is {recorded} in the record, but its "
                f"sample table gives {value}",
                "The record was edited or made by another version; run the task again.",
            )
    return CellDraws(
        key=key,
        metric=of_first[key],
        points=dict(zip(placed, map(float, joint.points_K), strict=True)),
        drawn=dict(zip(placed, joint.drawn_KB, strict=True)),
        absent=absent,
        n_clusters=joint.n_clusters,
        seed=seed,
    )


def undefined_share(drawn: np.ndarray) -> float:
    """Share of resamples without a value."""
    return float(np.mean(~np.isfinite(drawn)))


def interval(drawn: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile interval; a resample without a value counts as lying beyond both ends.

    So the interval widens with their number and has no finite end once they are `UNDEFINED_LIMIT` of all: then there
    is none. For a ratio whose denominator may vanish this is the percentile form of Fieller's result, that a ratio has
    a bounded interval only if its denominator differs from zero at that level.
    """
    defined, without = drawn[np.isfinite(drawn)], undefined_share(drawn)
    if without > UNDEFINED_LIMIT or not defined.size:
        return None
    low = 100 * (UNDEFINED_LIMIT - without) / (1 - without)
    lo, hi = np.percentile(defined, [low, 100 - low])
    return float(lo), float(hi)


def _absence(study: Study, place: tuple[Objectives, int], key: str) -> str:
    """Why a cell lacks the metric; empty where it has it."""
    cell, task = study.cells[place], key.partition("/")[0]
    if task in cell.results:
        metric = metrics_of(cell.results[task].record).get(key)
        if metric is None:
            return f"{key} is not among the metrics of {task}"
        return f"{key} is undefined" if metric.value is None else ""
    if task in cell.failed:
        error = cell.failed[task].record.error or {}
        return f"{task} failed ({error.get('type', 'unknown error')})"
    return f"{task} not measured"


def data_seed(seed: int, fingerprint: str) -> int:
    """One stream per (data set, seed): equal for its metrics, independent between data sets."""
    return int(sha256_json({"seed": seed, "data": fingerprint})[:16], 16)


def _mean_over_seeds(weights_BK: np.ndarray, values: Sequence[np.ndarray]) -> np.ndarray:
    values_BK = np.stack(values, axis=1)
    # A seed that was not drawn does not matter, even where its metric is undefined.
    mean_B: np.ndarray = np.where(weights_BK > 0, weights_BK * values_BK, 0.0).sum(axis=1)
    return mean_B


def _gain(value: np.ndarray, base: np.ndarray, sign: float) -> np.ndarray:
    gain = sign * (value - base)
    return np.where(np.abs(gain) <= ZERO * np.maximum(np.abs(value), np.abs(base)), 0.0, gain)


def _listing(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
