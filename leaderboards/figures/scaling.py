"""Metrics against samples seen, as the paper's Figure 3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from mtv.leaderboards.attribution.cells import NAMES
from mtv.leaderboards.attribution.scaling import ScalingPoint, run_ends
from mtv.leaderboards.figures.style import GREY, colour, marker, new_figure, styled
from mtv.leaderboards.figures.synergy import LEGEND_ROW, head_line, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_ROW = 4
_Style = Literal["-", "--", ":", "-."]
DASHES: tuple[_Style, ...] = ("-", "--", ":", "-.")
"""Line styles of different runs of one objective set."""
APART = 0.18
"""Least distance of two labels on the axis, as a share of it."""
ENDS = (0, (1, 1.5))
"""Line style that joins the ends of runs of several lengths."""
RATIO = 8
"""Range of samples, as a factor, from which on the axis is logarithmic."""


@styled
def draw_scaling(
    points: Sequence[ScalingPoint], *, references: Mapping[str, tuple[str, float]] | None = None, title: str = ""
) -> Figure:
    """One panel per metric; colour and marker tell objectives, line style tells runs of other length, data or size.

    Thin dots join the ends of runs of one recipe and several lengths (`run_ends`).

    Args:
        points: of `mtv.leaderboards.attribution.scaling.scaling_points`.
        references: metric to the name and value of a model for comparison, drawn as a dashed grey line.
        title: above all panels.
    """
    keys = list(dict.fromkeys(p.metric for p in points))
    columns = min(PER_ROW, max(1, len(keys)))
    rows = max(1, math.ceil(len(keys) / columns))
    objectives = sorted({p.objectives for p in points}, key=_rank)
    runs = list(dict.fromkeys(_run(p) for p in sorted(points, key=lambda p: (p.size, p.samples_total))))
    ends = run_ends(points)
    styles = _styles_to_tell(points, runs)
    entries = len(objectives) + len(styles) + bool(ends)
    figure = new_figure(
        4.6 * columns + 0.6, 4.4 * rows + 1.1 + LEGEND_ROW * math.ceil(entries / _legend_columns(columns))
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k >= len(keys):
            axes.set_axis_off()
            continue
        _panel(axes, [p for p in points if p.metric == keys[k]], objectives, runs)
        for joined in (j for j in ends if j[0].metric == keys[k]):
            x, y = [p.samples for p in joined], [p.value for p in joined]
            axes.plot(x, y, linestyle=ENDS, linewidth=1.0, color=colour(objectives.index(joined[0].objectives)))
        if references and keys[k] in references:
            name, value = references[keys[k]]
            axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6)
    _legend(figure, objectives, styles, columns, ends=bool(ends))
    head_line(figure, title or "Scaling with samples seen", columns)
    return figure


def _rank(objectives: str) -> tuple[int, list[int]]:
    """Fewer objectives first, then in the order of the paper's table."""
    names = [*NAMES.values()]
    own = [names.index(n) for n in objectives.split(" + ")]
    return len(own), own


def _legend_columns(columns: int) -> int:
    return max(1, columns - 1)


def _run(point: ScalingPoint) -> str:
    """Everything of a line but its objectives."""
    return point.line.removesuffix(f"/{point.objectives}")


def _styles_to_tell(points: Sequence[ScalingPoint], runs: Sequence[str]) -> dict[str, _Style]:
    """Line style of every run that has a line, where there are several runs."""
    drawn = {_run(p) for p in points if any(q.line == p.line and q.samples != p.samples for q in points)}
    return {r: DASHES[k % len(DASHES)] for k, r in enumerate(runs) if r in drawn and len(runs) > 1}


def _panel(axes: Axes, points: Sequence[ScalingPoint], objectives: Sequence[str], runs: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for line in dict.fromkeys(p.line for p in points):
        own = sorted((p for p in points if p.line == line), key=lambda p: p.samples)
        k, run = objectives.index(own[0].objectives), runs.index(_run(own[0]))
        x = [p.samples for p in own]
        style = DASHES[run % len(DASHES)]
        axes.plot(x, [p.value for p in own], style, color=colour(k), marker=marker(k))
        for p in own:
            if p.lo is not None and p.hi is not None:
                axes.plot([p.samples] * 2, [p.lo, p.hi], color=colour(k), linewidth=0.8, alpha=0.7)
    seen = [p.samples for p in points]
    logarithmic = max(seen) >= RATIO * min(seen) > 0
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(_ticks(seen, logarithmic))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: samples_text(v)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    arrow = "" if points[0].higher_is_better else " ↓"
    unit = {"percent": "%"}.get(points[0].unit, points[0].unit)
    axes.set_title(f"{short(points[0].metric)} [{unit}]{arrow}".replace("\n", " "), loc="left")
    axes.set_xlabel("samples seen")
    axes.grid(axis="y")


def _ticks(seen: Sequence[int], logarithmic: bool) -> list[int]:
    """The measured numbers of samples, without those whose labels would lie on another's."""
    place = {v: math.log(v) if logarithmic else float(v) for v in seen}
    apart = APART * (max(place.values()) - min(place.values()))
    kept = [max(seen)]
    for v in sorted(place, reverse=True):
        if kept[-1] != v and place[kept[-1]] - place[v] >= apart:
            kept.append(v)
    return kept[::-1]


def samples_text(samples: float) -> str:
    """`32k`, `1.5M`, `2B`."""
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if samples >= size:
            return f"{samples / size:.3g}{name}"
    return f"{samples:.0f}"


def _legend(
    figure: Figure, objectives: Sequence[str], styles: Mapping[str, _Style], columns: int, *, ends: bool
) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour(k), marker=marker(k), label=o) for k, o in enumerate(objectives)]
    parts = {r: r.split("/") for r in styles}
    data = len({p[3] for p in parts.values()}) > 1
    handles += [
        Line2D([], [], color="black", linestyle=style, label=_run_text(parts[r], data=data))
        for r, style in styles.items()
    ]
    if ends:
        handles.append(
            Line2D([], [], color="black", linestyle=ENDS, linewidth=1.0, label="ends of runs of several lengths")
        )
    figure.legend(handles=handles, loc="outside lower left", ncols=_legend_columns(columns))


def _run_text(parts: Sequence[str], *, data: bool) -> str:
    recipe, size, _, data_hash, total = parts
    name = recipe if size == recipe else f"{recipe} {size}"
    return f"{name}, run of {samples_text(int(total))}" + (f", data {data_hash}" if data else "")
