"""Heat map of synergy: pairs of objectives by metrics, as the paper's Table 4."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from mtv.leaderboards.attribution.analysis import StudyAnalysis
from mtv.leaderboards.attribution.cells import NAMES
from mtv.leaderboards.attribution.synergy import PAIRS, AverageSynergy, SynergyValue
from mtv.leaderboards.figures.style import GREY, new_figure, styled
from mtv.leaderboards.formats import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMIT = 100.0
"""Per cent at which the colour scale ends; a ratio can be far beyond, and the number is written in the cell."""
LEGEND_ROW = 0.45
"""Height in centimetres that a row of a figure's legend takes."""
SHORT = {
    "imagenet/top1": "IN-1k\ntop-1",
    "coco/t2i_r1": "COCO\nT→I",
    "coco/i2t_r1": "COCO\nI→T",
    "vqa/score": "VQA\nscore",
    "ade20k/miou": "ADE20k\nmIoU",
    "navi/avg_recall": "NAVI\nrecall",
    "spair/avg_recall": "SPair\nrecall",
    "nyuv2/rmse": "NYUv2\nRMSE",
}
"""Column heads of the paper's tables."""


def short(key: str) -> str:
    """A metric's name in two short lines."""
    return SHORT.get(key, key.replace("/", "\n"))


def head_line(figure: Figure, title: str, columns: int) -> None:
    """A title above all panels, broken where it would be wider than `columns` of them."""
    figure.suptitle("\n".join(textwrap.wrap(title, 32 * columns)), x=0.01, ha="left", fontsize=9)


@styled
def draw_synergy(analysis: StudyAnalysis) -> Figure:
    """Pairs by metrics and their average, purple where objectives support each other, orange where they interfere.

    Undefined cells are hatched and say so, missing ones are grey and empty of colour; the interval stands below the
    number.
    """
    columns = [*analysis.keys, *(["average"] if analysis.averages else [])]
    figure = new_figure(4.2 + 1.9 * len(columns), 1.9 + 1.35 * len(PAIRS))
    axes = figure.add_subplot()
    for row, pair in enumerate(PAIRS):
        for column, key in enumerate(columns):
            value = analysis.averages[pair] if key == "average" else analysis.synergies[pair, key]
            _cell(axes, row, column, value)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(PAIRS), 0)
    axes.set_xticks(
        [c + 0.5 for c in range(len(columns))], [short(k) if k != "average" else "Average" for k in columns]
    )
    axes.set_yticks([r + 0.5 for r in range(len(PAIRS))], [" + ".join(NAMES[o] for o in p) for p in PAIRS])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if analysis.averages:
        axes.axvline(len(columns) - 1, color="white", linewidth=4)
    axes.set_title(f"Task synergy over VL [%]\n{analysis.study.title}", loc="left")
    _scale(figure, axes)
    return figure


def _cell(axes: Axes, row: int, column: int, value: SynergyValue | AverageSynergy) -> None:
    from matplotlib.patches import Rectangle

    missing = value.missing if isinstance(value, SynergyValue) else not (value.n_defined or value.n_undefined)
    if value.value is None:
        look: dict[str, Any] = (
            {"facecolor": "#eeeeee"} if missing else {"facecolor": "white", "hatch": "////", "edgecolor": "#bbbbbb"}
        )
        axes.add_patch(Rectangle((column + 0.02, row + 0.03), 0.96, 0.94, linewidth=0, **look))
        box = {"boxstyle": "round,pad=0.15", "facecolor": "#eeeeee" if missing else "white", "edgecolor": "none"}
        text = "missing" if missing else "undefined"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color=GREY, bbox=box)
        return
    percent = 100 * value.value
    colour, ink = _colour(percent)
    axes.add_patch(Rectangle((column + 0.02, row + 0.03), 0.96, 0.94, facecolor=colour, linewidth=0))
    axes.text(
        column + 0.5, row + 0.4, number_text(percent, 1, signed=True), ha="center", va="center", fontsize=8, color=ink
    )
    below = _below(value)
    axes.text(column + 0.5, row + 0.72, below, ha="center", va="center", fontsize=5.5, color=ink)


def _below(value: SynergyValue | AverageSynergy) -> str:
    """The interval, and of an average how many metrics entered."""
    bounds = "no interval"
    if value.ci95 is not None:
        bounds = "[{}, {}]".format(*(number_text(100 * v, 0, signed=True) for v in value.ci95))
    if isinstance(value, AverageSynergy):
        return f"{bounds}\n{value.n_defined} of {value.n_defined + value.n_undefined + value.n_missing} metrics"
    return bounds


def _colour(percent: float) -> tuple[tuple[float, ...], str]:
    """Fill, and black or white for what is written on it."""
    from matplotlib import colormaps

    fill = colormaps["PuOr"](0.5 + 0.5 * max(-1.0, min(1.0, percent / LIMIT)))
    luminance = 0.2126 * fill[0] + 0.7152 * fill[1] + 0.0722 * fill[2]
    return fill, "black" if luminance > 0.45 else "white"


def _scale(figure: Figure, axes: Axes) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(-LIMIT, LIMIT), colormaps["PuOr"]), ax=axes, extend="both", shrink=0.9, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.set_label("interference        support", fontsize=7)
