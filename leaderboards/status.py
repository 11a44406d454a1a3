"""What a result store holds: done, partial, incomplete, failed or missing, per model and task, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtv.leaderboards.frame import Stored, model_labels, model_order, task_order
from mtv.leaderboards.grid import Cell, Column, Row, Table
from mtv.leaderboards.table import failure
from mtv.results import is_whole


def state(stored: Stored) -> tuple[str, str]:
    """(done | partial | incomplete | failed, reason) of one result."""
    if stored.record.status == "failed":
        return "failed", f"{failure(stored, 200)} (in {(stored.record.error or {}).get('stage', 'unknown stage')})"
    if not is_whole(stored.path, stored.record):
        return "incomplete", "its sample table is missing; a rerun makes it again"
    if stored.record.status == "partial":
        return "partial", stored.label or "stopped early"
    return "done", stored.label


def status_table(
    records: Sequence[Stored],
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    unavailable: Mapping[str, str] | None = None,
) -> Table:
    """Models by tasks.

    Args:
        records: from `frame.load`, not narrowed.
        models: names expected besides those found; a name without a result is a row of `missing`.
        tasks: tasks expected besides those found.
        unavailable: tasks expected that cannot have results yet, and the reason.
    """
    reasons = unavailable or {}
    ordered = task_order(records, [*tasks, *reasons])
    labels = model_labels(records)
    found = [(labels[m], [s for s in records if s.model == m]) for m in model_order(records)]
    seen = {n for s in records for n in (s.record.model_name, s.record.model.get("spec"))}
    found += [(name, []) for name in dict.fromkeys(models) if name not in seen]
    rows, data = [], []
    for name, own in found:
        by_task = [[s for s in own if s.record.task == t] for t in ordered]
        pairs = list(zip(ordered, by_task, strict=True))
        rows.append(Row(name=name, cells=tuple(_cell(of_task, reasons.get(t, "")) for t, of_task in pairs)))
        data += [d for t, of_task in pairs for d in _flat(name, t, of_task, reasons.get(t, ""))]
    counts = {k: sum(d["state"] == k for d in data) for k in ("done", "partial", "incomplete", "failed", "missing")}
    return Table(
        title="Status",
        head="model",
        columns=tuple(Column(key=t, title=t, numeric=False) for t in ordered),
        rows=tuple(rows),
        notes=(("", ", ".join(f"{n} {k}" for k, n in counts.items() if n) or "no results"),),
        data=tuple(data),
    )


def _cell(own: Sequence[Stored], reason: str) -> Cell:
    if not own:
        return Cell(text=f"missing: {reason}" if reason else "missing")
    several = len(own) > 1
    return Cell(text="; ".join(_words(s, several) for s in own))


def _words(stored: Stored, several: bool) -> str:
    name, reason = state(stored)
    which = f"{stored.record.protocol.get('preset')}: " if several else ""
    return f"{which}{name}{f': {reason}' if reason else ''}"


def _flat(model: str, task: str, own: Sequence[Stored], reason: str) -> list[dict[str, Any]]:
    if not own:
        return [_record(model, task, None, "missing", reason)]
    return [_record(model, task, s, *state(s)) for s in own]


def _record(model: str, task: str, stored: Stored | None, name: str, reason: str) -> dict[str, Any]:
    r = stored.record if stored else None
    return {
        "model": model,
        "task": task,
        "state": name,
        "reason": reason,
        "protocol": r.protocol.get("id") if r else None,
        "data_fingerprint": r.data.get("fingerprint") if r else None,
        "created": r.created if r else None,
    }
