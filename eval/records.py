"""What a run writes down: the parts of a result's record, and the record of a failure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mtv.eval.datasets.base import Dataset, as_dict
from mtv.eval.environment import versions
from mtv.eval.jobs import Job
from mtv.eval.task import Scored, Task
from mtv.results import MetricValue, TaskResult


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A job whose data passed the check."""

    job: Job
    """What to run."""
    task: Task[Any, Any]
    """The task."""
    dataset: Dataset
    """Its data."""
    content: str
    """SHA-256 over the bytes of all files that change the number."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Something that did not work, for the summary and the exit code."""

    what: str
    """`model task` or `task`."""
    message: str
    """One sentence."""
    exit_code: int
    """1; 2 for a model or option that does not exist; 3 when the data check failed."""
    error: Exception
    """What was raised."""


def frame(model: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """What every record has: time, task, protocol, model, versions."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "created": now.isoformat(timespec="seconds"),
        "task": job.protocol.task,
        "protocol": job.protocol.describe(job.preset),
        "model": dict(model),
        "env": versions(),
    }


def data_part(opened: Opened) -> dict[str, Any]:
    """The `data` part of a record: which set, which bytes, how much of it, and the verdict of its check."""
    report = as_dict(opened.dataset.report)
    return {
        "name": opened.dataset.name,
        "split": opened.dataset.split,
        "fingerprint": opened.dataset.fingerprint,
        "content_sha256": opened.content,
        "counts": opened.task.counts(opened.dataset),
        "checked": report["checked"],
        "verdict": report["verdict"],
        "label": report["label"],
        "layout": report["layout"],
    }


def failed(
    model: Mapping[str, Any], job: Job, error: Exception, *, stage: str, opened: Opened | None = None
) -> TaskResult:
    """The record of a failure.

    Args:
        model: `EncoderInfo.to_dict()`, or what is known of a model that was not loaded.
        job: what was to be run.
        error: why it was not.
        stage: `data`, `load` or `run`.
        opened: its data, if they were opened.
    """
    return TaskResult(
        **frame(model, job),
        status="failed",
        data=data_part(opened) if opened else {"name": job.protocol.task, "fingerprint": "", "label": ""},
        run={"suite": job.suite},
        error={"type": type(error).__name__, "message": without_directories(str(error)), "stage": stage},
    )


def unloaded(spec: str, alias: str | None) -> dict[str, Any]:
    """The `model` part of a record about a model that could not be loaded."""
    return {"spec": spec, "alias": alias, "fingerprint": "unloaded"}


def without_directories(message: str) -> str:
    """A message for a record that others may see: absolute paths are cut to their last component."""
    return re.sub(r"(?<![\w./:])/(?:[^\s/:'\"]+/)+", ".../", message)


def metric_values(task: str, scored: Scored, *, n_resamples: int, seed: int) -> dict[str, MetricValue]:
    """The metrics of a task under their full names, with intervals from its per-sample table."""
    from mtv.stats import evaluate

    recipes = {
        f"{task}/{name}": replace(recipe, of=tuple(f"{task}/{o}" for o in recipe.of))
        for name, recipe in scored.recipes.items()
    }
    return evaluate(recipes, scored.table, n_resamples=n_resamples, seed=seed)


def summary(record: TaskResult) -> str:
    """`imagenet/top1 68.30 [67.9, 68.7] percent`, one line for the log."""
    if record.headline is None:
        return f"{record.task}: {record.status}"
    name, metric = record.headline
    if metric.value is None:
        return f"{name} undefined"
    interval = f" [{metric.ci95[0]:.2f}, {metric.ci95[1]:.2f}]" if metric.ci95 else ""
    return f"{name} {metric.value:.2f}{interval} {metric.unit}"
