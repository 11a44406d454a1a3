"""Learning rate of the segmentation heads: linear warm-up, then polynomial decay to zero at the last iteration.

The decay starts where the warm-up ends (mmengine's LinearLR followed by PolyLR), unlike the older form in which warm-up
multiplies an already decaying rate. Protocol `segmentation`, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtv.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class WarmupPoly:
    """Factor of the base rate at every iteration."""

    iters: int
    """Iterations in all."""
    warmup: int
    """Iterations of warm-up, 0 to `iters` - 1; the last of them runs at the full rate."""
    start: float = 1e-6
    """Factor at iteration 0."""
    power: float = 1.0
    """Exponent of the decay."""

    def __post_init__(self) -> None:
        if self.iters < 1:
            raise UsageError(f"iters must be at least 1, got {self.iters}")
        if not 0 <= self.warmup < self.iters:
            raise UsageError(f"warmup must be 0 to iters - 1 ({self.iters - 1}), got {self.warmup}")
        if not 0 <= self.start <= 1:
            raise UsageError(f"start must be 0 to 1, got {self.start}")
        if not self.power > 0:
            raise UsageError(f"power must be positive, got {self.power}")

    def factor(self, iteration: int) -> float:
        """The factor at `iteration`, 0 .. iters-1.

        Raises:
            UsageError: an iteration out of range.
        """
        if not 0 <= iteration < self.iters:
            raise UsageError(f"iteration must be 0 to {self.iters - 1}, got {iteration}")
        if iteration < self.warmup:
            return self.start + (1 - self.start) * iteration / max(self.warmup - 1, 1)
        decay = self.iters - self.warmup
        return float((1 - (iteration - self.warmup) / max(decay - 1, 1)) ** self.power)
