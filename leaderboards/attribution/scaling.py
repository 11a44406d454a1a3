"""A metric against the number of samples seen, over studies and checkpoints: the points of curves as in Figure 3.

A line joins checkpoints of one recipe, training set, length of training and objective set. Checkpoints on the way of a
long run and the ends of shorter runs are different lines, because their learning-rate schedules differ. `run_ends`
are runs of several lengths at their ends, as the paper trained three for its figure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mtv.leaderboards.attribution.cells import CellDraws, draw_cells, label
from mtv.leaderboards.frame import metrics_of
from mtv.leaderboards.study import Objectives, Study

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """One objective set after one number of samples."""

    line: str
    """Points of one line share it: recipe, size, length of training, training data, objectives."""
    recipe: str
    """Name of the recipe."""
    size: str
    """Model size."""
    data_hash: str
    """Of the training data."""
    objectives: str
    """`VL + SSL`."""
    samples: int
    """Samples seen."""
    samples_total: int
    """Samples of the whole run."""
    metric: str
    """`task/metric`."""
    value: float
    """Mean over seeds, in `unit`."""
    lo: float | None
    """Lower end of the 95 % interval; None without one."""
    hi: float | None
    """Upper end."""
    level: str
    """What the interval covers: `samples`, or `seeds and samples`."""
    n_seeds: int
    """Training seeds averaged."""
    unit: str
    """Of value and interval."""
    higher_is_better: bool
    """Direction."""


def scaling_points(
    studies: Sequence[Study], metric_keys: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> list[ScalingPoint]:
    """Every measured point, by metric, line and samples.

    Args:
        studies: of `mtv.leaderboards.study.studies`: each is one number of samples.
        metric_keys: `task/metric`; studies without a metric give no point.
        resamples: bootstrap resamples where several seeds are averaged.
        seed: of the bootstrap.

    Raises:
        UsageError: a key without a task; what `draw_cells` raises.
        CacheError: a sample table is missing, or does not give the recorded value.
    """
    found = []
    for key in metric_keys:
        own: list[ScalingPoint] = []
        for study in studies:
            draws: CellDraws | None = None
            for objectives in study.subsets:
                # One seed keeps the interval of its record (Wilson where that applies): nothing needs to be drawn.
                if draws is None and len(_measured(study, objectives, key)) > 1:
                    draws = draw_cells(study, key, resamples=resamples, seed=seed)
                own += _points(study, objectives, key, draws)
        found += sorted(own, key=lambda p: (p.line, p.samples))
    return found


def run_ends(points: Sequence[ScalingPoint]) -> list[list[ScalingPoint]]:
    """Ends of runs that differ in their length, shortest first: by metric and objective set, two at least.

    They share recipe and training data, but for the paper's own runs of a size, which are one family by design (10M to
    100M pictures, nested). Where two runs of the same length differ otherwise, nothing says which one belongs, and that
    set of ends is left out.
    """
    groups: dict[tuple[str, ...], list[ScalingPoint]] = {}
    for p in points:
        if p.samples == p.samples_total:
            groups.setdefault((p.metric, p.objectives, p.size, *_family(p)), []).append(p)
    found = []
    for own in groups.values():
        lengths = {p.samples_total for p in own}
        if len(own) > 1 and len(lengths) == len(own):
            found.append(sorted(own, key=lambda p: p.samples_total))
    return found


def _family(point: ScalingPoint) -> tuple[str, ...]:
    paper = re.fullmatch(r"(mtv_(?:b16|l16))_\d+m", point.recipe)
    return (paper[1],) if paper else (point.recipe, point.data_hash)


def scaling_frame(
    studies: Sequence[Study], metric_keys: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """`scaling_points` as a tidy frame, one row per point and one column per field; needs pandas."""
    import pandas as pd

    points = scaling_points(studies, metric_keys, resamples=resamples, seed=seed)
    return pd.DataFrame([asdict(p) for p in points], columns=list(ScalingPoint.__dataclass_fields__))


def _measured(study: Study, objectives: Objectives, key: str) -> list[int]:
    """Seeds in which the objective set has a value."""
    out = []
    for cell in study.of(objectives):
        stored = cell.results.get(key.partition("/")[0])
        metric = metrics_of(stored.record).get(key) if stored else None
        if metric is not None and metric.value is not None:
            out.append(cell.training.seed)
    return out


def _points(study: Study, objectives: Objectives, key: str, draws: CellDraws | None) -> list[ScalingPoint]:
    seeds = _measured(study, objectives, key)
    if not seeds:
        return []
    stored = study.cells[objectives, seeds[0]].results[key.partition("/")[0]]
    metric = metrics_of(stored.record)[key]
    if draws is None or len(seeds) == 1:
        assert metric.value is not None, "seeds with a value only"
        value, ci95, level = metric.value, metric.ci95, "samples"
    else:
        mean = draws.mean(objectives, seeds)
        value, ci95, level = mean.value, mean.ci95, "seeds and samples"
    parts = (study.recipe, study.size, study.study_hash[:8], study.data_hash[:8], str(study.samples_total))
    return [
        ScalingPoint(
            line="/".join((*parts, label(objectives))),
            recipe=study.recipe,
            size=study.size,
            data_hash=study.data_hash,
            objectives=label(objectives),
            samples=study.samples,
            samples_total=study.samples_total,
            metric=key,
            value=value,
            lo=ci95[0] if ci95 else None,
            hi=ci95[1] if ci95 else None,
            level=level,
            n_seeds=len(seeds),
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
        )
    ]
