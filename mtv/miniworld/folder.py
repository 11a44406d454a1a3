"""A set's folder while it is written: atomic files, and the size and SHA-256 of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.atomic import atomic_write_bytes
from mtv.hashing import sha256_file


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """What a file must be."""

    size: int
    """Bytes."""
    sha256: str
    """Hex digest of its bytes."""

    def matches(self, path: Path) -> bool:
        """Whether the file is there with this size and hash. A file that cannot be read does not match."""
        try:
            return path.stat().st_size == self.size and sha256_file(path) == self.sha256
        except OSError:
            return False


class SetFolder:
    """Writes below `root` and remembers every file in `files` (path relative to root, `/`-separated)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, FileEntry] = {}

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically. Raises CacheError when the disk is full or the folder not writable."""
        atomic_write_bytes(self.root / name, data)
        self.files[name] = FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def record(self, name: str) -> None:
        """Remember a file that other code has written below `root`."""
        path = self.root / name
        self.files[name] = FileEntry(size=path.stat().st_size, sha256=sha256_file(path))


def files_to_json(files: Mapping[str, FileEntry]) -> dict[str, list[Any]]:
    """`{name: [size, sha256]}`, sorted by name."""
    return {name: [files[name].size, files[name].sha256] for name in sorted(files)}


def files_from_json(value: Mapping[str, list[Any]]) -> dict[str, FileEntry]:
    """Inverse of `files_to_json`."""
    return {name: FileEntry(size=int(size), sha256=str(digest)) for name, (size, digest) in value.items()}
