"""Measured rows with the paper's rows and the differences below them, as cells and as flat records; and the notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtv.leaderboards.formats import number_text
from mtv.leaderboards.frame import Stored
from mtv.leaderboards.grid import INTERVAL_NOTE, Cell, Row
from mtv.leaderboards.layout import Notes
from mtv.leaderboards.paper.cells import PaperCell
from mtv.leaderboards.paper.checks import doubts
from mtv.leaderboards.paper_tables.records import bounds, flat, of_paper
from mtv.leaderboards.published import from_paper, not_comparable

PAPER_NOTE = (
    "Rows `paper` quote the MTV paper (arXiv 2601.13886), which prints no intervals: that of a difference to it is the "
    "interval of the measured value. Protocol fields that the paper does not state were not compared."
)
DIRECTIONS_NOTE = "COCO T→I: captions search images; I→T: images search captions."


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One column of a measured row, and the paper's number for it."""

    cell: Cell
    """Measured, or why not."""
    record: Mapping[str, Any]
    """`flat` record of the measured number."""
    paper: PaperCell | None = None
    """Printed number; None where the paper has none."""
    stored: Stored | None = None
    """The result, for what is known of its protocol."""
    differs: str = ""
    """Why the two do not compare, where the builder knows."""
    step: bool = True
    """Show the paper's change from its row above too."""


def stacked(
    name: str,
    line: Sequence[Beside],
    notes: Notes,
    *,
    paper: str,
    against: str = "",
    lead: tuple[str, str] | None = None,
) -> tuple[list[Row], list[dict[str, Any]]]:
    """A measured row, the paper's below it, and their difference where anything compares; and the flat records.

    Args:
        name: of the measured row.
        line: one per metric column.
        notes: receives remarks and reasons.
        paper: name of the paper's row.
        against: why nothing in the row compares with the paper; empty where it may.
        lead: what the measured row and the paper's say in a column before the metrics, where there is one.
    """
    own, printed = lead or (None, None)
    rows = [Row(name=name, cells=(*_lead(own), *(b.cell for b in line)), kind="measured")]
    data = [dict(b.record) for b in line]
    if not any(b.paper for b in line):
        return rows, data
    below = published_row(line, notes, name=paper, against=against, lead=printed)
    rows.append(below[0])
    data += below[1]
    if against:
        return rows, data
    cells = [_difference(b) for b in line]
    if any(c.value is not None for c in cells):
        rows.append(Row(name="measured − paper", cells=(*_lead(lead and ""), *cells), kind="published"))
        data += [_difference_record(b, c) for b, c in zip(line, cells, strict=True) if c.value is not None]
    return rows, data


def published_row(
    line: Sequence[Beside], notes: Notes, *, name: str, against: str = "", lead: str | None = None
) -> tuple[Row, list[dict[str, Any]]]:
    """The paper's row and its flat records; arguments as of `stacked`."""
    cells = [_paper_cell(b, notes, marked=not against) for b in line]
    row = Row(name=f"{name}, not comparable" if against else name, cells=(*_lead(lead), *cells), kind="published")
    shared = ("table", "block", "row")
    data = [
        of_paper(b.paper, reason=against or _reason(b), **{k: b.record.get(k) for k in shared})
        for b in line
        if b.paper is not None
    ]
    return row, data


def _lead(text: str | None) -> tuple[Cell, ...]:
    return () if text is None else (Cell(text=text),)


def _reason(line: Beside) -> str:
    """Why a printed number does not compare with the measured one; empty where nothing is known to speak against it."""
    if line.differs or line.paper is None or line.stored is None or not line.paper.metric:
        return line.differs
    return not_comparable(from_paper("", line.paper), line.stored)


def _paper_cell(line: Beside, notes: Notes, *, marked: bool) -> Cell:
    """A number of the paper; marked where it does not compare, and where the paper contradicts itself."""
    cell = line.paper
    if cell is None:
        return Cell(text="–")
    marks = [notes.mark(f"{cell.table}: {cell.note}.")] if cell.note else []
    if marked and (reason := _reason(line)):
        marks.append(notes.mark(f"not comparable: {reason}."))
    marks += [notes.mark(f"{text}.") for text in doubts(cell)]
    label = ""
    if line.step and cell.step_value is not None:
        # Table 1 prints a unit with the change; Table 3 leaves out the zero before the point.
        plain = cell.quantity == "value"
        label = number_text(cell.step_value, cell.decimals, signed=True) if plain else cell.step
    signed = cell.quantity == "gain"
    return Cell(value=cell.value, decimals=cell.decimals, marks=tuple(marks), label=label, signed=signed)


def _difference(line: Beside) -> Cell:
    """Measured minus printed, with the interval of the measured value."""
    if line.paper is None or line.cell.value is None:
        return Cell(text="–")
    if _reason(line):
        return Cell(text="not comparable")
    value, ci95 = line.paper.value, line.cell.ci95
    shifted = None if ci95 is None else (ci95[0] - value, ci95[1] - value)
    digits = min(line.cell.decimals, line.paper.decimals)
    return Cell(value=line.cell.value - value, ci95=shifted, decimals=digits, signed=True)


def _difference_record(line: Beside, cell: Cell) -> dict[str, Any]:
    kept = {k: v for k, v in line.record.items() if v is not None and k not in ("kind", "step", "step_lo", "step_hi")}
    return flat(**{**kept, "kind": "difference", "value": cell.value, **bounds(cell.ci95)})


def group_row(title: str, width: int) -> Row:
    """A heading over the rows below it."""
    return Row(name=title, cells=tuple(Cell() for _ in range(width)), kind="group")


def all_notes(notes: Notes, general: Iterable[str], *, intervals: str = INTERVAL_NOTE) -> tuple[tuple[str, str], ...]:
    """Footnotes, then what holds for the whole table, then what intervals mean."""
    return (*notes.pairs(), *(("", t) for t in dict.fromkeys([*general, intervals]) if t))
