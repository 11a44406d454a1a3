"""Does the paper add up? Everything in its tables that other printed cells determine, computed again.

* Arithmetic is exact (fractions of the printed decimals). A printed number stands for the range that rounds to it, so a
  cell contradicts the others only if no true values behind the printed ones could give it; one that merely rounds to
  another last digit is told apart.
* SSL + Grounding is the one pair of Table 4 that Table 3 bounds: the larger single gain is at least that of SSL, so
  the synergy is at most (gain of the pair - gain of SSL) / gain of SSL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from typing import Literal

from mtv.leaderboards.paper.cells import ALL, PaperCell, cells, find

Kind = Literal["step", "gain", "average", "bound", "repeated"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One printed number against what other printed numbers say it is."""

    kind: Kind
    """`step` from the row above, `gain` over VL, `average` over a row; `bound` from above; `repeated` in the text."""
    cell: PaperCell
    """What is checked."""
    printed: Fraction
    """The number under test: the cell's, or its step."""
    half: Fraction
    """Half a unit of its last digit."""
    expected: Fraction
    """From the other cells as printed; the largest possible value for a bound."""
    low: Fraction | None
    """Smallest value that the roundings of the other cells allow; None for a bound."""
    high: Fraction
    """Largest one."""

    @property
    def contradicts(self) -> bool:
        """Whether no values behind the printed numbers fit together."""
        above = self.printed - self.half > self.high
        return above or (self.low is not None and self.printed + self.half < self.low)

    @property
    def rounds_otherwise(self) -> bool:
        """Whether it could be true, but the printed cells give another last digit."""
        return not self.contradicts and self.kind != "bound" and abs(self.expected - self.printed) > self.half

    @property
    def text(self) -> str:
        """One sentence."""
        p, e = float(self.printed), float(self.expected)
        end = "" if self.contradicts else "; rounding of the cells explains it"
        if self.kind == "bound":
            return (
                f"{self.cell.where}: {p:g} % is more than Table 3 allows: (gain of SSL + Ground. - gain of SSL) / gain "
                f"of SSL is {e:.1f} %, at most {float(self.high):.1f} % with rounding"
            )
        if self.kind == "repeated":
            return f"{self.cell.where}: {self.cell.printed}, but the table has {e:g}"
        how = {"step": "change from the row above", "gain": "gain over VL", "average": "mean of the row"}[self.kind]
        return f"{self.cell.where}: {p:g} printed, {how} is {e:.4g}{end}"


@cache
def checks() -> tuple[Check, ...]:
    """Every check that the printed cells allow, in the order of the tables."""
    return (*_table1(), *_table3(), *_averages(), *_bounds(), *_text())


def contradictions(table: str = "") -> tuple[Check, ...]:
    """Cells that cannot be true together with the others.

    Args:
        table: `Table 4`, ...; every table when empty.
    """
    return tuple(c for c in checks() if c.contradicts and table in ("", c.cell.table))


def rounded_otherwise(table: str = "") -> tuple[Check, ...]:
    """Cells whose last digit differs from what the printed cells give, within their rounding."""
    return tuple(c for c in checks() if c.rounds_otherwise and table in ("", c.cell.table))


def doubts(cell: PaperCell) -> tuple[str, ...]:
    """What the other cells say against a cell, one sentence each: for the notes of a table that shows it."""
    return _doubts().get(cell.where, ())


@cache
def _doubts() -> dict[str, tuple[str, ...]]:
    out: dict[str, tuple[str, ...]] = {}
    for check in (*contradictions(), *rounded_otherwise()):
        out[check.cell.where] = (*out.get(check.cell.where, ()), check.text)
    return out


def _exact(printed: str) -> Fraction:
    return Fraction(printed.rstrip(" M%"))


def _half(printed: str) -> Fraction:
    digits = len(printed.rstrip(" M%").partition(".")[2])
    return Fraction(1, 2 * 10**digits)


def _difference(kind: Kind, cell: PaperCell, printed: str, now: PaperCell, before: PaperCell) -> Check:
    expected = _exact(now.printed) - _exact(before.printed)
    slack = _half(now.printed) + _half(before.printed)
    return Check(
        kind=kind,
        cell=cell,
        printed=_exact(printed),
        half=_half(printed),
        expected=expected,
        low=expected - slack,
        high=expected + slack,
    )


