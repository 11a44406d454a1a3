"""Which world: seed, size, options, and the splits with what their scenes are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtv.errors import UsageError, unknown

Purpose = Literal["single", "several", "indoor", "road", "model"]
PURPOSES: tuple[Purpose, ...] = ("single", "several", "indoor", "road", "model")
"""`single`: one main object (classification, semantic correspondence); `several`: two to six objects (captions,
segmentation, questions, pretraining); `indoor`: like several, always in a room; `road`: outdoors, wide frame, far
objects; `model`: one individual object in changing surroundings and views (geometric correspondence)."""


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """Options that determine every scene."""

    seed: int = 0
    """Seed of the world."""
    size: int = 96
    """Shorter side of ordinary pictures in pixels, 32 to 512."""
    shift: bool = False
    """Harder test: training splits never use the held-out patterns and settings, test splits use only these."""

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 512:
            raise UsageError(f"size must be between 32 and 512 pixels, got {self.size}", "Try --size 96.")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class SceneRequest:
    """One scene to make; with the `WorldSpec` it determines the scene entirely."""

    split: str
    """Name of the split, part of the key: two splits never share a scene (`imagenet/val`, `pretrain`)."""
    index: int
    """Number inside the split."""
    purpose: Purpose
    """What the scene is for."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    test: bool = False
    """Whether it belongs to test data (`WorldSpec.shift`)."""
    category: str | None = None
    """`single` and `model`: category of the main object; drawn when None."""
    individual: int = 0
    """`model`: number of the individual, so that its scenes share shape and materials."""
    quiet: bool = False
    """Draw no clutter and no partial occlusion of the main object."""

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise unknown("SceneRequest.purpose", self.purpose, PURPOSES)
        if min(self.width, self.height) < 16 or self.index < 0:
            raise UsageError(f"SceneRequest of {self.width} x {self.height} pixels, index {self.index} is impossible")
