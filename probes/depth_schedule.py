"""Optimisation of the depth probe as data: AdamW, clipping, learning rate and first-moment beta per step.

Notable: the cosine and the linear ramp of the learning rate are multiplied, so its peak is 0.75 of the base, at the end
of the ramp; beta1 falls over the first 30 % of the steps and rises over the remaining 70 %. All ramps are shares of the
total, so they scale when the steps change. Protocol `depth`, section 3.4. No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mtv.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DepthSchedule:
    """How the head is trained. Steps count from 0: `step` is the number of optimiser steps done before."""

    steps: int = 38_400
    """Optimiser steps."""
    batch: int = 16
    """Images per step, over all devices."""
    lr: float = 1e-4
    """Base learning rate."""
    final_lr_share: float = 1e-8
    """Share of the base that the cosine ends at."""
    ramp_share: float = 1 / 3
    """Share of the steps over which the linear ramp rises to 1 (12,800 steps)."""
    ramp_start: float = 1e-3
    """Factor of the ramp at step 0."""
    beta1_high: float = 0.95
    """First-moment beta at the first and the last step."""
    beta1_low: float = 0.85
    """First-moment beta at its lowest."""
    beta1_share: float = 0.3
    """Share of the steps over which beta1 falls."""
    beta2: float = 0.999
    """Second-moment beta."""
    weight_decay: float = 0.01
    """Decoupled, on weight and bias."""
    clip_norm: float = 35.0
    """Largest norm of all gradients together, after averaging over chunks and devices."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"depth_schedule.batch must be at least 1, got {self.batch}")
        if not 0 < self.beta1_share < 1 or self.beta1_share * self.steps <= 1:
            raise UsageError(
                f"depth_schedule.beta1_share must be in (0, 1) and cover more than one step, got {self.beta1_share} "
                f"of {self.steps} steps"
            )
        if not 0 <= self.ramp_share <= 1 or not 0 < self.ramp_start <= 1:
            raise UsageError(
                f"depth_schedule.ramp_share and ramp_start are shares, got {self.ramp_share}, {self.ramp_start}"
            )
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"depth_schedule.{name} must be positive, got {getattr(self, name)}")
        for name in ("beta1_high", "beta1_low", "beta2", "final_lr_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"depth_schedule.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise UsageError(f"depth_schedule.weight_decay must not be negative, got {self.weight_decay}")

    @property
    def samples(self) -> int:
        """Images seen in all: 614,400."""
        return self.steps * self.batch

    @property
    def ramp_steps(self) -> int:
        """Steps of the linear ramp: 12,800."""
        return round(self.ramp_share * self.steps)

    def for_batch(self, batch: int) -> DepthSchedule:
        """The same number of images in steps of another size; the ramps scale with the steps.

        Raises:
            UsageError: a batch that does not divide the number of images.
        """
        if batch < 1 or self.samples % batch:
            raise UsageError(f"depth_schedule.batch must divide {self.samples} images, got {batch}")
        return replace(self, batch=batch, steps=self.samples // batch)

    def lr_at(self, step: int) -> float:
        """Cosine from the base to almost 0 over all steps, times a ramp that rises linearly to 1."""
        low = self.lr * self.final_lr_share
        regular = _cosine(self.lr, low, step / self.steps)
        if step >= self.ramp_steps:
            return regular
        return regular * (self.ramp_start + (1 - self.ramp_start) * step / self.ramp_steps)

    def beta1_at(self, step: int) -> float:
        """Cosine from high to low up to the last step of the first share, then back to high at the last step."""
        turn, last = self.beta1_share * self.steps - 1, self.steps - 1
        if step <= turn:
            return _cosine(self.beta1_high, self.beta1_low, step / turn)
        return _cosine(self.beta1_low, self.beta1_high, (step - turn) / (last - turn))

    def adamw_settings(self, step: int) -> dict[str, float | tuple[float, float]]:
        """Entries of an AdamW parameter group for `step`; update every group with them before each step."""
        return {
            "lr": self.lr_at(step),
            "betas": (self.beta1_at(step), self.beta2),
            "weight_decay": self.weight_decay,
        }


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
