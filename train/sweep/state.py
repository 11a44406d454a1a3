"""What of a sweep is on the disk: finished runs, whole results, and how long they took. Nothing else is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtv.atomic import atomic_write_json
from mtv.errors import CacheError, CheckpointError
from mtv.results import TaskResult, is_whole, read_record
from mtv.train.export import LOG, last_line
from mtv.train.run_folder import newest_checkpoint, read_state
from mtv.train.sweep.plan import Cell

RESULTS = "results"
"""Result store below the folder of a sweep."""
MEASURED = "measured.json"
"""Which results the suite gave for a run; written when all of it worked."""
State = Literal["done", "trained", "begun", "missing"]


@dataclass(frozen=True, kw_only=True)
class CellState:
    """How far a run is."""

    state: State
    """`done`: trained and measured; `trained`: not measured yet; `begun`: has a checkpoint."""
    step: int
    """Of its newest checkpoint; 0 without any."""


def state_of(cell: Cell, out: Path, suite: Sequence[str]) -> CellState:
    """Look at one run. What cannot be read counts as not there: the trainer will say what is wrong with it."""
    try:
        folder = newest_checkpoint(cell.run(out))
        saved = read_state(folder) if folder is not None else None
    except CheckpointError:
        saved = None
    if saved is None or saved["recipe_hash"] != cell.recipe.hash:
        return CellState(state="missing", step=0)
    if saved["step"] < cell.recipe.steps:
        return CellState(state="begun", step=saved["step"])
    return CellState(state="done" if _is_measured(cell, out, suite, saved) else "trained", step=saved["step"])


def remember_measured(cell: Cell, out: Path, suite: Sequence[str], *, seconds: float) -> int:
    """Note which results the suite gave for a finished run; returns how many.

    Args:
        cell: the run.
        out: folder of the sweep.
        suite: tasks and suites that were measured without a failure.
        seconds: that this took.

    Raises:
        CacheError: a file that cannot be read or written.
    """
    state = read_state(_newest(cell, out))
    store = out / RESULTS
    found = [p for p in sorted(store.glob(f"{cell.alias}-????????/*/*.json")) if _fits(cell, p, read_record(p))]
    note = {
        "weights": state["files"],
        "suite": list(suite),
        "results": [str(p.relative_to(store)) for p in found],
        "seconds": seconds,
    }
    atomic_write_json(cell.notes(out) / MEASURED, note)
    return len(found)


def seconds_spent(cell: Cell, out: Path) -> float | None:
    """What a finished run and its measurement took; None where that is not known."""
    line, note = last_line(cell.run(out) / LOG), _note(cell, out)
    if line is None or note is None or not isinstance(line.get("elapsed_s"), (int, float)):
        return None
    return float(line["elapsed_s"]) + float(note["seconds"])


def seconds_left(left: Sequence[Cell], done: Sequence[Cell], out: Path, *, jobs: int) -> float | None:
    """Estimate from the finished runs most like each one that is left; None before a recipe has a finished run.

    Args:
        left: runs not done.
        done: runs done.
        out: folder of the sweep.
        jobs: runs at the same time.
    """
    known = [(c, s) for c in done if (s := seconds_spent(c, out)) is not None]
    total = 0.0
    for cell in left:
        same = [(c, s) for c, s in known if c.recipe.name == cell.recipe.name]
        near = [s for c, s in same if c.recipe.tasks == cell.recipe.tasks]
        near = near or [s for c, s in same if len(c.recipe.tasks) == len(cell.recipe.tasks)] or [s for _, s in same]
        if not near:
            return None
        total += sum(near) / len(near)
    return total / max(1, min(jobs, len(left)))


def _newest(cell: Cell, out: Path) -> Path:
    folder = newest_checkpoint(cell.run(out))
    if folder is None:
        raise CheckpointError(f"{cell.run(out)} has no checkpoint")
    return folder


def _is_measured(cell: Cell, out: Path, suite: Sequence[str], state: dict[str, Any]) -> bool:
    note = _note(cell, out)
    if note is None or note["weights"] != state["files"] or note["suite"] != list(suite):
        return False
    try:
        found = [(p, read_record(p)) for p in (out / RESULTS / name for name in note["results"])]
    except CacheError:
        return False
    return all(_fits(cell, path, record) for path, record in found)


def _fits(cell: Cell, path: Path, record: TaskResult) -> bool:
    """Whether this is a whole result of the finished run."""
    training = record.model.get("training") or {}
    finished = training.get("samples") is not None and training.get("samples") == training.get("samples_total")
    return finished and training.get("recipe_hash") == cell.recipe.hash and is_whole(path, record)


def _note(cell: Cell, out: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((cell.notes(out) / MEASURED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"weights", "suite", "results", "seconds"}
    return value if isinstance(value, dict) and keys <= value.keys() else None
