"""Processes and devices: one process, replicas (DDP) or shards (FSDP2), started by python or torchrun. All differences
between them are here.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mtv.collectives import world_size
from mtv.encoders.placement import resolve_device
from mtv.model.blocks import Block
from mtv.model.dpt import set_convolution_precision
from mtv.train.data.batch import Batch
from mtv.train.learner import Cached, Embedded, Learner
from mtv.train.objectives.base import Context, Outcome
from mtv.train.recipe import Recipe

_TIMEOUT = timedelta(minutes=10)


def local_device(name: str | None) -> torch.device:
    """The device of this process: `name`, or a GPU of its own where there is one, else the CPU.

    Raises:
        UsageError: no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return resolve_device(name)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started; nothing for a plain process."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, world = next(dist.rendezvous("env://", timeout=_TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # torchrun keeps its store over a restart, with the addresses of the processes that are gone. (On several nodes
        # the count can differ between them; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes it start a new store.)
        store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Parallel:
    """A learner on this process, with its optimiser.

    Args:
        learner: built alike on every process.
        device: of this process.
    """

    def __init__(self, learner: Learner, device: torch.device) -> None:
        self.learner = learner.to(device)
        self.device = device
        recipe = learner.recipe
        set_convolution_precision(recipe.depth.precision)
        _prepare_blocks(learner, recipe)
        self.sharded = world_size() > 1 and recipe.perf.parallel == "fsdp"
        self._module: nn.Module = learner
        if self.sharded:
            _shard(learner)
        elif world_size() > 1:
            ids = [device.index] if device.type == "cuda" else None
            with warnings.catch_warnings():
                # The option's new name exists only in the newest torch.
                warnings.simplefilter("ignore", FutureWarning)
                # Centres move by the same sums everywhere; broadcasting them would only cost time.
                self._module = DistributedDataParallel(learner, device_ids=ids, broadcast_buffers=False)
            # Of 1x1 convolutions, whose axes of size 1 have no one stride: every process would say so, to no use.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self.parameters = [p for p in learner.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=recipe.optim.lr,
            betas=recipe.optim.betas,
            eps=recipe.optim.eps,
            weight_decay=recipe.optim.weight_decay,
            fused=not self.sharded,
        )

    def losses(self, batch: Batch, context: Context, cached: Cached | None) -> dict[str, Outcome]:
        """Losses of a micro-batch."""
        return cast("dict[str, Outcome]", self._module(batch, context, cached=cached))

    def embed(self, batch: Batch, context: Context) -> Embedded:
        """Embeddings of a micro-batch, without synchronisation of gradients."""
        module = self.learner if not self.sharded else self._module
        return cast("Embedded", module(batch, context, mode="embed"))

    @contextlib.contextmanager
    def synced(self, last: bool) -> Iterator[None]:
        """Exchange gradients in this micro-batch, or only collect them."""
        if self.sharded:
            cast("Any", self.learner).set_requires_gradient_sync(last)
            yield
        elif isinstance(self._module, DistributedDataParallel) and not last:
            with self._module.no_sync():
                yield
        else:
            yield

    def clip(self, limit: float | None) -> float:
        """Norm of the gradient of all parameters; scaled down to `limit` where it is larger."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit if limit is not None else float("inf"))
        return float(self.whole(norm))

    def whole(self, tensor: Tensor) -> Tensor:
        """The full tensor of a shard; other tensors as they are. All ranks must call."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def update_teacher(self, momentum: float) -> None:
        """Let the teacher follow the student, shard by shard."""
        teacher = self.learner.teacher
        assert teacher is not None
        if not self.sharded:
            teacher.update_(self.learner.model, momentum)
            return
        student = dict(self.learner.model.named_parameters())
        with torch.no_grad():
            for name, own in teacher.named_parameters():
                _local(own).lerp_(_local(student[name]), 1.0 - momentum)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _prepare_blocks(learner: Learner, recipe: Recipe) -> None:
    """Order that works: compile blocks, then activation checkpointing, then sharding."""
    blocks = [m for m in learner.model.modules() if isinstance(m, Block)]
    if recipe.perf.compile:
        for block in blocks:
            block.compile()
    if recipe.perf.checkpoint_blocks:
        for block in blocks:
            block.forward = _checkpointed(block.forward)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    from torch.utils.checkpoint import checkpoint

    def recomputed(x_BND: Tensor, *, last: int | None = None) -> Tensor:
        return checkpoint(forward, x_BND, last=last, use_reentrant=False)

    return recomputed


def _shard(learner: Learner) -> None:
    """Blocks apart, everything else with the root, which stays whole for the pass: its parts are called by methods."""
    towers: list[nn.Module] = [learner.model.vision]
    towers += [learner.model.text] if learner.model.text is not None else []
    towers += [learner.teacher.vision] if learner.teacher is not None else []
    for tower in towers:
        for block in cast("nn.ModuleList", tower.blocks):
            fully_shard(block)
    fully_shard(learner, reshard_after_forward=False)
