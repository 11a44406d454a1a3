"""Synergy and attribution of a whole study: every pair, every metric, from one set of joint resamples per metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtv.errors import unknown
from mtv.leaderboards.attribution.cells import draw_cells
from mtv.leaderboards.attribution.shapley import Attribution, attribution_of
from mtv.leaderboards.attribution.synergy import (
    PAIRS,
    TABLE4_KEYS,
    AverageSynergy,
    SynergyValue,
    average_synergy,
    synergy_of,
)
from mtv.leaderboards.frame import metrics_of
from mtv.leaderboards.paper.cells import METRICS
from mtv.leaderboards.study import Study
from mtv.results import MetricValue


@dataclass(frozen=True, kw_only=True)
class StudyAnalysis:
    """Everything that one study says about its objectives."""

    study: Study
    """What was analysed."""
    keys: tuple[str, ...]
    """Metrics, in order."""
    metrics: Mapping[str, MetricValue | None]
    """Metric to one of its values, for unit and direction; None where the study does not have it."""
    synergies: Mapping[tuple[tuple[str, str], str], SynergyValue]
    """Pair and metric to synergy, all of them; missing and undefined ones say why."""
    averages: Mapping[tuple[str, str], AverageSynergy]
    """Pair to its average over `averaged`."""
    averaged: tuple[str, ...]
    """Metrics that the average is over."""
    attributions: Mapping[str, Attribution]
    """Metric to Shapley values and interactions."""
    resamples: int
    """Of the bootstrap."""
    seed: int
    """Of the bootstrap."""


def analyse(
    study: Study,
    keys: Sequence[str],
    *,
    averaged: Sequence[str] = TABLE4_KEYS,
    resamples: int = 2000,
    seed: int = 0,
) -> StudyAnalysis:
    """Synergy of all pairs, and attribution, in each metric.

    Args:
        study: of `mtv.leaderboards.study.studies`.
        keys: metrics as `task/metric`.
        averaged: those of `keys` that the average synergy is over; others are shown only.
        resamples: joint bootstrap resamples per metric.
        seed: of the bootstrap.

    Raises:
        UsageError: a key without a task, `resamples` below 1, results that cannot be joined.
        CacheError: a sample table is missing, or does not give the recorded value.
    """
    metrics: dict[str, MetricValue | None] = {}
    synergies: dict[tuple[tuple[str, str], str], SynergyValue] = {}
    attributions: dict[str, Attribution] = {}
    for key in keys:
        draws = draw_cells(study, key, resamples=resamples, seed=seed)
        metrics[key] = draws.metric
        synergies |= {(pair, key): synergy_of(draws, pair) for pair in PAIRS}
        attributions[key] = attribution_of(draws)
    over = tuple(k for k in keys if k in averaged)
    return StudyAnalysis(
        study=study,
        keys=tuple(keys),
        metrics=metrics,
        synergies=synergies,
        averages={p: average_synergy([synergies[p, k] for k in over]) for p in PAIRS} if over else {},
        averaged=over,
        attributions=attributions,
        resamples=resamples,
        seed=seed,
    )


def choose_keys(studies: Iterable[Study], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Metrics to analyse: `wanted`, or those of the paper's Table 3.

    Without `wanted`, what is not a column of Table 4 (COCO text to image, VQA) appears only where it was measured.

    Raises:
        UsageError: a wanted metric that is neither measured nor the paper's, with the nearest spellings.
    """
    measured = {
        k
        for study in studies
        for cell in study.cells.values()
        for s in cell.results.values()
        for k in metrics_of(s.record)
    }
    for key in wanted:
        if key not in measured | set(METRICS):
            raise unknown("metric in these studies", key, measured | set(METRICS))
    if wanted:
        return tuple(dict.fromkeys(wanted))
    return tuple(k for k in METRICS if k in measured or k in TABLE4_KEYS)
