"""The `.idx` file: where every member of a shard lies, as a `.npz` that `numpy.load(path, allow_pickle=False)` reads.

    header        uint8  [bytes]     JSON: format, shard, and per source its tar's stamp, extensions and sample count
    key_bytes     uint8  [bytes]     all keys as UTF-8, one after the other, in the order of the image tar
    key_ends      int64  [N]         where each key ends
    members       int64  [C, N, 2]   byte offset and size per column and sample; -1, 0 where the sample has none
    ranges        float64 [R, N, 2]  min and max per depth source; NaN where the label is missing or constant

A column is one extension of one source; columns and ranges follow the order of the sources in the header. Reading
checks every shape and bound and never executes code. 10,000 samples take about 1 MB, read in a few milliseconds.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtv.errors import DataError
from mtv.hashing import canonical_json
from mtv.shards.layout import IMAGES

FORMAT = "mtv-shard-index-1"
REBUILD = "Index it again (`mtv-train data index DIR`); shards that did not change are not read again."


class StaleIndexError(DataError):
    """A whole file was changed or copied after it was indexed: no damage to some sample, and nothing to skip."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What a file was when it was indexed."""

    bytes: int
    """Size."""
    mtime_ns: int
    """Time of the last change."""
    sha256: str
    """Hash of its bytes."""

    def difference(self, now: os.stat_result) -> str:
        """Why a file with these facts is not the one that was indexed; empty when it is.

        A time cut to whole seconds counts as the same: `tar` and other copying tools keep no more.
        """
        if now.st_size != self.bytes:
            how = "truncated, or changed after it was indexed" if now.st_size < self.bytes else "newer than its index"
            return f"is {how}: {now.st_size} bytes, indexed with {self.bytes}"
        cut = now.st_mtime_ns % 10**9 == 0 and now.st_mtime_ns // 10**9 == self.mtime_ns // 10**9
        if now.st_mtime_ns != self.mtime_ns and not cut:
            return "was changed or copied after it was indexed: its index is older than the file"
        return ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One tar of a shard, joined to the samples by key."""

    name: str
    """`images` or `labels/NAME`."""
    tar: Stamp
    """The tar."""
    meta: Stamp | None
    """The ranges beside it; None unless it is a depth label."""
    samples: int
    """How many samples have members in it."""
    members: dict[str, np.ndarray]
    """Extension to int64 [N, 2]: offset and size, (-1, 0) where missing."""
    range_N2: np.ndarray | None
    """float64 min and max of depth labels, NaN where missing or constant; None unless it is a depth label."""

    def place(self, ext: str, row: int) -> tuple[int, int] | None:
        """Offset and size of a sample's member; None where it has none."""
        if ext not in self.members:
            return None
        offset, size = self.members[ext][row].tolist()
        return None if offset < 0 else (offset, size)

    def range(self, row: int) -> tuple[float, float] | None:
        """Min and max of a sample's map; None where it is missing or constant."""
        if self.range_N2 is None:
            return None
        low, high = self.range_N2[row].tolist()
        return None if low != low else (low, high)

    def content(self) -> dict[str, str]:
        """Hashes of its files."""
        return {"tar": self.tar.sha256} | ({} if self.meta is None else {"meta": self.meta.sha256})


