"""Log and progress on stderr: a rich bar with rate and ETA on a terminal, a log line every ten seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)


def setup_logging(*, verbose: bool = False, quiet: bool = False, rank: int = 0) -> None:
    """Send the log to stderr in one format; third-party chatter stays out unless it is a warning.

    Args:
        verbose: details too.
        quiet: errors only.
        rank: of this process; others than the first name themselves and report warnings only.
    """
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING if rank else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    who = f"rank {rank}: " if rank else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname).1s {who}%(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mtv").setLevel(level)


class Reporter:
    """Shows `tick(stage, done, total, detail)` calls; a context manager around one task.

    Args:
        title: what is running, e.g. `vit-tiny · spair`.
        enabled: off for processes other than the first and for `--quiet`.
    """

    def __init__(self, title: str, *, enabled: bool = True) -> None:
        self.title = title
        self.enabled = enabled
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Reporter:
        if self.enabled and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tick(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Progress of `stage`: `done` of `total`, with a free remark (images/s, data wait share)."""
        if not self.enabled:
            return
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(f"{self.title} {stage}", total=total, detail="")
            self._bar.update(self._tasks[stage], completed=done, total=total, detail=detail)
            return
        now = time.monotonic()
        start = self._started.setdefault(stage, now)
        if now - self._last_line >= 10:
            self._last_line = now
            left = (now - start) / done * (total - done) if done else float("nan")
            log.info(
                "%s %s %d/%d%s, %s left", self.title, stage, done, total, f", {detail}" if detail else "", _short(left)
            )


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _short(seconds: float) -> str:
    return duration(seconds) if seconds == seconds else "unknown time"


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `1 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
