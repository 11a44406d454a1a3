"""What is drawn for the samples of a batch: crops, flips, colours, masks, captions. Numbers only, no pixels.

Notable choices: each purpose has its own stream per (seed, epoch, key), see `streams.py`, so that an objective
switched on moves no other draw; crops are drawn on the image's true aspect (torchvision's rule: up to ten attempts,
then a central crop) and rounded to whole canvas pixels, so that pixels, boxes and disparity follow exactly the same
map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtv.train.data.options import ViewOptions
from mtv.train.data.streams import streams, uniforms

_ATTEMPTS = 10
_CROP_DRAWS = 2 * _ATTEMPTS + 3
_COLOUR_DRAWS = 12


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Rectangles of whole canvas pixels; leading axes are those of the draw: [B] or [B, M]."""

    box: np.ndarray
    """int64 [..., 4]: left, top, width, height."""
    flip: np.ndarray
    """bool [...]: mirrored left to right."""


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Photometry of views; leading axes as in `Crops`."""

    factor: np.ndarray
    """float32 [..., 4]: brightness, contrast, saturation (1 = as it is), hue (turns, 0 = as it is)."""
    order: np.ndarray
    """int64 [..., 4]: the order in which these four are applied."""
    grey: np.ndarray
    """bool [...]: colour is removed."""
    sigma: np.ndarray
    """float32 [...]: standard deviation of the blur in pixels; 0 = none."""


def draw_global(
    views: ViewOptions, *, seed: int, epochs: Sequence[int], keys: Sequence[str], aspect_B: np.ndarray, canvas: int
) -> Crops:
    """Global crops [B].

    Args:
        epochs, keys: of each sample.
        aspect_B: true width over height.
        canvas: canvas side in pixels.
    """
    u = uniforms(streams(seed, epochs, keys, "global"), _CROP_DRAWS)
    return _crops(u, aspect_B, scale=views.global_scale, ratio=views.ratio, flip=views.global_flip, canvas=canvas)


def draw_local(
    views: ViewOptions, *, seed: int, epochs: Sequence[int], keys: Sequence[str], aspect_B: np.ndarray, canvas: int
) -> tuple[Crops, Colours]:
    """Local crops and colours [B, M]; arguments as `draw_global`. Crop m does not depend on the number of crops."""
    u = uniforms(streams(seed, epochs, keys, "local"), views.local_crops * (_CROP_DRAWS + _COLOUR_DRAWS))
    u = u.reshape(len(keys), views.local_crops, -1)
    crops = _crops(
        u[..., :_CROP_DRAWS],
        aspect_B[:, None],
        scale=views.local_scale,
        ratio=views.ratio,
        flip=views.local_flip,
        canvas=canvas,
    )
    return crops, _colours(u[..., _CROP_DRAWS:], views)


def draw_masks(
    views: ViewOptions, *, seed: int, epochs: Sequence[int], keys: Sequence[str], patches: int
) -> np.ndarray:
    """bool [B, N]: exactly floor(mask_ratio * N) patches of every image, uniform without replacement."""
    count = math.floor(views.mask_ratio * patches)
    u = uniforms(streams(seed, epochs, keys, "mask"), patches)
    mask_BN = np.zeros(u.shape, dtype=bool)
    np.put_along_axis(mask_BN, np.argsort(u, axis=1, kind="stable")[:, :count], True, axis=1)
    return mask_BN


def draw_captions(
    captions: Sequence[Sequence[str]], *, seed: int, epochs: Sequence[int], keys: Sequence[str]
) -> list[str]:
    """One of the captions of each sample; each has at least one."""
    u = uniforms(streams(seed, epochs, keys, "caption"), 1)[:, 0]
    return [texts[int(x * len(texts))] for x, texts in zip(u.tolist(), captions, strict=True)]


def _crops(
    u: np.ndarray,
    aspect: np.ndarray,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    canvas: int,
) -> Crops:
    """Crops from uniform draws [..., _CROP_DRAWS]."""
    area = scale[0] + (scale[1] - scale[0]) * u[..., :_ATTEMPTS]
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    shape = np.exp(log_low + (log_high - log_low) * u[..., _ATTEMPTS : 2 * _ATTEMPTS])
    # Width and height as shares of the image's; of several that fit the first counts.
    share = np.stack([np.sqrt(area * shape / aspect[..., None]), np.sqrt(area / shape * aspect[..., None])], axis=-1)
    fits = np.asarray(share.max(axis=-1) <= 1)
    chosen = np.take_along_axis(share, fits.argmax(axis=-1)[..., None, None], axis=-2)[..., 0, :]
    found = np.asarray(fits.any(axis=-1))
    whole = np.stack([np.minimum(1, ratio[1] / aspect), np.minimum(1, aspect / ratio[0])], axis=-1)
    size = np.where(found[..., None], chosen, whole)
    size = np.clip(np.rint(size * canvas), 1, canvas)
    room = canvas - size
    drawn = np.floor(u[..., 2 * _ATTEMPTS : 2 * _ATTEMPTS + 2] * (room + 1))
    corner = np.where(found[..., None], drawn, np.floor(room / 2))
    box = np.concatenate([corner, size], axis=-1).astype(np.int64)
    return Crops(box=box, flip=u[..., -1] < flip)


def _colours(u: np.ndarray, views: ViewOptions) -> Colours:
    """Colours from uniform draws [..., _COLOUR_DRAWS]."""
    strength = np.array(views.local_color)
    low, high = np.maximum(0, 1 - strength), 1 + strength
    low[3], high[3] = -strength[3], strength[3]
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    jittered = (u[..., 0] < views.local_color_p)[..., None]
    factor = np.where(jittered, low + (high - low) * u[..., 1:5], neutral)
    sigma_low, sigma_high = views.local_blur_sigma
    sigma = np.where(u[..., 10] < views.local_blur, sigma_low + (sigma_high - sigma_low) * u[..., 11], 0.0)
    return Colours(
        factor=factor.astype(np.float32),
        order=np.argsort(u[..., 5:9], axis=-1, kind="stable"),
        grey=u[..., 9] < views.local_grey,
        sigma=sigma.astype(np.float32),
    )
