"""Table 4 of the paper from results: synergy of each pair of objectives over VL alone, in per cent (Eq. 4).

The numbers come from `mtv.leaderboards.attribution.synergy`, which has the rules for directions, undefined ratios and
intervals. Cells of the paper that cannot be true together with its Table 3 are marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtv.leaderboards.frame import Stored
from mtv.leaderboards.grid import INTERVAL_NOTE, Cell, Column, Row, Table
from mtv.leaderboards.layout import Notes, Slot
from mtv.leaderboards.paper.cells import WORDS, PaperCell, find
from mtv.leaderboards.paper_tables.columns import Columns, make_columns, not_run
from mtv.leaderboards.paper_tables.measured import left_out
from mtv.leaderboards.paper_tables.records import bounds, flat, of_result
from mtv.leaderboards.paper_tables.runs import Block, Scale, block_of, longest, study_title
from mtv.leaderboards.paper_tables.stacked import Beside, all_notes, group_row, stacked
from mtv.leaderboards.paper_tables.table3 import of_trainer, study_notes
from mtv.leaderboards.study import Study, studies

if TYPE_CHECKING:
    from mtv.leaderboards.attribution.cells import CellDraws
    from mtv.leaderboards.attribution.synergy import AverageSynergy, SynergyValue

FORMULA_NOTE = (
    "Synergy of A and B: (gain of both - larger single gain) / larger single gain, over VL alone, in the direction of "
    "the metric. Undefined where neither helps alone. Intervals are joint over the test samples that all runs share."
)
AVERAGE_NOTE = "Average: over the metrics with a value; the number of them is given where some have none."
SEEDS_NOTE = (
    "Gains are averaged over the training seeds that have all four runs. Intervals are 95 % and cover the choice of "
    "test samples and, where there are several, of training seeds: not the fitting of a head."
)
UNIT = "percent"


def build(
    records: Sequence[Stored],
    *,
    beside: Scale | None = None,
    unavailable: Mapping[str, str] | None = None,
    allow_mixed: bool = False,
) -> Table:
    """Lay out Table 4.

    Args:
        records: from `frame.load`.
        beside: a block of the paper to show for reference beside studies that repeat none of its runs.
        unavailable: tasks that cannot have results yet, and why.
        allow_mixed: use the most frequent setting of a task whose results differ in protocol or data.

    Raises:
        UsageError: no checkpoint of the trainer among the results, or a mixture of settings.
        CacheError: a sample table is missing or damaged.
    """
    from mtv.leaderboards.attribution.synergy import TABLE4_KEYS

    trained = of_trainer(records, TABLE4_KEYS, "Table 4")
    shown, earlier = longest(studies(trained, allow_mixed=allow_mixed))
    columns = make_columns(TABLE4_KEYS, trained, allow_mixed=allow_mixed, unavailable=unavailable)
    notes = Notes()
    views = [_View(study=s, block=block_of(s, beside), columns=columns, notes=notes) for s in shown]
    parts = [view.lines() for view in views]
    general = [FORMULA_NOTE, AVERAGE_NOTE, *columns.notes()]
    several = any(len(s.seeds) > 1 for s in shown)
    return Table(
        title="Table 4. Task synergy (%)",
        head="Task A, Task B",
        columns=(*_headings(columns), Column(key="average", title="Average")),
        rows=tuple(row for rows, _ in parts for row in rows),
        notes=all_notes(
            notes,
            [*general, *study_notes([v.block for v in views], earlier)],
            intervals=SEEDS_NOTE if several else INTERVAL_NOTE,
        ),
        data=tuple(record for _, data in parts for record in data),
    )


def _headings(columns: Columns) -> list[Column]:
    """Names of the benchmarks alone: all columns are in per cent, and more is better."""
    short = {"imagenet/top1": "IN-1k", "coco/i2t_r1": "COCO I→T"}
    return [Column(key=c.key, title=short.get(c.key, c.title.split()[0]), label=c.label) for c in columns.headings()]


@dataclass(frozen=True, kw_only=True)
class _View:
    """One study, and what stands beside it."""

    study: Study
    block: Block | None
    columns: Columns
    notes: Notes

    def lines(self) -> tuple[list[Row], list[dict[str, Any]]]:
        """Heading, and one line per pair."""
        from mtv.leaderboards.attribution.cells import draw_cells
        from mtv.leaderboards.attribution.synergy import PAIRS

        draws = {s.key: draw_cells(self.study, s.key) for s in self.columns.slots}
        rows = [group_row(study_title(self.study), len(draws) + 1)]
        data: list[dict[str, Any]] = []
        for pair in PAIRS:
            more = self._line(pair, draws)
            rows, data = rows + more[0], data + more[1]
        return rows, data

    def _line(self, pair: tuple[str, str], draws: Mapping[str, CellDraws]) -> tuple[list[Row], list[dict[str, Any]]]:
        from mtv.leaderboards.attribution.synergy import average_synergy, synergy_of

        values = {key: synergy_of(d, pair) for key, d in draws.items()}
        name = ", ".join(WORDS[o] for o in pair)
        line = [self._synergy(v, name) for v in values.values()]
        line.append(self._average(average_synergy(list(values.values())), name))
        paper = f"paper ({self.block.scale})" if self.block else ""
        return stacked(name, line, self.notes, paper=paper, against=self.block.reason if self.block else "")

    def _synergy(self, v: SynergyValue, name: str) -> Beside:
        slot = self.columns.slot(v.key)
        marks = (self.notes.mark(f"{v.key}: {v.reason}."),) if v.reason and not v.missing else ()
        if v.value is not None:
            cell = Cell(value=100 * v.value, ci95=_per_cent(v.ci95), marks=marks)
        else:
            cell = self._missing(v, slot) if v.missing else Cell(text="undefined", marks=marks)
        stored = next(iter(slot.stored), None)
        record = self._record(v.pair, name, cell, v.key, v.seeds, v.reason, stored)
        return Beside(cell=cell, record=record, paper=self._printed(v.pair, metric=v.key), stored=stored)

    def _missing(self, v: SynergyValue, slot: Slot) -> Cell:
        """Why a pair has no value: a run that is not there, or what keeps one that is there from having a score."""
        from mtv.leaderboards.attribution.cells import label, objectives_of

        needed = [objectives_of(added) for added in ((), (v.pair[0],), (v.pair[1],), v.pair)]
        if slot.unavailable:
            return Cell(text=not_run(slot))
        others = [m for o in needed if not self.study.of(o) and (m := left_out(self.study, o, self.columns))]
        absent = [label(o) for o in needed if not self.study.of(o)]
        if absent and not others:
            return Cell(text=f"not run: {', '.join(absent)}")
        runs = [c for o in needed for c in self.study.of(o)]
        if not others and not any(slot.task in (*c.results, *c.failed) for c in runs):
            return Cell(text=not_run(slot))
        marks = (self.notes.mark(f"{v.key}: {v.reason}."),)
        without = [c.model for c in runs if slot.task not in c.results]
        found = [self.columns.absent(model, v.key, self.notes) for model in (*others, *without)]
        # What failed, or was measured otherwise, says more than what was not run.
        cell = next((c for c in found if c.text != not_run(slot)), found[0] if found else Cell(text="n/a"))
        return replace(cell, marks=(*cell.marks, *marks))

    def _average(self, a: AverageSynergy, name: str) -> Beside:
        left_out = a.n_undefined + a.n_missing
        label = f"{a.n_defined} of {a.n_defined + left_out}" if left_out else ""
        cell = Cell(text="–")
        if a.value is not None:
            cell = Cell(value=100 * a.value, ci95=_per_cent(a.ci95), label=label)
        record = self._record(a.pair, name, cell, None, (), "", None)
        # An average over fewer metrics than the paper's is another number.
        differs = f"an average over {label} metrics" if label and a.value is not None else ""
        return Beside(cell=cell, record=record, paper=self._printed(a.pair, quantity="average"), differs=differs)

    def _printed(self, pair: tuple[str, str], **wanted: str) -> PaperCell | None:
        if self.block is None:
            return None
        objectives = tuple(o for o in WORDS if o in pair)
        place = {"size": self.block.scale.size, "data": self.block.scale.data}
        return find("table4", objectives=objectives, **place, **wanted)

    def _record(
        self,
        pair: tuple[str, str],
        name: str,
        cell: Cell,
        key: str | None,
        seeds: tuple[int, ...],
        reason: str,
        stored: Stored | None,
    ) -> dict[str, Any]:
        return flat(
            table="4",
            block=self.study.title,
            row=name,
            kind="measured",
            recipe=self.study.recipe,
            size=self.study.size,
            objectives="+".join(pair),
            samples=self.study.samples,
            seeds=" ".join(map(str, seeds)) or None,
            metric=key,
            quantity="synergy" if key else "average",
            value=cell.value,
            **bounds(cell.ci95),
            unit=UNIT,
            higher_is_better=True,
            reason=reason or cell.text or None,
            **(of_result(stored) if stored and cell.value is not None else {}),
        )


def _per_cent(ci95: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ci95 is None else (100 * ci95[0], 100 * ci95[1])
