"""The table of models and tasks: measured values with intervals, published ones beside them, and the notes below.

A column holds one protocol and one data set. Anything else is refused, or with `allow_mixed` marked cell by cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mtv.errors import UsageError
from mtv.leaderboards.beside import of_model, published_row, sources_for
from mtv.leaderboards.frame import Stored, differences, full_key, metrics_of, model_labels, model_order, row, title_of
from mtv.leaderboards.grid import INTERVAL_NOTE, Cell, Column, Row, Table, decimals
from mtv.leaderboards.layout import Notes, Slot, identity, make_slots

PUBLISHED_NOTE = (
    "Published values are quoted, not measured here; protocol fields that their sources do not state were not compared."
)


def build_table(
    records: Sequence[Stored],
    *,
    allow_mixed: bool = False,
    published: bool | Literal["all"] = True,
    all_metrics: bool = False,
    unavailable: Mapping[str, str] | None = None,
    title: str = "Results",
) -> Table:
    """Lay out results, models by tasks.

    Args:
        records: from `frame.load`.
        allow_mixed: put results of differing protocols or data into one column, each marked with what differs.
        published: rows of published values below the measured row of the same weights; `"all"` also those of models
            that were not measured.
        all_metrics: every metric of the records instead of the headlines.
        unavailable: tasks that cannot have results yet and the reason, which their column gives: `not run: <reason>`.
        title: above the table.

    Returns:
        Best values are flagged per column over the measured rows, ties included; never in a mixed column.

    Raises:
        UsageError: nothing to show, or a mixture without `allow_mixed`; names the differing fields.
    """
    if not records:
        raise UsageError(
            "no results to show", "Make some with `mtv-eval run --out DIR`, or name their folder: --results DIR."
        )
    slots = make_slots(records, allow_mixed=allow_mixed, all_metrics=all_metrics, unavailable=unavailable)
    notes = Notes()
    rows, data = _rows(records, slots, notes, published)
    return Table(
        title=title,
        head="model",
        columns=tuple(Column(key=s.key, title=title_of(s.key, s.metric), label=s.label) for s in slots),
        rows=tuple(_flag_best(rows, slots)),
        notes=(*notes.pairs(), *(("", t) for t in _general_notes(slots, rows))),
        data=tuple(data),
    )


def _rows(
    records: Sequence[Stored], slots: Sequence[Slot], notes: Notes, published: bool | Literal["all"]
) -> tuple[list[Row], list[dict[str, Any]]]:
    labels = model_labels(records)
    sources = sources_for(slots) if published else {}
    rows: list[Row] = []
    data: list[dict[str, Any]] = []
    for model in model_order(records):
        own = [s for s in records if s.model == model]
        for chosen in _lines(own, slots):
            first = not rows or rows[-1].name != labels[model]
            cells = tuple(_cell(slot, chosen.get(slot.task), _absent(slot) if first else "", notes) for slot in slots)
            rows.append(Row(name=labels[model], cells=cells, kind="measured"))
            for slot in slots:
                if stored := chosen.get(slot.task):
                    data.append(row(stored, labels[model], slot.key, metrics_of(stored.record).get(slot.key)))
        for label in of_model(sources, own[0]):
            line, flat = published_row(sources.pop(label), own[0], slots, notes)
            rows, data = [*rows, line], [*data, *flat]
    for values in sources.values() if published == "all" else ():
        line, flat = published_row(values, None, slots, notes)
        rows, data = [*rows, line], [*data, *flat]
    return rows, data


def _lines(own: Sequence[Stored], slots: Sequence[Slot]) -> list[dict[str, Stored]]:
    """Results of one model, one line per result of a task; failed ones only where nothing succeeded."""
    rank = {slot.task: slot.rank for slot in slots}
    by_task: dict[str, list[Stored]] = {}
    for task in {s.record.task for s in own}:
        of_task = sorted((s for s in own if s.record.task == task), key=lambda s: (rank[task](s), s.record.created))
        whole = [s for s in of_task if s.record.status != "failed"]
        by_task[task] = whole or of_task[-1:]
    n = max(len(v) for v in by_task.values())
    return [{t: v[k] for t, v in by_task.items() if k < len(v)} for k in range(n)]


def _absent(slot: Slot) -> str:
    return f"not run: {slot.unavailable}" if slot.unavailable else "not run"


def _cell(slot: Slot, stored: Stored | None, absent: str, notes: Notes) -> Cell:
    if stored is None:
        return Cell(text=absent)
    if stored.record.status == "failed":
        return Cell(text=f"failed: {failure(stored)}")
    metric = metrics_of(stored.record).get(slot.key)
    marks = _marks(slot, stored, notes)
    if metric is None:
        return Cell(text="not measured", marks=marks)
    label = "" if slot.label else stored.label
    if metric.value is None:
        reason = "a part of it has no value" if metric.recipe.get("of") else "no sample falls into it"
        return Cell(text="n/a", marks=(*marks, notes.mark(f"n/a: undefined, {reason}.")), label=label)
    return Cell(value=metric.value, ci95=metric.ci95, decimals=decimals(metric.unit), marks=marks, label=label)


def failure(stored: Stored, width: int = 80) -> str:
    """Exception type and first line of its message."""
    error = stored.record.error or {}
    text = f"{error.get('type', 'unknown error')}: {str(error.get('message', '')).strip().split(chr(10))[0]}"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _marks(slot: Slot, stored: Stored, notes: Notes) -> tuple[str, ...]:
    r, marks = stored.record, []
    if slot.mixed:
        base = slot.groups[0][0]
        how = "" if stored.setting == base.setting else f"; differs in {'; '.join(differences(base.record, r))}"
        marks.append(notes.mark(f"{identity(stored)}{how}."))
    if missing := _missing_parts(slot, stored):
        marks.append(notes.mark(f"{slot.key}: average without {', '.join(missing)}, which no sample falls into."))
    ties = r.ties.get(slot.key) or r.ties.get(slot.key.split("/")[-1])
    if ties and ties.get("n_tied"):
        marks.append(notes.mark(_ties_text(slot.key, r.model_name, ties)))
    if r.diagnosis and slot.metric is not None and slot.metric.headline:
        marks.append(notes.mark(f"{slot.task}, {r.model_name}: {' '.join(r.diagnosis)}"))
    return tuple(marks)


def _missing_parts(slot: Slot, stored: Stored) -> list[str]:
    """Parts that an average leaves out because they have no value."""
    metrics = metrics_of(stored.record)
    metric = metrics.get(slot.key)
    if metric is None or metric.value is None:
        return []
    parts = [full_key(slot.task, part) for part in metric.recipe.get("of", ())]
    return [p for p in parts if p in metrics and metrics[p].value is None]


def _ties_text(key: str, model: str, ties: dict[str, float]) -> str:
    n = int(ties["n_tied"])
    return (
        f"{key}, {model}: {n} tied {'query' if n == 1 else 'queries'}; {ties['lo']:.2f} if every tie were lost, "
        f"{ties['hi']:.2f} if won."
    )


def _flag_best(rows: Sequence[Row], slots: Sequence[Slot]) -> list[Row]:
    out = [list(r.cells) for r in rows]
    for c, slot in enumerate(slots):
        # A cell with a label of its own covers fewer samples than its column.
        values = {
            k: round(v, r.cells[c].decimals)
            for k, r in enumerate(rows)
            if r.kind == "measured" and (v := r.cells[c].value) is not None and not r.cells[c].label
        }
        if slot.mixed or slot.metric is None or len(values) < 2:
            continue
        best = (max if slot.metric.higher_is_better else min)(values.values())
        for k in (k for k, v in values.items() if v == best):
            out[k][c] = replace(out[k][c], best=True)
    return [replace(r, cells=tuple(cells)) for r, cells in zip(rows, out, strict=True)]


def _general_notes(slots: Sequence[Slot], rows: Sequence[Row]) -> list[str]:
    out = []
    for slot in slots:
        if slot.metric is None:
            continue
        words = str(slot.metric.recipe.get("describe") or "").rstrip(".")
        chance = f"; chance {slot.metric.chance:.3g}" if slot.metric.chance is not None else ""
        where = "several protocols or data sets, see the marks" if slot.mixed else identity(slot.groups[0][0])
        out.append(f"{slot.key}: {words + '; ' if words else ''}{where}{chance}.")
    if any(r.kind == "published" for r in rows):
        out.append(PUBLISHED_NOTE)
    return [*out, INTERVAL_NOTE]
