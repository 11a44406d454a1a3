"""Cosines between the objectives' gradients during training, beside the synergy that they should explain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtv.leaderboards.attribution.cells import ADDED, BASELINE, NAMES, label
from mtv.leaderboards.attribution.gradients import GradientPoint
from mtv.leaderboards.attribution.synergy import AverageSynergy
from mtv.leaderboards.figures.scaling import samples_text
from mtv.leaderboards.figures.style import GREY, colour, marker, new_figure, styled
from mtv.leaderboards.figures.synergy import LEGEND_ROW, head_line
from mtv.leaderboards.formats import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_ROW = 3
ORDER = (BASELINE, *ADDED)
PAIRS = tuple((a, b) for k, a in enumerate(ORDER) for b in ORDER[k + 1 :])
"""All pairs of objectives; the position decides colour and marker."""


@styled
def draw_gradients(
    points: Sequence[GradientPoint], synergies: Sequence[AverageSynergy] = (), *, title: str = ""
) -> Figure:
    """One panel of cosine curves per objective set, and one of the average synergy of the same pairs.

    Runs of one objective set (seeds) are thin lines; the thick line is their mean.

    Args:
        points: of `mtv.leaderboards.attribution.gradients.read_gradients`, of any runs.
        synergies: average synergy per pair, of the study that these runs are; without them there is no such panel.
        title: above all panels.
    """
    cosines = [p for p in points if p.kind == "cosine" and p.value is not None]
    sets = sorted({p.objectives for p in cosines}, key=lambda o: (len(o), [ORDER.index(t) for t in o if t in ORDER]))
    count = len(sets) + bool(synergies)
    columns = min(PER_ROW, max(1, count))
    rows = max(1, math.ceil(count / columns))
    figure = new_figure(5.8 * columns + 0.6, 4.8 * rows + 1.2 + LEGEND_ROW * math.ceil(len(PAIRS) / (2 * columns)))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, objectives in zip(grid, sets, strict=False):
        _curves(axes, [p for p in cosines if p.objectives == objectives])
        axes.set_title(label(objectives), loc="left")
        axes.sharey(grid[0])
    if synergies:
        _synergy(grid[len(sets)], synergies)
    for axes in grid[count:]:
        axes.set_axis_off()
    _legend(figure, {_pair(p) for p in cosines}, columns)
    head_line(figure, title or "Cosine between the objectives' gradients on the trunk", columns)
    return figure


def _pair(point: GradientPoint) -> tuple[str, str]:
    first, second = sorted((point.a, point.b), key=ORDER.index)
    return first, second


def _curves(axes: Axes, points: Sequence[GradientPoint]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    by_samples = all(p.samples is not None for p in points)
    for pair in sorted({_pair(p) for p in points}, key=PAIRS.index):
        own = [p for p in points if _pair(p) == pair]
        k = PAIRS.index(pair)
        at: dict[int, list[float]] = {}
        for run in dict.fromkeys((p.run, p.seed) for p in own):
            line = sorted((_x(p, by_samples), p.value) for p in own if (p.run, p.seed) == run and p.value is not None)
            for x, value in line:
                at.setdefault(x, []).append(value)
            axes.plot([x for x, _ in line], [v for _, v in line], color=colour(k), linewidth=0.5, alpha=0.5)
        # The mean only where every run measured: it must not jump when a shorter run ends.
        whole = [x for x in sorted(at) if len(at[x]) == max(map(len, at.values()))]
        axes.plot(whole, [float(np.mean(at[x])) for x in whole], color=colour(k), marker=marker(k), markevery=0.2)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("samples seen" if by_samples else "step")
    axes.set_ylabel("cosine")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: samples_text(v)))
    axes.grid(axis="y")


def _x(point: GradientPoint, by_samples: bool) -> int:
    return point.samples if by_samples and point.samples is not None else point.step


def _synergy(axes: Axes, synergies: Sequence[AverageSynergy]) -> None:
    for row, average in enumerate(synergies):
        first, second = sorted(average.pair, key=ORDER.index)
        k = PAIRS.index((first, second))
        if average.value is None:
            axes.text(0, row, " undefined" if average.n_undefined else " missing", va="center", fontsize=7, color=GREY)
            continue
        axes.barh(row, 100 * average.value, 0.5, color=colour(k))
        ends = [0.0, 100 * average.value]
        if average.ci95 is not None:
            low, high = (100 * v for v in average.ci95)
            axes.plot([low, high], [row] * 2, color="black", linewidth=0.9, marker="|", markersize=5)
            ends += [low, high]
        text = number_text(100 * average.value, 1, signed=True)
        axes.annotate(f" {text}", (max(ends), row), va="center", fontsize=7)
    axes.set_yticks(range(len(synergies)), [" + ".join(NAMES[o] for o in s.pair) for s in synergies])
    axes.set_ylim(len(synergies) - 0.4, -0.6)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.margins(x=0.18)
    axes.set_xlabel("average synergy over VL [%]")
    axes.set_title("Synergy of the same pairs", loc="left")


def _legend(figure: Figure, pairs: set[tuple[str, str]], columns: int) -> None:
    from matplotlib.lines import Line2D

    shown = sorted(pairs, key=PAIRS.index)
    handles = [
        Line2D([], [], color=colour(k), marker=marker(k), label=" · ".join(NAMES[o] for o in p))
        for p in shown
        for k in (PAIRS.index(p),)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=2 * columns)
