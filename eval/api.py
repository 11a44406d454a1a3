"""`evaluate`: the suite from Python, for notebooks and training loops.

from mtv.eval import evaluate

for result in evaluate(model, ["imagenet", "spair"], "/data", protocol="fast", limit=1000):
    log(result.task, result.headline)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.encoders.python_backend import wrap_module
from mtv.errors import MtvError
from mtv.eval.features.options import ExtractOptions
from mtv.eval.jobs import Job
from mtv.eval.protocols import expand_tasks, protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.store import ResultStore

if TYPE_CHECKING:
    from mtv.results import TaskResult

log = logging.getLogger(__name__)


def evaluate(
    encoder: Encoder | torch.nn.Module | str,
    tasks: str | Sequence[str],
    data: str | Path,
    protocol: str = "paper",
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

    Args:
        encoder: a loaded `Encoder`; a module as in `mtv.encoders.python_backend` (dense map, `patch_size`, `size`),
            which is put into evaluation mode for the call and gets its training flags back; or a spec string.
        tasks: task or suite names.
        data: folder that holds the data sets.
        protocol: preset name.
        overrides: task to protocol fields, for example `{"spair": {"mode": "centered"}}`.
        limit: samples per task, stratified.
        out: result store; None keeps results in memory only.
        cache: feature store; None keeps features in memory for this call, which suits weights that change every epoch.
        device: where to run; a given model stays where it is unless this is set.
        batch_size: images per forward pass; None chooses.
        workers: loader processes; 0 loads in this process, which is the safe choice inside a training job.
        quiet: no progress on stderr.
        strict: raise the first failure instead of returning it as a failed result.

    Returns:
        One `TaskResult` per task that suits the model.

    Raises:
        MtvError: unknown names, missing data, or with `strict` any failed task.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    dtype = _dtype_of(encoder)
    jobs = [
        _job(choice, protocol, (overrides or {}).get(choice.task, {}), limit, dtype) for choice in expand_tasks(names)
    ]
    options = RunOptions(
        extract=ExtractOptions(
            cache_dir=Path(cache) if cache is not None else None, batch_size=batch_size, workers=workers
        ),
        quiet=quiet,
    )
    runner = Runner(Path(data), ResultStore(Path(out)) if out is not None else None, options)
    runner.open(jobs)
    with _ready(encoder, device) as ready:
        runner.run_model(ready, jobs)
    if strict and runner.failures:
        failure = runner.failures[0]
        raise MtvError(f"{failure.what}: {failure.message}")
    return runner.results


def _job(choice: Any, preset: str, fields: Mapping[str, Any], limit: int | None, dtype: str) -> Job:
    values = {**choice.overrides, **fields, "tower_dtype": dtype}
    if limit is not None:
        values["limit"] = limit
    return Job(protocol=protocol_for(choice.task, preset, values), preset=preset, optional=choice.from_suite)


def _dtype_of(encoder: Encoder | torch.nn.Module | str) -> str:
    if isinstance(encoder, str):
        return "fp32"
    dtype = encoder.dtype if isinstance(encoder, Encoder) else next(encoder.parameters()).dtype
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


@contextlib.contextmanager
def _ready(encoder: Encoder | torch.nn.Module | str, device: str | None) -> Iterator[Encoder]:
    """The model as an `Encoder` on its device; a user's module gets modes and gradients back afterwards."""
    if isinstance(encoder, str):
        yield load(encoder, device=device or "cpu")
        return
    module = encoder.module if isinstance(encoder, Encoder) else encoder
    modes = {name: m.training for name, m in module.named_modules()}
    grads = {name: p.requires_grad for name, p in module.named_parameters()}
    home = next(module.parameters()).device
    try:
        ready = encoder if isinstance(encoder, Encoder) else wrap_module(encoder)
        module.eval()
        yield ready.to(device) if device is not None else ready
    finally:
        module.to(home)
        for name, m in module.named_modules():
            m.training = modes[name]
        for name, p in module.named_parameters():
            p.requires_grad_(grads[name])
