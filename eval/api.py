"""`evaluate`: the suite from Python, for notebooks and training loops.

from mtv.eval import evaluate

for result in evaluate(model, ["imagenet", "spair"], "/data", protocol="fast", limit=1000):
    log(result.task, result.headline)
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.encoders.placement import DTYPES, resolve_device
from mtv.encoders.python_backend import wrap_module
from mtv.errors import MtvError, UsageError, unknown
from mtv.eval.features.options import ExtractOptions
from mtv.eval.jobs import Job
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.store import ResultStore
from mtv.eval.suites import expand_tasks, unavailable

if TYPE_CHECKING:
    from mtv.results import TaskResult

log = logging.getLogger(__name__)


def evaluate(
    encoder: Encoder | torch.nn.Module | str,
    tasks: str | Sequence[str],
    data: str | Path,
    protocol: str | None = None,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    quiet: bool = True,
    strict: bool = True,
) -> list[TaskResult]:
    """Run tasks on one model and return their results.

    A given module keeps its weights, training flags and `requires_grad`; the random state of torch, numpy and python is
    the same afterwards. Where torchrun started several processes, all of them must call this together.

    Args:
        encoder: a loaded `Encoder`; a module as in `mtv.encoders.python_backend` (dense map, `patch_size`, `size`),
            which is in evaluation mode during the call; or a spec string.
        tasks: task or suite names.
        data: folder that holds the data sets.
        protocol: preset name; None for `mini` in suite `mini`, else `paper`.
        overrides: task to protocol fields, for example `{"spair": {"mode": "centered"}}`.
        limit: samples per task, stratified.
        out: result store; None keeps results in memory only.
        cache: feature store; None keeps features in memory for this call, which suits weights that change every epoch.
        device: where to run; a given model stays where it is unless this is set.
        batch_size: images per forward pass; None chooses.
        workers: loader processes; 0 loads in this process, which is the safe choice inside a training job.
        quiet: no progress on stderr.
        strict: raise a failure instead of returning it as a failed result: before any forward pass when data are
            missing or wrong, else after the last task.

    Returns:
        One `TaskResult` per task that suits the model.

    Raises:
        MtvError: unknown names, missing data, or with `strict` any failed task.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    jobs = _jobs(names, protocol, overrides or {}, limit, _dtype_of(encoder))
    place = resolve_device(device) if device is not None else None
    options = RunOptions(
        extract=ExtractOptions(
            cache_dir=Path(cache) if cache is not None else None, batch_size=batch_size, workers=workers
        ),
        quiet=quiet,
    )
    runner = Runner(Path(data), ResultStore(Path(out)) if out is not None else None, options)
    runner.open(jobs)
    _raise_first(runner, strict)
    with _same_random_state(encoder, place), _ready(encoder, place) as ready:
        runner.run_model(ready, jobs)
    _raise_first(runner, strict)
    return runner.results


def _raise_first(runner: Runner, strict: bool) -> None:
    if strict and runner.failures:
        failure = runner.failures[0]
        kind = type(failure.error) if isinstance(failure.error, MtvError) else MtvError
        raise kind(f"{failure.what}: {failure.message}") from failure.error


def _jobs(
    names: list[str], asked: str | None, overrides: Mapping[str, Mapping[str, Any]], limit: int | None, dtype: str
) -> list[Job]:
    choices = expand_tasks(names)
    for task, reason in unavailable(names).items():
        log.info("%s: not run, %s", task, reason)
    for task in overrides:
        if task not in (c.task for c in choices):
            raise unknown("task in overrides", task, [c.task for c in choices])
    jobs = []
    for choice in choices:
        values = {**choice.overrides, **overrides.get(choice.task, {}), "tower_dtype": dtype}
        if limit is not None:
            values["limit"] = limit
        preset = asked or choice.preset
        protocol = protocol_for(choice.task, preset, values)
        jobs.append(Job(protocol=protocol, preset=preset, suite=choice.suite))
    return jobs


def _dtype_of(encoder: Encoder | torch.nn.Module | str) -> str:
    """What the towers are in; a loaded encoder says so itself, because its depth head stays in float32."""
    if isinstance(encoder, str):
        return "fp32"
    if isinstance(encoder, Encoder):
        found = {encoder.dtype}
    else:
        found = {p.dtype for p in encoder.parameters() if p.is_floating_point()}
    for name, dtype in DTYPES.items():
        if found == {dtype}:
            return name
    raise UsageError(
        f"the parameters are in {', '.join(sorted(map(str, found))) or 'no floating-point dtype'}",
        f"Give a model whose parameters are all in one of {', '.join(map(str, DTYPES.values()))}.",
    )


def _module_of(encoder: Encoder | torch.nn.Module) -> torch.nn.Module:
    return encoder.module if isinstance(encoder, Encoder) else encoder


@contextlib.contextmanager
def _same_random_state(encoder: Encoder | torch.nn.Module | str, device: torch.device | None) -> Iterator[None]:
    """Loaders and a user's module may draw random numbers; a training run must not see that it was evaluated."""
    devices = {device} if device is not None else set()
    if not isinstance(encoder, str):
        devices |= {p.device for p in _module_of(encoder).parameters()}
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([d for d in devices if d.type == "cuda"]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _ready(encoder: Encoder | torch.nn.Module | str, device: torch.device | None) -> Iterator[Encoder]:
    """The model as an `Encoder` on its device; a user's module gets its modes and its device back afterwards."""
    if isinstance(encoder, str):
        yield load(encoder, device=device or "cpu")
        return
    module = _module_of(encoder)
    modes = {name: m.training for name, m in module.named_modules()}
    home = next(module.parameters()).device
    try:
        ready = encoder if isinstance(encoder, Encoder) else wrap_module(encoder)
        module.eval()
        yield ready.to(device) if device is not None else ready
    finally:
        if device is not None:
            module.to(home)
        for name, m in module.named_modules():
            m.training = modes[name]
