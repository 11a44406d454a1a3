"""Trains several linear heads on one stream of frozen features: tensors in, heads out.

Notable: all heads start equal and see the same batches, only their learning rates differ; features need no gradient and
batch statistics do not depend on the head, so tokens are normalised once per batch for all heads and each head is one
matrix product (its norm's scale and shift multiplied into the weight: the literal form to rounding); everything runs in
IEEE float32; batches are asked for by iteration number, so a restored state continues to the same bits on the CPU; a
loss that is not finite stops the run before it touches a head. Protocol `segmentation`, section 9.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import CheckpointError, NumericalError, UsageError, unknown
from mtv.probes.precision import check_finite, fp32_matmul
from mtv.probes.segmentation_head import BN_EPS, BN_MOMENTUM, HeadConfig, LinearHead
from mtv.probes.segmentation_loss import LOSS_MEANS, LossMean, block_counts, loss_divisor, patch_loss, pixel_loss
from mtv.probes.segmentation_schedule import WarmupPoly

Loss = Literal["patch", "pixel"]
LOSSES: tuple[Loss, ...] = ("patch", "pixel")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How the heads are trained."""

    head: HeadConfig
    """Shape of every head."""
    iters: int
    """Iterations."""
    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Base learning rate of each head."""
    wd: float = 1e-4
    """Weight decay of AdamW, on all parameters."""
    warmup: float = 0.05
    """Part of `iters` that warms up, 0 to below 1."""
    loss: Loss = "patch"
    """`patch`: against class counts per patch. `pixel`: bilinear to the label size."""
    loss_mean: LossMean = "all"
    """What the loss is divided by: `all` pixels or the `valid` ones."""
    seed: int = 0
    """Of the heads' weights."""

    def __post_init__(self) -> None:
        if not self.lrs or min(self.lrs) <= 0:
            raise UsageError(f"lrs must be positive, at least one, got {self.lrs}")
        if self.wd < 0:
            raise UsageError(f"wd must be at least 0, got {self.wd}")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup must be 0 to below 1 (a part of iters), got {self.warmup}")
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if self.loss_mean not in LOSS_MEANS:
            raise unknown("loss_mean", self.loss_mean, LOSS_MEANS)
        self.schedule()

    def schedule(self) -> WarmupPoly:
        """Factor of the learning rates; refuses `iters` below 1."""
        return WarmupPoly(iters=self.iters, warmup=int(self.warmup * self.iters))


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Frozen features of B windows with their labels, on one device."""

    tokens_BhwD: Tensor
    """Patch tokens without prefix tokens, any floating dtype."""
    labels_BHW: Tensor
    """Integers 0 .. C-1 or 255 at the size of the windows' pixels (padding: 255)."""

    def __post_init__(self) -> None:
        tokens, labels = tuple(self.tokens_BhwD.shape), tuple(self.labels_BHW.shape)
        fits = len(tokens) == 4 and len(labels) == 3 and 0 not in tokens and tokens[0] == labels[0]
        if not fits or labels[1] % tokens[1] or labels[1] * tokens[2] != labels[2] * tokens[1]:
            raise UsageError(
                f"tokens {tokens} do not fit labels {labels}: need B,h,w,D and B,H,W with square patches",
                "Prefix tokens (CLS, registers) do not belong to the grid.",
            )


