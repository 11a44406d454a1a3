"""One section per task: what was measured, every metric, every category, the best and the worst samples.

Results of different protocols or data sets never share a table here: each setting has its own part of the section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtv.leaderboards.frame import UNITS, Stored, metrics_of, model_labels, model_order, task_order
from mtv.leaderboards.grid import INTERVAL_NOTE, Cell, Column, Row, Table, decimals
from mtv.leaderboards.layout import groups_of
from mtv.leaderboards.report.categories import breakdowns
from mtv.leaderboards.report.pictures import Gallery, gallery_html
from mtv.leaderboards.report.tables import html_table
from mtv.leaderboards.report.text import anchor, esc
from mtv.results import MetricValue

LONG = 12
"""Rows above which a breakdown is closed at first."""


def tasks_html(records: Sequence[Stored], galleries: Mapping[Path, Gallery]) -> str:
    """The sections of all tasks, in the fixed order.

    Args:
        records: all results.
        galleries: embedded pictures by record, of `pictures.collect`.
    """
    labels = model_labels(records)
    order = {m: k for k, m in enumerate(model_order(records))}
    return "".join(
        _task(
            task, sorted((s for s in records if s.record.task == task), key=lambda s: order[s.model]), labels, galleries
        )
        for task in task_order(records)
    )


def _task(
    task: str,
    results: Sequence[Stored],
    labels: Mapping[tuple[str, str], str],
    galleries: Mapping[Path, Gallery],
) -> str:
    key = anchor("task", task)
    usable = [s for s in results if s.record.status != "failed"]
    groups = groups_of(usable)
    failed = [labels[s.model] for s in results if s.record.status == "failed"]
    parts = [f'<section class="task" aria-labelledby="{key}">\n<h3 id="{key}">{esc(task)}</h3>\n']
    if failed:
        parts.append(f'<p class="note">Failed: {esc(", ".join(failed))}; see <a href="#gaps">below</a>.</p>\n')
    if len(groups) > 1:
        parts.append(
            f'<p class="warning">{len(groups)} protocols or data sets, which do not compare: each has its own '
            "tables.</p>\n"
        )
    for k, group in enumerate(groups):
        ranked = [s for s in results if s in group]
        parts.append(_setting(f"{key}-{k}", ranked, labels, galleries))
    return "".join([*parts, "</section>\n"])


def _setting(
    key: str,
    results: Sequence[Stored],
    labels: Mapping[tuple[str, str], str],
    galleries: Mapping[Path, Gallery],
) -> str:
    found = breakdowns(results, labels)
    pictures = [
        gallery_html(galleries[s.path], title=f"{s.record.task}, {labels[s.model]}")
        for s in results
        if s.path in galleries
    ]
    parts = [
        _protocol(results[0]),
        html_table(metrics_table(results, labels), key=f"{key}-metrics", sortable=False),
        _meanings(results),
        _findings(results, labels),
    ]
    for n, breakdown in enumerate(found):
        table = breakdown.table()
        is_open = " open" if len(table.rows) <= LONG else ""
        parts.append(
            f'<details class="numbers"{is_open}>\n<summary>{esc(table.title)}: {len(table.rows)} categories</summary>\n'
            f"{html_table(table, key=f'{key}-by-{n}', filterable=len(table.rows) > LONG)}</details>\n"
        )
    if pictures:
        parts.append(f"<h4>Best and worst samples</h4>\n{''.join(pictures)}")
    return "".join(parts)


def _protocol(stored: Stored) -> str:
    """Protocol, data and the fields that differ from the preset."""
    r = stored.record
    data = r.data
    counts = ", ".join(f"{n} {what}" for what, n in (data.get("counts") or {}).items())
    lines = [
        ("Protocol", f"{r.protocol.get('id')} (metric version {r.protocol.get('version')})"),
        ("Changed fields", ", ".join(map(str, r.protocol.get("modified") or ())) or "none: the preset as it is"),
        (
            "Data",
            f"{data.get('name')} {data.get('split')}, {stored.label or 'full set'}"
            f"{f': {counts}' if counts else ''}; fingerprint {str(data.get('fingerprint', ''))[:8]}",
        ),
    ]
    rows = "".join(f"<dt>{esc(name)}</dt><dd>{esc(text)}</dd>\n" for name, text in lines)
    params = {k: _short(v) for k, v in (r.protocol.get("params") or {}).items()}
    return f"<dl>\n{rows}</dl>\n{_closed(f'All {len(params)} protocol fields', params)}"


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


def metrics_table(results: Sequence[Stored], labels: Mapping[tuple[str, str], str]) -> Table:
    """Every metric of one setting: metrics by models, with intervals.

    Args:
        results: of one task under one protocol, on one data set.
        labels: model to its name in tables.
    """
    own = [metrics_of(s.record) for s in results]
    keys = list(dict.fromkeys(k for metrics in own for k in metrics))
    columns = [Column(key="/".join(s.model), title=labels[s.model]) for s in results]
    rows = []
    for key in keys:
        metric = next(m[key] for m in own if key in m)
        cells = [_cell(m.get(key)) for m in own]
        chance = "–" if metric.chance is None else f"{metric.chance:.3g}"
        rows.append(Row(name=_metric_name(key, metric), cells=(*cells, Cell(text=chance))))
    return Table(
        title="Every metric" if len(results) == 1 else f"Every metric of {len(results)} models",
        head="metric",
        columns=(*columns, Column(key="chance", title="chance")),
        rows=tuple(rows),
        notes=(("", INTERVAL_NOTE),),
    )


def _meanings(results: Sequence[Stored]) -> str:
    """What each metric is, in the words of its recipe."""
    words = {k: str(m.recipe.get("describe") or "") for s in results for k, m in metrics_of(s.record).items()}
    return _closed("What each metric means", {k.partition("/")[2]: text for k, text in words.items() if text})


def _closed(title: str, items: Mapping[str, str]) -> str:
    """A closed list of terms; nothing for no terms."""
    shown = "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>\n" for k, v in items.items())
    if not shown:
        return ""
    return f'<details class="fields">\n<summary>{esc(title)}</summary>\n<dl>\n{shown}</dl>\n</details>\n'


def _metric_name(key: str, metric: MetricValue) -> str:
    unit = f" [{UNITS.get(metric.unit, metric.unit)}]" if metric.unit else ""
    marks = ("" if metric.higher_is_better else " ↓") + (" (headline)" if metric.headline else "")
    return f"{key.partition('/')[2]}{unit}{marks}"


def _cell(metric: MetricValue | None) -> Cell:
    if metric is None:
        return Cell(text="–")
    if metric.value is None:
        return Cell(text="n/a")
    return Cell(value=metric.value, ci95=metric.ci95, decimals=decimals(metric.unit))


def _findings(results: Sequence[Stored], labels: Mapping[tuple[str, str], str]) -> str:
    """Diagnoses and ties."""
    found = [f"{labels[s.model]}: {text}" for s in results for text in s.record.diagnosis]
    for s in results:
        for key, ties in s.record.ties.items():
            if ties.get("n_tied"):
                found.append(
                    f"{labels[s.model]}: {key}: {int(ties['n_tied'])} ties; {ties['lo']:.2f} if all were lost, "
                    f"{ties['hi']:.2f} if won."
                )
    items = "\n".join(f"<li>{esc(t)}</li>" for t in found)
    return f'<ul class="note">\n{items}\n</ul>\n' if found else ""
