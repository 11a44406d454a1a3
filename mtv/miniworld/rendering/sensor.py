"""From linear light per sample to an 8-bit picture: pixel average, exposure, blur, gamma, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtv.miniworld.rendering.noise import gaussian_like
from mtv.miniworld.rendering.surfaces import to_device
from mtv.miniworld.scene import Scene

_BLUR_REACH = 2


def develop(
    light_S3: Tensor, count_BHW: Tensor, scenes: Sequence[Scene], width: int, height: int, samples: int
) -> Tensor:
    """uint8 [B,H,W,3] picture from linear light.

    Args:
        light_S3: `samples` x `samples` samples per pixel; zero where a sample was not shaded.
        count_BHW: shaded samples per pixel.
        scenes: for exposure, blur and noise.
        width: pixels.
        height: pixels.
        samples: per side of a pixel.
    """
    device = light_S3.device
    grid = light_S3.view(len(scenes), height, samples, width, samples, 3)
    total = torch.zeros((len(scenes), height, width, 3), device=device)
    for i in range(samples):
        for j in range(samples):
            total = total + grid[:, :, i, :, j]
    gain = to_device(np.array([[s.sensor.exposure * b for b in s.sensor.balance] for s in scenes]), device)
    linear = (total / count_BHW[..., None] * gain[:, None, None, :]).clamp(0, 1)
    linear = _blur(linear, [s.sensor.blur for s in scenes])
    encoded = torch.pow(linear.contiguous(), 1 / 2.2)
    index = torch.arange(height * width * 3, device=device).view(1, height, width, 3)
    seed = torch.tensor([s.sensor.seed for s in scenes], dtype=torch.int64, device=device).view(-1, 1, 1, 1)
    spread = to_device(np.array([s.sensor.noise for s in scenes]), device).view(-1, 1, 1, 1)
    noisy = encoded + gaussian_like(index, seed) * spread
    return torch.floor(noisy.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _blur(image_BHWC: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Gaussian of each picture's own width, five taps per axis, replicated border."""
    if not any(sigmas):
        return image_BHWC
    taps = np.arange(-_BLUR_REACH, _BLUR_REACH + 1)
    weights = np.exp(-0.5 * (taps[None] / np.maximum(np.array(sigmas), 1e-3)[:, None]) ** 2)
    kernel = to_device(weights / weights.sum(axis=1, keepdims=True), image_BHWC.device)[:, :, None, None, None]
    for axis in (1, 2):
        size = image_BHWC.shape[axis]
        place = torch.arange(-_BLUR_REACH, size + _BLUR_REACH, device=image_BHWC.device).clamp(0, size - 1)
        wide = image_BHWC.index_select(axis, place)
        out = torch.zeros_like(image_BHWC)
        for i in range(len(taps)):
            out.addcmul_(kernel[:, i], wide.narrow(axis, i, size))
        image_BHWC = out
    return image_BHWC