class HeadTrainer:
    """Heads, optimiser and the iteration reached.

    Args:
        config: what to train.
        device: of heads and batches.
    """

    def __init__(self, config: StreamConfig, *, device: str | torch.device = "cpu") -> None:
        self.config = config
        self.schedule = config.schedule()
        self.heads = [LinearHead(config.head, seed=config.seed).to(device).train() for _ in config.lrs]
        self.optimizer = torch.optim.AdamW(
            [{"params": list(head.parameters()), "lr": lr} for head, lr in zip(self.heads, config.lrs, strict=True)],
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=config.wd,
        )
        self.iteration = 0
        """Iterations done."""

    def run(
        self,
        batch_at: Callable[[int], TokenBatch],
        *,
        until: int | None = None,
        after_step: Callable[[int, list[float]], None] | None = None,
    ) -> None:
        """Train from `iteration` on.

        Args:
            batch_at: gives the batch of an iteration; equal numbers must give equal batches.
            until: iterations done when it returns; all of them by default.
            after_step: called with the iterations done and the loss of each head: to log, to store `state_dict`.

        Raises:
            NumericalError: a feature or a loss is not finite; the heads are those after the last good iteration.
        """
        for iteration in range(self.iteration, self.config.iters if until is None else until):
            losses_K = self.step(batch_at(iteration))
            if after_step is not None:
                after_step(self.iteration, losses_K)

    @fp32_matmul()
    def step(self, batch: TokenBatch) -> list[float]:
        """One iteration of every head.

        Returns:
            The loss of each head before the step.

        Raises:
            UsageError: no iterations left, tokens of another width.
            DataError: a label outside the classes.
            NumericalError: as `run`.
        """
        factor = self.schedule.factor(self.iteration)
        x_BhwD, running = self._normalise(batch.tokens_BhwD)
        loss_K = torch.stack(self._losses(x_BhwD, batch.labels_BHW))
        self.optimizer.zero_grad()
        loss_K.sum().backward()
        self._refuse_divergence(loss_K.detach(), batch)
        for head in self.heads:
            for stored_D, new_D in zip(head.running() or (), running, strict=True):
                stored_D.copy_(new_D)
        for group, lr in zip(self.optimizer.param_groups, self.config.lrs, strict=True):
            group["lr"] = lr * factor
        self.optimizer.step()
        self.iteration += 1
        losses_K: list[float] = loss_K.tolist()
        return losses_K

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: dicts, lists, numbers and tensors, so that `torch.load(weights_only=True)` reads it."""
        return copy.deepcopy(
            {
                "config": asdict(self.config),
                "iteration": self.iteration,
                "heads": [head.state_dict() for head in self.heads],
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot.

        Raises:
            CheckpointError: a snapshot of another configuration.
        """
        own, stored = asdict(self.config), state["config"]
        if differ := [name for name in own if stored.get(name) != own[name]]:
            raise CheckpointError(
                f"the stored heads were trained with another {', '.join(differ)}: "
                f"{ {name: stored.get(name) for name in differ} }, not { {name: own[name] for name in differ} }",
                "Use the configuration of the interrupted run, or start anew.",
            )
        for head, weights in zip(self.heads, state["heads"], strict=True):
            head.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]

    @torch.no_grad()
    def _normalise(self, tokens_BhwD: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens in float32, normalised over the batch, and the running mean and variance that result, if any."""
        if tokens_BhwD.shape[-1] != self.config.head.width:
            raise UsageError(f"tokens have {tokens_BhwD.shape[-1]} channels, the heads {self.config.head.width}")
        x_BhwD, running = tokens_BhwD.float(), self.heads[0].running()
        if running is None:
            return x_BhwD, ()
        mean_D, var_D = running[0].clone(), running[1].clone()
        x_MD = F.batch_norm(x_BhwD.flatten(0, 2), mean_D, var_D, training=True, momentum=BN_MOMENTUM, eps=BN_EPS)
        return x_MD.view_as(x_BhwD), (mean_D, var_D)

    def _losses(self, x_BhwD: Tensor, labels_BHW: Tensor) -> list[Tensor]:
        config = self.config
        logits_K = [F.linear(x_BhwD, *head.linear()) for head in self.heads]
        if config.loss == "pixel":
            maps_K = [logits_BhwC.permute(0, 3, 1, 2).contiguous() for logits_BhwC in logits_K]
            return [pixel_loss(logits_BChw, labels_BHW, mean=config.loss_mean) for logits_BChw in maps_K]
        counts_BhwC = block_counts(labels_BHW, (x_BhwD.shape[1], x_BhwD.shape[2]), config.head.n_classes)
        divisor = loss_divisor(labels_BHW, config.loss_mean)
        return [patch_loss(logits_BhwC, counts_BhwC, divisor) for logits_BhwC in logits_K]

    def _refuse_divergence(self, loss_K: Tensor, batch: TokenBatch) -> None:
        """Losses and gradients; the heads themselves are not changed yet."""
        of_heads = [[loss, *(p.grad for p in head.parameters())] for loss, head in zip(loss_K, self.heads, strict=True)]
        finite_K = torch.stack([torch.stack([torch.isfinite(x).all() for x in of]).all() for of in of_heads]).tolist()
        if all(finite_K):
            return
        # Rarely needed, so looked for only now: the features themselves may be to blame.
        check_finite(batch.tokens_BhwD, what=f"tokens of the batch at iteration {self.iteration}")
        bad = finite_K.index(False)
        raise NumericalError(
            f"the head with lr {self.config.lrs[bad]:g} diverged at iteration {self.iteration} (loss "
            f"{float(loss_K[bad]):g}); all heads are kept as after {self.iteration} good iterations",
            "Leave this learning rate out, or lower it.",
        )
