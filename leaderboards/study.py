"""Results of `mtv-train` checkpoints as a study: which objectives, which seed, how many samples, on which size.

* A `Study` is a set of runs that differ in objectives and seed only (`TrainingRecord.study_hash`, training data), all
  measured after the same number of samples. Tables 3 and 4, synergy and attribution each speak about one study.
* A `Cell` is one run at one point of its training, with one result per task. Where several results of a task exist for
  it, protocol and data must be chosen first: `studies` refuses a mixture, as tables do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.frame import Stored
from mtv.leaderboards.layout import groups_of, refuse_mixture
from mtv.model.config import OBJECTIVES
from mtv.results import MetricValue
from mtv.training_record import TrainingRecord

Objectives = tuple[str, ...]
"""In the order vl, ssl, ground, depth."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run at one point of its training, and what was measured there."""

    training: TrainingRecord
    """Of the checkpoint."""
    model: tuple[str, str]
    """Name and fingerprint, as `Stored.model`."""
    results: Mapping[str, Stored]
    """Task to its one complete result; tasks that failed are not in it."""
    failed: Mapping[str, Stored]
    """Task to its record, where nothing succeeded."""

    def metric(self, key: str) -> MetricValue | None:
        """The value of `task/metric`, or None where it was not measured."""
        stored = self.results.get(key.split("/")[0])
        return None if stored is None else stored.record.metrics.get(key)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs that differ in objectives and seed only, after the same number of samples."""

    study_hash: str
    """Of the recipe without objectives and seed."""
    recipe: str
    """Name of the recipe."""
    size: str
    """Model size."""
    samples: int
    """Samples that every checkpoint had seen."""
    samples_total: int
    """Samples of a whole run: fewer were seen where a checkpoint on the way was measured."""
    data_hash: str
    """Of the training data."""
    cells: Mapping[tuple[Objectives, int], Cell]
    """Objectives and seed to what was measured."""

    @property
    def title(self) -> str:
        """`mini, 32,000 samples`, with the share of the run where it was not over."""
        part = "" if self.samples == self.samples_total else f" of {self.samples_total:,}"
        size = "" if self.size == self.recipe else f" ({self.size})"
        return f"{self.recipe}{size}, {self.samples:,}{part} samples"

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of any cell, rising."""
        return tuple(sorted({seed for _, seed in self.cells}))

    @cached_property
    def subsets(self) -> tuple[Objectives, ...]:
        """Objective sets of any cell: fewer first, then in the order of the paper's table."""
        return tuple(sorted({o for o, _ in self.cells}, key=lambda o: (len(o), [OBJECTIVES.index(t) for t in o])))

    def of(self, objectives: Objectives) -> list[Cell]:
        """The cells of an objective set, by seed."""
        return [self.cells[objectives, seed] for seed in self.seeds if (objectives, seed) in self.cells]


def studies(records: Sequence[Stored], *, allow_mixed: bool = False) -> list[Study]:
    """All studies among results, the largest first, then by size, samples and hash.

    Args:
        records: results of any models; those without a training record are passed over.
        allow_mixed: take the most frequent protocol and data set of a task where results differ, and leave the others
            out, instead of refusing.

    Raises:
        UsageError: a task was measured under several protocols or on several data sets; or two different checkpoints
            claim the same objectives, seed and samples (names both).
    """
    trained = [s for s in records if s.record.model.get("training")]
    chosen: list[Stored] = []
    for task in dict.fromkeys(s.record.task for s in trained):
        groups = groups_of([s for s in trained if s.record.task == task and s.record.status != "failed"])
        if not allow_mixed:
            refuse_mixture(task, groups)
        chosen += groups[0] if groups else []
        chosen += [s for s in trained if s.record.task == task and s.record.status == "failed"]
    by_study: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in _cells(chosen):
        t = cell.training
        by_study.setdefault((t.study_hash, t.data_hash, t.samples, t.samples_total), []).append(cell)
    found = [_study(cells) for cells in by_study.values()]
    return sorted(found, key=lambda s: (-len(s.cells), s.size, -s.samples, s.study_hash))


def _cells(records: Sequence[Stored]) -> Iterator[Cell]:
    by_model: dict[tuple[str, str], list[Stored]] = {}
    for stored in records:
        by_model.setdefault(stored.model, []).append(stored)
    for model, own in by_model.items():
        record = TrainingRecord.from_dict(own[0].record.model["training"], where=str(own[0].path))
        results = {s.record.task: s for s in own if s.record.status != "failed"}
        failed = {s.record.task: s for s in own if s.record.status == "failed" and s.record.task not in results}
        yield Cell(training=record, model=model, results=results, failed=failed)


def _study(cells: Sequence[Cell]) -> Study:
    placed: dict[tuple[Objectives, int], Cell] = {}
    for cell in cells:
        place = (cell.training.objectives, cell.training.seed)
        if place in placed:
            raise UsageError(
                f"{placed[place].model[0]} and {cell.model[0]} are different checkpoints with the same objectives "
                f"({', '.join(place[0])}), seed {place[1]} and {cell.training.samples:,} samples",
                "Choose with --model, or keep them in different result stores.",
            )
        placed[place] = cell
    t = cells[0].training
    return Study(
        study_hash=t.study_hash,
        recipe=t.recipe,
        size=t.size,
        samples=t.samples,
        samples_total=t.samples_total,
        data_hash=t.data_hash,
        cells=placed,
    )
