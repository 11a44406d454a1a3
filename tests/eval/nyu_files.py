"""A small NYUv2 set in the BTS layout, and the depth probe written out literally, as the oracle of its task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dense_files import codes, save, view
from PIL import Image
from torch import Tensor

SIZE = (128, 96)
"""Width, height."""
TRAIN = ("cellar_0001/00001", "cellar_0001/00002", "loft_0002/00003", "loft_0002/00004", "loft_0002/00005")
TEST = ("attic/00011", "attic/00012", "bath/00013", "porch_0007/00014", "porch_0007/00015")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_nyu(
    root: Path, *, train: Sequence[str] = TRAIN, test: Sequence[str] = TEST, size: tuple[int, int] = SIZE
) -> Path:
    """`nyuv2/nyu_{train,test}.txt` and their frames, with holes in the left tenth of the depth."""
    for split, names, seed in (("train", train, 100), ("test", test, 200)):
        for number, name in enumerate(names):
            write_frame(root, split, name, seed + number, size=size)
        lines = [f"{n.replace('/', '/rgb_')}.png {n.replace('/', '/sync_depth_')}.png 518.8579" for n in names]
        (root / "nyuv2" / f"nyu_{split}.txt").write_text("\n".join(lines))
    return root


def write_frame(root: Path, split: str, name: str, seed: int, *, size: tuple[int, int] = SIZE) -> None:
    """A picture with its depth; what is near is bright, so that a head can learn it."""
    seen = view(*size, seed, far=6.0)
    shade_HW = 230 - 33 * seen.metres_HW
    rgb_HW3 = np.clip(0.2 * seen.rgb_HW3 + 0.8 * shade_HW[..., None], 0, 255).astype(np.uint8)
    save(_file(root, split, name, "rgb"), rgb_HW3)
    save(depth_file(root, split, name), codes(seen.metres_HW, 1000, holes=0.1))


def depth_file(root: Path, split: str, name: str) -> Path:
    """Depth PNG of a frame."""
    return _file(root, split, name, "sync_depth")


def _file(root: Path, split: str, name: str, kind: str) -> Path:
    scene, number = name.split("/")
    return root / "nyuv2" / "official_splits" / split / scene / f"{kind}_{number}.png"


def frame(root: Path, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 H,W,3 and float64 metres H,W."""
    rgb_HW3 = np.asarray(Image.open(_file(root, split, name, "rgb")))
    return rgb_HW3, np.asarray(Image.open(depth_file(root, split, name))).astype(np.float64) / 1000


class LiteralProbe:
    """The head as the page writes it: concatenate, upsample, convolve; and its training, in float64 where it is free.

    Args:
        weight: bins, 2 D: the initial weights.
        bias: bins.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, steps: int, lr: float, warmup: int) -> None:
        self.weight = weight[:, :, None, None].clone().requires_grad_()
        self.bias = bias.clone().requires_grad_()
        self.steps, self.lr, self.warmup = steps, lr, warmup
        self.optimiser = torch.optim.AdamW([self.weight, self.bias], lr=lr, weight_decay=0.01)

    def depth(self, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
        """B,1,4H,4W metres."""
        both = torch.cat([tokens_BHWD, global_BD[:, None, None].expand_as(tokens_BHWD)], dim=-1).permute(0, 3, 1, 2)
        up = F.interpolate(both, scale_factor=4, mode="bilinear", align_corners=False)
        mass = F.relu(F.conv2d(up, self.weight, self.bias)) + 0.1
        centres = torch.linspace(0.001, 10, len(self.bias))
        return (mass / mass.sum(1, keepdim=True) * centres[:, None, None]).sum(1, keepdim=True)

    def step(self, step: int, tokens_BHWD: Tensor, global_BD: Tensor, depth_B1HW: Tensor) -> None:
        """One update from `depth_B1HW` in metres."""
        half = (1 + math.cos(math.pi * step / self.steps)) / 2
        ramp_steps = round(self.steps / 3)
        ramp = min(1.0, 0.001 + 0.999 * step / ramp_steps)
        turn = 0.3 * self.steps - 1
        rising, x = (0, step / turn) if step <= turn else (1, (step - turn) / (self.steps - 1 - turn))
        fall = (1 - math.cos(math.pi * x)) / 2
        beta1 = 0.95 - 0.1 * fall if not rising else 0.85 + 0.1 * fall
        for group in self.optimiser.param_groups:
            group.update(lr=self.lr * (1e-8 + (1 - 1e-8) * half) * ramp, betas=(beta1, 0.999))
        pred_B1HW = F.interpolate(
            self.depth(tokens_BHWD, global_BD), size=depth_B1HW.shape[-2:], mode="bilinear", align_corners=False
        )
        losses = []
        for pred, truth in zip(pred_B1HW.split(2), depth_B1HW.split(2), strict=True):
            g = (torch.log(pred + 1e-3) - torch.log(truth + 1e-3))[truth > 0]
            losses.append(torch.sqrt((g.var() if step >= self.warmup else 0) + 0.15 * g.mean() ** 2))
        self.optimiser.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_([self.weight, self.bias], 35)
        self.optimiser.step()

    def predict(self, tokens_BHWD: Tensor, global_BD: Tensor, size: tuple[int, int]) -> np.ndarray:
        """H,W metres: mean of the picture's and the un-flipped mirrored picture's; inputs hold both, in this order."""
        with torch.no_grad():
            out = self.depth(tokens_BHWD, global_BD).clamp(0.001, 10)
            out = F.interpolate(out, size=size, mode="bilinear", align_corners=False)
        averaged: np.ndarray = ((out[0, 0] + out[1, 0].flip(-1)) / 2).double().numpy()
        return averaged


def scored(depth_HW: np.ndarray) -> np.ndarray:
    """Eigen's crop and range, on a frame of a fifth of the original's sides."""
    valid = (depth_HW > 0.001) & (depth_HW < 10)
    inside = np.zeros_like(valid)
    inside[9:94, 8:120] = True
    assert depth_HW.shape == (96, 128)
    return valid & inside


def normalised(rgb_HW3: np.ndarray) -> Tensor:
    """1,3,H,W float32 under ImageNet's statistics."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET)
    return ((torch.from_numpy(rgb_HW3.copy()).permute(2, 0, 1).float() / 255 - mean) / std)[None]
