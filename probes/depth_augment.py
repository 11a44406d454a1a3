"""Augmentation of the depth probe on uint8 batches: rotate, flip, random crop, colour (protocol `depth`, section 3.1).

Notable: every draw is a function of (seed, epoch, sample), so a resumed run continues with the same pictures; rotation,
flip and crop are one resampling of the pixels that stay, not three passes; pictures that are not rotated are copied
exactly; a rotated picture is rounded to whole grey levels, as an 8-bit picture is in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.probes.depth_frames import TrainFrame


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Probabilities and ranges; the crops are in `TrainFrame`."""

    rotate: float = 0.5
    """Probability of a rotation."""
    degrees: float = 2.5
    """Largest rotation either way."""
    flip: float = 0.5
    """Probability of a mirrored picture."""
    colour: float = 0.5
    """Probability of the colour step."""
    gamma: tuple[float, float] = (0.9, 1.1)
    """Range of the exponent on grey levels 0 to 255 (acts mostly as brightness)."""
    brightness: tuple[float, float] = (0.75, 1.25)
    """Range of the common factor."""
    channel: tuple[float, float] = (0.9, 1.1)
    """Range of the factor of each channel."""

    def __post_init__(self) -> None:
        for name in ("rotate", "flip", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"depth_augment.{name} is a probability, got {getattr(self, name)}")
        if not 0 <= self.degrees < 45:
            raise UsageError(f"depth_augment.degrees must be in [0, 45), got {self.degrees}")
        for name in ("gamma", "brightness", "channel"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UsageError(f"depth_augment.{name} must be a positive range, got {(low, high)}")


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Drawn colour change: clip(level ** gamma * factor of the channel, 0, 255)."""

    gamma: float
    """Exponent."""
    factors: tuple[float, float, float]
    """Brightness times the channel's own factor."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to one sample."""

    degrees: float
    """Rotation about the centre of the cropped frame, counter-clockwise as seen; 0 for none."""
    flip: bool
    """Whether the rotated picture is mirrored left to right."""
    top: int
    """First row of the random crop."""
    left: int
    """First column of the random crop, after the flip."""
    colour: Colour | None
    """Colour change."""


def draw_augmentation(
    frame: TrainFrame, *, seed: int, epoch: int, sample: int | str, config: AugmentConfig | None = None
) -> Augmentation:
    """The augmentation of one sample in one epoch, whatever was drawn before and on which device.

    Args:
        sample: id or index of the sample in the data set, not in the batch.
    """
    config = config or AugmentConfig()
    draws = Draws("depth_augment", seed, epoch, sample)
    # All draws are made, needed or not: a probability can change without moving the other draws.
    rotated, degrees = draws.chance(config.rotate), draws.uniform(-config.degrees, config.degrees)
    flip = draws.chance(config.flip)
    top, left = (draws.integer(0, most + 1) for most in frame.max_offset)
    coloured = draws.chance(config.colour)
    gamma, common = draws.uniform(*config.gamma), draws.uniform(*config.brightness)
    red, green, blue = (common * draws.uniform(*config.channel) for _ in range(3))
    return Augmentation(
        degrees=degrees if rotated else 0.0,
        flip=flip,
        top=top,
        left=left,
        colour=Colour(gamma=gamma, factors=(red, green, blue)) if coloured else None,
    )


def augment(
    rgb_B3HW: Tensor, depth_B1HW: Tensor, drawn: Sequence[Augmentation], frame: TrainFrame
) -> tuple[Tensor, Tensor]:
    """Apply drawn augmentations to frames that have had the fixed crop (`x[(..., *frame.window)]`).

    Args:
        rgb_B3HW: uint8, `frame.cropped` pixels.
        depth_B1HW: float32 metres of the same size, 0 where missing.
        drawn: one per sample.

    Returns:
        Pictures B,3,h,w float32 on the 0-255 scale, not normalised; depth B,1,h,w float32. Pixels that a rotation
        brings in from outside are 0 in both, so they are not trained on.

    Raises:
        UsageError: other sizes, dtypes or counts.
    """
    _check(rgb_B3HW, depth_B1HW, len(drawn), frame)
    rgb_B3hw = rgb_B3HW.new_empty((len(drawn), 3, *frame.output), dtype=torch.float32)
    depth_B1hw = depth_B1HW.new_empty((len(drawn), 1, *frame.output))
    turned = [b for b, one in enumerate(drawn) if one.degrees]
    if turned:
        grid_Rhw2 = _source_grid([drawn[b] for b in turned], frame, rgb_B3HW.device)
        rgb_B3hw[turned] = _sample(rgb_B3HW[turned].float(), grid_Rhw2, "bilinear").round_()
        depth_B1hw[turned] = _sample(depth_B1HW[turned], grid_Rhw2, "nearest")
    for b in set(range(len(drawn))) - set(turned):
        rgb_B3hw[b] = _straight(rgb_B3HW[b], drawn[b], frame)
        depth_B1hw[b] = _straight(depth_B1HW[b], drawn[b], frame)
    recoloured = [b for b, one in enumerate(drawn) if one.colour]
    if recoloured:
        colours = [one.colour for one in drawn if one.colour]
        rgb_B3hw[recoloured] = recolour(rgb_B3hw[recoloured], colours)
    return rgb_B3hw, depth_B1hw


def recolour(rgb_B3HW: Tensor, colours: Sequence[Colour]) -> Tensor:
    """Colour step on float pictures of the 0-255 scale, one colour per picture."""
    gamma_B111 = rgb_B3HW.new_tensor([c.gamma for c in colours]).view(-1, 1, 1, 1)
    factors_B311 = rgb_B3HW.new_tensor([c.factors for c in colours])[:, :, None, None]
    return (rgb_B3HW**gamma_B111).mul_(factors_B311).clamp_(0, 255)


def _check(rgb_B3HW: Tensor, depth_B1HW: Tensor, n: int, frame: TrainFrame) -> None:
    if rgb_B3HW.dtype != torch.uint8 or depth_B1HW.dtype != torch.float32:
        raise UsageError(
            f"depth augmentation needs uint8 pictures and float32 depth, got {rgb_B3HW.dtype} and {depth_B1HW.dtype}"
        )
    for what, x, channels in (("pictures", rgb_B3HW, 3), ("depth", depth_B1HW, 1)):
        if tuple(x.shape) != (n, channels, *frame.cropped):
            raise UsageError(
                f"depth augmentation: {what} {tuple(x.shape)} for {n} draws, expected {(n, channels, *frame.cropped)}",
                "Crop frames with frame.window first.",
            )


def _straight(x_CHW: Tensor, one: Augmentation, frame: TrainFrame) -> Tensor:
    """Flip and crop without resampling."""
    (h, w), width = frame.output, frame.cropped[1]
    left = width - one.left - w if one.flip else one.left
    part_Chw = x_CHW[:, one.top : one.top + h, left : left + w]
    return part_Chw.flip(-1) if one.flip else part_Chw


def _source_grid(drawn: Sequence[Augmentation], frame: TrainFrame, device: torch.device) -> Tensor:
    """Where each output pixel reads, B,h,w,2 (x, y) in units of grid_sample: crop undone, flip undone, then rotated."""
    (height, width), (h, w) = frame.cropped, frame.output
    top_B, left_B, flip_B, turn_B = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
        for values in zip(*((o.top, o.left, o.flip, math.radians(o.degrees)) for o in drawn), strict=True)
    )
    y_Bh1 = torch.arange(h, device=device).view(1, -1, 1) + top_B - (height - 1) / 2
    x_B1w = (torch.arange(w, device=device).view(1, 1, -1) + left_B - (width - 1) / 2) * (1 - 2 * flip_B)
    source_x_Bhw = turn_B.cos() * x_B1w - turn_B.sin() * y_Bh1
    source_y_Bhw = turn_B.sin() * x_B1w + turn_B.cos() * y_Bh1
    return torch.stack([source_x_Bhw * (2 / width), source_y_Bhw * (2 / height)], dim=-1)


def _sample(x_BCHW: Tensor, grid_Bhw2: Tensor, mode: str) -> Tensor:
    return F.grid_sample(x_BCHW, grid_Bhw2, mode=mode, padding_mode="zeros", align_corners=False)
