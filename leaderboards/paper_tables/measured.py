"""What a study says about one objective set in one column: mean over seeds, intervals, and changes between two sets.

* The interval of a value is over the choice of test samples. With one training seed it is the one in the record; with
  several it is that of their mean. The spread over seeds stands apart from it, as a standard deviation.
* A change between two objective sets is paired: over the seeds that both have, and in every resample over the same test
  samples (`mtv.leaderboards.attribution.cells`).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mtv.leaderboards.frame import Stored, metrics_of
from mtv.leaderboards.grid import Cell, decimals
from mtv.leaderboards.layout import Notes
from mtv.leaderboards.paper_tables.columns import Columns, not_run, value_cell
from mtv.leaderboards.study import Objectives, Study
from mtv.results import is_whole
from mtv.training_record import TrainingRecord

if TYPE_CHECKING:
    import numpy as np

    from mtv.leaderboards.attribution.cells import CellDraws


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A mean over seeds, or why there is none."""

    cell: Cell
    """Value and interval over test samples, or words."""
    seeds: tuple[int, ...] = ()
    """Training seeds that entered."""
    sd: float | None = None
    """Standard deviation over seeds; None for fewer than two."""
    stored: Stored | None = None
    """One of the results, for protocol and data."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Difference between two objective sets, in the metric's own direction."""

    value: float
    """Mean over the seeds that both have."""
    ci95: tuple[float, float] | None
    """Paired interval over test samples; None without sample tables."""
    seeds: tuple[int, ...]
    """Training seeds that entered."""
    sd: float | None
    """Standard deviation over seeds; None for fewer than two."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One study under one column."""

    study: Study
    """The runs."""
    key: str
    """`task/metric`."""
    columns: Columns
    """Of the table."""
    path: tuple[Objectives, ...]
    """Objective sets that the table shows."""
    notes: Notes
    """Receives remarks."""

    @property
    def digits(self) -> int:
        """Digits after the point."""
        metric = self.columns.slot(self.key).metric
        return decimals(metric.unit) if metric else 1

    def values(self, objectives: Objectives) -> dict[int, float]:
        """Seed to value, where there is one."""
        out = {}
        for cell in self.study.of(objectives):
            metric = self._metric(objectives, cell.training.seed)
            if metric is not None:
                out[cell.training.seed] = metric
        return out

    def entry(self, objectives: Objectives) -> Entry:
        """The mean over seeds with its interval, or the reason why there is none."""
        runs, values = self.study.of(objectives), self.values(objectives)
        if not values:
            return Entry(cell=self._reason(objectives))
        seeds = tuple(values)
        slot = self.columns.slot(self.key)
        stored = self.study.cells[objectives, seeds[0]].results[slot.task]
        cell = value_cell(stored, slot, self.notes)
        if len(seeds) > 1:
            ci95 = self._interval([self._drawn(objectives, k) for k in seeds])
            cell = replace(cell, value=statistics.fmean(values.values()), ci95=ci95)
        if len(seeds) < len(runs):
            without = ", ".join(str(c.training.seed) for c in runs if c.training.seed not in values)
            cell = replace(cell, marks=(*cell.marks, self.notes.mark(f"without a value for seed {without}.")))
        return Entry(cell=cell, seeds=seeds, sd=_sd(list(values.values())), stored=stored)

    def change(self, now: Objectives, before: Objectives) -> Change | None:
        """From one objective set to another; None where no seed has both."""
        a, b = self.values(before), self.values(now)
        seeds = tuple(k for k in b if k in a)
        if not seeds:
            return None
        changes = [b[k] - a[k] for k in seeds]
        drawn = []
        for k in seeds:
            then, after = self._drawn(before, k), self._drawn(now, k)
            drawn.append(None if then is None or after is None else after - then)
        return Change(value=statistics.fmean(changes), ci95=self._interval(drawn), seeds=seeds, sd=_sd(changes))

    def _metric(self, objectives: Objectives, seed: int) -> float | None:
        stored = self.study.cells[objectives, seed].results.get(self.key.split("/")[0])
        metric = None if stored is None else metrics_of(stored.record).get(self.key)
        return None if metric is None else metric.value

    def _reason(self, objectives: Objectives) -> Cell:
        runs, slot = self.study.of(objectives), self.columns.slot(self.key)
        if not runs:
            other = left_out(self.study, objectives, self.columns)
            return Cell(text=not_run(slot)) if other is None else self.columns.absent(other, self.key, self.notes)
        stored = next((c.results[slot.task] for c in runs if slot.task in c.results), None)
        if stored is not None:
            return value_cell(stored, slot, self.notes)
        return self.columns.absent(runs[0].model, self.key, self.notes)

    @cached_property
    def _draws(self) -> CellDraws | None:
        """Joint resamples of the sets shown; None, with a note, where a sample table is not there."""
        from mtv.leaderboards.attribution.cells import draw_cells

        cells = {place: c for place, c in self.study.cells.items() if place[0] in self.path}
        task = self.key.split("/")[0]
        used = [c.results[task] for c in cells.values() if task in c.results]
        if any(s.record.samples is None or not is_whole(s.path, s.record) for s in used):
            self.notes.mark(f"{self.key}: no intervals of changes and means, for want of sample tables.")
            return None
        return draw_cells(replace(self.study, cells=cells), self.key)

    def _drawn(self, objectives: Objectives, seed: int) -> np.ndarray | None:
        return None if self._draws is None else self._draws.drawn[objectives, seed]

    def _interval(self, drawn: Sequence[np.ndarray | None]) -> tuple[float, float] | None:
        from mtv.leaderboards.attribution.cells import interval

        known = [d for d in drawn if d is not None]
        if len(known) < len(drawn) or self._draws is None or self._draws.n_clusters < 2:
            return None
        total = known[0]
        for other in known[1:]:
            total = total + other
        return interval(total / len(known))


def left_out(study: Study, objectives: Objectives, columns: Columns) -> tuple[str, str] | None:
    """A model of the study with these objectives that all its results were left out of, as of another setting."""
    for stored in columns.everything:
        t = TrainingRecord.from_dict(stored.record.model["training"], where=str(stored.path))
        same = (t.study_hash, t.data_hash, t.samples) == (study.study_hash, study.data_hash, study.samples)
        if same and t.objectives == objectives:
            return stored.model
    return None


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
