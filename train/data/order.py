"""Which sample comes when: a pure function of seed and epoch, computed block by block.

Epoch e is g // n and the place in it g % n for the global sample counter g of a corpus of n samples. Shards are
permuted per epoch, `block_shards` consecutive ones form a block, and the samples of a block are permuted together. The
state of a loader is hence one integer, and neither ranks nor workers can change what a step sees
(`protocols/trainer_performance.md` section 6). The corpus is never listed: at hand are one number per shard and the
permutation of a few blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtv.errors import UsageError
from mtv.shards.recent import Recent
from mtv.train.data.streams import permutation, stream
from mtv.train.data.subset import Subset

ORDER_VERSION = 1
"""Changes whenever the same seed gives another order; part of a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a global sample counter leads."""

    epoch: int
    """From 0."""
    block: int
    """Number of the block in its epoch."""
    within: int
    """Place inside the block."""
    index: int
    """Global index of the sample in the corpus."""


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """The permuted shards of an epoch."""

    shards: np.ndarray
    """int64 [shards]: shard numbers in order."""
    ends: np.ndarray
    """int64 [blocks]: place after the last sample of each block."""


class SampleOrder:
    """The order of the samples of a subset over all epochs.

    Args:
        subset: the samples.
        seed: seed of the run.
        block_shards: shards that are shuffled together.

    Raises:
        UsageError: an empty subset.
    """

    def __init__(self, subset: Subset, *, seed: int, block_shards: int) -> None:
        if not len(subset):
            raise UsageError("the corpus has no sample to train on")
        self.subset = subset
        self.seed = seed
        self.block_shards = block_shards
        self._samples = len(subset)
        self._epochs: Recent[int, _Epoch] = Recent(2)
        self._blocks: Recent[tuple[int, int], np.ndarray] = Recent(4)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._samples

    def place(self, counter: int) -> Place:
        """Where the global sample counter leads."""
        epoch, at = divmod(counter, self._samples)
        ends = self._epoch(epoch).ends
        block = int(np.searchsorted(ends, at, side="right"))
        within = at - (int(ends[block - 1]) if block else 0)
        return Place(epoch=epoch, block=block, within=within, index=int(self._block(epoch, block)[within]))

    def substitute(self, place: Place, attempt: int) -> Place | None:
        """The place that stands in for a bad sample: `attempt` 0, 1, ... from half a block away; None after the last.

        Half a block away, because the next places lie in the same batch, where one picture twice would be its own
        nearest neighbour and its own negative.
        """
        indices = self._block(place.epoch, place.block)
        if attempt + 1 >= len(indices):
            return None
        offsets = np.arange(1, len(indices))
        offset = int(np.roll(offsets, -(len(offsets) // 2))[attempt])
        within = (place.within + offset) % len(indices)
        return Place(epoch=place.epoch, block=place.block, within=within, index=int(indices[within]))

    def _epoch(self, epoch: int) -> _Epoch:
        return self._epochs.get(epoch, lambda: self._shuffle_shards(epoch))

    def _shuffle_shards(self, epoch: int) -> _Epoch:
        shards = permutation(stream(self.seed, epoch, "shards"), len(self.subset.counts))
        first = np.arange(0, len(shards), self.block_shards)
        return _Epoch(shards=shards, ends=np.cumsum(np.add.reduceat(self.subset.counts[shards], first)))

    def _block(self, epoch: int, block: int) -> np.ndarray:
        """int64: global indices of a block in order."""
        return self._blocks.get((epoch, block), lambda: self._shuffle_block(epoch, block))

    def _shuffle_block(self, epoch: int, block: int) -> np.ndarray:
        shards: Sequence[int] = self._epoch(epoch).shards[block * self.block_shards :][: self.block_shards].tolist()
        members = np.concatenate([self.subset.members(s) for s in shards])
        return members[permutation(stream(self.seed, epoch, block, "samples"), len(members))]


def micro_batch(
    start: int, micro: int, *, global_batch: int, accumulate: int = 1, rank: int = 0, world: int = 1
) -> range:
    """The global sample counters of a micro-batch of a rank.

    The ranks of one micro-batch cover a contiguous part of the global batch: with the same `accumulate`, any number of
    ranks sees the same samples together.

    Args:
        start: counter of the step's first sample.
        micro: number of the micro-batch, 0 to `accumulate` - 1.

    Raises:
        UsageError: `world` x `accumulate` does not divide the global batch.
    """
    size, rest = divmod(global_batch, world * accumulate)
    if rest or not size:
        raise UsageError(
            f"a global batch of {global_batch} does not divide into {world} processes x {accumulate} micro-batches",
            "Choose a global batch that is a multiple of processes x accumulation steps.",
        )
    first = start + (micro * world + rank) * size
    return range(first, first + size)
