"""Runs of the relative-depth tasks, for their tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run_helpers import Table, make_job, make_runner, measure

from mtv.encoders.base import Encoder
from mtv.results import TaskResult


def score(encoder: Encoder, data: Path, out: Path, task: str = "rel_nyu", **fields: Any) -> tuple[TaskResult, Table]:
    """The task on one model through the runner, read back from the disk."""
    return measure(encoder, make_job(task, **fields), data, out)


def fail(
    encoder: Encoder, data: Path, out: Path, task: str = "rel_nyu", *, cache: Path | None = None, **fields: Any
) -> Exception:
    """The error with which the task fails."""
    job = make_job(task, **fields)
    runner = make_runner(data, out, cache=cache)
    runner.open([job])
    if not runner.failures:
        runner.run_model(encoder, [job])
    (failure,) = runner.failures
    return failure.error


def value(record: TaskResult, name: str) -> float:
    found = record.metrics[f"{record.task}/{name}"].value
    assert found is not None
    return found
