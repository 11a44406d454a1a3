"""One writer at a time: a lock file held with flock, so that the kernel frees it when its process dies.

The file says who holds it (pid, host, since when). It is emptied on release and never deleted, so a name left inside an
unheld file means that the holder died, or that the file system does not carry flock between hosts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from mtv.errors import CacheError

log = logging.getLogger(__name__)

_HELD: dict[int, int] = {}
_HOOKED: list[int] = []


class FileLock:
    """Exclusive lock on `path`, between processes of this host, and between hosts where the file system carries flock.

    Args:
        path: the lock file; its directory is created.
        break_lock: take over an unheld lock that names another host.
        poll_s: seconds between attempts while waiting.
        report_s: seconds between log lines while waiting.
    """

    def __init__(self, path: Path, *, break_lock: bool = False, poll_s: float = 0.1, report_s: float = 60.0) -> None:
        self.path = path
        self._break_lock = break_lock
        self._poll_s = poll_s
        self._report_s = report_s
        self._fd: int | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; False only with `wait=False` when another process holds it.

        Raises:
            CacheError: the file cannot be created or locked, or it names another host (see `--break-lock`).
        """
        started = reported = time.monotonic()
        first = True
        while not self._try():
            if not wait:
                return False
            now = time.monotonic()
            if first or now - reported >= self._report_s:
                log.info("waiting for %s, held by %s (%.0f s so far)", self.path, _describe(self.path), now - started)
                first, reported = False, now
            time.sleep(self._poll_s)
        return True

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        fd, self._fd = self._fd, None
        if fd is None or _HELD.pop(fd, None) != os.getpid():
            return
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        os.close(fd)

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def _try(self) -> bool:
        """One attempt."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise _cannot_lock(self.path, e) from e
        try:
            if not self._lock(fd):
                return False
            self._claim(fd)
            self._fd, fd = fd, -1
            return True
        finally:
            if fd >= 0:
                os.close(fd)

    def _lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever cleans up may have removed the file between open and flock: the lock would guard nothing.
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except FileNotFoundError:
            return False
        except OSError as e:
            if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise _cannot_lock(self.path, e) from e

    def _claim(self, fd: int) -> None:
        """Look at who is named inside, then write our own name."""
        holder = _parse(os.pread(fd, 4096, 0))
        host = socket.gethostname()
        if holder is not None:
            if holder["host"] != host and not self._break_lock:
                raise CacheError(
                    f"{self.path} is locked by pid {holder['pid']} on host {holder['host']}, for {_age(holder)}",
                    "If that process is still running, wait for it; if it is gone, repeat with --break-lock.",
                )
            log.warning("taking over %s, left behind by %s", self.path, _words(holder))
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": host, "time": time.time()}).encode(), 0)
        except OSError as e:
            raise _cannot_lock(self.path, e) from e
        _HELD[fd] = os.getpid()
        if not _HOOKED:  # a forked loader worker would otherwise keep the lock alive after this process is killed
            os.register_at_fork(after_in_child=_close_inherited)
            _HOOKED.append(1)


def _close_inherited() -> None:
    for fd in list(_HELD):
        with contextlib.suppress(OSError):
            os.close(fd)
    _HELD.clear()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock right now. Creates nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def _parse(data: bytes) -> dict[str, str] | None:
    """Content of a lock file; None when released, or not ours to understand (then nobody is named)."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        value = json.loads(data)
        return {"pid": str(value["pid"]), "host": str(value["host"]), "time": str(float(value["time"]))}
    return None


def _describe(path: Path) -> str:
    try:
        holder = _parse(path.read_bytes())
    except OSError:
        holder = None
    return _words(holder) if holder else "another process"


def _words(holder: dict[str, str]) -> str:
    return f"pid {holder['pid']} on {holder['host']} for {_age(holder)}"


def _age(holder: dict[str, str]) -> str:
    seconds = max(0.0, time.time() - float(holder["time"]))
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _cannot_lock(path: Path, e: OSError) -> CacheError:
    return CacheError(
        f"cannot lock {path}: {e.strerror or e}",
        "Choose a cache directory that is writable, has free space, and lies on a file system with flock.",
    )
