"""The distinct region names of the global batch: each is encoded once in the world, whoever showed it.

Notable choices:
- Names are compared by their 64-bit hash, so free text works as well as a fixed tag list.
- The list is padded to a multiple of the ranks; padding has count 0 and so weighs nothing. There is always at least
  one row per rank, so a step without any region runs the same graph.
- Each name remembers one slot that shows it, from which the rank that encodes it takes the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.collectives import gather_rows, rank, world_size


@dataclass(frozen=True, kw_only=True)
class UniqueNames:
    """Distinct names over all ranks, V = U + padding rows, equal on all ranks but for `own_BR`."""

    ids_V: Tensor
    """int64 name hashes, the first U ascending; 0 in padding."""
    counts_V: Tensor
    """int64 number of valid slots of the world with each name; 0 in padding."""
    slots_V: Tensor
    """int64 first valid slot with each name, in the global [G * R] order of `gather_rows`; 0 in padding."""
    own_BR: Tensor
    """int64 row of each local slot's name; 0 where the slot is invalid."""
    number: int
    """U."""

    @property
    def local_slots(self) -> Tensor:
        """[V / W] slots whose texts this rank encodes; `gather_rows` of the embeddings gives all V rows in order."""
        rows = len(self.slots_V) // world_size()
        return self.slots_V[rank() * rows : (rank() + 1) * rows]


@torch.no_grad()
def unique_names(name_BR: Tensor, valid_BR: Tensor, *, multiple: int = 1) -> UniqueNames:
    """Collect the names of all ranks. All ranks must call; on CUDA tensors it waits for the device (U is a size).

    Args:
        name_BR: int64 hashes of the names; contents of invalid slots are ignored.
        valid_BR: True where a slot holds a region.
        multiple: rows per rank are rounded up to this, to keep the number of distinct shapes small.
    """
    both_2S = gather_rows(torch.stack([name_BR, valid_BR.to(name_BR)], dim=1)).transpose(0, 1).flatten(1)
    slot_n = both_2S[1].nonzero().squeeze(1)
    ids_U, row_n, count_U = both_2S[0, slot_n].unique(return_inverse=True, return_counts=True)
    first_U = torch.full_like(ids_U, both_2S.shape[1]).scatter_reduce(0, row_n, slot_n, "amin")
    per_rank = max(1, -(-len(ids_U) // world_size()))
    padding = -(-per_rank // multiple) * multiple * world_size() - len(ids_U)
    own_BR = torch.searchsorted(ids_U, name_BR.contiguous())
    return UniqueNames(
        ids_V=_padded(ids_U, padding),
        counts_V=_padded(count_U, padding),
        slots_V=_padded(first_U, padding),
        own_BR=own_BR.masked_fill(~valid_BR, 0),
        number=len(ids_U),
    )


def _padded(x_U: Tensor, padding: int) -> Tensor:
    return torch.cat([x_U, x_U.new_zeros(padding)])
