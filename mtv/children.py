"""Commands as child processes: output into a log file, signals passed on, the last line for progress.

Notable choices:
* A child has a session of its own, so that Ctrl-C on the terminal reaches it once, through us: a trainer takes a second
  one as "at once, without saving".
* A handler only counts; whoever waits for a child passes the signals on. So it works from threads too, without locks.
* `claimed` locks work by an open file that children inherit: if their parent is killed and they live on, the next one
  waits for them instead of starting the same work beside them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from mtv.atomic import cannot_write

POLL_S = 0.2
_TAIL = 1 << 14
"""Bytes at the end of a log in which its last line is looked for."""
_STAMP = re.compile(r"^\d\d:\d\d:\d\d [A-Z] ")


class Stop:
    """Which signal asked this process to stop, and how often one did."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Remember a signal."""
        self.number = self.number or number
        self.count += 1
        if self.count == 1:
            # Not the log: a handler must not take locks of the code that it interrupts.
            os.write(2, f"{signal.Signals(number).name}: stopping, what runs is saved (again: at once)\n".encode())


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Listen to Ctrl-C, SIGTERM and a closed terminal; handlers go back afterwards.

    A thread other than the main one cannot listen.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, stop.handle) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def run_child(
    command: Sequence[str],
    log: Path,
    stop: Stop,
    *,
    stop_with: signal.Signals = signal.SIGTERM,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    tell: Callable[[str], object] = lambda line: None,
) -> int:
    """Run a command to its end, or until it has answered to a stop.

    Args:
        command: program and arguments.
        log: what it prints is appended here; its folder is made.
        stop: once asked, the child gets `stop_with`; asked again, once more; a third time, it is killed.
        stop_with: signal that makes this child save and end.
        env: variables beside those of this process.
        pass_fds: open files that the child keeps open, for locks that must live as long as it.
        tell: called a few times per second with the last line of the log.

    Returns:
        Its exit code; minus the number of the signal that killed it.

    Raises:
        CacheError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab")
    except OSError as e:
        raise cannot_write(log, e) from e
    with file:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    sent = 0
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(POLL_S)
            for _ in range(stop.count - sent):
                sent += 1
                child.send_signal(stop_with if sent < 3 else signal.SIGKILL)
            tell(last_words(log))
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


@contextlib.contextmanager
def claimed(lock: Path, *, waiting: Callable[[str], object]) -> Iterator[int]:
    """Hold a lock; yields the open file, which children must get with `pass_fds`.

    Args:
        lock: file; its folder is made.
        waiting: called a few times per second with who holds the lock; it may raise to give up.

    Raises:
        CacheError: the file cannot be opened or locked.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise cannot_write(lock, e) from e
    try:
        while not _taken(lock, handle):
            waiting(os.pread(handle, 256, 0).decode(errors="replace") or "another process")
            time.sleep(POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _taken(lock: Path, handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        raise cannot_write(lock, e) from e
    return True


def last_words(log: Path) -> str:
    """The last line of a log that says something, without its time; empty without any."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    lines = [_STAMP.sub("", line).strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "")


def reason(log: Path) -> str:
    """Why a command failed, from its log: the last `error:` line, else its last line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "no log"
    errors = [line for line in lines[-200:] if line.startswith(("error:", "Error:", "FAILED "))]
    return errors[-1] if errors else last_words(log) or "it said nothing"
