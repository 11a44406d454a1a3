"""A small cache of open things: least recently used out first, one per process, safe between threads.

A forked process starts empty: the parent's lock may be held by a thread that does not exist in the child.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The last `limit` values that were asked for. A value that leaves lives on while someone still holds it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()
        self._pid = os.getpid()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made where it is not at hand (by two threads at once at worst, and then one is kept)."""
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            value = self._values.setdefault(key, value)
            while len(self._values) > self.limit:
                self._values.popitem(last=False)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, (self.limit,)


class OpenFile:
    """A file open for reading at offsets; closed when the last user lets go of it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def stat(self) -> os.stat_result:
        """Size and time of the open file."""
        return os.fstat(self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, without a file position, so that threads do not disturb each other.

        Raises:
            OSError: the disk fails, or the file ends before.
        """
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._fd, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        if size > 0:
            raise OSError(f"the file ends {size} bytes early")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
