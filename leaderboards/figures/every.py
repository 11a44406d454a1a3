"""Every figure that a result store allows, with a description and its numbers, and why the others are not possible.

The report embeds them and `mtv-eval figures` writes them as files, so both show the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtv.errors import CacheError, UsageError
from mtv.leaderboards.attribution.analysis import StudyAnalysis, analyse, choose_keys
from mtv.leaderboards.attribution.gradients import GradientPoint, find_runs, gradient_table, read_gradients
from mtv.leaderboards.attribution.scaling import ScalingPoint, run_ends, scaling_points
from mtv.leaderboards.attribution.synergy import AverageSynergy
from mtv.leaderboards.attribution.tables import attribution_table, synergy_table
from mtv.leaderboards.figures.attribution import draw_attribution
from mtv.leaderboards.figures.gradients import draw_gradients
from mtv.leaderboards.figures.radar import Radar, draw_radar, leaders, radar_of_models, radar_of_study, radar_table
from mtv.leaderboards.figures.scaling import draw_scaling
from mtv.leaderboards.figures.synergy import draw_synergy
from mtv.leaderboards.frame import Stored, title_of
from mtv.leaderboards.grid import Cell, Column, Row, Table, decimals
from mtv.leaderboards.study import Study, studies

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure that the results allow."""

    name: str
    """File name without suffix: `radar`, `synergy-mini-...`."""
    title: str
    """In words."""
    alt: str
    """What a reader who cannot see it is told."""
    draw: Callable[[], Figure]
    """Draws it."""
    numbers: Table
    """What it shows, as a table."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """A figure that the results do not allow."""

    title: str
    """What it would be."""
    reason: str
    """Why it is not possible."""


@dataclass(frozen=True, kw_only=True)
class Studied:
    """The studies among results and what was computed about them, once for tables and figures."""

    analyses: tuple[StudyAnalysis, ...] = ()
    """One per study, the largest first."""
    points: tuple[ScalingPoint, ...] = ()
    """Of scaling curves, over all studies."""
    reason: str = ""
    """Why there is no study."""


def studied(records: Sequence[Stored]) -> Studied:
    """The studies among results; where there are none, or they cannot be laid out or read, the reason."""
    try:
        found = studies(records)
        keys = choose_keys(found)
        return Studied(
            analyses=tuple(analyse(s, keys) for s in found),
            points=tuple(scaling_points(found, keys)),
            reason="" if found else "no results of checkpoints of mtv-train",
        )
    except (UsageError, CacheError) as e:
        return Studied(reason=e.message)


def drawings(
    records: Sequence[Stored], study: Studied, *, runs: Sequence[Path] = ()
) -> tuple[list[Drawing], list[Obstacle]]:
    """Every figure, in the order of the report, and what is not possible.

    Args:
        records: all results.
        study: from `studied`, of the same results.
        runs: folders of training runs, or of many, for gradient cosines.

    Raises:
        UsageError: a folder of `runs` without a run.
        DataError: a log that cannot be read; names file and line.
    """
    found = [_radar("radar", radar_of_models(records), "Models on every shared task")]
    gradients = [p for folder in runs for run in find_runs(folder) for p in read_gradients(run)]
    for analysis in study.analyses:
        found += _of_study(analysis, records)
    found += [_scaling(study.points)] if study.analyses else []
    found += _gradients(study.analyses, gradients)
    if not study.analyses:
        names = ("Radar of objectives", "Synergy of objectives", "Attribution of the gain over VL", "Scaling curves")
        found += [Obstacle(title=n, reason=study.reason) for n in names]
    return [f for f in found if isinstance(f, Drawing)], [f for f in found if isinstance(f, Obstacle)]


def study_drawings(study: Studied, gradients: Sequence[GradientPoint]) -> tuple[list[Drawing], list[Obstacle]]:
    """What `mtv-eval synergy` draws: the figures of studies without their radars, and what is not possible."""
    found = [f for analysis in study.analyses for f in (_synergy(analysis), _attribution(analysis))]
    found += [_scaling(study.points), *_gradients(study.analyses, gradients)]
    return [f for f in found if isinstance(f, Drawing)], [f for f in found if isinstance(f, Obstacle)]


def _radar(name: str, radar: Radar, title: str) -> Drawing | Obstacle:
    if radar.obstacle:
        return Obstacle(title=f"Radar: {title}", reason=radar.obstacle)
    led = ", ".join(f"{who} on {n}" for who, n in leaders(radar).items() if n)
    alt = f"Radar of {len(radar.outlines)} outlines on {len(radar.axes)} axes; outermost: {led}."
    return Drawing(name=name, title=title, alt=alt, draw=lambda: draw_radar(radar), numbers=radar_table(radar))


def _name(study: Study) -> str:
    """What tells a study from every other, as part of a file name."""
    parts = (study.recipe, study.size, str(study.samples), study.study_hash[:8], study.data_hash[:8])
    return re.sub(r"[^\w.-]+", "-", "-".join(parts))


def _of_study(analysis: StudyAnalysis, records: Sequence[Stored]) -> list[Drawing | Obstacle]:
    study = analysis.study
    radar = _radar(f"radar-{_name(study)}", radar_of_study(study, records), f"Objectives: {study.title}")
    return [radar, _synergy(analysis), _attribution(analysis)]


def _synergy(analysis: StudyAnalysis) -> Drawing | Obstacle:
    title = f"Synergy of objectives: {analysis.study.title}"
    values = list(analysis.synergies.values())
    if all(v.missing for v in values):
        return Obstacle(title=title, reason=_reasons(v.reason for v in values))
    defined = sum(v.value is not None for v in values)
    return Drawing(
        name=f"synergy-{_name(analysis.study)}",
        title=title,
        alt=f"Heat map of synergy in per cent, pairs of objectives by metrics; {defined} of {len(values)} are defined.",
        draw=lambda: draw_synergy(analysis),
        numbers=synergy_table(analysis),
    )


def _attribution(analysis: StudyAnalysis) -> Drawing | Obstacle:
    title = f"Attribution of the gain over VL: {analysis.study.title}"
    found = [analysis.attributions[k] for k in analysis.keys]
    shown = [a for a in found if a.total is not None]
    if not shown:
        return Obstacle(title=title, reason=_reasons(a.reason for a in found))
    return Drawing(
        name=f"attribution-{_name(analysis.study)}",
        title=title,
        alt="Bars of each objective's Shapley value beside its increment in the paper's order, a panel per metric.",
        draw=lambda: draw_attribution(shown, title=title),
        numbers=attribution_table(analysis),
    )


def _reasons(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(t for t in texts if t))


def _scaling(points: Sequence[ScalingPoint]) -> Drawing | Obstacle:
    if not points:
        return Obstacle(title="Scaling curves", reason="no metric of the paper was measured")
    lines = Counter((p.metric, p.line) for p in points)
    if max(lines.values()) < 2 and not run_ends(points):
        return Obstacle(title="Scaling curves", reason="every run was measured after one number of samples only")
    metrics = len({p.metric for p in points})
    return Drawing(
        name="scaling",
        title="Scaling with samples seen",
        alt=f"{metrics} metrics over the number of samples seen, a line per set of objectives, with intervals.",
        draw=lambda: draw_scaling(points),
        numbers=_scaling_table(points),
    )


def _scaling_table(points: Sequence[ScalingPoint]) -> Table:
    keys = list(dict.fromkeys(p.metric for p in points))
    at = {(p.line, p.samples, p.metric): p for p in points}
    rows = []
    for line, samples in sorted({(p.line, p.samples) for p in points}):
        own = [at.get((line, samples, k)) for k in keys]
        some = next(p for p in own if p is not None)
        cells = [
            Cell(text="–") if p is None else Cell(value=p.value, ci95=_bounds(p), decimals=decimals(p.unit))
            for p in own
        ]
        where = Cell(text=f"{some.recipe}, {some.size}, data {some.data_hash[:8]}")
        rows.append(Row(name=some.objectives, cells=(where, Cell(value=float(samples), decimals=0), *cells)))
    columns = [
        Column(key="run", title="run", numeric=False),
        Column(key="samples", title="samples seen"),
        *(Column(key=k, title=_heading(k, next(p for p in points if p.metric == k))) for k in keys),
    ]
    return Table(title="Scaling with samples seen", head="objectives", columns=tuple(columns), rows=tuple(rows))


def _heading(key: str, point: ScalingPoint) -> str:
    unit = {"percent": "%"}.get(point.unit, point.unit)
    return f"{title_of(key, None)} [{unit}]{'' if point.higher_is_better else ' ↓'}"


def _bounds(point: ScalingPoint) -> tuple[float, float] | None:
    return None if point.lo is None or point.hi is None else (point.lo, point.hi)


def _gradients(analyses: Sequence[StudyAnalysis], points: Sequence[GradientPoint]) -> list[Drawing | Obstacle]:
    if not points:
        reason = "no training run with measured gradients was named (--runs)"
        return [Obstacle(title="Cosines between the objectives' gradients", reason=reason)]
    out: list[Drawing | Obstacle] = []
    known: set[str] = set()
    for analysis in analyses:
        own = {c.training.recipe_hash for c in analysis.study.cells.values()}
        if shown := [p for p in points if p.recipe_hash in own]:
            known |= own
            averages = list(analysis.averages.values())
            out.append(_cosines(f"gradients-{_name(analysis.study)}", analysis.study.title, shown, averages))
    if others := [p for p in points if p.recipe_hash not in known]:
        out.append(_cosines("gradients-other-runs", "runs without results", others, []))
    return out


def _cosines(name: str, of: str, points: Sequence[GradientPoint], averages: Sequence[AverageSynergy]) -> Drawing:
    title = f"Cosines between the objectives' gradients: {of}"
    return Drawing(
        name=name,
        title=title,
        alt="Cosines between the gradients of two objectives during training, a panel per set of objectives.",
        draw=lambda: draw_gradients(points, averages, title=title),
        numbers=gradient_table(points),
    )
