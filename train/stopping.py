"""SIGTERM and Ctrl-C end a run after the step in progress, with a checkpoint; a second Ctrl-C ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import torch

from mtv.collectives import all_sum
from mtv.errors import MtvError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(MtvError):
    """A run ended early because it was told to; everything is saved.

    Args:
        number: the signal.
        message: where it ended.
        hint: how to go on.
    """

    def __init__(self, number: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + number


class StopRequest:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Remember a signal."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        # Not the log: a handler must not take locks of the code that it interrupts.
        name = signal.Signals(number).name
        os.write(2, f"{name}: stopping after this step, with a checkpoint (Ctrl-C again: at once)\n".encode())

    def agreed(self, device: torch.device) -> int | None:
        """The signal, if any rank got one. All ranks must call, at the same step."""
        anyone = all_sum(torch.tensor(float(self.number is not None), device=device))
        if not bool(anyone):
            return None
        return self.number or signal.SIGTERM


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen to the signals; handlers go back afterwards. A thread other than the main one cannot listen."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {s: signal.signal(s, request.handle) for s in _SIGNALS}
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
