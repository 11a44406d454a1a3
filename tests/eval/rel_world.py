"""Depth sets whose pictures show their own disparity, models that read it off, and the naive scores of one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from dense_files import codes, save, view
from PIL import Image

MODELS = '''
"""Models with a depth head. The pictures show disparity as grey, so reading it off is a perfect answer."""
import os

import torch
from torch import nn


class Reads(nn.Module):
    """Disparity, larger is nearer, up to scale and shift."""
    patch_size = 8
    size = 64
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    resize = "squash"
    depth_kind = "disparity"

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 16, 8, 8)

    def forward(self, x):
        return self.conv(x)

    def predict_depth(self, x):
        note(len(x))
        return self.answer(x.mean(1))

    def answer(self, grey):
        return 7 * grey - 3


class Negated(Reads):
    def answer(self, grey):
        return -grey


class Constant(Reads):
    def answer(self, grey):
        return grey * 0 + 2


class Floored(Reads):
    """Ends in a ReLU that swallows the far half."""
    depth_floored = True

    def answer(self, grey):
        return torch.relu(grey - 0.3)


class Metric(Reads):
    """Depth, up to scale and shift."""
    depth_kind = "depth"

    def answer(self, grey):
        return 1 / (grey + 0.05)


class Rough(Reads):
    """One value per patch from random weights: anything but perfect."""
    def predict_depth(self, x):
        note(len(x))
        return torch.tanh(self.conv(x)).mean(1) - 3 * nn.functional.avg_pool2d(x, 8)[:, 0]


class Hungry(Reads):
    """No more than two pictures fit the memory."""
    def answer(self, grey):
        if len(grey) > 2:
            raise RuntimeError("CUDA out of memory (not really)")
        return grey


def note(n):
    if "REL_LOG" in os.environ:
        with open(os.environ["REL_LOG"], "a") as log:
            log.write(f"{n}\\n")


def blind():
    model = Reads()
    model.predict_depth = None
    return model
'''
TOP = 1.3
"""Disparity that is shown as white, 1 / metres."""


def write_models(folder: Path) -> str:
    """`python:FILE`, to be followed by `:Reads` or another class of `MODELS`."""
    (folder / "rel_models.py").write_text(MODELS)
    return f"python:{folder / 'rel_models.py'}"


def as_grey(metres_HW: np.ndarray) -> np.ndarray:
    """A picture of the disparity, uint8 H,W,3."""
    grey_HW = np.rint(255 * np.clip(1 / metres_HW / TOP, 0, 1)).astype(np.uint8)
    return np.repeat(grey_HW[..., None], 3, axis=2)


def write_nyu(
    root: Path, n: int = 6, *, size: tuple[int, int] = (64, 64), split: str = "test", holes: float = 0.1
) -> Path:
    """NYUv2 in the BTS layout, two scenes; the left columns are holes."""
    lines = []
    for i in range(n):
        seen = view(*size, i, far=9.0 - i % 3)
        name = f"room_{i % 2}/{{}}_{i if split == 'test' else 100 + i:05d}.png"
        base = root / "nyuv2" / "official_splits" / split
        save(base / name.format("rgb"), as_grey(seen.metres_HW))
        save(base / name.format("sync_depth"), codes(seen.metres_HW, 1000, holes=holes))
        lines.append(f"{name.format('rgb')} {name.format('sync_depth')} 518.8579")
    (root / "nyuv2" / f"nyu_{split}.txt").write_text("\n".join(lines))
    return root


def write_kitti(root: Path, n: int = 2, *, size: tuple[int, int] = (1242, 375)) -> Path:
    """KITTI by the Eigen list, a fifth of the pixels known, one drive per frame."""
    lines = []
    for i in range(n):
        seen = view(*size, 10 + i, near=5, far=70)
        drive = f"2011_09_26_drive_{i:04d}_sync"
        image = f"2011_09_26/{drive}/image_02/data/0000000005.png"
        truth = f"{drive}/proj_depth/groundtruth/image_02/0000000005.png"
        known_HW = np.random.default_rng(i).random(seen.metres_HW.shape) < 0.2
        save(root / "kitti" / image, as_grey(seen.metres_HW / 5))
        save(root / "kitti" / "val" / truth, codes(seen.metres_HW, 256) * known_HW.astype(np.uint16))
        lines.append(f"{image} {truth} 721.5377")
    (root / "kitti" / "eigen_test_files_with_gt.txt").write_text("\n".join(lines) + "\n")
    return root


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def naive_scores(
    rgb_HW3: np.ndarray,
    depth_HW: np.ndarray,
    scored: tuple[slice, slice],
    predict: Callable[[torch.Tensor], torch.Tensor],
    *,
    size: tuple[int, int],
    depth_range: tuple[float, float],
    align: str = "disp",
    positive: bool = False,
) -> dict[str, float]:
    """What a row of the table must say, by the definitions: PIL, torch's resizing, numpy's least squares.

    Args:
        rgb_HW3, depth_HW: cropped picture and truth in metres.
        scored: rows and columns of the mask.
        predict: pictures in [0, 1] to maps, before any resizing.
        size: (height, width) of the input.
        depth_range: of the data set.
    """
    small = Image.fromarray(rgb_HW3).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    x_13HW = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        map_11HW = predict(x_13HW)[None].float()
    full = torch.nn.functional.interpolate(map_11HW, depth_HW.shape, mode="bilinear", align_corners=False)[0, 0]
    inside = np.zeros(depth_HW.shape, bool)
    inside[scored] = True
    # As stored: the bounds are compared in the precision of the map.
    stored = depth_HW.astype(np.float32)
    ok = inside & (stored > np.float32(depth_range[0])) & (stored < np.float32(depth_range[1]))
    p, g = full.numpy().astype(np.float64)[ok], stored.astype(np.float64)[ok]
    fitted = p > 0 if positive else np.ones_like(p, bool)

    def fit(target: np.ndarray, use: np.ndarray) -> np.ndarray:
        s, t = np.linalg.lstsq(np.stack([p[use], np.ones(use.sum())], 1), target[use], rcond=None)[0]
        return s * p + t

    if align == "disp":
        depth = 1 / np.maximum(fit(1 / g, fitted), 1e-3)
    else:
        depth = fit(g, fitted)
    depth = np.clip(depth, *depth_range)
    key = "absrel_depth" if align == "disp" else "absrel_depth_ls"
    out = {key: np.mean(np.abs(depth - g) / g)}
    if align == "disp":
        out["absrel_disp"] = np.mean(np.abs(fit(1 / g, np.ones_like(p, bool)) - 1 / g) * g)
    ratio = np.maximum(depth / g, g / depth)
    out |= {f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)}
    out["rmse"] = np.sqrt(np.mean((depth - g) ** 2))
    out["log10"] = np.mean(np.abs(np.log10(depth) - np.log10(g)))
    out["silog"] = 100 * np.std(np.log(depth) - np.log(g))
    out["fit_dropped"] = 1 - fitted.mean()
    return {k: float(v) for k, v in out.items()}


def mean_constant(depths: Sequence[np.ndarray]) -> float:
    """AbsRel in percent of the best constant disparity per picture: its mean."""
    return 100 * float(np.mean([np.mean(np.abs(1 / np.mean(1 / g) - g) / g) for g in depths]))
