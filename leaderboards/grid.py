"""What every command that prints results builds: a table of cells that still know their numbers.

Builders decide what stands where; `mtv.leaderboards.formats` decides what it looks like.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

INTERVAL_NOTE = (
    "Intervals are 95 % and cover the choice of test samples only: not training seeds, not the fitting of a head."
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number with its interval, or words where there is none."""

    value: float | None = None
    """Number; None where `text` stands instead."""
    ci95: tuple[float, float] | None = None
    """95 % interval around `value`."""
    decimals: int = 1
    """Digits after the point, of value and interval."""
    signed: bool = False
    """Show a plus sign: for differences."""
    text: str = ""
    """Stands in place of the number: `not run`, `failed: ...`, `n/a`."""
    best: bool = False
    """Best of its column."""
    marks: tuple[str, ...] = ()
    """Marks of the footnotes that concern the cell."""
    label: str = ""
    """Shown behind the number: `limit 100`, `not comparable: ...`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Heading of a column."""

    key: str
    """`task/metric`, or a name of the builder's own."""
    title: str
    """Heading in words, with unit and direction."""
    label: str = ""
    """Second line: what holds for all cells, such as `subset (79 of 5000)`."""
    numeric: bool = True
    """Right-aligned."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line."""

    name: str
    """First column."""
    cells: tuple[Cell, ...]
    """One per column."""
    kind: Literal["measured", "published", "plain", "group"] = "plain"
    """Published rows are set apart; a group is the heading of the rows below it, and its cells are empty."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready for rendering, and the same content as plain records for machines."""

    title: str
    """Above the table."""
    head: str
    """Heading of the first column."""
    columns: tuple[Column, ...]
    """Without the first column, which holds the row names."""
    rows: tuple[Row, ...]
    """Lines in order."""
    notes: tuple[tuple[str, str], ...] = ()
    """(mark, text) below the table; an empty mark for a general note."""
    best: str = "best of its column among measured values"
    """What bold means."""
    data: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    """One flat record per number: what csv and json print. All have the same keys."""


DECIMALS = {"percent": 1, "m": 3, "rank": 1, "points": 1}
"""Digits after the point per unit; two for any other."""


def decimals(unit: str) -> int:
    """Digits after the point that tables show for `unit`."""
    return DECIMALS.get(unit, 2)
