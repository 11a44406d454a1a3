"""Whole tensors of a run and back, whatever the processes: one, replicas or shards.

Checkpoints hold whole tensors by name, so that they say nothing about the processes that wrote them. Rank 0 gathers;
when reading, every rank takes its part of what it has read itself, so that nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from mtv.collectives import rank, world_size
from mtv.errors import MtvError
from mtv.train.learner import Learner

T = TypeVar("T")


def settle(learner: Learner) -> None:
    """Return to sharded parameters: a pass without gradients leaves those of the root whole."""
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU of rank 0, an empty dictionary elsewhere. All ranks must call, in the same order."""
    out = {}
    for name, tensor in tensors.items():
        whole = tensor.detach()
        if isinstance(whole, DTensor):
            whole = whole.full_tensor()
        if rank() == 0:
            out[name] = whole.cpu()
    return out


@torch.no_grad()
def put(own: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor, or this rank's part of it, into `own`."""
    if not isinstance(own, DTensor):
        own.copy_(whole)
        return
    local = own.to_local()
    (placement,) = own.placements
    assert isinstance(placement, Shard), f"{placement}: only FSDP2's default layout is read"
    size = whole.shape[placement.dim]
    # As torch.chunk: all parts but the last ones have the same, rounded up, length.
    start = min(size, -(-size // own.device_mesh.size()) * own.device_mesh.get_local_rank())
    local.copy_(whole.narrow(placement.dim, start, local.shape[placement.dim]))


def on_first(work: Callable[[], T]) -> T:
    """Run `work` on rank 0 alone; every rank returns its result or raises its error. All ranks must call."""
    if world_size() == 1:
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = work()
        except MtvError as e:
            failure, outcome[1] = e, (type(e), e.message, e.hint)
        except Exception as e:
            failure, outcome[1] = e, (RuntimeError, f"rank 0 failed: {e!r}")
    dist.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        kind, *arguments = outcome[1]
        raise kind(*arguments)
    result: T = outcome[0]
    return result
