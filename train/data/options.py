"""What shapes the data of a run: `DataOptions` (`data.*` of a recipe) and `ViewOptions` (`views.*`).

Notable choices: every default is that of `protocols/pretraining.md` sections 3 and 10; sizes that the model fixes
(image and patch size) stand with the model and are handed to the loader, so that there is one truth. No torch here:
recipes are listed without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mtv.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which samples, how they are decoded, and by how many processes."""

    canvas: int = 384
    """Side C in pixels of the square uint8 canvas that every image is decoded to; 256 is the fast mode."""
    depth_canvas: int = 192
    """Side in pixels of the square map that every disparity label is decoded to."""
    cache: int = 0
    """Bytes of memory for decoded canvases, shared by the workers of a process; 0 decodes in every epoch."""
    workers: int = 4
    """Processes that read and decode; 0 does it in the training process. Results do not depend on it."""
    prefetch: int = 2
    """Batches that every worker prepares ahead."""
    augment: Literal["device", "worker"] = "device"
    """Where crops and colours are made: on the training device, or on the CPU by the workers; one code for both."""
    block_shards: int = 8
    """Shards whose samples are shuffled together."""
    caption: Literal["draw", "first"] = "draw"
    """Of several captions: one drawn per epoch, or always the first."""
    limit: int | None = None
    """Train on that many samples: the first of the hash-ordered keys, so that subsets are nested; None: all."""
    subset_seed: int = 0
    """Seed of the hash order."""
    labels: tuple[str, ...] = ()
    """Label sets to read, at most one per kind; of a kind that is not named the corpus must have one."""
    min_image_side: int = 8
    """Images with a shorter side below this many pixels count as bad."""
    max_bad: int = 100
    """Bad samples (each counted once) that are replaced and named before the run ends with an error; per process."""

    def __post_init__(self) -> None:
        for name in ("canvas", "depth_canvas", "prefetch", "block_shards", "min_image_side"):
            _at_least(self, name, 1)
        for name in ("cache", "workers", "max_bad"):
            _at_least(self, name, 0)
        if self.limit is not None:
            _at_least(self, "limit", 1)
        _one_of(self, "augment", ("device", "worker"))
        _one_of(self, "caption", ("draw", "first"))


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """How a canvas becomes a global view, local views, a mask and regions."""

    global_scale: tuple[float, float] = (0.9, 1.0)
    """Area of the global crop as a share of the image, least and largest."""
    global_flip: float = 0.0
    """Probability that the global view is mirrored; captions with left and right forbid it."""
    local_crops: int = 6
    """Local views M per image."""
    local_size: int = 96
    """Side of a local view in pixels, a multiple of the patch size."""
    local_scale: tuple[float, float] = (0.05, 0.32)
    """Area of a local crop as a share of the whole image, least and largest."""
    local_flip: float = 0.5
    """Probability that a local view is mirrored."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of all crops in true pixels, least and largest; drawn on a log scale."""
    local_color: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter of local views, in random order."""
    local_color_p: float = 0.8
    """Probability of the jitter."""
    local_grey: float = 0.2
    """Probability that a local view loses its colour."""
    local_blur: float = 0.5
    """Probability that a local view is blurred."""
    local_blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in pixels, least and largest (kernel of 9 pixels)."""
    mask_ratio: float = 0.5
    """Share of the patches that are masked: exactly floor(ratio * N) of every image (`ssl.mask_ratio`)."""
    mask_kind: Literal["uniform"] = "uniform"
    """Pattern of the mask: uniform without replacement (`ssl.mask_kind`)."""
    regions: int = 4
    """Region slots R per image; that many are drawn at most (`ground.regions`)."""
    min_score: float = 0.1
    """Least labeller confidence of a region (`ground.min_score`)."""
    min_visible: float = 0.5
    """Least share of a box's area that the global crop must leave (`ground.min_visible`)."""
    min_side_px: float = 8.0
    """Least side of a clipped box in pixels of the global view (`ground.min_side_px`)."""
    region_template: str = "{}"
    """Text of a region name; `{}` stands for the tag (`ground.template`)."""

    def __post_init__(self) -> None:
        for name in ("global_scale", "local_scale"):
            _range(self, name, low=0.0, high=1.0)
        for name in ("ratio", "local_blur_sigma"):
            _range(self, name, low=0.0, high=math.inf)
        for name in ("global_flip", "local_flip", "local_color_p", "local_grey", "local_blur", "mask_ratio"):
            _share(self, name)
        for name in ("min_score", "min_visible"):
            _share(self, name)
        for name in ("local_crops", "local_size", "regions"):
            _at_least(self, name, 1)
        if len(self.local_color) != 4 or min(self.local_color) < 0 or self.local_color[3] > 0.5:
            raise UsageError(
                f"ViewOptions.local_color is {self.local_color}; it takes four strengths, none negative, hue up to 0.5"
            )
        if self.min_side_px < 0:
            raise UsageError(f"ViewOptions.min_side_px is {self.min_side_px}; it must not be negative")
        if "{}" not in self.region_template:
            raise UsageError(f"ViewOptions.region_template is {self.region_template!r}; it must contain {{}}")
        _one_of(self, "mask_kind", ("uniform",))


def _at_least(options: object, name: str, low: int) -> None:
    value = getattr(options, name)
    if value < low:
        raise UsageError(f"{type(options).__name__}.{name} is {value}; it must be at least {low}")


def _share(options: object, name: str) -> None:
    value = getattr(options, name)
    if not 0 <= value <= 1:
        raise UsageError(f"{type(options).__name__}.{name} is {value}; it must be between 0 and 1")


def _range(options: object, name: str, *, low: float, high: float) -> None:
    value = getattr(options, name)
    if len(value) != 2 or not low < value[0] <= value[1] <= high:
        raise UsageError(
            f"{type(options).__name__}.{name} is {value}; it takes two numbers, {low:g} < least <= largest <= {high:g}"
        )


def _one_of(options: object, name: str, known: tuple[str, ...]) -> None:
    value = getattr(options, name)
    if value not in known:
        raise UsageError(f"{type(options).__name__}.{name} is {value!r}; known: {', '.join(known)}")
