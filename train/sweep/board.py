"""Progress of a sweep on stderr: one line per run in progress on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from mtv.console import duration

log = logging.getLogger(__name__)
EVERY_S = 30.0
"""Between two log lines of a run."""


class Board:
    """Shows what every job does; a context manager around the work.

    Args:
        enabled: off for `--quiet`.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._end: float | None = None
        self._lines: dict[int, str] = {}
        self._said: dict[int, tuple[float, str]] = {}
        self._live: Any = None
        self._enabled = enabled

    def __enter__(self) -> Board:
        if self._enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def expect(self, seconds: float | None) -> None:
        """A new estimate of the time left; None where there is none yet."""
        self._end = None if seconds is None else time.monotonic() + seconds

    def tell(self, job: int, text: str) -> None:
        """What a job does now; repeats are shown once."""
        self._lines[job] = text
        if self._live is not None:
            from rich.text import Text

            lines = [*(self._lines[j] for j in sorted(self._lines)), self._rest()]
            self._live.update(Text("\n".join(line for line in lines if line), overflow="ellipsis", no_wrap=True))
            return
        now = time.monotonic()
        then, said = self._said.get(job, (now, ""))
        self._said.setdefault(job, (now, ""))
        if self._enabled and text and text != said and now - then >= EVERY_S:
            self._said[job] = (now, text)
            log.info("%s; %s", text, self._rest())

    def say(self, text: str) -> None:
        """Something that stays: a run begins, is done, has failed."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            log.info("%s", text)

    def _rest(self) -> str:
        if self._end is None:
            return "time left in all unknown until a run is done"
        return f"all: about {duration(max(0.0, self._end - time.monotonic()))} left"
