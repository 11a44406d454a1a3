"""Tables as rich text, Markdown, CSV, JSON, LaTeX (booktabs) and HTML.

A format is a handful of string functions; what stands in a cell is decided once, in `_cell`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from mtv.errors import unknown
from mtv.leaderboards.grid import Cell, Column, Row, Table

FORMATS = ("rich", "md", "csv", "json", "tex", "html")


def render(table: Table, fmt: str = "rich", *, color: bool = False, width: int | None = None) -> str:
    """The table as text, with a final newline.

    Args:
        table: what to show.
        fmt: one of `FORMATS`.
        color: rich only: terminal escapes; off, the best value carries a star.
        width: rich only: columns of the terminal; as wide as needed when absent.

    Raises:
        UsageError: unknown format.
    """
    if fmt not in FORMATS:
        raise unknown("format", fmt, FORMATS)
    if fmt == "rich":
        return _rich(table, color=color, width=width)
    plain = {"md": _markdown, "csv": _csv, "json": _json, "tex": _tex, "html": _html}
    return plain[fmt](table)


@dataclass(frozen=True, kw_only=True)
class _Style:
    """How one format writes the parts of a cell."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    mark: Callable[[str], str]
    plus_minus: Callable[[str], str]
    bounds: Callable[[str, str], str]


def _cell(cell: Cell, style: _Style) -> str:
    if cell.value is None:
        shown = style.escape(cell.text)
    else:
        number = style.escape(number_text(cell.value, cell.decimals, signed=cell.signed))
        shown = (style.bold(number) if cell.best else number) + _interval(cell, style)
    label = f" ({style.escape(cell.label)})" if cell.label else ""
    return f"{shown}{label}{style.mark(','.join(cell.marks)) if cell.marks else ''}"


def _interval(cell: Cell, style: _Style) -> str:
    """± the half-width, or both distances where they differ visibly (near 0 and 100, few samples)."""
    if cell.ci95 is None or cell.value is None:
        return ""
    down, up = cell.value - cell.ci95[0], cell.ci95[1] - cell.value
    texts = [number_text(abs(v), cell.decimals) for v in (down, up)]
    if down >= 0 and up >= 0 and (texts[0] == texts[1] or max(down, up) <= 1.1 * min(down, up)):
        return style.plus_minus(max(texts, key=float))
    if down >= 0 and up >= 0:
        return style.bounds(*texts)
    # A percentile interval of a skewed statistic can lie on one side of the value.
    lo, hi = (number_text(v, cell.decimals, signed=cell.signed) for v in cell.ci95)
    return style.escape(f" [{lo}, {hi}]")


def number_text(value: float, decimals: int, *, signed: bool = False) -> str:
    """`value` with a fixed number of digits and a real minus sign; never `-0.0`."""
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = f"{0:.{decimals}f}"
    return text.replace("-", "−")


def _heading(column: Column) -> str:
    return f"{column.title} ({column.label})" if column.label else column.title


def _notes(table: Table, sign: str = "Bold:") -> list[tuple[str, str]]:
    flagged = any(c.best for r in table.rows for c in r.cells)
    return [*table.notes, *([("", f"{sign} {table.best}.")] if flagged else [])]


