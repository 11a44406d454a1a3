"""Rows by id, from the store where they are, computed where they are not: shared by pictures, strings and classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtv.errors import CacheError
from mtv.eval.features.shard import ShardFile
from mtv.eval.features.store import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from mtv.eval.features.distributed import DistContext

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows just computed, on the CPU, in the dtype in which they are kept."""

    ids: list[str]
    """Row ids."""
    tensors: dict[str, Tensor]
    """Output name to N,...; one row per id."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row on disk."""

    shard: ShardFile
    row: int

    @property
    def source(self) -> object:
        """Equal for rows that can be read together."""
        return self.shard.path


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A row in memory."""

    tensors: dict[str, Tensor]
    row: int

    @property
    def source(self) -> object:
        """Equal for rows that can be read together."""
        return id(self.tensors)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where the rows of a request are."""

    outputs: tuple[str, ...]
    """Names of the tensors of each row."""
    places: dict[str, StoredRow | MemoryRow]
    """Row id to its place, in request order."""
    computed: int
    """Rows that were missing and went through the model, over all ranks."""
    stale: int
    """Those of `computed` that replace a row made from other bytes."""


Compute = Callable[[list[str]], "Generator[Block]"]
"""Computes the rows of some ids, block by block, in order. May stop with an error after some blocks."""


def cached_rows(
    entry: Entry,
    digests: Mapping[str, str],
    compute: Compute,
    *,
    outputs: tuple[str, ...],
    dist: DistContext,
    row_bytes: int,
) -> Rows:
    """All rows of `digests` on disk: those that are missing are computed and appended, by all ranks together.

    Args:
        entry: where they belong.
        digests: row id to digest, in request order.
        compute: makes missing rows.
        outputs: names of the tensors.
        dist: process group; rank 0 holds the lock on behalf of all.
        row_bytes: about what a row takes; the free space is checked first.

    Raises:
        CacheError: the store cannot be written or locked.
        MtvError: whatever `compute` raises; rows finished before are kept.
    """
    with ExitStack() as stack:
        missing, stale = dist.on_rank0(lambda: _claim_missing(entry, digests, row_bytes, stack))
        if missing:
            hashes = dist.together(lambda: _append(entry, digests, compute, dist.share(missing), _tag(entry, dist)))
            dist.on_rank0(lambda: entry.write_done({n: h for part in hashes for n, h in part.items()}))
    lookup = entry.lookup(digests)
    absent = f"{len(lookup.missing)} rows, {lookup.missing[0]!r} first, are" if lookup.missing else ""
    errors = [e for e in dist.gather(absent) if e]
    if errors:
        raise CacheError(
            f"{errors[0]} not in {entry.directory} although they were just written",
            "All processes of a run need one cache directory on a file system that they share.",
        )
    entry.touch()
    places: dict[str, StoredRow | MemoryRow] = {i: StoredRow(*lookup.found[i]) for i in digests}
    return Rows(outputs=outputs, places=places, computed=len(missing), stale=stale)


def memory_rows(
    entry: Entry | None, digests: Mapping[str, str], compute: Compute, *, outputs: tuple[str, ...], dist: DistContext
) -> Rows:
    """The same, but what is missing is kept in memory and forgotten with the result."""
    found = entry.lookup(digests).found if entry is not None else {}
    stored = set.intersection(*dist.gather(set(found)))
    missing = [i for i in digests if i not in stored]
    places: dict[str, StoredRow | MemoryRow] = {i: StoredRow(*found[i]) for i in digests if i in stored}
    for blocks in dist.together(lambda: list(compute(dist.share(missing)))) if missing else []:
        for block in blocks:
            places.update((i, MemoryRow(block.tensors, r)) for r, i in enumerate(block.ids))
    return Rows(outputs=outputs, places={i: places[i] for i in digests}, computed=len(missing), stale=0)


def _claim_missing(entry: Entry, digests: Mapping[str, str], row_bytes: int, stack: ExitStack) -> tuple[list[str], int]:
    """Rank 0: what has to be computed and how much of it is stale; looks again once the lock is ours."""
    lookup = entry.lookup(digests)
    if not lookup.missing:
        _tidy(entry)
        return [], 0
    stack.enter_context(entry.lock(entry.writer))
    lookup = entry.lookup(digests)
    if lookup.missing:
        entry.prepare(row_bytes * len(lookup.missing))
        if lookup.stale:
            log.warning(
                "%s: %d of %d rows were made from files that have changed since (%s first); computing them again",
                entry.directory.name, len(lookup.stale), len(digests), lookup.stale[0],
            )  # fmt: skip
    return lookup.missing, len(lookup.stale)


def _tidy(entry: Entry) -> None:
    """Set damaged shards aside and complete DONE where an earlier run could not; never waits or fails."""
    if entry.is_done() and not entry.damaged:
        return
    lock = entry.lock(entry.writer)
    try:
        if not lock.acquire(wait=False):
            return
        try:
            entry.set_aside()
            entry.write_done({})
        finally:
            lock.release()
    except (CacheError, OSError) as e:
        log.warning("the store could not be tidied: %s", e.message if isinstance(e, CacheError) else e)


def _tag(entry: Entry, dist: DistContext) -> str:
    return "-".join(t for t in (entry.writer, f"r{dist.rank}" if dist.world > 1 else "") if t)


def _append(entry: Entry, digests: Mapping[str, str], compute: Compute, ids: list[str], tag: str) -> dict[str, str]:
    """Compute and store rows; returns the hashes of the shards written."""
    from mtv.eval.features.writer import ShardWriter

    writer = ShardWriter(entry, digests, tag=tag)
    try:
        with closing(compute(ids)) as blocks:
            for block in blocks:
                writer.add(block)
    except BaseException:  # Ctrl-C included: what is computed is worth keeping
        writer.rescue()
        raise
    writer.flush()
    return writer.hashes
