"""The radar of the paper's Figure 1: one axis per task, one outline per model or per set of objectives.

* Axes have different units and directions, so each runs from the worst of the outlines shown (inner ring) to the best
  of them (outer ring), and prints both values. The shape says who leads where, not by how much: the numbers do.
* Only values that may share a column of a table share an axis: those of its most frequent protocol and data set.
* A model without a value on an axis has a gap there, never a zero.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtv.leaderboards.attribution.cells import label
from mtv.leaderboards.figures.style import colour, marker, new_figure, styled
from mtv.leaderboards.formats import number_text
from mtv.leaderboards.frame import TITLES, UNITS, Stored, metrics_of, model_labels, model_order, title_of
from mtv.leaderboards.grid import Cell, Column, Row, Table, decimals
from mtv.leaderboards.layout import Slot, make_slots
from mtv.leaderboards.study import Study
from mtv.results import MetricValue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INNER = 0.3
"""Radius of the worst value: no outline collapses into the centre."""
MOST_OUTLINES = 8
"""Outlines that can be told apart."""
FEWEST_AXES = 3
"""A radar of two axes is a line."""
CHAIN = (("vl",), ("vl", "ssl"), ("vl", "ssl", "ground"), ("vl", "ssl", "ground", "depth"))
"""Objectives in the order in which the paper adds them."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of the radar."""

    key: str
    """`task/metric`."""
    metric: MetricValue
    """One of the values, for unit and direction."""

    def span(self, values: Sequence[float | None]) -> str:
        """`worst to best unit` of the values shown on it."""
        known = sorted(v for v in values if v is not None)
        ends = (known[0], known[-1]) if self.metric.higher_is_better else (known[-1], known[0])
        shown = " to ".join(number_text(v, decimals(self.metric.unit)) for v in ends)
        return f"{shown} {UNITS.get(self.metric.unit, self.metric.unit)}"


@dataclass(frozen=True, kw_only=True)
class Radar:
    """What a radar shows."""

    title: str
    """Above it."""
    axes: tuple[Axis, ...]
    """Clockwise from the top."""
    outlines: Mapping[str, tuple[float | None, ...]]
    """Name to a value per axis, in the unit of the axis; None where there is none."""
    notes: tuple[str, ...] = ()
    """What was left out."""

    @property
    def obstacle(self) -> str:
        """Why it cannot be drawn, or an empty string."""
        if len(self.axes) < FEWEST_AXES:
            found = ", ".join(a.key for a in self.axes) or "none"
            return (
                f"it needs {FEWEST_AXES} metrics that at least two models share; there are {len(self.axes)} ({found})"
            )
        return "" if len(self.outlines) > 1 else "it compares at least two models"


def radar_of_models(records: Sequence[Stored]) -> Radar:
    """Every measured model on every headline metric that at least two of them share."""
    labels = model_labels(records)
    slots = [s for s in make_slots(records, allow_mixed=True) if s.groups]
    models = sorted(model_order(records), key=lambda m: _eagerness(next(s for s in records if s.model == m)))
    values = {labels[m]: [_value(slot, m) for slot in slots] for m in models}
    mixed = [f"{s.key}: results under another protocol or on other data are left out." for s in slots if s.mixed]
    return _radar("Models", slots, values, mixed)


def radar_of_study(study: Study, records: Sequence[Stored]) -> Radar:
    """The objective sets of a study, means over its seeds.

    Args:
        study: its chain VL, + SSL, + Ground, + Depth is drawn where two or more of it are there, else every subset.
        records: the results of its cells and any others; they give the axes.
    """
    models = {c.model for c in study.cells.values()}
    slots = [s for s in make_slots([r for r in records if r.model in models], allow_mixed=True) if s.groups]
    chain = [o for o in CHAIN if study.of(o)]
    values: dict[str, list[float | None]] = {}
    for objectives in chain if len(chain) > 1 else study.subsets:
        columns = [[_value(slot, cell.model) for cell in study.of(objectives)] for slot in slots]
        values[label(objectives)] = [_mean(c) for c in columns]
    seeds = [f"Means over {len(study.seeds)} training seeds."] if len(study.seeds) > 1 else []
    return _radar(study.title, slots, values, seeds)


def _eagerness(stored: Stored) -> tuple[bool, int]:
    """Where there are too many models: other people's and finished ones first, then by seed, then as they came."""
    training = stored.record.model.get("training")
    return (False, -1) if not training else (training["samples"] < training["samples_total"], int(training["seed"]))


