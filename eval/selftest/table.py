"""The outcomes as plain aligned text: no colours, no box characters, so that it can be pasted anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from mtv.eval.selftest.checks import Outcome

HEAD = ("LAYER", "CHECK", "EXPECTED", "MEASURED", "", "SECONDS")
WIDEST = (11, 60, 34, 34, 4, 7)
"""Characters per column at most."""
NARROWEST = (11, 26, 12, 12, 4, 7)
"""Characters per column at least, however narrow the terminal."""


def table(outcomes: Sequence[Outcome], width: int) -> list[str]:
    """One line per outcome under a head; cells are cut where `width` characters are not enough."""
    rows = [HEAD, *(_cells(o) for o in outcomes)]
    widths = _fit([min(max(len(row[i]) for row in rows), WIDEST[i]) for i in range(len(HEAD))], width)
    return ["  ".join(_cut(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Failed checks with their answers in full; those with one and the same message together."""
    by_message: dict[str, list[Outcome]] = {}
    for o in outcomes:
        if not o.passed:
            by_message.setdefault(o.measured if o.traceback else f"{o.layer} {o.name}", []).append(o)
    lines = []
    for together in by_message.values():
        lines += ["", *(f"FAIL {o.layer}: {o.name}" for o in together)]
        lines += [f"  expected {o.expected}" for o in together[:1] if not o.traceback]
        lines.append(f"  measured {together[0].measured}")
    return lines


def _cells(o: Outcome) -> tuple[str, ...]:
    return o.layer, o.name, o.expected, o.measured, "pass" if o.passed else "FAIL", f"{o.seconds:.2f}"


def _fit(widths: list[int], total: int) -> list[int]:
    """Take from the widest column that may shrink until the line fits."""
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > total:
        room = [w - least for w, least in zip(widths, NARROWEST, strict=True)]
        if max(room) <= 0:
            break
        widths[room.index(max(room))] -= 1
    return widths


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."
