"""Tables of the page: the same cells as `mtv-eval table --format html`, in a frame that can be scrolled and sorted.

Sorting and filtering belong to `page.js`, which reads what the cells show; without it the page is complete but still.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mtv.leaderboards.formats import render
from mtv.leaderboards.grid import Cell, Column, Row, Table
from mtv.leaderboards.report.text import esc, scrub


def html_table(table: Table, *, key: str, sortable: bool = True, filterable: bool = False) -> str:
    """The table as HTML with everything in it scrubbed and escaped.

    Args:
        table: what to show.
        key: id of the frame, unique in the page.
        sortable: headings become buttons; not where rows stand in groups, which sorting would tear apart.
        filterable: a field above that narrows the rows; likewise.
    """
    body = render(_clean(table), "html").partition("</style>\n")[2]
    grid, _, notes = body.partition("</table>\n")
    numeric = iter([False, *(c.numeric for c in table.columns)])
    grid = re.sub('<th scope="col">', lambda m: f'{m[0][:-1]} class="num">' if next(numeric) else m[0], grid)
    grouped = any(r.kind == "group" for r in table.rows)
    wishes = [n for n, on in (("sortable", sortable and not grouped), ("filterable", filterable and not grouped)) if on]
    shown = notes if "<li>" in notes else ""
    return (
        f'<div class="{" ".join(["table", *wishes])}" id="{esc(key)}">\n'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(table.title)}">\n{grid}</table>\n</div>\n'
        f"{shown}</div>\n"
    )


def plain_table(
    title: str, head: str, columns: Sequence[Column | str], rows: Sequence[tuple[str, Sequence[Cell | str]]]
) -> Table:
    """A table of words and numbers without published rows.

    Args:
        title: above it.
        head: heading of the first column.
        columns: headings; a string stands for a column of words.
        rows: name and cells; a string stands for a cell of words.
    """
    heads = [c if isinstance(c, Column) else Column(key=c, title=c, numeric=False) for c in columns]
    return Table(
        title=title,
        head=head,
        columns=tuple(heads),
        rows=tuple(Row(name=name, cells=tuple(_cell(c) for c in cells)) for name, cells in rows),
    )


def number(value: float | None, decimals: int = 1, *, absent: str = "–") -> Cell:
    """A number, or words where there is none."""
    return Cell(text=absent) if value is None else Cell(value=value, decimals=decimals)


def _cell(content: Cell | str) -> Cell:
    return content if isinstance(content, Cell) else Cell(text=content)


def _clean(table: Table) -> Table:
    return replace(
        table,
        title=scrub(table.title),
        head=scrub(table.head),
        columns=tuple(replace(c, title=scrub(c.title), label=scrub(c.label)) for c in table.columns),
        rows=tuple(
            replace(
                r,
                name=scrub(r.name),
                cells=tuple(replace(c, text=scrub(c.text), label=scrub(c.label)) for c in r.cells),
            )
            for r in table.rows
        ),
        notes=tuple((mark, scrub(text)) for mark, text in table.notes),
        best=scrub(table.best),
    )
