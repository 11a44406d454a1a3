"""Rows of published values, each below the measured row of the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtv.leaderboards.frame import Stored
from mtv.leaderboards.grid import Cell, Row
from mtv.leaderboards.layout import Notes, Slot
from mtv.leaderboards.published import Published, alias_of, not_comparable, published


def sources_for(slots: Sequence[Slot]) -> dict[str, list[Published]]:
    """Published values that some column shows, by row label (model and source)."""
    keys = {s.key for s in slots}
    out: dict[str, list[Published]] = {}
    for value in published():
        if value.metric in keys:
            out.setdefault(value.label, []).append(value)
    return out


def of_model(sources: dict[str, list[Published]], stored: Stored) -> list[str]:
    """Labels of the sources that speak about the weights of a measured model; never of a random initialisation."""
    alias = "" if stored.record.model.get("random") else alias_of(stored.record.model)
    return [label for label, values in sources.items() if alias and values[0].alias == alias]


def published_row(
    values: Sequence[Published], beside: Stored | None, slots: Sequence[Slot], notes: Notes
) -> tuple[Row, list[dict[str, Any]]]:
    """One row and its flat records.

    Args:
        values: what one source says about one model.
        beside: a result of the measured model of the same weights, where there is one.
        slots: the columns.
        notes: receives remarks and the reasons why a value does not compare.
    """
    by_metric = {v.metric: v for v in values}
    cells, data = [], []
    for slot in slots:
        value = by_metric.get(slot.key)
        if value is None:
            cells.append(Cell(text="–"))
            continue
        reason = _reason(value, beside, slot)
        remarks = [f"{value.source}: {value.note}."] if value.note else []
        remarks += [f"not comparable with the measured {slot.task} values: {reason}."] if reason else []
        marks = tuple(notes.mark(t) for t in remarks)
        label = "not comparable" if reason else ""
        cells.append(Cell(value=value.value, decimals=value.decimals, marks=marks, label=label))
        data.append(_record(value, reason))
    return Row(name=values[0].label, cells=tuple(cells), kind="published"), data


def _reason(value: Published, beside: Stored | None, slot: Slot) -> str:
    own = [s for s in slot.stored if beside is not None and s.model == beside.model]
    stored = next(iter([*own, *slot.stored]), None)
    return not_comparable(value, stored) if stored else ""


def _record(value: Published, reason: str) -> dict[str, Any]:
    """The keys of `frame.row`."""
    stated = ";".join(f"{k}={v}" for k, v in value.protocol.items())
    remarks = [value.reference, value.note, f"not comparable: {reason}" if reason else ""]
    return {
        "model": value.label,
        "kind": "published",
        "spec": None,
        "model_fingerprint": None,
        "task": value.task,
        "metric": value.metric,
        "value": value.value,
        "lo": None,
        "hi": None,
        "unit": value.unit,
        "n": None,
        "n_clusters": None,
        "headline": None,
        "higher_is_better": None,
        "chance": None,
        "protocol": stated,
        "protocol_hash": None,
        "data_fingerprint": None,
        "label": "",
        "status": "published",
        "note": "; ".join(r for r in remarks if r),
    }
