"""Models times tasks: load once, one pass per unique picture, every result lands the moment it exists.

A failing task is recorded and does not stop the others. What is stored for the same key (model fingerprint, protocol
hash, data fingerprint, bytes of the data) is skipped, and said so. Under torchrun all processes share the feature pass;
the first one scores, writes and reports.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.console import Reporter, duration
from mtv.errors import DataError, MtvError, UsageError
from mtv.eval.datasets.base import Dataset
from mtv.eval.environment import hardware, peak_memory_mb
from mtv.eval.features.api import (
    ContentIndex,
    DistContext,
    ExtractOptions,
    FeatureProvider,
    content_sha256,
    dist_context,
    shard_filter,
)
from mtv.eval.features.request import FeatureRequest
from mtv.eval.jobs import Job
from mtv.eval.plan import TaskPlan, plan_features
from mtv.eval.records import Failure, Opened, data_part, failed, frame, metric_values, summary, unloaded
from mtv.eval.store import ResultStore
from mtv.eval.task import Scored, Task, TaskRun, make_task
from mtv.hashing import sha256_json
from mtv.results import TaskResult

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run; nothing here changes a number beyond float rounding."""

    device: str = "cpu"
    """Device of the towers, e.g. `cpu`, `cuda`, `cuda:1`."""
    extract: ExtractOptions
    """Cache directory, batch size, workers."""
    force: bool = False
    """Compute again what is stored; the old record is kept as `.prev`."""
    verify: bool = False
    """Check hashes of stored features, and hash all data files again."""
    dry_run: bool = False
    """Plan only."""
    artefacts: bool = True
    """Write pictures of the best and worst samples."""
    quiet: bool = False
    """No progress."""
    n_resamples: int = 2000
    """Bootstrap resamples of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""
    shard: tuple[int, int] | None = None
    """(i, n): only extract features of the i-th of n shards, into the cache; nothing is scored."""


class Runner:
    """Runs jobs on models.

    Args:
        data: root of the data sets.
        store: where results go; None keeps them in memory only.
        options: see `RunOptions`.
    """

    def __init__(self, data: Path, store: ResultStore | None, options: RunOptions) -> None:
        self.data = data
        self.store = store
        self.options = options
        self.dist: DistContext = dist_context()
        self.results: list[TaskResult] = []
        self.plans: list[TaskPlan] = []
        self.failures: list[Failure] = []
        self._opened: dict[str, Opened | Exception] = {}

    @property
    def first(self) -> bool:
        """Whether this process scores and writes."""
        return self.dist.rank == 0

    @property
    def exit_code(self) -> int:
        """0 without failures, the code that all failures share, else 1."""
        codes = {f.exit_code for f in self.failures}
        return 0 if not codes else codes.pop() if len(codes) == 1 else 1

    def open(self, jobs: Sequence[Job]) -> None:
        """Check and open the data of every job, before any model is loaded."""
        if self.store is not None and not self.options.dry_run:
            self.dist.on_rank0(self.store.check_writable)
        for job in jobs:
            name = job.protocol.id(job.preset)
            if name in self._opened:
                continue
            try:
                task = make_task(job.protocol)
                dataset = task.open(self.data)
                log.info("%s: %s %s %s", task.name, dataset.name, dataset.split, dataset.report.label or "full set")
                self._opened[name] = Opened(job=job, task=task, dataset=dataset, content=self._content(task, dataset))
            except Exception as e:  # a bug in one reader must not stop the other tasks
                self._opened[name] = e
                code = e.exit_code if isinstance(e, MtvError) else 1
                self.failures.append(Failure(what=job.protocol.task, message=str(e), exit_code=code, error=e))
                log.error("%s: %s", job.protocol.task, e, exc_info=None if isinstance(e, MtvError) else e)

    def _content(self, task: Task[Any, Any], dataset: Dataset) -> str:
        with contextlib.ExitStack() as stack:
            cache = self.options.extract.cache_dir
            index = ContentIndex(cache or Path(stack.enter_context(tempfile.TemporaryDirectory())))
            reporter = stack.enter_context(self._reporter(task.name))
            digests = self.dist.on_rank0(
                lambda: index.digests(task.files(dataset), verify=self.options.verify, progress=reporter.tick)
            )
        return content_sha256(digests)

    def _reporter(self, title: str) -> Reporter:
        return Reporter(title, enabled=self.first and not self.options.quiet)

    def run_model(self, encoder: Encoder, jobs: Sequence[Job], *, load_seconds: float = 0.0) -> None:
        """Every job on one loaded model. Call `open` first."""
        for job in jobs:
            opened = self._opened[job.protocol.id(job.preset)]
            if isinstance(opened, Exception):
                self._record_failure(encoder.info.to_dict(), job, opened, stage="data")
                continue
            try:
                self._run_task(encoder, opened, load_seconds)
            except KeyboardInterrupt:
                raise
            except Exception as e:
                if not isinstance(e, MtvError):
                    log.exception("%s on %s: unexpected error", job.protocol.task, encoder.info.spec)
                self._fail(encoder.info.to_dict(), job, e, stage="run", opened=opened)

    def fail_model(self, spec: str, alias: str | None, jobs: Sequence[Job], error: Exception) -> None:
        """Record that a model could not be loaded; a spec that was typed wrongly leaves nothing behind."""
        code = 2 if isinstance(error, UsageError) else 1
        self.failures.append(Failure(what=spec, message=str(error), exit_code=code, error=error))
        log.error("%s: %s", spec, error, exc_info=None if isinstance(error, MtvError) else error)
        for job in jobs if code == 1 else ():
            self._record_failure(unloaded(spec, alias), job, error, stage="load")

    def loaded(self, spec: str, alias: str | None) -> None:
        """Forget that loading this model failed once: `status` would still say so."""
        if self.store is not None and self.first and not self.options.dry_run:
            self.store.forget_failures(unloaded(spec, alias))

    def _run_task(self, encoder: Encoder, opened: Opened, load_seconds: float) -> None:
        task, job = opened.task, opened.job
        title = f"{encoder.info.alias or encoder.info.spec} · {job.protocol.id(job.preset)}"
        if reason := task.applicable(encoder):
            if not job.optional:
                raise UsageError(f"{task.name}: {reason}", "Leave this task out for this model.")
            log.info("%s: skipped, %s", title, reason)
            self.plans.append(self._plan_line(encoder, opened, state=f"skip: {reason}"))
            return
        if self._skip_stored(encoder, opened, title):
            return
        with self._reporter(title) as reporter:
            extract = replace(self.options.extract, progress=reporter.tick, shard=self.options.shard)
            provider = FeatureProvider(encoder, extract, dist=self.dist)
            requests = [self._shard(r) for r in task.requests(encoder, opened.dataset)]
            plan = plan_features(encoder, provider, requests, estimate=self.options.dry_run)
            line = self._plan_line(encoder, opened, state="run", **plan)
            self.plans.append(line)
            log.info("%s", line.line())
            if self.options.dry_run:
                return
            started = time.perf_counter()
            sets = [provider.get(r) for r in requests]
            if self.options.shard is not None:
                log.info("%s: shard %d/%d is in the cache; run without --shard to score", title, *self.options.shard)
                return
            # One process scores: a failure there reaches all of them, and nobody waits for a step that never comes.
            run = TaskRun(
                encoder=encoder,
                dataset=opened.dataset,
                requests=requests,
                sets=sets,
                features=provider.alone(),
                tick=reporter.tick,
                work=self._work(encoder, opened),
            )
            self.dist.on_rank0(lambda: self._score(run, opened, provider, load_seconds, started))

    def _score(
        self, run: TaskRun[Any], opened: Opened, provider: FeatureProvider, load_seconds: float, started: float
    ) -> None:
        scored = opened.task.score(run)
        self._finish(run.encoder, opened, provider, scored, load_seconds, time.perf_counter() - started)
        if run.work is not None:
            shutil.rmtree(run.work, ignore_errors=True)

    def _work(self, encoder: Encoder, opened: Opened) -> Path | None:
        """Where an interrupted task keeps its state, by everything that can change the number; not created here."""
        cache = self.options.extract.cache_dir
        key = [encoder.info.fingerprint, opened.job.protocol.hash, opened.dataset.fingerprint, opened.content]
        return None if cache is None else cache / "work" / sha256_json(key)[:16]

    def _shard(self, request: FeatureRequest) -> FeatureRequest:
        """The part of `request` that belongs to this shard; all of it without --shard."""
        if self.options.shard is None:
            return request
        return replace(request, files={k: request.files[k] for k in shard_filter(request.ids, *self.options.shard)})

    def _skip_stored(self, encoder: Encoder, opened: Opened, title: str) -> bool:
        if self.store is None or self.options.force or self.options.shard is not None:
            return False
        found = self.dist.on_rank0(lambda: self._stored(encoder, opened))
        if found is None:
            return False
        log.info("%s: stored already, skipped (%s)", title, found[0].name)
        self.results.append(found[1])
        self.plans.append(self._plan_line(encoder, opened, state="done"))
        return True

    def _stored(self, encoder: Encoder, opened: Opened) -> tuple[Path, TaskResult] | None:
        assert self.store is not None
        key = (encoder.info.fingerprint, opened.job.protocol.hash, opened.dataset.fingerprint)
        return self.store.complete(key, encoder.info.to_dict(), opened.task.name, content=opened.content)

    def _plan_line(self, encoder: Encoder, opened: Opened, **values: Any) -> TaskPlan:
        label = opened.dataset.report.label
        return TaskPlan(
            model=encoder.info.alias or encoder.info.spec,
            protocol=opened.job.protocol.id(opened.job.preset),
            data=f"{opened.dataset.name} {opened.dataset.split}" + (f" [{label}]" if label else ""),
            **values,
        )

    def _finish(
        self,
        encoder: Encoder,
        opened: Opened,
        provider: FeatureProvider,
        scored: Scored,
        load_seconds: float,
        total: float,
    ) -> None:
        started = time.perf_counter()
        metrics = metric_values(opened.task.name, scored, n_resamples=self.options.n_resamples, seed=self.options.seed)
        interval_seconds = time.perf_counter() - started
        spent = provider.stats.seconds
        seconds = {
            "load_model": load_seconds,
            **spent,
            "score": max(total - sum(spent.values()), 0.0),
            "intervals": interval_seconds,
        }
        record = TaskResult(
            **frame(encoder.info.to_dict(), opened.job),
            status="partial" if opened.job.protocol.limit is not None else "complete",
            data=data_part(opened),
            metrics=metrics,
            ties={f"{opened.task.name}/{k}": v for k, v in scored.ties.items()},
            details=scored.details,
            diagnosis=scored.diagnosis,
            run={
                "suite": opened.job.suite,
                **self._run_part(encoder, provider),
                "seconds": {k: round(v, 4) for k, v in seconds.items()},
            },
        )
        for finding in scored.diagnosis:
            log.warning("%s: %s", opened.task.name, finding)
        if self.store is not None:
            pictures = scored.pictures() if scored.pictures and self.options.artefacts else ()
            path, record = self.store.write(record, scored.table, pictures, keep_previous=self.options.force)
            log.info("%s in %s -> %s", summary(record), duration(total), path.relative_to(self.store.root))
        self.results.append(record)

    def _run_part(self, encoder: Encoder, provider: FeatureProvider) -> dict[str, Any]:
        stats, device = provider.stats, str(encoder.device)
        return {
            "device": device,
            "hardware": hardware(device),
            "processes": self.dist.world,
            "tower_dtype": str(encoder.dtype).removeprefix("torch."),
            "score_dtype": "float32",
            "tf32": False,
            "batch_size": stats.batch_size,
            "workers": self.options.extract.n_workers,
            "seed": self.options.seed,
            "n_resamples": self.options.n_resamples,
            "images_per_s": round(stats.images_per_s, 2),
            "data_wait_share": round(stats.data_wait_share, 3),
            "peak_memory_mb": peak_memory_mb(device),
            "cache": {"hits": stats.hits, "misses": stats.misses, "stale": stats.stale},
        }

    def _fail(
        self, model: Mapping[str, Any], job: Job, error: Exception, *, stage: str, opened: Opened | None = None
    ) -> None:
        exit_code = 3 if isinstance(error, DataError) else 1
        self.failures.append(
            Failure(what=f"{model['spec']} {job.protocol.task}", message=str(error), exit_code=exit_code, error=error)
        )
        log.error("%s on %s failed: %s", job.protocol.task, model["spec"], error)
        self._record_failure(model, job, error, stage=stage, opened=opened)

    def _record_failure(
        self, model: Mapping[str, Any], job: Job, error: Exception, *, stage: str, opened: Opened | None = None
    ) -> None:
        record = failed(model, job, error, stage=stage, opened=opened)
        self.results.append(record)
        if self.store is None or not self.first or self.options.dry_run:
            return
        try:
            if (kept := self.store.in_the_way(record)) is not None:
                log.warning("%s keeps its earlier result; the failure is only reported here", kept.name)
                return
            self.store.write(record)
        except MtvError as e:
            log.error("the failure could not be recorded: %s", e)


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 <= i < n.

    Raises:
        UsageError: anything else.
    """
    left, _, right = text.partition("/")
    if not (left.isdigit() and right.isdigit() and int(left) < int(right)):
        raise UsageError(f"--shard {text}: expected I/N with 0 <= I < N, for example 0/4")
    return int(left), int(right)
