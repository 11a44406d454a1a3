"""Shapley values of the objectives beside the increments of the paper's fixed order."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtv.leaderboards.attribution.cells import NAMES, Estimate
from mtv.leaderboards.attribution.shapley import Attribution
from mtv.leaderboards.figures.style import GREY, OBJECTIVE_COLOURS, new_figure, styled
from mtv.leaderboards.figures.synergy import LEGEND_ROW, head_line, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR = 0.36
PER_ROW = 4
UNITS = {"percent": "points", "m": "m, fall"}
"""Unit of a gain, by the unit of its metric."""


@styled
def draw_attribution(attributions: Sequence[Attribution], *, title: str = "") -> Figure:
    """One panel per metric: full bars are Shapley values, hollow ones the paper's order (SSL, Ground, Depth).

    Each has its interval. A grey mark beside each pair of bars spans the objective's increments over all orders.
    Metrics whose lattice has holes have a panel that says what is missing.

    Args:
        attributions: of one study, one per metric.
        title: above all panels.
    """
    columns = min(PER_ROW, max(1, len(attributions)))
    rows = max(1, math.ceil(len(attributions) / columns))
    figure = new_figure(4.4 * columns + 0.6, 4.6 * rows + 1.2 + LEGEND_ROW * math.ceil(4 / columns))
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k < len(attributions):
            _panel(axes, attributions[k])
        else:
            axes.set_axis_off()
    _legend(figure, columns)
    head_line(figure, title or "Attribution of the gain over VL", columns)
    return figure


def _panel(axes: Axes, attribution: Attribution) -> None:
    axes.set_title(short(attribution.key).replace("\n", " "), loc="left")
    if attribution.total is None:
        axes.set_axis_off()
        words = "\n".join(["missing", "", *textwrap.wrap(attribution.reason, 34)])
        text = axes.text(0, 0.95, words, va="top", fontsize=6, color=GREY, transform=axes.transAxes)
        text.set_in_layout(False)  # words must not push the panels apart
        return
    for x, c in enumerate(attribution.contributions):
        colour = OBJECTIVE_COLOURS[c.objective]
        _bar(axes, x - BAR / 2, c.shapley, facecolor=colour, edgecolor=colour)
        _bar(axes, x + BAR / 2, c.paper_order, facecolor="white", edgecolor=colour)
        low, high = c.span
        axes.plot([x + 0.45] * 2, [low, high], color=GREY, linewidth=1, marker="_", markersize=4)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(attribution.contributions)), [NAMES[c.objective] for c in attribution.contributions])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"gain [{UNITS.get(attribution.unit, attribution.unit)}]")
    axes.grid(axis="y")


def _bar(axes: Axes, x: float, estimate: Estimate, *, facecolor: str, edgecolor: str) -> None:
    axes.bar(x, estimate.value, BAR * 0.92, facecolor=facecolor, edgecolor=edgecolor, linewidth=1.2)
    if estimate.ci95 is not None:
        # Drawn end to end: a percentile interval may lie on one side of its value.
        axes.plot([x] * 2, estimate.ci95, color="black", linewidth=0.9, marker="_", markersize=4, markeredgewidth=0.9)


def _legend(figure: Figure, columns: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=GREY, edgecolor=GREY, label="Shapley value"),
        Patch(facecolor="white", edgecolor=GREY, label="paper's order"),
        Line2D([], [], color="black", marker="_", linewidth=0.9, label="95 % interval"),
        Line2D([], [], color=GREY, marker="_", linewidth=1, label="least to most over all orders"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)
