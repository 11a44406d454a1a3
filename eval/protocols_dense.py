"""Protocols of the dense probes, which train a head on a frozen encoder. No torch: `mtv-eval ls` needs none.

Protocol pages `depth.md` sections 3, 4 and 6.2 (NYUv2), and `segmentation.md` (ADE20k, CamVid, NYUv2 with 40 classes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mtv.errors import UsageError
from mtv.eval.protocol import Protocol

_CACHED: dict[str, Any] = {
    "features": "cached",
    "storage": "fp16",
    "views": 4,
    "epochs": 24.0,
    "batch": 4,
    "lr": 3e-3,
    "loss_warmup": 10,
    "eval_every": None,
}
"""What heads on stored features share: 24 passes instead of 25, in small steps at a high rate, because small sets have
few steps in all."""


@dataclass(frozen=True, kw_only=True)
class NyuProtocol(Protocol):
    """Metric depth on NYUv2: 256 bins, linear head, frozen encoder (`protocols/depth.md` sections 2 to 4).

    `paper` is FiT3D's released configuration, which DINOv2's linear probe shares. The encoder runs inside the training
    loop, because every picture is rotated, cropped and recoloured anew; it wants an accelerator. `fast` reads each
    training picture once in a few fixed crops, half of them mirrored, keeps the features, and trains on those: another
    number, `rmse_cached`. `mini` is for the miniature world and a quick look at other small sets: few steps, and crops
    that are multiples of 16 on frames of 192 x 256 as on those of 480 x 640.
    """

    task: ClassVar[str] = "nyuv2"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fit3d": {},
        "fast": {**_CACHED, "train_limit": 6_000},
        "mini": {**_CACHED, "views": 2, "epochs": None, "steps": 300, "random_crop": (400, 560)},
    }

    features: Literal["online", "cached"] = "online"
    """`online`: the encoder runs in the training loop on augmented pictures; `cached`: it runs once on fixed views."""
    layer: int = -1
    """Block whose tokens the head reads, 0-based or negative from the end."""
    feat_norm: Literal["auto", "none", "final"] = "auto"
    """Tap of patch and global token: residual stream, or after the final norm. `auto`: none for encoders with a class
    token, which is the global token then; final for those without, whose pooled vector takes its place."""
    image_stats: Literal["imagenet", "native"] = "imagenet"
    """Normalisation of the pixels: ImageNet's for every encoder, or the encoder's own."""
    storage: Literal["fp16", "fp32"] = "fp32"
    """Dtype in which token maps are kept: those of the test pictures and, if cached, of the training views."""
    train_limit: int | None = None
    """Train on this many pictures, spread over the scenes; none for all. `fast` keeps the feature store small: 6000
    pictures in 4 views at ViT-B are 33 GB."""
    views: int = 1
    """Fixed views per training picture, if cached. The first is the centred crop; the others are random crops, every
    second one mirrored."""
    seed: int = 0
    """Seed of the head's initialisation, the order of the pictures, and all draws."""

    bins: int = 256
    """Depth bins."""
    spacing: Literal["linear", "log"] = "linear"
    """Distance of the bins."""
    min_depth: float = 0.001
    """Depth of the first bin in metres, and lower bound (exclusive) of depth that is scored."""
    max_depth: float = 10.0
    """Depth of the last bin in metres, and upper bound (exclusive) of depth that is scored."""
    floor: float = 0.1
    """Added to every bin after the ReLU."""
    upsample: int = 4
    """Output pixels of the head per token side; its map is then resized to the picture."""

    steps: int = 38_400
    """Optimiser steps, unless `epochs` is set."""
    epochs: float | None = None
    """Passes over the training pictures; the number of steps follows from it, rounded up, and is in the record. What
    training costs then keeps its proportion to what reading the features costs, however large the set."""
    batch: int = 16
    """Pictures per step, a multiple of `chunk`."""
    lr: float = 1e-4
    """Base learning rate: cosine to almost zero, times a linear ramp."""
    final_lr_share: float = 1e-8
    """Share of the base rate at which the cosine ends."""
    ramp_share: float = 1 / 3
    """Share of the steps over which the ramp rises."""
    ramp_start: float = 1e-3
    """Factor of the ramp at the first step."""
    beta1_high: float = 0.95
    """First-moment beta of AdamW at the first and the last step."""
    beta1_low: float = 0.85
    """Lowest first-moment beta."""
    beta1_share: float = 0.3
    """Share of the steps over which the first-moment beta falls."""
    beta2: float = 0.999
    """Second-moment beta."""
    weight_decay: float = 0.01
    """Decoupled weight decay, on the bias too."""
    clip_norm: float = 35.0
    """Largest norm of the gradient."""

    chunk: int = 2
    """Pictures over which one variance of the loss is taken; the chunks of a batch are averaged."""
    mean_weight: float = 0.15
    """Weight of the squared mean log error beside its variance."""
    epsilon: float = 1e-3
    """Added to both depths before the logarithm, metres."""
    loss_warmup: int = 100
    """First steps, in which the loss has no variance."""

    train_box: tuple[int, ...] = (45, 472, 43, 608)
    """First row, end row, first column, end column of the training crop, on a frame of 480 x 640; other frames keep
    the shares of each side."""
    random_crop: tuple[int, ...] = (416, 544)
    """Height, width of the random crop, on a frame of 480 x 640."""
    rotate: float = 0.5
    """Probability of a rotation, if online."""
    degrees: float = 2.5
    """Largest rotation either way."""
    flip: float = 0.5
    """Probability of a mirrored picture, if online."""
    colour: float = 0.5
    """Probability of the colour step, if online."""
    gamma: tuple[float, ...] = (0.9, 1.1)
    """Range of the exponent on grey levels 0 to 255."""
    brightness: tuple[float, ...] = (0.75, 1.25)
    """Range of the common factor of the colour step."""
    channel: tuple[float, ...] = (0.9, 1.1)
    """Range of the factor of each channel."""

    tta_flip: bool = True
    """Average with the un-flipped prediction for the mirrored picture."""
    eval_box: tuple[int, ...] = (45, 471, 41, 601)
    """First row, end row, first column, end column of the scored part, on a frame of 480 x 640 (Eigen's crop)."""
    eval_every: int | None = 6_400
    """Also evaluate after every so many steps, for the curve and `rmse_best`; none for the end alone. The headline is
    always the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = {"views", "bins", "upsample", "steps", "batch", "chunk", "train_limit", "eval_every"}
        positive = {"epochs", "min_depth", "max_depth", "floor", "lr", "clip_norm", "mean_weight", "epsilon"}
        for name in (*whole, *positive):
            value, least = getattr(self, name), 1 if name in whole else 0
            if value is not None and not (least <= value < math.inf and value > 0):
                raise UsageError(f"nyuv2.{name} must be {'at least 1' if name in whole else 'positive'}, got {value}")
        if self.batch % self.chunk:
            raise UsageError(f"nyuv2.batch must be a multiple of nyuv2.chunk, got {self.batch} and {self.chunk}")
        if self.min_depth >= self.max_depth:
            raise UsageError(f"nyuv2.min_depth must be below max_depth, got {self.min_depth} and {self.max_depth}")
        for name, count in (("train_box", 4), ("eval_box", 4), ("random_crop", 2)):
            if len(getattr(self, name)) != count:
                raise UsageError(f"nyuv2.{name} needs {count} numbers, got {getattr(self, name)}")
        for name in ("gamma", "brightness", "channel"):
            if len(getattr(self, name)) != 2:
                raise UsageError(f"nyuv2.{name} needs two numbers, got {getattr(self, name)}")


_NATIVE: dict[str, Any] = {
    "engine": "native",
    "loss": "patch",
    "lr": (3e-4, 1e-3, 3e-3),
    "wd": 1e-4,
    "warmup": 0.05,
    "iters": None,
    "epochs": 10.0,
}
_NATIVE_MINI: dict[str, Any] = {
    **_NATIVE,
    "base": 192,
    "held_out": 0.1,
    "lr": (1e-3, 3e-3, 1e-2),
    "epochs": 20.0,
    "batch": 8,
}


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol(Protocol):
    """Linear segmentation: a linear head on a frozen encoder, mIoU (`protocols/segmentation.md`).

    `paper` is trained with mmsegmentation, the encoder in the loop. `fast` is native: each training picture is read
    once, in fixed windows, the features are kept, and a head per learning rate is trained on them; the head is chosen
    on training pictures that were held out. `mini` is `fast` for some hundred small pictures: smaller windows, smaller
    batches, higher learning rates. Numbers of different presets never share a column.

    A picture of any size is resized first, so that its short side is the crop; one smaller than the crop is enlarged.
    Where an augmented view or an aspect above 4 leaves less than a crop, the rest is padded: mean colour, no label.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "fast": _NATIVE, "mini": _NATIVE_MINI}
    train_split: ClassVar[str] = "train"

    engine: Literal["mmseg", "native"] = "mmseg"
    """`mmseg`: trained by mmsegmentation, the encoder in the loop; `native`: on stored features of fixed windows."""
    layers: tuple[int, ...] = (-1,)
    """Blocks whose patch tokens the head reads, concatenated; 0-based or negative from the end."""
    tap: Literal["final", "none"] = "final"
    """Tokens after the final norm, or the residual stream."""
    concat_global: bool = False
    """Append the encoder's global token to every patch token."""
    storage: Literal["fp16", "fp32"] = "fp16"
    """Dtype in which token maps are kept, if native."""

    crop: int | Literal["auto"] = "auto"
    """Side of a window in pixels, a multiple of the patch. `auto`: `base` for patch 16, as many tokens for patch 14
    (504 for 576), the largest multiple up to `base` for other patches."""
    base: int = 576
    """What `auto` aims at, pixels."""
    stride: int | None = None
    """Pixels between test windows; none for 23 patches, or the crop where that is less."""
    infer: Literal["slide", "whole"] = "slide"
    """Test pictures in overlapping windows whose logits are averaged, or in one pass over the padded picture."""

    train_images: int | None = None
    """Train on this many pictures, drawn by seed; none for all."""
    held_out: float = 0.05
    """Share of the training pictures that choose among several heads instead of training them, if native; a single
    head needs none."""
    views: int = 1
    """Windows per training picture, if native: the first at the scale of the test, others with all augmentations."""
    seed: int = 0
    """Seed of the heads' initialisation, the order of the windows, the held-out pictures and all draws."""

    bn: bool = True
    """Batch norm before the 1x1 convolution."""
    loss: Literal["pixel", "patch"] = "pixel"
    """Cross entropy of bilinearly upsampled logits, or of one prediction per patch against all its pixels."""
    loss_mean: Literal["all", "valid"] = "all"
    """Divide the loss by the number of all pixels, or of those with a label."""
    lr: tuple[float, ...] = (4e-5,)
    """Learning rate of AdamW; several train as many heads, if native."""
    wd: float = 0.0
    """Decoupled weight decay."""
    warmup: float = 0.0375
    """Share of the iterations with a linear ramp; then the rate falls linearly to zero."""
    iters: int | None = 40_000
    """Iterations; none to count `epochs`."""
    epochs: float | None = None
    """Passes over the training windows, where `iters` is none."""
    batch: int = 32
    """Windows per iteration."""

    scale: tuple[float, ...] = (0.5, 2.0)
    """Range of the factor on the test scale, of augmented windows."""
    cat_max: float = 0.75
    """An augmented crop is drawn anew, at most ten times, while one class has this share of its labelled pixels."""
    flip: float = 0.5
    """Probability of a mirrored window."""
    colour: float = 0.5
    """Probability of each of the four colour steps."""
    brightness: int = 32
    """Largest grey levels added or taken."""
    contrast: tuple[float, ...] = (0.5, 1.5)
    """Range of the factor on grey levels."""
    saturation: tuple[float, ...] = (0.5, 1.5)
    """Range of the factor on saturation."""
    hue: int = 18
    """Largest shift of the hue, in 180ths of the circle."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"crop": 1, "base": 1, "stride": 1, "train_images": 1, "views": 1, "iters": 1, "batch": 1, "hue": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < low:
                raise UsageError(f"{self.task}.{name} must be at least {low}, got {value}")
        if not self.layers:
            raise UsageError(f"{self.task}.layers must name at least one block")
        if not self.lr or not all(0 < v < math.inf for v in self.lr):
            raise UsageError(f"{self.task}.lr must be positive, at least one, got {self.lr}")
        if (self.iters is None) == (self.epochs is None):
            raise UsageError(f"{self.task}: give iters or epochs, got iters={self.iters} and epochs={self.epochs}")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise UsageError(f"{self.task}.epochs must be positive, got {self.epochs}")
        for name in ("held_out", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{self.task}.{name} must be 0 to below 1, got {getattr(self, name)}")
        for name in ("scale", "contrast", "saturation"):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] < math.inf:
                raise UsageError(f"{self.task}.{name} needs two positive numbers in order, got {pair}")
        if self.engine == "mmseg" and len(self.lr) > 1:
            raise UsageError(f"{self.task}.lr: mmsegmentation trains one head, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Ade20kProtocol(SegmentationProtocol):
    """ADE20k: linear segmentation into 150 classes."""

    task: ClassVar[str] = "ade20k"
    train_split: ClassVar[str] = "training"

    split: Literal["validation"] = "validation"
    """Split that is scored."""


@dataclass(frozen=True, kw_only=True)
class CamVidProtocol(SegmentationProtocol):
    """CamVid: linear segmentation of street scenes into 11 classes."""

    task: ClassVar[str] = "camvid"

    split: Literal["test", "val"] = "test"
    """Split that is scored."""


@dataclass(frozen=True, kw_only=True)
class Nyu40Protocol(SegmentationProtocol):
    """NYUv2: linear segmentation of indoor scenes into 40 classes, 39 of them scored."""

    task: ClassVar[str] = "nyu40"

    split: Literal["test"] = "test"
    """Split that is scored."""