class Keys:
    """Keys as one block of bytes; several times smaller than a list of str."""

    def __init__(self, key_bytes: np.ndarray, key_ends: np.ndarray) -> None:
        self.key_bytes, self.key_ends = key_bytes, key_ends

    @classmethod
    def of(cls, keys: Iterable[str]) -> Keys:
        """Pack them."""
        coded = [k.encode("utf-8") for k in keys]
        ends = np.cumsum([len(k) for k in coded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(coded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.key_ends)

    def __getitem__(self, row: int) -> str:
        start = self.key_ends[row - 1] if row else 0
        return self.key_bytes[start : self.key_ends[row]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        block, start = self.key_bytes.tobytes(), 0
        for end in self.key_ends.tolist():
            yield block[start:end].decode("utf-8")
            start = end


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """All that is known of a shard without reading its samples."""

    shard: str
    """Shard name."""
    keys: Keys
    """Keys in the order of the image tar."""
    sources: dict[str, Source]
    """`images` first, then label sets by name."""

    def content(self) -> dict[str, dict[str, str]]:
        """Hashes of every file, by source; equal for equal content, wherever and whenever it was written."""
        return {name: s.content() for name, s in self.sources.items()}


def encode_index(index: ShardIndex) -> bytes:
    """The bytes of an `.idx` file; equal for equal indexes."""
    sources = list(index.sources.values())
    header = {
        "format": FORMAT,
        "shard": index.shard,
        "sources": [
            {"name": s.name, "tar": s.tar, "meta": s.meta, "samples": s.samples, "columns": list(s.members)}
            for s in sources
        ],
    }
    n = len(index.keys)
    members = [m for s in sources for m in s.members.values()]
    ranges = [s.range_N2 for s in sources if s.range_N2 is not None]
    file = io.BytesIO()
    np.savez(
        file,
        header=np.frombuffer(canonical_json(header).encode("utf-8"), dtype=np.uint8),
        key_bytes=index.keys.key_bytes,
        key_ends=index.keys.key_ends,
        members=np.stack(members) if members else np.empty((0, n, 2), np.int64),
        ranges=np.stack(ranges) if ranges else np.empty((0, n, 2), np.float64),
    )
    return file.getvalue()


def decode_index(data: bytes, *, path: Path) -> ShardIndex:
    """Read the bytes of an `.idx` file.

    Args:
        data: the bytes.
        path: where they come from, for messages.

    Raises:
        DataError: damaged, or written by another version; names the file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return _assemble({name: arrays[name] for name in arrays.files})
    except Exception as e:  # zipfile, numpy and json answer damage with a dozen kinds, NotImplementedError among them
        raise DataError(f"{path}: not a whole shard index ({type(e).__name__}: {e})", REBUILD) from e


def _assemble(arrays: dict[str, np.ndarray]) -> ShardIndex:
    header = json.loads(arrays["header"].tobytes())
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']!r}, expected {FORMAT!r}")
    keys = Keys(arrays["key_bytes"], arrays["key_ends"])
    _expect(keys.key_bytes, np.uint8, (len(keys.key_bytes),))
    _expect(keys.key_ends, np.int64, (len(keys),))
    steps = np.diff(keys.key_ends, prepend=0, append=len(keys.key_bytes))
    if (steps < 0).any() or steps[-1] != 0:
        raise ValueError("keys do not fill their block")
    columns = sum(len(s["columns"]) for s in header["sources"])
    _expect(arrays["members"], np.int64, (columns, len(keys), 2))
    _expect(arrays["ranges"], np.float64, (sum(s["meta"] is not None for s in header["sources"]), len(keys), 2))
    members, ranges = iter(arrays["members"]), iter(arrays["ranges"])
    sources = [_source(s, members, ranges) for s in header["sources"]]
    if sources[0].name != IMAGES:
        raise ValueError(f"begins with {sources[0].name!r}, expected {IMAGES!r}")
    return ShardIndex(shard=header["shard"], keys=keys, sources={s.name: s for s in sources})


def _source(fields: dict[str, Any], members: Iterator[np.ndarray], ranges: Iterator[np.ndarray]) -> Source:
    meta = None if fields["meta"] is None else Stamp(**fields["meta"])
    source = Source(
        name=fields["name"],
        tar=Stamp(**fields["tar"]),
        meta=meta,
        samples=fields["samples"],
        members={ext: next(members) for ext in fields["columns"]},
        range_N2=None if meta is None else next(ranges),
    )
    for ext, member_N2 in source.members.items():
        offset_N, size_N = member_N2[:, 0], member_N2[:, 1]
        inside = (size_N >= 0) & (offset_N <= source.tar.bytes - size_N)
        if not (inside & (offset_N >= 0) | (offset_N == -1)).all():
            raise ValueError(f"a .{ext} member of {source.name} lies outside its tar")
    return source


def _expect(array: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"array of {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
