"""Content keys: canonical JSON and SHA-256. Every cache, protocol and result key in the project is made here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, floats as `repr`, tuples as lists.

    Raises:
        TypeError: a value that has no canonical form (sets, arrays, paths, NaN).
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        if any(not isinstance(k, str) for k in value):
            raise TypeError(f"canonical JSON needs string keys, got {list(value)[:3]}")
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"{value!r} has no canonical JSON form")
        return value
    raise TypeError(f"{type(value).__name__} has no canonical JSON form: {value!r}")


def sha256_text(text: str) -> str:
    """Hex SHA-256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`."""
    return sha256_text(canonical_json(value))


def sha256_lines(lines: Iterable[str]) -> str:
    """Hex SHA-256 of the lines joined by LF, without a final LF (the form in which the protocols give list hashes)."""
    return sha256_text("\n".join(lines))


def sha256_file(path: str | os.PathLike[str], *, chunk: int = 1 << 20) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces of `chunk` bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as f:
        while block := f.read(chunk):
            digest.update(block)
    return digest.hexdigest()
