"""Atomic file writes: temporary name in the same directory, fsync, rename, fsync of the directory.

A reader sees the old file or the whole new one, never a part, whenever the process or the machine dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtv.errors import CacheError


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move the result into place durably.

    Raises:
        CacheError: the disk is full or the directory not writable; names the file, and leaves an earlier one untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
    except OSError as e:
        raise cannot_write(path, e) from e
    temporary = Path(name)
    try:
        write(temporary)
        _fsync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as e:
        raise cannot_write(path, e) from e
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically (see `atomic_write`)."""
    atomic_write(path, lambda p: _write(p, data))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN is refused, because JSON has none."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(path, (text + "\n").encode("utf-8"))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, e: OSError) -> CacheError:
    """The error for a file that could not be written; names it."""
    return CacheError(
        f"cannot write {path}: {e.strerror or e}",
        "Free some space or choose another directory; what was written before is intact, and a rerun continues there.",
    )
