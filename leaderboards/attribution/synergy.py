"""Eq. 4 of the paper: how much more two objectives give together than the better of them alone.

* Gains are over the VL baseline and in the direction of the metric: a falling RMSE is a gain.
* Where neither objective helps alone there is nothing to exceed: synergy is undefined, and never a number.
* Where the larger single gain is not clearly above zero the ratio has no bounded interval; `cells.interval` has the
  rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mtv.errors import UsageError
from mtv.leaderboards.attribution.cells import (
    ADDED,
    BASELINE,
    NAMES,
    UNDEFINED_LIMIT,
    CellDraws,
    Estimate,
    draw_cells,
    interval,
    objectives_of,
    undefined_share,
)
from mtv.leaderboards.grid import decimals
from mtv.leaderboards.study import Study

PAIRS: tuple[tuple[str, str], ...] = (("ssl", "ground"), ("ssl", "depth"), ("depth", "ground"))
"""Rows of the paper's Table 4."""
TABLE4_KEYS: tuple[str, ...] = (
    "imagenet/top1",
    "coco/i2t_r1",
    "ade20k/miou",
    "navi/avg_recall",
    "spair/avg_recall",
    "nyuv2/rmse",
)
"""Columns of the paper's Table 4, which its average is over."""


def synergy(gain_a: float, gain_b: float, gain_ab: float) -> float | None:
    """(gain of both - larger single gain) / larger single gain, as a fraction; None where neither helps alone.

    Args:
        gain_a: of A over the baseline, positive is better.
        gain_b: of B.
        gain_ab: of A and B together.

    Source: Eq. 4 of the paper.
    """
    best = max(gain_a, gain_b)
    return (gain_ab - best) / best if best > 0 else None


@dataclass(frozen=True, kw_only=True)
class SynergyValue:
    """Synergy of one pair in one metric."""

    pair: tuple[str, str]
    """The two objectives."""
    key: str
    """`task/metric`."""
    value: float | None
    """A fraction: 0.5 is 50 %; None where it is undefined or a cell is missing."""
    ci95: tuple[float, float] | None
    """95 % interval; None where `value` is, or where too many resamples are undefined."""
    reason: str
    """Why there is no value, or no interval; empty where both exist."""
    gains: tuple[Estimate, Estimate, Estimate] | None
    """Of A, of B and of both over VL; None where a cell is missing."""
    seeds: tuple[int, ...]
    """Training seeds that entered: the value is that of the gains averaged over them."""
    undefined_share: float | None
    """Share of resamples in which neither objective helps alone; None where a cell is missing."""
    drawn: np.ndarray | None = field(default=None, repr=False, compare=False)
    """float64 B: the synergy in each resample, NaN where undefined; for averages over metrics."""

    @property
    def n_seeds(self) -> int:
        """Training seeds; with several, the interval is over seeds and samples, with one over samples only."""
        return len(self.seeds)

    @property
    def missing(self) -> bool:
        """Whether a cell is missing, as opposed to an undefined ratio."""
        return self.gains is None


@dataclass(frozen=True, kw_only=True)
class AverageSynergy:
    """Mean over the metrics in which a pair's synergy is defined: the last column of the paper's Table 4."""

    pair: tuple[str, str]
    """The two objectives."""
    value: float | None
    """A fraction; None where no metric has one."""
    ci95: tuple[float, float] | None
    """Joint over seeds, independent over data sets; None where a metric that entered has none."""
    n_defined: int
    """Metrics that entered."""
    n_undefined: int
    """Metrics in which neither objective helps alone."""
    n_missing: int
    """Metrics without the results."""


