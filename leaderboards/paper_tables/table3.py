"""Table 3 of the paper from results: objectives added one by one, with increments and the absolute gain.

Below every measured row stand the paper's row and the difference, where the study repeats a run of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.formats import number_text
from mtv.leaderboards.frame import Stored
from mtv.leaderboards.grid import Cell, Row, Table
from mtv.leaderboards.layout import Notes
from mtv.leaderboards.paper.cells import ALL, METRICS, PaperCell, find, paper_value, tasks_text
from mtv.leaderboards.paper_tables.columns import Columns, make_columns
from mtv.leaderboards.paper_tables.measured import Change, Entry, Measured
from mtv.leaderboards.paper_tables.records import bounds, flat, of_result
from mtv.leaderboards.paper_tables.runs import Block, Scale, block_of, longest, study_title
from mtv.leaderboards.paper_tables.stacked import DIRECTIONS_NOTE, PAPER_NOTE, Beside, all_notes, group_row, stacked
from mtv.leaderboards.study import Objectives, Study, studies

PATH = ALL[1:]
"""Order in which the paper adds objectives to VL."""
GAIN = "Absolute Gain Δ"
CHANGES_NOTE = (
    "In parentheses: change from the row above. Absolute Gain Δ: all objectives against VL alone; its interval is "
    "paired over the same test samples."
)
SEEDS_NOTE = (
    "Values are means over training seeds: ± is the interval of the mean over test samples, SD the standard deviation "
    "over seeds. A change is the mean over the seeds that both rows have."
)


def parse_order(text: str, *, option: str = "--order") -> tuple[str, ...]:
    """`depth,ssl,ground`: an expansion path.

    Raises:
        UsageError: not each of ssl, ground and depth once.
    """
    order = tuple(t.strip() for t in text.split(","))
    if sorted(order) != sorted(PATH):
        raise UsageError(f"{option} {text}: name each of {', '.join(PATH)} once, for example depth,ssl,ground")
    return order


def build(
    records: Sequence[Stored],
    *,
    order: tuple[str, ...] = PATH,
    beside: Scale | None = None,
    unavailable: Mapping[str, str] | None = None,
    allow_mixed: bool = False,
) -> Table:
    """Lay out Table 3.

    Args:
        records: from `frame.load`.
        order: ssl, ground and depth in the order in which they join VL.
        beside: a block of the paper to show for reference beside studies that repeat none of its runs.
        unavailable: tasks that cannot have results yet, and why.
        allow_mixed: show the most frequent setting of a task whose results differ in protocol or data.

    Raises:
        UsageError: no checkpoint of the trainer among the results, or a mixture of settings.
    """
    trained = of_trainer(records, METRICS, "Table 3")
    shown, earlier = longest(studies(trained, allow_mixed=allow_mixed))
    columns = make_columns(METRICS, trained, allow_mixed=allow_mixed, unavailable=unavailable)
    notes = Notes()
    views = [_View(study=s, block=block_of(s, beside), columns=columns, order=order, notes=notes) for s in shown]
    parts = [view.lines() for view in views]
    general = [CHANGES_NOTE, DIRECTIONS_NOTE, *columns.notes()]
    general += [SEEDS_NOTE] if any(len(s.seeds) > 1 for s in shown) else []
    return Table(
        title="Table 3. Task scaling effects",
        head="Training Tasks",
        columns=columns.headings(),
        rows=tuple(row for rows, _ in parts for row in rows),
        notes=all_notes(notes, [*general, *study_notes([v.block for v in views], earlier)]),
        data=tuple(record for _, data in parts for record in data),
    )


def of_trainer(records: Sequence[Stored], keys: Sequence[str], table: str) -> list[Stored]:
    """Results of checkpoints of the trainer on the tasks of these `task/metric` keys.

    Raises:
        UsageError: there are none.
    """
    tasks = {key.split("/")[0] for key in keys}
    trained = [s for s in records if s.record.model.get("training") and s.record.task in tasks]
    if not trained:
        raise UsageError(
            f"{table} is about checkpoints of mtv-train, and no result on its tasks is of one",
            "Train some with `mtv-train sweep`, or measure one with `mtv-eval run -m mtv:RUN --out DIR`.",
        )
    return trained


def study_notes(blocks: Sequence[Block | None], earlier: int) -> list[str]:
    """What is left out, and how the paper's rows are meant."""
    out = [f"Earlier checkpoints of the same runs are left out: {earlier}."] if earlier else []
    reasons = [f"Not comparable with {b.scale} of the paper: {b.reason}." for b in blocks if b and b.reason]
    return [*out, *reasons, *([PAPER_NOTE] if any(blocks) else [])]