def _table1() -> Iterator[Check]:
    for quantity in ("params", "time"):
        rows = [c for c in cells("table1") if c.quantity == quantity]
        for before, now in pairwise(rows):
            if quantity == "params":
                yield _difference("step", now, now.step, now, before)
                continue
            a, b = _exact(before.printed), _exact(now.printed)
            ends = [100 * (y / x - 1) for x, y in product(_ends(before), _ends(now))]
            yield Check(
                kind="step",
                cell=now,
                printed=_exact(now.step),
                half=_half(now.step),
                expected=100 * (b / a - 1),
                low=min(ends),
                high=max(ends),
            )


def _table3() -> Iterator[Check]:
    for cell in cells("table3"):
        place = {"size": cell.size, "data": cell.data, "metric": cell.metric, "quantity": "value"}
        if cell.quantity == "gain":
            last, first = (find("table3", **place, objectives=o) for o in (ALL, ALL[:1]))
            assert last is not None, cell.where
            assert first is not None, cell.where
            yield _difference("gain", cell, cell.printed, last, first)
        elif cell.objectives != ALL[:1]:
            before = find("table3", **place, objectives=cell.objectives[:-1])
            assert before is not None, cell.where
            # A step that is not printed is a step of nothing.
            yield _difference("step", cell, cell.step or f"{0:.{cell.decimals}f}", cell, before)


def _averages() -> Iterator[Check]:
    for average in (c for c in cells("table4") if c.quantity == "average"):
        of = [c for c in cells("table4") if c.row == average.row and c.quantity == "synergy"]
        mean = sum((_exact(c.printed) for c in of), Fraction(0)) / len(of)
        slack = sum((_half(c.printed) for c in of), Fraction(0)) / len(of)
        yield Check(
            kind="average",
            cell=average,
            printed=_exact(average.printed),
            half=_half(average.printed),
            expected=mean,
            low=mean - slack,
            high=mean + slack,
        )


def _bounds() -> Iterator[Check]:
    for cell in cells("table4"):
        if cell.quantity != "synergy" or cell.objectives != ("ssl", "ground"):
            continue
        path = _path(cell)
        # The ratio is monotone in each of the three values, so its largest value lies at a corner of their roundings.
        corners = product(*(_ends(c) for c in path))
        yield Check(
            kind="bound",
            cell=cell,
            printed=_exact(cell.printed),
            half=_half(cell.printed),
            expected=_excess(*(_exact(c.printed) for c in path)),
            low=None,
            high=max(_excess(*corner) for corner in corners),
        )


def _excess(base: Fraction, ssl: Fraction, both: Fraction) -> Fraction:
    """By how much, in per cent, the gain of the pair exceeds that of SSL; the sign of the metric cancels."""
    return 100 * ((both - base) / (ssl - base) - 1)


def _path(cell: PaperCell) -> list[PaperCell]:
    """VL, VL + SSL and VL + SSL + Ground. of Table 3 in the setting of a cell."""
    place = {"size": cell.size, "data": cell.data, "metric": cell.metric, "quantity": "value"}
    found = [find("table3", **place, objectives=ALL[:n]) for n in (1, 2, 3)]
    assert all(found), cell.where
    return [c for c in found if c is not None]


def _ends(cell: PaperCell) -> Sequence[Fraction]:
    value, half = _exact(cell.printed), _half(cell.printed)
    return value - half, value + half


def _text() -> Iterator[Check]:
    for cell in cells("text"):
        wanted = {"metric": cell.metric, "size": cell.size, "data": cell.data, "objectives": cell.objectives}
        table = find("table3", quantity="value", **wanted) or find("table5", quantity="value", **wanted)
        assert table is not None, cell.where
        said = _exact(table.printed if cell.quantity == "value" else table.step)
        # The same rounded number twice: there is nothing between them that rounding could explain.
        zero = Fraction(0)
        yield Check(
            kind="repeated", cell=cell, printed=_exact(cell.printed), half=zero, expected=said, low=said, high=said
        )
