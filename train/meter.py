"""How fast a run is: images per second, share of waiting, time left. Pauses (saving, evaluating) do not count."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mtv.train.data.loader import Waits

WAIT_ALARM = 0.05
"""Share of waiting above which a log line names the stage."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Since the last log line."""

    img_s: float
    """Images of all processes per second."""
    data_wait: float
    """Share of the time for which rank 0 waited for batches."""
    stage: str | None
    """What the waiting is for, where it is above 5 %: `read`, `decode`, `transfer`."""
    eta_s: float | None
    """Seconds to the end of the run at the mean speed of this session, its first step left out; None after that."""


class Meter:
    """A clock that can be stopped.

    Args:
        batch: images of a step over all processes.
        earlier: seconds of earlier sessions.
    """

    def __init__(self, batch: int, earlier: float) -> None:
        self._batch = batch
        self._earlier = earlier
        self._started = time.monotonic()
        self._steps = self._session_steps = 0
        self._busy = self._session_busy = 0.0
        self._mark = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of the run, earlier sessions included."""
        return self._earlier + time.monotonic() - self._started

    def step(self) -> None:
        """A step is done."""
        now = time.monotonic()
        spent, self._mark = now - self._mark, now
        self._steps += 1
        self._busy += spent
        # The first step of a session compiles, allocates and fills caches.
        self._session_steps += 1
        if self._session_steps > 1:
            self._session_busy += spent

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not training."""
        before = time.monotonic() - self._mark
        try:
            yield
        finally:
            self._mark = time.monotonic() - before

    def take(self, waits: Waits, left: int) -> Speed:
        """Speed since this was last called.

        Args:
            waits: of the loader, over the same time.
            left: steps to the end.
        """
        busy, steps = max(self._busy, 1e-9), self._steps
        self._busy, self._steps = 0.0, 0
        share = min(1.0, waits.seconds / busy)
        counted = self._session_steps - 1
        return Speed(
            img_s=steps * self._batch / busy,
            data_wait=share,
            stage=waits.stage if share > WAIT_ALARM else None,
            eta_s=self._session_busy / counted * left if counted > 0 else None,
        )


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process: of the GPU where it trains on one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