@dataclass(frozen=True, kw_only=True)
class _View:
    """One study, and what stands beside it."""

    study: Study
    block: Block | None
    columns: Columns
    order: tuple[str, ...]
    notes: Notes

    @cached_property
    def path(self) -> tuple[Objectives, ...]:
        """Objective sets in the order of the rows, each in the order of the records."""
        added = [("vl", *self.order[:n]) for n in range(len(self.order) + 1)]
        return tuple(tuple(o for o in ALL if o in names) for names in added)

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """Metric to what the study says about it."""
        shared = {"study": self.study, "columns": self.columns, "path": self.path, "notes": self.notes}
        return {s.key: Measured(key=s.key, **shared) for s in self.columns.slots}  # type: ignore[arg-type]

    def lines(self) -> tuple[list[Row], list[dict[str, Any]]]:
        """Heading, one line per objective set, and the gain."""
        rows = [group_row(study_title(self.study), len(self.columns.slots))]
        data: list[dict[str, Any]] = []
        for place, objectives in enumerate(self.path):
            before = self.path[place - 1] if place else None
            name = tasks_text(("vl", *self.order[:place]))
            line = [self._score(m, objectives, before, name) for m in self.measured.values()]
            more = self._stacked(name, line)
            rows, data = rows + more[0], data + more[1]
        more = self._stacked(GAIN, [self._gain(m) for m in self.measured.values()])
        return rows + more[0], data + more[1]

    def _stacked(self, name: str, line: Sequence[Beside]) -> tuple[list[Row], list[dict[str, Any]]]:
        paper = f"paper ({self.block.scale})" if self.block else ""
        return stacked(name, line, self.notes, paper=paper, against=self.block.reason if self.block else "")

    def _score(self, m: Measured, objectives: Objectives, before: Objectives | None, name: str) -> Beside:
        entry = m.entry(objectives)
        change = m.change(objectives, before) if before else None
        words = [number_text(change.value, m.digits, signed=True)] if change else []
        words += [f"SD {number_text(entry.sd, m.digits)}"] if entry.sd is not None else []
        cell = _labelled(entry.cell, words)
        record = self._record(m, objectives, name, entry, change)
        return Beside(
            cell=cell,
            record=record,
            paper=self._printed(m.key, objectives),
            stored=entry.stored,
            step=before == objectives[:-1],
        )

    def _gain(self, m: Measured) -> Beside:
        change = m.change(ALL, ALL[:1])
        ends = [m.entry(ALL), m.entry(ALL[:1])]
        if change is None:
            why = next((e.cell for e in ends if e.cell.value is None), Cell(text="no seed has both"))
            shown = Entry(cell=why)
        else:
            sd = [] if change.sd is None else [f"SD {number_text(change.sd, m.digits)}"]
            cell = Cell(value=change.value, ci95=change.ci95, decimals=m.digits, signed=True)
            shown = Entry(cell=_labelled(cell, sd), seeds=change.seeds, sd=change.sd, stored=ends[0].stored)
        record = self._record(m, ALL, GAIN, shown, None, quantity="gain")
        paper = None
        if self.block:
            place = {"size": self.block.scale.size, "data": self.block.scale.data}
            paper = find("table3", quantity="gain", metric=m.key, **place)
        return Beside(cell=shown.cell, record=record, paper=paper, stored=shown.stored)

    def _printed(self, key: str, objectives: Objectives) -> PaperCell | None:
        if self.block is None:
            return None
        return paper_value(key, size=self.block.scale.size, data=self.block.scale.data, objectives=objectives)

    def _record(
        self,
        m: Measured,
        objectives: Objectives,
        name: str,
        entry: Entry,
        change: Change | None,
        *,
        quantity: str = "value",
    ) -> dict[str, Any]:
        metric = self.columns.slot(m.key).metric
        return flat(
            table="3",
            block=self.study.title,
            row=name,
            kind="measured",
            recipe=self.study.recipe,
            size=self.study.size,
            objectives="+".join(objectives),
            samples=self.study.samples,
            seeds=" ".join(map(str, entry.seeds)) or None,
            metric=m.key,
            quantity=quantity,
            value=entry.cell.value,
            **bounds(entry.cell.ci95),
            sd_over_seeds=entry.sd,
            unit=metric.unit if metric else None,
            higher_is_better=metric.higher_is_better if metric else None,
            step=change.value if change else None,
            **bounds(change.ci95 if change else None, prefix="step_"),
            reason=entry.cell.text or None,
            **(of_result(entry.stored) if entry.stored else {}),
        )


def _labelled(cell: Cell, words: Sequence[str]) -> Cell:
    """The cell with more words behind its number."""
    return replace(cell, label="; ".join([*([cell.label] if cell.label else []), *words]))
