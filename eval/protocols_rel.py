"""Protocols of zero-shot relative depth: tasks `rel_nyu` and `rel_kitti`. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mtv.errors import UsageError
from mtv.eval.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class RelDepthProtocol(Protocol):
    """Relative depth by the model's own depth head, aligned to the truth (`protocols/depth.md` section 5).

    What the paper leaves open is a field here: the space of the fit, squashed or proportional input. `native` resizes
    as the model's own processor does, which for Depth Anything keeps the proportions.
    """

    size: int | None = None
    """Input side in pixels; none for the model's own."""
    resize: Literal["squash", "short_side", "model"] = "squash"
    """`squash`: both sides to `size`; `short_side`: the shorter one, the other in proportion, both rounded to the
    patch; `model`: as the processor of the depth model does, squash for models without one."""
    statistics: Literal["model", "imagenet"] = "model"
    """Normalisation of the pixels: the encoder's own, or ImageNet's."""
    align: Literal["disp", "depth"] = "disp"
    """Space of the least-squares fit: `disp` to 1 / depth; `depth` to depth, for heads that predict depth. The headline
    is absrel_depth or absrel_depth_ls."""
    fit_mask: Literal["auto", "all", "positive"] = "auto"
    """Valid pixels that enter the fit (all are scored): all, those with a positive prediction, or `auto`: positive for
    heads that end in a ReLU, else all. The resolved one is in the result."""
    force: bool = False
    """Give a labelled number where otherwise none is given: a disparity head aligned in depth, or more than 5 % of the
    images with an inverted fit."""
    min_depth: float
    """Scored depth is above this, metres; aligned depth is clipped to it."""
    max_depth: float
    """Scored depth is below this, metres; aligned depth is clipped to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and self.size < 1:
            raise UsageError(f"{self.task}.size must be at least 1, got {self.size}")
        if not 0 <= self.min_depth < self.max_depth < math.inf:
            raise UsageError(
                f"{self.task}.min_depth and max_depth must be a range of metres, got {self.min_depth}, {self.max_depth}"
            )


_NATIVE: dict[str, Any] = {"resize": "model"}


@dataclass(frozen=True, kw_only=True)
class RelNyuProtocol(RelDepthProtocol):
    """Relative depth on the NYUv2 test frames, whole frame, Eigen mask, up to 10 m.

    `mini` changes nothing: the mask keeps its share of a smaller frame.
    """

    task: ClassVar[str] = "rel_nyu"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "native": _NATIVE, "mini": {}}

    mask: Literal["eigen", "none"] = "eigen"
    """Scored part of the frame: rows 45 to 471, columns 41 to 601 of 480 x 640, or all of it."""
    min_depth: float = 0.001
    """Scored depth is above this, metres; aligned depth is clipped to it."""
    max_depth: float = 10.0
    """Scored depth is below this, metres; aligned depth is clipped to it."""


@dataclass(frozen=True, kw_only=True)
class RelKittiProtocol(RelDepthProtocol):
    """Relative depth on the KITTI test frames, bottom crop, Eigen mask, up to 80 m.

    `mini` is for pictures smaller than the crop: it takes the crop's share of a 375 x 1242 frame.
    """

    task: ClassVar[str] = "rel_kitti"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "native": _NATIVE, "mini": {"crop": "share"}}

    crop: Literal["pixels", "share", "none"] = "pixels"
    """Cut from picture and truth before the model: the lowest 352 rows and middle 1216 columns, the same share of the
    frame, or nothing."""
    mask: Literal["eigen", "garg", "none"] = "eigen"
    """Scored part of the cropped frame: Eigen rows 117 to 321, or Garg rows 143 to 349, of 352, columns 43 to 1172 of
    1216, or all of it."""
    min_depth: float = 1e-5
    """Scored depth is above this, metres; aligned depth is clipped to it."""
    max_depth: float = 80.0
    """Scored depth is below this, metres; aligned depth is clipped to it."""
