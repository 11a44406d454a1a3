"""Running the real pipeline on a temporary data root: one place that the checks share, so that nothing is run twice."""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.encoders import load
from mtv.errors import MtvError
from mtv.eval.features.options import ExtractOptions
from mtv.eval.jobs import Job
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.selftest import worlds_dense, worlds_text
from mtv.eval.selftest.codes import TIE_FILES
from mtv.eval.selftest.planted import SPEC
from mtv.eval.store import ResultStore
from mtv.results import TaskResult, read_samples

if TYPE_CHECKING:
    import numpy as np

    from mtv.encoders.base import Encoder

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "imagenet": ("paper", {}),
    "knn": ("paper", {}),
    "coco": ("paper", {}),
    "flickr30k": ("paper", {}),
    "flickr8k": ("paper", {}),
    "navi": ("paper", {"stride": 1, "matches": 200}),
    "spair": ("paper", {}),
    "sevenscenes": ("mini", {}),
}
"""Every task with the preset and fields of its hand answers."""
RESAMPLES = 200
"""Bootstrap resamples: intervals are checked by an oracle of their own."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One result as it lies on disk."""

    record: TaskResult
    """The record."""
    table: dict[str, np.ndarray]
    """Its sample table, read back."""
    path: Path
    """The record's file."""

    def values(self, *names: str) -> tuple[float | None, ...]:
        """Metrics by name without the task prefix."""
        return tuple(self.record.metrics[f"{self.record.task}/{n}"].value for n in names)

    def ties(self, name: str) -> tuple[float, ...]:
        """`n_tied, lo, hi` of a headline."""
        found = self.record.ties[f"{self.record.task}/{name}"]
        return found["n_tied"], found["lo"], found["hi"]


class Session:
    """Temporary data roots, a feature cache that all runs share, and the results made so far.

    Use as a context manager; everything is deleted at the end.

    Args:
        tasks: tasks that `main` runs, all by default.
    """

    def __init__(self, tasks: Sequence[str] = tuple(TASKS)) -> None:
        self._tasks = {t: TASKS[t] for t in tasks}
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Session:
        self.root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mtv-selftest-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The planted encoder, loaded by its spec."""
        return load(SPEC)

    @functools.cached_property
    def data(self) -> Path:
        """A data root with a tiny copy of every data set."""
        root = self.root / "data"
        for write in (
            worlds_text.write_imagenet,
            worlds_text.write_coco,
            worlds_text.write_flickr30k,
            worlds_text.write_flickr8k,
            worlds_dense.write_spair,
            worlds_dense.write_navi,
            worlds_dense.write_sevenscenes,
        ):
            write(root)
        return root

    @functools.cached_property
    def tie_data(self) -> Path:
        """A data root whose ImageNet pictures tie."""
        root = self.root / "ties"
        worlds_text.write_imagenet(root, TIE_FILES)
        return root

    def new_folder(self) -> Path:
        """A fresh path below the session's folder; not made yet."""
        return self.root / f"run-{next(self._numbers):03d}"

    @functools.cached_property
    def _main(self) -> dict[str, Ran | MtvError]:
        return self.run_all(self.encoder, self._tasks, cache=self.root / "cache")

    def main(self, task: str) -> Ran:
        """The result of `task` under the protocol of `TASKS`.

        Raises:
            MtvError: the run failed.
        """
        return _raised(self._main[task])

    def run(
        self,
        task: str,
        *,
        preset: str | None = None,
        fields: Mapping[str, Any] | None = None,
        encoder: Encoder | None = None,
        data: Path | None = None,
        **options: Any,
    ) -> Ran:
        """One task anew, under the protocol of `TASKS` unless told otherwise; `options` as for `run_all`.

        Raises:
            MtvError: the run failed.
        """
        usual, usual_fields = TASKS[task]
        choice = {task: (preset or usual, dict(usual_fields if fields is None else fields))}
        options.setdefault("cache", self.root / "cache")
        return _raised(self.run_all(encoder or self.encoder, choice, data=data, **options)[task])

    def run_all(
        self,
        encoder: Encoder,
        tasks: Mapping[str, tuple[str, Mapping[str, Any]]],
        *,
        data: Path | None = None,
        out: Path | None = None,
        cache: Path | None = None,
        batch_size: int | None = None,
        workers: int = 0,
        artefacts: bool = False,
    ) -> dict[str, Ran | MtvError]:
        """Run tasks through `Runner` and read the results back from disk.

        Args:
            encoder: the model.
            tasks: task to preset and protocol fields.
            data: data root; by default the one with everything.
            out: result store; by default a new one.
            cache: feature store; None keeps features in memory.
            batch_size: pictures per forward pass.
            workers: loader processes.
            artefacts: write pictures.
        """
        jobs = [Job(protocol=protocol_for(t, p, dict(f)), preset=p) for t, (p, f) in tasks.items()]
        options = RunOptions(
            extract=ExtractOptions(cache_dir=cache, batch_size=batch_size, workers=workers),
            artefacts=artefacts,
            quiet=True,
            n_resamples=RESAMPLES,
        )
        store = ResultStore(out or self.new_folder())
        runner = Runner(data or self.data, store, options)
        runner.open(jobs)
        runner.run_model(encoder, jobs)
        return {r.task: _read_back(store, r) for r in runner.results}


def _read_back(store: ResultStore, record: TaskResult) -> Ran | MtvError:
    if record.status == "failed":
        error = record.error or {}
        return MtvError(f"{record.task} failed: {error.get('type')}: {error.get('message')}")
    found = store.find(record.key, record.model, record.task)
    if found is None:
        return MtvError(f"{record.task}: the result is not in the store")
    path, stored = found
    return Ran(record=stored, table=read_samples(path, stored), path=path)


def _raised(result: Ran | MtvError) -> Ran:
    if isinstance(result, MtvError):
        raise result
    return result


def rows(ran: Ran, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of the sample table in the order of the sample ids, for comparing two runs."""
    order = sorted(range(len(ran.table["sample_id"])), key=lambda i: str(ran.table["sample_id"][i]))
    return [tuple(_plain(ran.table[c][i]) for c in columns) for i in order]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


Make = Callable[[Session], list[Any]]
"""What every layer exports: the session to its checks."""
