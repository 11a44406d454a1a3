"""Appending rows to an entry: buffered, then written as one atomic shard after 64 MB, 4096 rows or 60 s."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from mtv.atomic import atomic_write_bytes
from mtv.errors import CacheError, MtvError
from mtv.eval.features.rows import Block
from mtv.eval.features.shard import METADATA_KEY, SUFFIX
from mtv.eval.features.store import Entry

log = logging.getLogger(__name__)

FLUSH_BYTES = 64 << 20
FLUSH_ROWS = 4096
FLUSH_SECONDS = 60.0


class ShardWriter:
    """Writes shards `shard-[<tag>-]<number>.safetensors` of one entry. What is buffered is all that a kill loses.

    Args:
        entry: an entry that `Entry.prepare` made writable, its lock held by this process or by rank 0.
        digests: sample id to digest, for every row that will be added.
        tag: `r<rank>` or the name of a concurrent writer; empty for the only one.
    """

    def __init__(self, entry: Entry, digests: Mapping[str, str], *, tag: str = "") -> None:
        self._entry = entry
        self._digests = digests
        self._tag = tag
        self._blocks: list[Block] = []
        self._bytes = self._rows = 0
        self._since = time.monotonic()
        self._broken = False
        self.hashes: dict[str, str] = {}

    def add(self, block: Block) -> None:
        """Buffer rows; writes a shard when one is due.

        Raises:
            CacheError: the disk is full or the file cannot be written.
        """
        if not self._blocks:
            self._since = time.monotonic()
        self._blocks.append(block)
        self._bytes += sum(t.nbytes for t in block.tensors.values())
        self._rows += len(block.ids)
        overdue = time.monotonic() - self._since >= FLUSH_SECONDS
        if self._bytes >= FLUSH_BYTES or self._rows >= FLUSH_ROWS or overdue:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            CacheError: the disk is full or the file cannot be written.
        """
        if not self._blocks:
            return
        self._broken = True
        blocks, self._blocks = self._blocks, []
        self._bytes = self._rows = 0
        ids = [i for b in blocks for i in b.ids]
        rows = {"key": self._entry.key_sha256, "ids": ids, "digests": [self._digests[i] for i in ids]}
        tensors: dict[str, Tensor] = {
            name: torch.cat([b.tensors[name] for b in blocks]).contiguous() for name in blocks[0].tensors
        }
        # One metadata entry: safetensors does not fix the order of several.
        data = save(tensors, {METADATA_KEY: json.dumps(rows, ensure_ascii=False)})
        name = f"shard-{self._tag}-" if self._tag else "shard-"
        name += f"{self._entry.next_number():05d}{SUFFIX}"
        atomic_write_bytes(self._entry.directory / name, data)
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        self._broken = False

    def rescue(self) -> None:
        """Write what is buffered while another error is on its way; a failure here is only logged."""
        if self._broken:
            return
        try:
            self.flush()
        except (MtvError, OSError) as e:
            log.error(
                "rows computed before the error could not be stored: %s", e.message if isinstance(e, CacheError) else e
            )
