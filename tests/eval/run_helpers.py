"""Runs for the tests of the runner and the command line: in this process, or in one that can be killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtv.encoders.base import Encoder
from mtv.eval.features.options import ExtractOptions
from mtv.eval.features.shard import read_shard
from mtv.eval.jobs import Job
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.store import ResultStore
from mtv.results import TaskResult, find_records, read_record, read_samples


def make_runner(
    data: Path, out: Path | None, *, cache: Path | None = None, shard: tuple[int, int] | None = None, **options: Any
) -> Runner:
    """A runner in this process: loading here, in batches of four; `options` are those of `RunOptions`."""
    fields: dict[str, Any] = {"batch_size": 4, "workers": 0}
    fields.update({k: options.pop(k) for k in ("batch_size", "workers", "verify") if k in options})
    extract = ExtractOptions(cache_dir=cache, **fields)
    options = {"quiet": True, "artefacts": False, "n_resamples": 200, **options}
    return Runner(data, ResultStore(out) if out else None, RunOptions(extract=extract, shard=shard, **options))


def make_job(task: str, preset: str = "paper", *, suite: str = "", **fields: Any) -> Job:
    """A task under a preset with overrides; with `suite`, as if that suite had brought it."""
    return Job(protocol=protocol_for(task, preset, fields), preset=preset, suite=suite)


Table = dict[str, np.ndarray]


def measure(
    encoder: Encoder, job: Job, data: Path, out: Path, *, cache: Path | None = None, **options: Any
) -> tuple[TaskResult, Table]:
    """One task on one model through the runner, read back from the disk."""
    runner = make_runner(data, out, cache=cache, **options)
    runner.open([job])
    runner.run_model(encoder, [job])
    assert not runner.failures, runner.failures[0].message
    (record,) = runner.results
    assert runner.store is not None
    path = runner.store.path_for(record)
    written = read_record(path)
    assert json.dumps(written.to_json()) == json.dumps(record.to_json())
    return written, read_samples(path, written)


def stored(out: Path) -> dict[tuple[str, str], tuple[Path, TaskResult]]:
    """(model name, task) to path and record."""
    return {(r.model_name, r.task): (p, r) for p, r in find_records(out)}


def same_outcome(a: tuple[Path, TaskResult], b: tuple[Path, TaskResult], *, tolerance: float = 1e-6) -> None:
    """Assert equal keys, metrics and sample tables; numbers up to `tolerance`."""
    (path_a, record_a), (path_b, record_b) = a, b
    assert record_a.key == record_b.key
    assert list(record_a.metrics) == list(record_b.metrics)
    for name, metric in record_a.metrics.items():
        other = record_b.metrics[name]
        assert (metric.n, metric.n_clusters, metric.value is None) == (other.n, other.n_clusters, other.value is None)
        numbers = [[m.value or 0.0, *(m.ci95 or ())] for m in (metric, other)]
        np.testing.assert_allclose(numbers[0], numbers[1], atol=tolerance, rtol=0, err_msg=name)
    table_a, table_b = read_samples(path_a, record_a), read_samples(path_b, record_b)
    assert list(table_a) == list(table_b)
    for name, values in table_a.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, table_b[name], atol=tolerance, rtol=0, err_msg=name)
        else:
            np.testing.assert_array_equal(values, table_b[name], err_msg=name)


@contextlib.contextmanager
def usual_logging() -> Iterator[None]:
    """The command line sets up its own log; afterwards pytest's is back."""
    root, mtv = logging.getLogger(), logging.getLogger("mtv")
    handlers, levels = root.handlers[:], (root.level, mtv.level)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        mtv.setLevel(levels[1])


def mtv_eval(*argv: object) -> int:
    """`mtv-eval ARGS` in this process; its exit code."""
    from mtv.eval.cli import invoke

    with usual_logging():
        return invoke([str(a) for a in argv])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command line did."""

    code: int
    """Exit code."""
    out: str
    """stdout."""
    err: str
    """stderr."""


def _child(argv: Sequence[str], out: str, err: str, env: Mapping[str, str], flush_rows: int | None) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(env)
    import torch

    from mtv.eval.cli import invoke
    from mtv.eval.features import writer

    torch.set_num_threads(1)
    if flush_rows is not None:
        writer.FLUSH_ROWS = flush_rows
    code = invoke(list(argv))
    sys.stdout.flush()
    os._exit(code)


class CommandProcess:
    """`mtv-eval` in a process of its own that has imported torch already, so that many of them are cheap.

    Args:
        argv: the command line.
        folder: gets `out.txt` and `err.txt`.
        env: environment variables of the process.
        flush_rows: rows per shard of the feature store instead of 4096.
    """

    def __init__(
        self,
        argv: Sequence[object],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        flush_rows: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["mtv.eval.runner", "mtv.eval.cli", "mtv.encoders.python_backend", "run_helpers"]
        )
        words = [str(a) for a in argv]
        arguments = (words, str(self._out), str(self._err), dict(env or {}), flush_rows)
        self.process = context.Process(target=_child, args=arguments)
        self.process.start()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.join()

    def answer(self, timeout: float = 120) -> Answer:
        """Wait for the end."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s: {self._err.read_text()}"
        return Answer(code=self.process.exitcode, out=self._out.read_text(), err=self._err.read_text())


def forwarded(log: Path) -> int:
    """Pictures that went through the model, by its own account."""
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def landed(cache: Path) -> dict[Path, tuple[int, str]]:
    """Finished shards with pictures: modification time and hash."""
    found = {}
    for path in cache.glob("*/shard-*.safetensors"):
        if "text" not in read_shard(path).outputs:
            found[path] = path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows_in(shards: dict[Path, tuple[int, str]]) -> int:
    return len({(p.parent, i) for p in shards for i in read_shard(p).ids})
