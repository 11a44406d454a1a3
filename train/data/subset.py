"""Which samples of a corpus take part: all, or the first of its hash-ordered keys.

Notable choices: subsets of one seed are nested (`protocols/pretraining.md` section 2.2), whatever the shards they lie
in; choosing reads the keys of the index twice and no sample; kept are one bit per sample and nothing that grows
faster.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mtv.errors import UsageError
from mtv.shards import ShardDataset
from mtv.shards.dataset import read_index
from mtv.shards.index_file import Keys

_BUCKETS = 1 << 16
_FNV_START = 0xCBF29CE484222325
_FNV_PRIME = np.uint64(0x100000001B3)


class Subset:
    """Samples of a corpus, by shard; see `of`.

    Attributes:
        counts: int64 [shards]: samples of each shard that take part.
    """

    def __init__(self, ends: np.ndarray, masks: list[np.ndarray] | None) -> None:
        """Args:
        ends: int64 [shards]: global index after the last sample of each shard.
        masks: per shard, packed bits of the samples that take part; None for all.
        """
        self._starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        self._ends = ends.astype(np.int64)
        self._masks = masks
        sizes = self._ends - self._starts
        if masks is not None:
            sizes = np.array([int(np.unpackbits(m).sum()) for m in masks], dtype=np.int64)
        self.counts = sizes
        self._before = np.cumsum(sizes) - sizes

    @classmethod
    def of(cls, dataset: ShardDataset, *, limit: int | None = None, seed: int = 0) -> Subset:
        """The `limit` samples whose keys hash lowest; all of them when `limit` is None.

        Raises:
            UsageError: `limit` is larger than the corpus.
        """
        ends = np.array([s.stop for s in dataset.shards], dtype=np.int64)
        if limit is None or limit == len(dataset):
            return cls(ends, None)
        if limit > len(dataset):
            raise UsageError(f"data.limit is {limit}, but {dataset.root} has {len(dataset)} samples")
        return cls(ends, _lowest(dataset, limit, seed))

    def __len__(self) -> int:
        return int(self.counts.sum())

    def members(self, shard: int) -> np.ndarray:
        """int64: global indices of the shard's samples that take part, ascending."""
        start, end = int(self._starts[shard]), int(self._ends[shard])
        if self._masks is None:
            return np.arange(start, end)
        return start + np.flatnonzero(np.unpackbits(self._masks[shard], count=end - start))

    def ordinal(self, index: int) -> int:
        """How many members come before the sample with this global index."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._starts[shard])
        if self._masks is not None:
            row = int(np.unpackbits(self._masks[shard], count=row).sum()) if row else 0
        return int(self._before[shard]) + row


def key_hashes(keys: Keys, seed: int) -> np.ndarray:
    """uint64 [N]: FNV-1a of `seed:` and the key's UTF-8 bytes, then the finaliser of MurmurHash3."""
    start = _FNV_START
    for byte in f"{seed}:".encode():
        start = ((start ^ byte) * int(_FNV_PRIME)) % (1 << 64)
    ends = keys.key_ends
    begins = np.concatenate([[0], ends[:-1]])
    hash_N = np.full(len(ends), start, dtype=np.uint64)
    for column in range(int((ends - begins).max(initial=0))):
        rows = np.flatnonzero(begins + column < ends)
        byte = keys.key_bytes[begins[rows] + column].astype(np.uint64)
        hash_N[rows] = (hash_N[rows] ^ byte) * _FNV_PRIME
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hash_N = (hash_N ^ (hash_N >> np.uint64(33))) * np.uint64(factor)
    return hash_N ^ (hash_N >> np.uint64(33))


def _shard_hashes(dataset: ShardDataset, seed: int) -> Iterator[np.ndarray]:
    for entry in dataset.info.shards:
        yield key_hashes(read_index(dataset.root, entry).keys, seed)


def _lowest(dataset: ShardDataset, limit: int, seed: int) -> list[np.ndarray]:
    """Packed bits per shard of the `limit` lowest hashes: count by bucket, then sort the one bucket that is cut."""
    shift = np.uint64(48)
    histogram = np.zeros(_BUCKETS, dtype=np.int64)
    for hash_N in _shard_hashes(dataset, seed):
        histogram += np.bincount(hash_N >> shift, minlength=_BUCKETS)
    cut = int(np.searchsorted(np.cumsum(histogram), limit))
    left = limit - int(histogram[:cut].sum())
    masks: list[np.ndarray] = []
    edge: list[tuple[int, int, int]] = []  # hash, shard, row: equal hashes go by place
    for shard, hash_N in enumerate(_shard_hashes(dataset, seed)):
        bucket_N = hash_N >> shift
        masks.append(np.packbits(bucket_N < cut))
        edge += [(int(hash_N[row]), shard, int(row)) for row in np.flatnonzero(bucket_N == cut)]
    for _, shard, row in sorted(edge)[:left]:
        masks[shard][row >> 3] |= 0x80 >> (row & 7)
    return masks
