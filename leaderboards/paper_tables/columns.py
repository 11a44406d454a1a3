"""The metric columns of the paper's tables: which results may fill them, and why a cell has no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtv.leaderboards.frame import UNITS, Stored, differences, metrics_of
from mtv.leaderboards.grid import Cell, Column, decimals
from mtv.leaderboards.layout import Notes, Slot, groups_of, identity, refuse_mixture
from mtv.leaderboards.table import failure

TITLES = {
    "imagenet/top1": "IN-1k Acc.",
    "coco/t2i_r1": "COCO T→I",
    "coco/i2t_r1": "COCO I→T",
    "vqa/score": "VQA Score",
    "ade20k/miou": "ADE20k mIoU",
    "navi/avg_recall": "NAVI Recall",
    "spair/avg_recall": "SPair Recall",
    "nyuv2/rmse": "NYUv2 RMSE",
    "rel_kitti/absrel_depth": "KITTI AbsRel",
    "rel_nyu/absrel_depth": "NYUv2 AbsRel",
    "rel_kitti/delta1": "KITTI δ1",
    "rel_nyu/delta1": "NYUv2 δ1",
}
"""Headings as the paper prints them."""
LOWER = ("nyuv2/rmse", "rel_kitti/absrel_depth", "rel_nyu/absrel_depth")
"""Metrics of which less is better."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The metric columns of a table, and the results that may fill them."""

    slots: tuple[Slot, ...]
    """One per metric, in the paper's order; their first group is what the column shows."""
    everything: tuple[Stored, ...]
    """All results that the table was given."""

    def slot(self, key: str) -> Slot:
        """The column of `task/metric`."""
        return next(s for s in self.slots if s.key == key)

    def headings(self) -> tuple[Column, ...]:
        """Titles with unit, direction and what holds for all cells."""
        out = []
        for slot in self.slots:
            unit = slot.metric.unit if slot.metric else _unit(slot.key)
            arrow = " ↓" if slot.key in LOWER else ""
            out.append(
                Column(
                    key=slot.key,
                    title=f"{TITLES[slot.key]} [{UNITS.get(unit, unit)}]{arrow}",
                    label=slot.label,
                )
            )
        return tuple(out)

    def chosen(self, model: tuple[str, str], task: str) -> Stored | None:
        """The result of a model that the column of `task` shows: of the column's setting, the latest."""
        setting = next((s.groups[0][0].setting for s in self.slots if s.task == task and s.groups), None)
        own = [s for s in self._of(model, task) if s.record.status != "failed" and s.setting == setting]
        return max(own, key=lambda s: s.record.created, default=None)

    def absent(self, model: tuple[str, str], key: str, notes: Notes) -> Cell:
        """Why a model has no value in a column."""
        slot = self.slot(key)
        own = self._of(model, slot.task)
        whole = [s for s in own if s.record.status != "failed"]
        if whole and slot.groups:
            how = "; ".join(differences(slot.groups[0][0].record, whole[0].record))
            return Cell(text="protocol differs", marks=(notes.mark(f"{identity(whole[0])}: differs in {how}."),))
        if own:
            return Cell(text=failed_text(own[-1]))
        return Cell(text=not_run(slot))

    def _of(self, model: tuple[str, str], task: str) -> list[Stored]:
        return [s for s in self.everything if s.model == model and s.record.task == task]

    def notes(self) -> list[str]:
        """Definition, protocol, data and chance of every column that has values."""
        out = []
        for slot in self.slots:
            if slot.metric is not None:
                words = str(slot.metric.recipe.get("describe") or "").rstrip(".")
                chance = f"; chance {slot.metric.chance:.3g}" if slot.metric.chance is not None else ""
                out.append(f"{slot.key}: {words + '; ' if words else ''}{identity(slot.groups[0][0])}{chance}.")
        return out


def make_columns(
    keys: Sequence[str], records: Sequence[Stored], *, allow_mixed: bool, unavailable: Mapping[str, str] | None = None
) -> Columns:
    """The columns of a table.

    Args:
        keys: `task/metric`, in order.
        records: results that the table is about.
        allow_mixed: where results of a task differ in protocol or data, show the most frequent setting; cells of the
            others say so.
        unavailable: tasks that cannot have results yet, and why.

    Raises:
        UsageError: a mixture without `allow_mixed`; names the differing fields.
    """
    slots = []
    for key in keys:
        task = key.split("/")[0]
        groups = groups_of([s for s in records if s.record.task == task and s.record.status != "failed"])
        if not allow_mixed:
            refuse_mixture(task, groups)
        metric = next((m for s in (groups[0] if groups else ()) if (m := metrics_of(s.record).get(key))), None)
        reason = "" if groups else (unavailable or {}).get(task, "")
        slots.append(Slot(key=key, task=task, groups=groups[:1], metric=metric, unavailable=reason))
    return Columns(slots=tuple(slots), everything=tuple(records))


def _unit(key: str) -> str:
    return "m" if key == "nyuv2/rmse" else "percent"


def not_run(slot: Slot) -> str:
    """`not run`, with the reason where no model can have a value."""
    return f"not run: {slot.unavailable}" if slot.unavailable else "not run"


def failed_text(stored: Stored) -> str:
    """Why a task failed; a data set that was not there is told apart."""
    error = stored.record.error or {}
    first = str(error.get("message", "")).strip().split("\n")[0]
    if error.get("stage") == "data" and first.endswith(": MISSING"):
        return f"dataset absent: {first.removesuffix(': MISSING')}"
    return f"failed: {failure(stored)}"


def value_cell(stored: Stored, slot: Slot, notes: Notes) -> Cell:
    """A measured number with its interval, or why the result has none."""
    metric = metrics_of(stored.record).get(slot.key)
    label = "" if slot.label else stored.label
    if metric is None:
        return Cell(text="not measured", label=label)
    if metric.value is None:
        return Cell(text="n/a", marks=(notes.mark("n/a: undefined, no sample falls into it."),), label=label)
    return Cell(value=metric.value, ci95=metric.ci95, decimals=decimals(metric.unit), label=label)
