"""The shard format, read side: a safetensors file whose header names the rows.

`__metadata__` holds one entry, `mtv`: JSON with the hash of the entry's key, and the sample id and digest of every row.
Rows therefore never depend on a second file. Headers are parsed here without torch, so that `cache ls` starts quickly.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.errors import CacheError

METADATA_KEY = "mtv"
SUFFIX = ".safetensors"
_ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One readable shard."""

    path: Path
    """The file."""
    key_sha256: str
    """Hash of the full key of the entry it was written for."""
    ids: tuple[str, ...]
    """Sample id of each row."""
    digests: tuple[str, ...]
    """Digest of the bytes behind each row."""
    outputs: dict[str, tuple[int, ...]]
    """Name of each tensor to the shape of one row."""
    dtypes: dict[str, str]
    """Name of each tensor to its safetensors dtype."""
    bytes: int
    """File size."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.ids)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all outputs."""
        return sum(math.prod(s) * _ITEM_BYTES[self.dtypes[n]] for n, s in self.outputs.items())


def read_shard(path: Path) -> ShardFile:
    """Parse and check the header of a shard; the tensors themselves are not read.

    Raises:
        CacheError: truncated, grown, or with a header that makes no sense; names the file.
    """
    try:
        with path.open("rb") as f:
            size = os.fstat(f.fileno()).st_size
            head = f.read(8)
            if len(head) < 8:
                raise ValueError(f"{size} bytes, too short for a header")
            (length,) = struct.unpack("<Q", head)
            if length > min(_MAX_HEADER, size - 8):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(f.read(length).decode("utf-8"))
        return _checked(path, header, size - 8 - length, size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CacheError(
            f"{path} is damaged: {e}", "Its rows are computed again by the next run that needs them."
        ) from e


def _checked(path: Path, header: dict[str, Any], payload: int, size: int) -> ShardFile:
    rows = json.loads(header.pop("__metadata__")[METADATA_KEY])
    ids, digests = tuple(map(str, rows["ids"])), tuple(map(str, rows["digests"]))
    if not ids or len(ids) != len(digests):
        raise ValueError(f"{len(ids)} ids and {len(digests)} digests")
    end = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        start, stop = tensor["data_offsets"]
        expected = math.prod(tensor["shape"]) * _ITEM_BYTES[tensor["dtype"]]
        if tensor["shape"][0] != len(ids) or start != end or stop - start != expected:
            raise ValueError(f"tensor {name} of shape {tensor['shape']} at {start}..{stop} for {len(ids)} rows")
        end = stop
    if end != payload or not header:
        raise ValueError(f"{payload} bytes of tensors where the header says {end}")
    return ShardFile(
        path=path,
        key_sha256=str(rows["key"]),
        ids=ids,
        digests=digests,
        outputs={n: tuple(t["shape"][1:]) for n, t in sorted(header.items())},
        dtypes={n: t["dtype"] for n, t in header.items()},
        bytes=size,
    )


def shard_number(name: str) -> int | None:
    """Number in `shard-00012.safetensors` or `shard-r1-00012.safetensors`, also with `.bad` appended; else None."""
    stem = name.removesuffix(".bad").removesuffix(SUFFIX)
    if not stem.startswith("shard-") or stem == name.removesuffix(".bad"):
        return None
    number = stem.rpartition("-")[2]
    return int(number) if number.isdigit() else None
