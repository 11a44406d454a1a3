"""What the feature pipeline can be told, and what it tells: options, progress, plan and counters. No torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from mtv.errors import UsageError

GIB = 1 << 30


class Progress(Protocol):
    """How far a stage is; called a few times a second at most, and always at its end."""

    def __call__(self, stage: str, done: int, total: int, detail: str) -> None:
        """`stage` is `hash`, `extract`, `text` or `classifier`; `detail` a short line such as `210.3 images/s`."""


def no_progress(stage: str, done: int, total: int, detail: str) -> None:
    """The progress of a caller that wants none."""


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """How features are made and kept. Nothing here changes a number, so nothing here is part of a key."""

    cache_dir: Path | None = None
    """Folder of the feature store; None keeps features in memory, for this run only."""
    batch_size: int | None = None
    """Pictures per forward pass; None chooses by device and picture size. Halved when memory runs out."""
    workers: int | None = None
    """Loader processes; None is min(8, cores), 0 loads in this process."""
    cache_limit_gb: float = 50.0
    """Requests whose features need more than this many GiB are kept in memory instead of on disk."""
    verify: bool = False
    """Read every source file again and check every shard against the hash in DONE before trusting it."""
    break_lock: bool = False
    """Take over a lock that names another host and that nobody seems to hold."""
    progress: Progress = no_progress
    """Called with stage, done, total, detail."""
    shard: tuple[int, int] | None = None
    """This process's share (i, n) of a `--shard i/n` run: it gets a lock and shard names of its own, so that n machines
    may fill one entry at once. It filters nothing: restrict the request with `shard_filter`."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size must be positive, got {self.batch_size}")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"workers must not be negative, got {self.workers}")
        if not self.cache_limit_gb >= 0:
            raise UsageError(f"cache_limit_gb must not be negative, got {self.cache_limit_gb}")

    @property
    def n_workers(self) -> int:
        """Loader processes, resolved."""
        return min(8, usable_cores()) if self.workers is None else self.workers


def usable_cores() -> int:
    """Cores this process may run on (which a container or a batch system may have restricted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request would cost, before the first forward pass."""

    total: int
    """Samples asked for."""
    cached: int
    """Samples whose row, made from the same bytes, is in the store."""
    stale: int
    """Samples of `missing` whose row was made from other bytes: their files have changed since."""
    bytes_to_store: int
    """Size of the rows that are missing."""
    row_bytes: int
    """Size of one row."""
    output_shapes: dict[str, tuple[int, ...]]
    """Shape of each output of one sample: `layer3` (H, W, D), `pooled` (D,), `global` (C,)."""
    placement: Literal["disk", "memory"]
    """Where the missing rows will be kept."""

    @property
    def missing(self) -> int:
        """Samples that need a forward pass."""
        return self.total - self.cached


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counters of a provider since its start. `a - b` is what happened between two readings."""

    hits: int = 0
    """Samples served from the store."""
    misses: int = 0
    """Samples that went through the model."""
    stale: int = 0
    """Samples of `misses` whose file had changed since it was stored."""
    text_hits: int = 0
    """Strings and classes served from the store."""
    text_misses: int = 0
    """Strings and classes embedded."""
    batch_size: int = 0
    """Pictures per forward pass as it was at last, after halvings; 0 when nothing was computed."""
    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "extract": 0.0, "text": 0.0})
    """Wall time per phase: `load` (hashing files, waiting for pictures), `extract` (forward passes, checks, writing),
    `text` (strings and classifiers)."""

    def __sub__(self, other: Stats) -> Stats:
        counts = {
            n: getattr(self, n) - getattr(other, n) for n in ("hits", "misses", "stale", "text_hits", "text_misses")
        }
        return Stats(
            **counts,
            batch_size=self.batch_size,
            seconds={k: v - other.seconds.get(k, 0.0) for k, v in self.seconds.items()},
        )

    @property
    def images_per_s(self) -> float:
        """Pictures per second over loading and forward passes; 0 when nothing was computed."""
        spent = self.seconds["load"] + self.seconds["extract"]
        return self.misses / spent if self.misses and spent > 0 else 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of that time in which the model waited for data, 0 to 1."""
        spent = self.seconds["load"] + self.seconds["extract"]
        return self.seconds["load"] / spent if self.misses and spent > 0 else 0.0


class Clock:
    """Mutable side of `Stats`."""

    def __init__(self) -> None:
        self.stats = Stats()

    def add(self, **counts: int) -> None:
        """Raise counters by name."""
        self.stats = replace(self.stats, **{k: getattr(self.stats, k) + v for k, v in counts.items()})

    def note_batch(self, size: int) -> None:
        """Remember the batch size in use."""
        self.stats = replace(self.stats, batch_size=size)

    def spend(self, phase: str, seconds: float) -> None:
        """Add wall time to a phase."""
        spent = {**self.stats.seconds, phase: self.stats.seconds.get(phase, 0.0) + seconds}
        self.stats = replace(self.stats, seconds=spent)

    @contextmanager
    def phase(self, phase: str) -> Iterator[None]:
        """Add the time spent inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spend(phase, time.perf_counter() - start)


class Throttle:
    """A `Progress` that passes on four calls a second, and the last of each stage."""

    def __init__(self, progress: Progress, interval_s: float = 0.25) -> None:
        self._progress = progress
        self._interval_s = interval_s
        self._last = float("-inf")

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """See `Progress`."""
        now = time.monotonic()
        if done >= total or now - self._last >= self._interval_s:
            self._last = now
            self._progress(stage, done, total, detail)


def format_bytes(n: float) -> str:
    """`153.6 MB`, `2.1 GB`: powers of 1024, for messages."""
    for unit in ("bytes", "KB", "MB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GB"
