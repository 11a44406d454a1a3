"""Training of the linear depth head, wherever its features come from: order of the pictures, one step, the loop.

Everything a step draws is a function of (seed, position), so that an interrupted run ends with the same bits.
Protocol page `depth.md`, sections 3.3 and 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from mtv.draws import Draws
from mtv.eval.heads.prefetch import prefetch
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.protocols_dense import NyuProtocol
from mtv.eval.task import Tick
from mtv.probes.bilinear import resize_map
from mtv.probes.depth_head import DepthHead, DepthHeadConfig
from mtv.probes.depth_loss import DepthLossConfig, depth_loss
from mtv.probes.depth_schedule import DepthSchedule
from mtv.probes.precision import fp32_matmul

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Features and truth of one step, on the head's device."""

    tokens_BHWD: Tensor
    """Patch tokens of the padded pictures."""
    global_BD: Tensor
    """Global tokens."""
    depth_B1HW: Tensor
    """Metres, 0 where missing, at the pictures' size before padding."""


class Batches(Protocol[R]):
    """Where batches come from."""

    def read(self, step: int) -> R:
        """What can be read ahead, in another thread."""
        ...

    def batch(self, raw: R) -> Batch:
        """Features of what was read."""
        ...


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """An endless row of permutations of `n` samples, one per epoch, cut into batches; a batch may span two epochs."""

    n: int
    """Samples."""
    batch: int
    """Samples per step."""
    seed: int
    """Of the permutations."""

    def at(self, step: int) -> list[tuple[int, int]]:
        """(sample, epoch) of each place in the batch of a step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return [(_permutation(self.n, self.seed, p // self.n)[p % self.n], p // self.n) for p in places]


@lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> list[int]:
    return Draws("depth_order", seed, epoch).shuffled(range(n))


def head_config(protocol: NyuProtocol) -> DepthHeadConfig:
    """The head of a protocol."""
    p = protocol
    return DepthHeadConfig(
        bins=p.bins,
        min_depth=p.min_depth,
        max_depth=p.max_depth,
        spacing=p.spacing,
        floor=p.floor,
        upsample=p.upsample,
    )


def loss_config(protocol: NyuProtocol) -> DepthLossConfig:
    """The loss of a protocol."""
    p = protocol
    return DepthLossConfig(chunk=p.chunk, mean_weight=p.mean_weight, epsilon=p.epsilon, warmup_steps=p.loss_warmup)


def schedule_of(protocol: NyuProtocol, n: int) -> DepthSchedule:
    """The schedule of a protocol on `n` training pictures."""
    names = (
        "batch", "lr", "final_lr_share", "ramp_share", "ramp_start", "beta1_high", "beta1_low", "beta1_share", "beta2",
        "weight_decay", "clip_norm",
    )  # fmt: skip
    steps = protocol.steps if protocol.epochs is None else math.ceil(protocol.epochs * n / protocol.batch)
    return DepthSchedule(steps=steps, **{name: getattr(protocol, name) for name in names})


class Tally:
    """A counter on the device that is saved with the head."""

    def __init__(self, device: torch.device) -> None:
        self.n = torch.zeros((), dtype=torch.int64, device=device)

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"n": self.n}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Inverse of `state_dict`."""
        self.n.copy_(state_dict["n"])


class DepthTrainer:
    """Head, optimiser and loss.

    Args:
        width: channels of the encoder's tokens.
        n: training pictures.
        device: where the head lives.
    """

    def __init__(self, protocol: NyuProtocol, *, width: int, n: int, device: torch.device) -> None:
        self.head = DepthHead(width, config=head_config(protocol), seed=protocol.seed).to(device)
        self.schedule = schedule_of(protocol, n)
        self._loss = loss_config(protocol)
        self.optimiser = torch.optim.AdamW(self.head.parameters(), lr=self.schedule.lr)
        self.skipped = Tally(device)
        """Chunks without valid depth so far."""

    @property
    def parts(self) -> dict[str, Any]:
        """What has to be saved."""
        return {"head": self.head, "optimiser": self.optimiser, "skipped": self.skipped}

    @fp32_matmul()
    def step(self, step: int, batch: Batch) -> Tensor:
        """One optimiser step; the loss, not waited for."""
        for group in self.optimiser.param_groups:
            group.update(self.schedule.adamw_settings(step))
        depth_B1hw = self.head(batch.tokens_BHWD, batch.global_BD)
        size = (batch.depth_B1HW.shape[-2], batch.depth_B1HW.shape[-1])
        loss = depth_loss(resize_map(depth_B1hw, size), batch.depth_B1HW, step=step, config=self._loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.value.backward()
        nn.utils.clip_grad_norm_(self.head.parameters(), self.schedule.clip_norm)
        self.optimiser.step()
        self.skipped.n += loss.skipped
        return loss.value.detach()


def train(
    trainer: DepthTrainer,
    batches: Batches[R],
    *,
    work: Path | None,
    tick: Tick,
    every: int | None = None,
    visit: Callable[[int, HeadTraining], None] | None = None,
) -> HeadTraining:
    """All steps, from the state in `work` where there is one.

    Args:
        work: folder of the state; None keeps none.
        every: call `visit` after every so many steps, the last one excepted.
        visit: gets the number of steps done and the training, whose notes it may extend.

    Raises:
        NumericalError: the loss is not finite; names the step and the last good state.
    """
    total = trainer.schedule.steps
    training = HeadTraining(work, name="depth_head", parts=trainer.parts)
    first: int | None = None
    for step, raw in prefetch(training.steps(total), batches.read, trainer.head.weight.device):
        first = step if first is None else first
        loss = trainer.step(step, batches.batch(raw))
        if every and visit and (step + 1) % every == 0 and step + 1 < total:
            training.check(step, loss)
            visit(step + 1, training)
        training.done(step, loss)
        known = f", loss {training.loss:.4f}" if math.isfinite(training.loss) else ""
        tick("train", step + 1 - first, total - first, f"step {step + 1} of {total}{known}")
    return training