def study_synergy(
    study: Study, pair: tuple[str, str], metric_key: str, *, resamples: int = 2000, seed: int = 0
) -> SynergyValue:
    """Synergy of `pair` over VL in one metric of a study.

    Args:
        study: of `mtv.leaderboards.study.studies`.
        pair: two of ssl, ground, depth.
        metric_key: `task/metric`.
        resamples: joint bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        UsageError: no such pair; what `draw_cells` raises.
        CacheError: a sample table is missing, or does not give the recorded value.
    """
    _check_pair(pair)
    return synergy_of(draw_cells(study, metric_key, resamples=resamples, seed=seed), pair)


def synergy_of(draws: CellDraws, pair: tuple[str, str]) -> SynergyValue:
    """The same from draws that are there already.

    Raises:
        UsageError: no such pair.
    """
    _check_pair(pair)
    sets = tuple(objectives_of(added) for added in ((pair[0],), (pair[1],), pair))
    if reason := draws.missing(((BASELINE,), *sets)):
        return SynergyValue(
            pair=pair,
            key=draws.key,
            value=None,
            ci95=None,
            reason=reason,
            gains=None,
            seeds=(),
            undefined_share=None,
        )
    gains = draws.gains(sets)
    of_a, of_b, of_both = (draws.estimate(gains.points[s], gains.drawn[s]) for s in sets)
    value = synergy(of_a.value, of_b.value, of_both.value)
    drawn = _ratio(*(gains.drawn[s] for s in sets))
    share = undefined_share(drawn)
    ci95 = interval(drawn) if value is not None and draws.n_clusters > 1 else None
    return SynergyValue(
        pair=pair,
        key=draws.key,
        value=value,
        ci95=ci95,
        reason=_reason(draws, pair, (of_a.value, of_b.value), value, ci95, share),
        gains=(of_a, of_b, of_both),
        seeds=gains.seeds,
        undefined_share=share,
        drawn=drawn,
    )


def average_synergy(values: Sequence[SynergyValue]) -> AverageSynergy:
    """Mean of one pair over metrics, undefined and missing ones left out and counted.

    Raises:
        UsageError: nothing to average, or values of several pairs.
    """
    if len({v.pair for v in values}) != 1:
        raise UsageError(f"an average is over the metrics of one pair, got {sorted({v.pair for v in values})}")
    defined = [v for v in values if v.value is not None]
    drawn = [v.drawn for v in defined if v.drawn is not None]
    bounded = bool(defined) and all(v.ci95 for v in defined) and len({len(d) for d in drawn}) == 1
    return AverageSynergy(
        pair=values[0].pair,
        value=float(np.mean([v.value for v in defined])) if defined else None,
        ci95=interval(np.mean(drawn, axis=0)) if bounded else None,
        n_defined=len(defined),
        n_undefined=sum(v.value is None and not v.missing for v in values),
        n_missing=sum(v.missing for v in values),
    )


def _check_pair(pair: tuple[str, str]) -> None:
    if len(set(pair)) != 2 or not set(pair) <= set(ADDED):
        raise UsageError(f"pair: two different ones of {', '.join(ADDED)}, got {pair}")


def _ratio(of_a_B: np.ndarray, of_b_B: np.ndarray, of_both_B: np.ndarray) -> np.ndarray:
    best_B = np.maximum(of_a_B, of_b_B)
    return np.divide(of_both_B - best_B, best_B, out=np.full(len(best_B), np.nan), where=best_B > 0)


def _reason(
    draws: CellDraws,
    pair: tuple[str, str],
    single: tuple[float, float],
    value: float | None,
    ci95: tuple[float, float] | None,
    share: float,
) -> str:
    digits = decimals(draws.metric.unit) + 1 if draws.metric else 2
    if value is None:
        own = ", ".join(f"{NAMES[o]} {g:+.{digits}f}".replace("-", "−") for o, g in zip(pair, single, strict=True))
        return f"no individual gain ({own})"
    if ci95 is None and draws.n_clusters < 2:
        return "no interval: a single sampling unit"
    if ci95 is None:
        return f"no interval: no individual gain in {share:.1%} of resamples (limit {UNDEFINED_LIMIT:.1%})"
    return ""