def _rich(table: Table, *, color: bool, width: int | None) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    style = _Style(
        escape=str,
        bold=lambda t: t if color else f"{t}*",
        mark=lambda m: f" [{m}]",
        plus_minus=lambda h: f" ± {h}",
        bounds=lambda d, u: f" −{d} +{u}",
    )
    out = RichTable(title=Text(table.title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    out.add_column(Text(table.head), overflow="fold")
    for column in table.columns:
        heading = Text(column.title + (f"\n{column.label}" if column.label else ""))
        out.add_column(heading, justify="right" if column.numeric else "left", overflow="fold")
    for place, row in enumerate(table.rows):
        if row.kind == "group" and place:
            out.add_section()
        look = {"published": "dim", "group": "bold"}.get(row.kind, "")
        cells = [Text(_cell(c, style), style="bold" if c.best else look) for c in row.cells]
        out.add_row(Text(row.name, style=look), *cells)
    text = io.StringIO()
    console = Console(file=text, width=width or 10_000, force_terminal=color, highlight=False, soft_wrap=False)
    console.print(out)
    for mark, note in _notes(table, "Bold:" if color else "*"):
        console.print(Text(f"[{mark}] {note}" if mark else note, style="dim"))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n") + "\n"


def _markdown(table: Table) -> str:
    style = _Style(
        escape=_escape_markdown,
        bold=lambda t: f"**{t}**",
        mark=lambda m: f"<sup>{m}</sup>",
        plus_minus=lambda h: f" ± {h}",
        bounds=lambda d, u: f" −{d} +{u}",
    )
    rule = ["---", *("---:" if c.numeric else "---" for c in table.columns)]
    lines = [[table.head, *(_heading(c) for c in table.columns)]]
    grid = [[_escape_markdown(t) for t in lines[0]], rule]
    for row in table.rows:
        name = _escape_markdown(row.name)
        shown = {"published": f"*{name}*", "group": f"**{name}**"}.get(row.kind, name)
        grid.append([shown, *(_cell(c, style) for c in row.cells)])
    body = "\n".join(f"| {' | '.join(line)} |" for line in grid)
    notes = [f"- {f'<sup>{m}</sup> ' if m else ''}{_escape_markdown(t)}" for m, t in _notes(table)]
    return "\n".join([f"**{_escape_markdown(table.title)}**", "", body, "", *notes]) + "\n"


def _escape_markdown(text: str) -> str:
    for c in "\\`*_<>|[]#":
        text = text.replace(c, f"\\{c}")
    return text.replace("\n", " ")


def _csv(table: Table) -> str:
    import csv

    text = io.StringIO()
    keys = list(dict.fromkeys(k for record in table.data for k in record))
    writer = csv.DictWriter(text, fieldnames=keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.data)
    return text.getvalue()


def _json(table: Table) -> str:
    body = {
        "title": table.title,
        "columns": [{"key": c.key, "title": c.title, "label": c.label} for c in table.columns],
        "rows": list(table.data),
        "notes": [{"mark": m, "text": t} for m, t in table.notes],
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
    "Δ": r"$\Delta$",
    "δ": r"$\delta$",
}


def _escape_tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text).replace("\n", " ")


def _tex(table: Table) -> str:
    style = _Style(
        escape=_escape_tex,
        bold=lambda t: rf"\textbf{{{t}}}",
        mark=lambda m: rf"\textsuperscript{{{m}}}",
        plus_minus=lambda h: rf" {{\scriptsize $\pm$ {h}}}",
        bounds=lambda d, u: rf"$_{{-{d}}}^{{+{u}}}$",
    )
    lines = [
        f"% {table.title}; needs \\usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{l{''.join('r' if c.numeric else 'l' for c in table.columns)}}}",
        r"\toprule",
        " & ".join(_escape_tex(t) for t in [table.head, *(_heading(c) for c in table.columns)]) + r" \\",
        r"\midrule",
    ]
    for place, row in enumerate(table.rows):
        name = _escape_tex(row.name)
        if row.kind == "group":
            rule = r"\midrule" + "\n" if place else ""
            lines.append(rf"{rule}\multicolumn{{{1 + len(table.columns)}}}{{l}}{{\textbf{{{name}}}}} \\")
            continue
        first = rf"\textit{{{name}}}" if row.kind == "published" else name
        lines.append(" & ".join([first, *(_cell(c, style) for c in row.cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    for mark, note in _notes(table):
        sup = rf"\textsuperscript{{{mark}}} " if mark else ""
        lines.append(rf"\par{{\footnotesize {sup}{_escape_tex(note)}}}")
    return "\n".join(lines) + "\n"


def _html(table: Table) -> str:
    from html import escape

    style = _Style(
        escape=escape,
        bold=lambda t: f"<b>{t}</b>",
        mark=lambda m: f"<sup>{m}</sup>",
        plus_minus=lambda h: f' <span class="ci">± {h}</span>',
        bounds=lambda d, u: f' <span class="ci">−{d} +{u}</span>',
    )

    def line(row: Row) -> str:
        if row.kind == "group":
            span = 1 + len(table.columns)
            return f'<tr class="group"><th scope="rowgroup" colspan="{span}">{escape(row.name)}</th></tr>'
        align = ("num" if c.numeric else "text" for c in table.columns)
        cells = "".join(f'<td class="{a}">{_cell(c, style)}</td>' for a, c in zip(align, row.cells, strict=True))
        return f'<tr class="{row.kind}"><th scope="row">{escape(row.name)}</th>{cells}</tr>'

    def heading(column: Column) -> str:
        label = f"<br><small>{escape(column.label)}</small>" if column.label else ""
        return f'<th scope="col">{escape(column.title)}{label}</th>'

    head = f'<th scope="col">{escape(table.head)}</th>' + "".join(heading(c) for c in table.columns)
    notes = "".join(f"<li>{f'<sup>{m}</sup> ' if m else ''}{escape(t)}</li>\n" for m, t in _notes(table))
    body = "\n".join(line(r) for r in table.rows)
    text = (
        f'<style>\n{_CSS}</style>\n<table class="mtv">\n<caption>{escape(table.title)}</caption>\n'
        f'<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n<ul class="mtv-notes">\n{notes}</ul>\n'
    )
    # ASCII only, so that a browser shows it right whatever encoding it assumes for a local file.
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


_CSS = """\
.mtv { border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums }
.mtv caption { text-align: left; font-weight: 600; padding: 4px 0 }
.mtv th, .mtv td { padding: 3px 10px; text-align: left; border-bottom: 1px solid #ddd }
.mtv td.num, .mtv thead th + th { text-align: right }
.mtv .published { color: #666; font-style: italic }
.mtv .group th { padding-top: 10px }
.mtv .ci { color: #666; font-size: 85% }
.mtv-notes { font: 12px/1.4 system-ui, sans-serif; color: #444; padding-left: 1.2em }
"""
