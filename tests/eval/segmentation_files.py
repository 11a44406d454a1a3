"""Small segmentation sets in the layouts of CamVid and ADE20k, and the probe in its literal form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from dense_files import save, view
from torch import nn

from mtv.draws import Draws
from mtv.encoders.base import Encoder
from mtv.eval.datasets.segmentation_sets import CAMVID_CLASSES
from mtv.probes.segmentation_head import HeadConfig, LinearHead
from mtv.probes.segmentation_order import batch_positions

VOID, N = 11, len(CAMVID_CLASSES)
SIZES = ((96, 72), (30, 24), (200, 40), (50, 90), (97, 61), (48, 48))
"""Width, height: usual, smaller than a crop of 48, an aspect of 5, upright, odd, square."""


def picture_of(split: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB and CamVid values on disk of one picture; its top rows are void."""
    width, height = SIZES[number % len(SIZES)]
    seen = view(width, height, 100 * (split == "test") + number, classes=N)
    raw_HW = seen.classes_HW.astype(np.uint8)
    raw_HW[: height // 8] = VOID
    return seen.rgb_HW3, raw_HW


def write_camvid(root: Path, *, train: int = 12, test: int = 6) -> Path:
    """`CamVid/{train,test}/p##.png` with their label maps."""
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            rgb_HW3, raw_HW = picture_of(split, number)
            save(root / "CamVid" / split / f"p{number:02d}.png", rgb_HW3)
            save(root / "CamVid" / f"{split}annot" / f"p{number:02d}.png", raw_HW)
    return root


TOY_CLASSES = (1, 2, 3, 150)
TOY_COLOURS = ((200, 40, 40), (40, 180, 60), (50, 70, 210), (220, 200, 60))


def write_toy_ade(root: Path, *, train: int = 16, test: int = 6) -> Path:
    """Protocol page section 10, C6: four colours as classes 1, 2, 3 and 150, with noise of 8 grey levels."""
    base = root / "ADEChallengeData2016"
    for split, name, count in (("training", "train", train), ("validation", "val", test)):
        for number in range(count):
            rng = np.random.default_rng([number, split == "training"])
            cell_HW = rng.integers(0, 4, (2, 3)).repeat(40, 0).repeat(40, 1)
            rgb_HW3 = np.array(TOY_COLOURS)[cell_HW] + rng.normal(0, 8, (*cell_HW.shape, 3))
            stem = f"ADE_{name}_{number + 1:08d}"
            save(base / "images" / split / f"{stem}.jpg", np.clip(rgb_HW3, 0, 255).astype(np.uint8))
            labels = np.array(TOY_CLASSES, np.uint8)[cell_HW]
            labels[:3] = 0
            save(base / "annotations" / split / f"{stem}.png", labels)
    return root


class LiteralProbe:
    """One head by plain modules and full-size tensors, one picture and window at a time.

    Shares with the code the encoder, the head's initial weights, the draws and the order of the windows.
    """

    def __init__(self, encoder: Encoder, *, crop: int, stride: int, layers: Sequence[int] = (-1,), norm: Any = "final"):
        self.encoder, self.crop, self.stride = encoder, crop, stride
        self.layers, self.norm = [encoder.resolve_layer(i) for i in layers], norm
        start = LinearHead(HeadConfig(width=encoder.width * len(self.layers), n_classes=N), seed=0)
        self.norm_layer, self.conv = nn.BatchNorm2d(start.config.width), nn.Conv2d(start.config.width, N, 1)
        self.conv.load_state_dict(start.conv.state_dict())

    def resized(self, x_HW: np.ndarray, how: int) -> np.ndarray:
        height, width = x_HW.shape[:2]
        s = min(4 * self.crop / max(height, width), self.crop / min(height, width))
        return cv2.resize(x_HW, (int(width * s + 0.5), int(height * s + 0.5)), interpolation=how)

    def padded(self, rgb_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
        mean = np.rint(255 * np.array(self.encoder.info.image.mean)).astype(np.uint8)
        out = np.ones((height, width, 3), np.uint8) * mean
        out[: rgb_HW3.shape[0], : rgb_HW3.shape[1]] = rgb_HW3
        return out

    def tokens(self, rgb_HW3: np.ndarray) -> torch.Tensor:
        """1,D,h,w of one window."""
        mean, std = (
            torch.tensor(v)[:, None, None] for v in (self.encoder.info.image.mean, self.encoder.info.image.std)
        )
        x_3HW = (torch.from_numpy(rgb_HW3.copy()).permute(2, 0, 1).float() / 255 - mean) / std
        out = self.encoder.features(x_3HW[None], layers=self.layers, norm=self.norm).tokens
        return torch.cat([out[i] for i in self.layers], dim=-1).permute(0, 3, 1, 2)

    def train_window(self, number: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and labels of the plain window of a training picture."""
        rgb_HW3, raw_HW = picture_of("train", number)
        rgb_HW3, raw_HW = self.resized(rgb_HW3, cv2.INTER_LINEAR), self.resized(raw_HW, cv2.INTER_NEAREST)
        draws = Draws("segmentation_view", seed, f"p{number:02d}", 0)
        top, left = (draws.integer(0, max(side - self.crop, 0) + 1) for side in raw_HW.shape)
        cut = np.s_[top : top + self.crop, left : left + self.crop]
        labels_HW = np.full((self.crop, self.crop), 255)
        part_HW = np.where(raw_HW[cut] == VOID, 255, raw_HW[cut])
        labels_HW[: part_HW.shape[0], : part_HW.shape[1]] = part_HW
        return self.tokens(self.padded(rgb_HW3[cut], self.crop, self.crop)), torch.from_numpy(labels_HW)[None]

    def train(self, *, n: int, iters: int, batch: int, lr: float, wd: float, warmup: int) -> None:
        """Pixel loss, the sum over valid pixels divided by all of them."""
        windows = [self.train_window(number) for number in range(n)]
        parameters = [*self.norm_layer.parameters(), *self.conv.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=wd)
        for step in range(iters):
            rows = batch_positions(step, n=n, batch=batch, seed=0)
            x, y = (torch.cat([windows[r][k] for r in rows]) for k in range(2))
            full = F.interpolate(self.conv(self.norm_layer(x)), y.shape[1:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(full, y, ignore_index=255, reduction="sum") / y.numel()
            ramp = 1e-6 + (1 - 1e-6) * step / max(warmup - 1, 1)
            decay = 1 - (step - warmup) / (iters - warmup - 1)
            optimiser.param_groups[0]["lr"] = lr * (ramp if step < warmup else decay)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.norm_layer.eval()

    @torch.no_grad()
    def predict(self, rgb_HW3: np.ndarray, *, whole: bool = False) -> np.ndarray:
        """Classes at the picture's own size."""
        small_HW3 = self.resized(rgb_HW3, cv2.INTER_LINEAR)
        (h, w), p = small_HW3.shape[:2], self.encoder.patch_size
        padded = self.padded(small_HW3, h + -h % p, w + -w % p)
        height, width = padded.shape[:2]
        total, count = torch.zeros(N, height, width), torch.zeros(height, width)
        crop = max(height, width) if whole else self.crop
        for y in range(0, max(height - crop, 0) + self.stride, self.stride):
            for x in range(0, max(width - crop, 0) + self.stride, self.stride):
                if (y and y - self.stride + crop >= height) or (x and x - self.stride + crop >= width):
                    continue  # the window before reached the end already
                bottom, right = min(y + crop, height), min(x + crop, width)
                box = np.s_[max(bottom - crop, 0) : bottom, max(right - crop, 0) : right]
                logits = self.conv(self.norm_layer(self.tokens(padded[box])))
                size = count[box].shape
                total[(slice(None), *box)] += F.interpolate(logits, size, mode="bilinear", align_corners=False)[0]
                count[box] += 1
        mean = (total / count)[:, :h, :w]
        full = F.interpolate(mean[None], rgb_HW3.shape[:2], mode="bilinear", align_corners=False)[0]
        labels: np.ndarray = full.argmax(0).numpy()
        return labels


def naive_counts(predicted_HW: np.ndarray, raw_HW: np.ndarray) -> np.ndarray:
    """int 3,N: I, P, G by one loop over classes."""
    seen = raw_HW != VOID
    return np.array(
        [
            [int(((predicted_HW == c) & (raw_HW == c) & seen).sum()) for c in range(N)],
            [int(((predicted_HW == c) & seen).sum()) for c in range(N)],
            [int(((raw_HW == c) & seen).sum()) for c in range(N)],
        ]
    )


def naive_miou(counts_3C: np.ndarray) -> float:
    """Percent, by a loop over the classes with a union."""
    ious = []
    for i, p, g in counts_3C.T.tolist():
        if p + g - i > 0:
            ious.append(i / (p + g - i))
    return 100 * sum(ious) / len(ious)


PATCH_14 = """
import torch
from torch import nn


class Coarse(nn.Module):
    patch_size, size, mean, std, resize = 14, 56, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "squash"

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patch = nn.Conv2d(3, 16, 14, 14)

    def forward(self, x):
        y = self.patch(x)
        return y, y.mean((2, 3))


def build():
    return Coarse().eval()
"""
"""Source of a model whose patch of 14 does not divide usual crops."""
