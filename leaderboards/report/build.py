"""The report: one page about everything in a result store, with the paper's tables where it holds a study.

The same store gives the same bytes: nothing here asks for the time, a random number or the name of a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtv.atomic import atomic_write_bytes
from mtv.errors import CacheError, UsageError
from mtv.leaderboards.figures.every import Drawing, Obstacle, drawings, studied
from mtv.leaderboards.frame import Stored, task_order
from mtv.leaderboards.grid import Cell
from mtv.leaderboards.paper_tables import table3, table4
from mtv.leaderboards.report.inline import inline_svg
from mtv.leaderboards.report.overview import models_html, summary_html, versions_html
from mtv.leaderboards.report.page import Section, page_html
from mtv.leaderboards.report.pictures import DEFAULT_BUDGET_MB, Gallery, collect
from mtv.leaderboards.report.running import commands_html, gaps_html, ordered, speed_html
from mtv.leaderboards.report.tables import html_table
from mtv.leaderboards.report.tasks import tasks_html
from mtv.leaderboards.report.text import anchor, esc
from mtv.leaderboards.table import build_table


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a report came to."""

    size: int
    """Bytes of the page."""
    pictures: int
    """Embedded pictures."""
    left_out: int
    """Pictures that the records name and the page does not hold."""


def build_report(
    records: Sequence[Stored],
    *,
    title: str = "Report of mtv-eval",
    unavailable: Mapping[str, str] | None = None,
    budget_mb: float = DEFAULT_BUDGET_MB,
    runs: Sequence[Path] = (),
) -> tuple[str, Written]:
    """The page as HTML.

    Args:
        records: from `frame.load`.
        title: first heading.
        unavailable: tasks that cannot have results yet, and the reason.
        budget_mb: megabytes of pictures; 0 for none.
        runs: folders of training runs whose gradients are drawn.

    Raises:
        UsageError: no results, or a folder of `runs` without a run.
    """
    if not records:
        raise UsageError("no results to report", "Make some with `mtv-eval run --out DIR`, then name that folder.")
    reasons, results = unavailable or {}, ordered(records)
    galleries = collect(results, budget_mb)
    sections = [
        Section(key="results", title="Results", body=_results(results, reasons)),
        Section(key="study", title="Tables 3 and 4 of the paper", body=_study(results, reasons)),
        _figures(*drawings(results, studied(results), runs=runs)),
        Section(key="models", title="Models", body=models_html(results)),
        Section(
            key="tasks",
            title="Tasks",
            body=_pictures_note(galleries, budget_mb) + tasks_html(results, galleries),
            links=tuple((anchor("task", t), t) for t in task_order(results)),
        ),
        Section(key="speed", title="Speed and memory", body=speed_html(results)),
        Section(key="gaps", title="Failures and missing cells", body=gaps_html(results, reasons)),
        Section(key="commands", title="How to make every number again", body=commands_html(results)),
        Section(key="versions", title="Versions", body=versions_html(results)),
    ]
    page = page_html(title, summary_html(results), sections)
    shown = sum(len(g.shown) for g in galleries.values())
    total = sum(g.total for g in galleries.values())
    return page, Written(size=len(page.encode("utf-8")), pictures=shown, left_out=total - shown)


def write_report(path: Path, page: str) -> None:
    """Write the page atomically.

    Raises:
        CacheError: the file cannot be written; names it.
    """
    atomic_write_bytes(path, page.encode("utf-8"))


def _results(records: Sequence[Stored], unavailable: Mapping[str, str]) -> str:
    table = build_table(records, allow_mixed=True, unavailable=unavailable, title="Models by tasks")
    rows = tuple(replace(r, cells=tuple(_brief(c) for c in r.cells)) for r in table.rows)
    shown = html_table(replace(table, rows=rows), key="results-table", filterable=True)
    return f'{shown}<p class="note">Why cells failed or are missing stands <a href="#gaps">below</a>.</p>\n'


def _brief(cell: Cell) -> Cell:
    """Without the reason, which would make the column as wide as a sentence."""
    return replace(cell, text=cell.text.partition(":")[0])


def _study(records: Sequence[Stored], unavailable: Mapping[str, str]) -> str:
    """The paper's tables of objectives, or why they cannot stand; empty without checkpoints of the trainer."""
    if not any(s.record.model.get("training") for s in records):
        return ""
    parts = []
    for key, build in (("table3", table3.build), ("table4", table4.build)):
        try:
            parts.append(html_table(build(records, unavailable=unavailable), key=key))
        except (UsageError, CacheError) as e:
            parts.append(f'<p class="warning">{esc(e.message)}</p>\n')
    return "".join(parts)


def _figures(shown: Sequence[Drawing], missing: Sequence[Obstacle]) -> Section:
    parts, links = [], []
    for d in shown:
        key = anchor("figure", d.name)
        links.append((key, d.title))
        svg = inline_svg(d.draw(), key=key, alt=d.alt)
        parts.append(
            f'<h3 id="{key}">{esc(d.title)}</h3>\n<figure>\n'
            f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(d.title)}">\n{svg}</div>\n'
            f"<figcaption>{esc(d.alt)}</figcaption>\n</figure>\n"
            f'<details class="numbers">\n<summary>The numbers of this figure</summary>\n'
            f"{html_table(d.numbers, key=f'{key}-numbers')}</details>\n"
        )
    if missing:
        items = "".join(f"<li>{esc(o.title)}: {esc(o.reason)}.</li>\n" for o in missing)
        parts.append(f"<p>Not possible with these results:</p>\n<ul>\n{items}</ul>\n")
    return Section(key="figures", title="Figures", body="".join(parts), links=tuple(links))


def _pictures_note(galleries: Mapping[Path, Gallery], budget_mb: float) -> str:
    total = sum(g.total for g in galleries.values())
    shown = sum(len(g.shown) for g in galleries.values())
    if shown == total:
        return ""
    size = sum(len(p.data) for g in galleries.values() for p in g.shown) / 1e6
    return (
        f'<p class="note">{shown} of {total} pictures of samples are in this page ({size:.1f} MB of at most '
        f"{budget_mb:g} MB); all others lie beside the records in the result store.</p>\n"
    )