def _value(slot: Slot, model: tuple[str, str]) -> float | None:
    own = (s for s in slot.groups[0] if s.model == model)
    found = (metrics_of(s.record).get(slot.key) for s in own)
    return next((m.value for m in found if m is not None), None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _radar(title: str, slots: Sequence[Slot], values: Mapping[str, list[float | None]], notes: list[str]) -> Radar:
    """Axes that two or more share; of too many outlines those with most axes, in their order."""
    used = [k for k, s in enumerate(slots) if s.metric and sum(v[k] is not None for v in values.values()) > 1]
    known = {name: sum(v[k] is not None for k in used) for name, v in values.items()}
    ranked = sorted((n for n in known if known[n]), key=lambda n: -known[n])[:MOST_OUTLINES]
    if left := [n for n in known if n not in ranked]:
        notes = [*notes, f"Not drawn, with the fewest shared metrics: {', '.join(left)}."]
    return Radar(
        title=title,
        axes=tuple(Axis(key=slots[k].key, metric=m) for k in used if (m := slots[k].metric)),
        outlines={n: tuple(values[n][k] for k in used) for n in known if n in ranked},
        notes=tuple(notes),
    )


def radii(values: Sequence[float | None], *, higher_is_better: bool) -> list[float | None]:
    """Values of one axis as radii: the worst at `INNER`, the best at 1; all at 1 where they are equal."""
    known = [v for v in values if v is not None]
    if not known:
        return [None] * len(values)
    worst, best = (min(known), max(known)) if higher_is_better else (max(known), min(known))
    if worst == best:
        return [None if v is None else 1.0 for v in values]
    return [None if v is None else INNER + (1 - INNER) * ((v - worst) / (best - worst)) for v in values]


def leaders(radar: Radar) -> dict[str, int]:
    """How many axes each outline leads, ties included."""
    out = dict.fromkeys(radar.outlines, 0)
    for k, axis in enumerate(radar.axes):
        column = {name: v for name, values in radar.outlines.items() if (v := values[k]) is not None}
        best = (max if axis.metric.higher_is_better else min)(column.values())
        for name, value in column.items():
            out[name] += value == best
    return out


def radar_table(radar: Radar) -> Table:
    """The numbers of the radar: outlines by axes."""
    columns = tuple(Column(key=a.key, title=title_of(a.key, a.metric)) for a in radar.axes)
    rows = []
    for name, values in radar.outlines.items():
        cells = (
            Cell(text="–") if v is None else Cell(value=v, decimals=decimals(a.metric.unit))
            for a, v in zip(radar.axes, values, strict=True)
        )
        rows.append(Row(name=name, cells=tuple(cells)))
    notes = tuple(("", n) for n in radar.notes)
    return Table(title=f"Numbers of the radar: {radar.title}", head="", columns=columns, rows=tuple(rows), notes=notes)


@styled
def draw_radar(radar: Radar) -> Figure:
    """Outlines from the worst (inner ring) to the best (outer ring) of each axis. Needs an empty `obstacle`."""
    rows = math.ceil(len(radar.outlines) / 2)
    figure = new_figure(15, 10.5 + 0.45 * rows)
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlim(-1.8, 1.8)
    angles = [math.pi / 2 - 2 * math.pi * k / len(radar.axes) for k in range(len(radar.axes))]
    axes.set_ylim(min(math.sin(a) for a in angles) - 0.3, 1.3)
    columns = [
        radii([v[k] for v in radar.outlines.values()], higher_is_better=a.metric.higher_is_better)
        for k, a in enumerate(radar.axes)
    ]
    _web(axes, angles)
    for k, axis in enumerate(radar.axes):
        _label(axes, angles[k], axis, [v[k] for v in radar.outlines.values()])
    for k, name in enumerate(radar.outlines):
        _outline(axes, angles, [c[k] for c in columns], name, k)
    figure.suptitle(radar.title, fontsize=9)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _web(axes: Axes, angles: Sequence[float]) -> None:
    for radius in (INNER, (1 + INNER) / 2, 1.0):
        ring = [*angles, angles[0]]
        x, y = [radius * math.cos(a) for a in ring], [radius * math.sin(a) for a in ring]
        axes.plot(x, y, color="#bbbbbb", linewidth=0.6, zorder=1)
    for a in angles:
        axes.plot([0, math.cos(a)], [0, math.sin(a)], color="#dddddd", linewidth=0.6, zorder=1)


def _label(axes: Axes, angle: float, axis: Axis, values: Sequence[float | None]) -> None:
    """Name of the axis at its end, with the values of inner and outer ring."""
    name = "\n".join(textwrap.wrap(TITLES.get(axis.key) or axis.key.replace("/", " "), 20))
    x, y = math.cos(angle), math.sin(angle)
    across = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    down = "bottom" if y > 0.9 else "top" if y < -0.9 else "center"
    axes.text(1.08 * x, 1.08 * y, f"{name}\n{axis.span(values)}", ha=across, va=down, fontsize=7, color="black")


def _outline(axes: Axes, angles: Sequence[float], radius: Sequence[float | None], name: str, k: int) -> None:
    """One closed line; where a value is missing, it is open."""
    x = [math.nan if r is None else r * math.cos(a) for r, a in zip(radius, angles, strict=True)]
    y = [math.nan if r is None else r * math.sin(a) for r, a in zip(radius, angles, strict=True)]
    dashes = ("-", "--", "-.", ":")[k % 4]
    axes.plot([*x, x[0]], [*y, y[0]], color=colour(k), marker=marker(k), linestyle=dashes, label=name, zorder=3)
