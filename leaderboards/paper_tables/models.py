"""Measured models beside the models of a table of the paper: what Tables 5 and 6 share.

* The paper's models stand in its order, each with the measured row of the same weights above it where there is one, and
  the difference below. The same weights are those of its alias, or of a run of the paper's recipe and length.
* Other measured models follow in a block of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.frame import Stored, metrics_of, model_labels, model_order
from mtv.leaderboards.grid import Cell, Column, Row, Table
from mtv.leaderboards.layout import Notes
from mtv.leaderboards.paper.cells import ALL, PaperCell, cells
from mtv.leaderboards.paper_tables.columns import Columns, make_columns, value_cell
from mtv.leaderboards.paper_tables.records import bounds, flat, of_result
from mtv.leaderboards.paper_tables.runs import scale_of
from mtv.leaderboards.paper_tables.stacked import PAPER_NOTE, Beside, all_notes, group_row, published_row, stacked
from mtv.leaderboards.published import alias_of
from mtv.training_record import TrainingRecord

OTHERS = "measured here, not in the paper's table"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What one of the two tables looks like."""

    number: str
    """`5` or `6`."""
    title: str
    """Above the table."""
    keys: tuple[str, ...]
    """`task/metric` of the columns."""
    lead: Column
    """The column before the metrics."""
    block: Callable[[PaperCell], str]
    """Heading over a model of the paper."""
    printed_lead: Callable[[PaperCell], str]
    """What the first column says about a model of the paper."""
    measured_lead: Callable[[Stored], str]
    """The same about a measured model."""


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A measured model."""

    name: str
    results: tuple[Stored, ...]

    @property
    def first(self) -> Stored:
        return self.results[0]

    @property
    def training(self) -> TrainingRecord | None:
        value = self.first.record.model.get("training")
        return TrainingRecord.from_dict(value, where=str(self.first.path)) if value else None

    def is_the(self, cell: PaperCell) -> bool:
        """Whether it has the weights, or repeats the run, of a model of the paper."""
        if self.first.record.model.get("random"):
            return False
        if cell.alias and alias_of(self.first.record.model) == cell.alias:
            return True
        training = self.training
        block = scale_of(training) if training else None
        if training is None or block is None or block.reason:
            return False
        return (block.scale.size, block.scale.data, training.objectives) == (cell.size, cell.data, cell.objectives)


def build_models(
    records: Sequence[Stored],
    layout: Layout,
    *,
    unavailable: Mapping[str, str] | None = None,
    allow_mixed: bool = False,
    ablations: bool = False,
) -> Table:
    """Lay out Table 5 or 6.

    Args:
        records: from `frame.load`.
        layout: which.
        unavailable: tasks that cannot have results yet, and why.
        allow_mixed: show the most frequent setting of a task whose results differ in protocol or data.
        ablations: also checkpoints of runs without all objectives, or on the way.

    Raises:
        UsageError: nothing measured on a task of the table, or a mixture of settings.
    """
    tasks = {k.split("/")[0] for k in layout.keys}
    used = [s for s in records if s.record.task in tasks]
    kept = [s for s in used if ablations or _is_whole_model(s)]
    if not kept:
        raise UsageError(
            f"no result for Table {layout.number}, which is about {', '.join(sorted(tasks))}",
            "Run these tasks, or see what is there with `mtv-eval ls results`."
            + (" Checkpoints of ablations are shown when named: --model." if used else ""),
        )
    columns = make_columns(layout.keys, kept, allow_mixed=allow_mixed, unavailable=unavailable)
    view = _View(layout=layout, columns=columns, notes=Notes(), models=_models(kept))
    rows, data = view.lines()
    left_out = len({s.model for s in used} - {s.model for s in kept})
    general = [*columns.notes(), PAPER_NOTE]
    general += (
        [f"Checkpoints of ablations and on the way are left out: {left_out}; --model shows them."] if left_out else []
    )
    return Table(
        title=layout.title,
        head="Model",
        columns=(layout.lead, *columns.headings()),
        rows=tuple(rows),
        notes=all_notes(view.notes, general),
        best="best of its block among measured values",
        data=tuple(data),
    )


def _is_whole_model(stored: Stored) -> bool:
    value = stored.record.model.get("training")
    training = TrainingRecord.from_dict(value, where=str(stored.path)) if value else None
    return training is None or (training.finished and training.objectives == ALL)


def _models(records: Sequence[Stored]) -> list[_Model]:
    labels = model_labels(records)
    return [_Model(name=labels[m], results=tuple(s for s in records if s.model == m)) for m in model_order(records)]


@dataclass(frozen=True, kw_only=True)
class _View:
    """One table while it is laid out."""

    layout: Layout
    columns: Columns
    notes: Notes
    models: list[_Model]

    def lines(self) -> tuple[list[Row], list[dict[str, Any]]]:
        """The paper's models by block, then the others."""
        rows: list[Row] = []
        data: list[dict[str, Any]] = []
        placed: set[str] = set()
        printed = [c for c in cells(f"table{self.layout.number}") if c.metric == self._first_printed]
        for title, of_block in groupby(printed, key=self.layout.block):
            block: list[Row] = []
            for cell in of_block:
                own = [m for m in self.models if m.is_the(cell)]
                placed |= {m.name for m in own}
                for more in [self._measured(m, cell, title) for m in own] or [self._quoted(cell, title)]:
                    block, data = block + more[0], data + more[1]
            rows += [group_row(title, 1 + len(self.columns.slots)), *_flag_best(block, self.columns)]
        if others := [m for m in self.models if m.name not in placed]:
            block = []
            for model in others:
                more = self._measured(model, None, OTHERS)
                block, data = block + more[0], data + more[1]
            rows += [group_row(OTHERS, 1 + len(self.columns.slots)), *_flag_best(block, self.columns)]
        return rows, data

    @property
    def _first_printed(self) -> str:
        """A metric that every model of the paper's table has."""
        return cells(f"table{self.layout.number}")[0].metric

    def _measured(self, model: _Model, cell: PaperCell | None, block: str) -> tuple[list[Row], list[dict[str, Any]]]:
        line = [self._beside(model, slot.key, cell, block) for slot in self.columns.slots]
        name = f"paper: {cell.model}" if cell else ""
        leads = (self.layout.measured_lead(model.first), self.layout.printed_lead(cell) if cell else "")
        return stacked(model.name, line, self.notes, paper=name, lead=leads)

    def _quoted(self, cell: PaperCell, block: str) -> tuple[list[Row], list[dict[str, Any]]]:
        shared = {"table": self.layout.number, "block": block, "row": cell.model}
        line = [Beside(cell=Cell(text=""), record=shared, paper=self._printed(cell, s.key)) for s in self.columns.slots]
        lead = self.layout.printed_lead(cell)
        row, data = published_row(line, self.notes, name=f"paper: {cell.model}", lead=lead)
        return [row], data

    def _printed(self, cell: PaperCell, key: str) -> PaperCell | None:
        return next((c for c in cells(f"table{self.layout.number}") if c.row == cell.row and c.metric == key), None)

    def _beside(self, model: _Model, key: str, cell: PaperCell | None, block: str) -> Beside:
        slot = self.columns.slot(key)
        stored = self.columns.chosen(model.first.model, slot.task)
        if stored is None:
            shown = self.columns.absent(model.first.model, key, self.notes)
        else:
            shown = value_cell(stored, slot, self.notes)
        metric = metrics_of(stored.record).get(key) if stored else slot.metric
        training = model.training
        record = flat(
            table=self.layout.number,
            block=block,
            row=model.name,
            kind="measured",
            model=model.name,
            spec=model.first.record.model.get("spec"),
            model_fingerprint=model.first.model[1],
            recipe=training.recipe if training else None,
            size=training.size if training else None,
            objectives="+".join(training.objectives) if training else None,
            samples=training.samples if training else None,
            seeds=str(training.seed) if training else None,
            metric=key,
            quantity="value",
            value=shown.value,
            **bounds(shown.ci95),
            unit=metric.unit if metric else None,
            higher_is_better=metric.higher_is_better if metric else None,
            reason=shown.text or None,
            **(of_result(stored) if stored else {}),
        )
        return Beside(cell=shown, record=record, paper=self._printed(cell, key) if cell else None, stored=stored)


def _flag_best(rows: Sequence[Row], columns: Columns) -> list[Row]:
    """Bold among the measured rows of a block, as in the paper; values over fewer samples than the rest stay out."""
    out = [list(r.cells) for r in rows]
    for place, slot in enumerate(columns.slots, start=1):
        found = {
            k: round(v, r.cells[place].decimals)
            for k, r in enumerate(rows)
            if r.kind == "measured" and (v := r.cells[place].value) is not None and not r.cells[place].label
        }
        if slot.metric is None or len(found) < 2:
            continue
        best = (max if slot.metric.higher_is_better else min)(found.values())
        for k in (k for k, v in found.items() if v == best):
            out[k][place] = replace(out[k][place], best=True)
    return [replace(r, cells=tuple(cells)) for r, cells in zip(rows, out, strict=True)]
