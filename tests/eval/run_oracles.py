"""Naive oracles for the tests of the tasks: fp64, one picture, caption, keypoint or cell at a time, plain loops.

They share with the code only the encoder's forward pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mtv.encoders.base import Encoder
from mtv.results import TaskResult

GAP = 1e-6
"""Scores closer than this may rank differently in fp32; the worlds are chosen so that only exact ties are closer."""
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def values(record: TaskResult) -> dict[str, float | None]:
    """Metric name without the task prefix to value."""
    return {name.partition("/")[2]: m.value for name, m in record.metrics.items()}


def agree(record: TaskResult, expected: dict[str, float | None]) -> None:
    """Every expected metric has this value."""
    found = values(record)
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def pooled(encoder: Encoder, path: Path) -> np.ndarray:
    """The unit image embedding of one file, fp64."""
    pixels = encoder.transform()(Image.open(path).convert("RGB"))
    vector = encoder.features(encoder.normalize(pixels[None]), pooled=True).pooled
    assert vector is not None
    return unit(vector[0].double().numpy())


def embed(encoder: Encoder, text: str, kind: Any) -> np.ndarray:
    return unit(encoder.encode_text([text], kind=kind)[0].double().numpy())


def tokens(encoder: Encoder, pixels_3HW: torch.Tensor, statistics: tuple[Sequence[float], Sequence[float]]) -> Any:
    """The last layer's map D,H,W in fp64, as stored in fp16, of uint8 pixels padded with zeros to whole patches."""
    mean, std = (torch.tensor(s, dtype=torch.float32)[:, None, None] for s in statistics)
    x = (pixels_3HW.float() / 255 - mean) / std
    (h, w), p = x.shape[1:], encoder.patch_size
    x = F.pad(x, ((-w % p) // 2, -w % p - (-w % p) // 2, (-h % p) // 2, -h % p - (-h % p) // 2))
    out = encoder.features(x[None], layers=[-1], norm="final").tokens[encoder.depth - 1][0]
    return out.half().double().permute(2, 0, 1)


def own_statistics(encoder: Encoder) -> tuple[Sequence[float], Sequence[float]]:
    return encoder.info.image.mean, encoder.info.image.std


def naive_ranks(images: list[np.ndarray], texts: list[np.ndarray], owner: list[int]) -> tuple[list[int], list[int]]:
    """Ranks of the caption queries and of the image queries (section 6.3), by loops."""
    score = [[float(np.dot(v, t)) for t in texts] for v in images]
    t2i = []
    for c, own in enumerate(owner):
        g = score[own][c]
        better = [j for j in range(len(images)) if score[j][c] > g or (score[j][c] == g and j < own)]
        assert all(abs(score[j][c] - g) > GAP or score[j][c] == g for j in range(len(images)))
        t2i.append(1 + len(better))
    i2t = []
    for i in range(len(images)):
        own_captions = [c for c in range(len(texts)) if owner[c] == i]
        first = max(own_captions, key=lambda c: (score[i][c], -c))
        g, foreign = score[i][first], [c for c in range(len(texts)) if owner[c] != i]
        assert all(abs(score[i][c] - g) > GAP or score[i][c] == g for c in foreign)
        i2t.append(1 + sum(score[i][c] > g or (score[i][c] == g and c < first) for c in foreign))
    return t2i, i2t


class SpairOracle:
    """The oracle: annotations read again, one keypoint at a time."""

    def __init__(self, encoder: Encoder, root: Path, mode: str, size: int) -> None:
        self.encoder, self.root, self.mode, self.size = encoder, root / "SPair-71k", mode, size
        self.maps: dict[str, Any] = {}

    def pairs(self) -> list[dict[str, Any]]:
        files = sorted((self.root / "PairAnnotation" / "test").iterdir())
        return [json.loads(p.read_text()) for p in files]

    def map_of(self, category: str, name: str) -> Any:
        key = f"{category}/{name}"
        if key not in self.maps:
            image = Image.open(self.root / "JPEGImages" / key).convert("RGB")
            square = Image.new("RGB", (max(image.size),) * 2, "white")
            square.paste(image)
            pixels = np.array(square.resize((self.size, self.size), Image.Resampling.BICUBIC))
            chosen = IMAGENET_STATISTICS if self.mode == "probe3d" else own_statistics(self.encoder)
            found = tokens(self.encoder, torch.from_numpy(pixels).permute(2, 0, 1), chosen)
            self.maps[key] = found / found.norm(dim=0)
        return self.maps[key]

    def annotation(self, category: str, name: str) -> dict[str, Any]:
        return json.loads((self.root / "ImageAnnotation" / category / name).with_suffix(".json").read_text())

    def errors(self, pair: dict[str, Any]) -> dict[int, float]:
        """Keypoint number to error over scale."""
        category = pair["category"]
        sides = [(self.annotation(category, pair[f"{s}_imname"]), pair[f"{s}_imname"]) for s in ("src", "trg")]
        (source, source_name), (target, target_name) = sides
        source_map, target_map = self.map_of(category, source_name), self.map_of(category, target_name)
        left, top, right, bottom = target["bndbox"]
        longest = max(target["image_width"], target["image_height"])
        out = {}
        for number, point in source["kps"].items():
            truth = target["kps"].get(number)
            if point is None or truth is None:
                continue
            scaled = self.scaled(point, max(source["image_width"], source["image_height"]))
            descriptor = self.at(source_map, scaled)
            best, cell = -2.0, (0, 0)
            for row in range(target_map.shape[1]):
                for column in range(target_map.shape[2]):
                    s = float(descriptor @ target_map[:, row, column])
                    if s > best:
                        best, cell = s, (column, row)
            out[int(number)] = self.error(cell, truth, longest, target_map.shape[1]) / max(right - left, bottom - top)
        return out

    def scaled(self, point: Sequence[float], longest: int) -> list[float]:
        if self.mode == "probe3d":
            return [float(int(np.float32(v) * np.float32(self.size) / np.float32(longest))) for v in point]
        return [v * self.size / longest + self.pad for v in point]

    @property
    def pad(self) -> int:
        return (-self.size % self.encoder.patch_size) // 2

    def at(self, map_DGG: Any, point: list[float]) -> Any:
        side = map_DGG.shape[1] * self.encoder.patch_size
        corners = self.mode == "probe3d"
        place = [2 * v / (self.size if corners else side) - 1 for v in point]
        grid = torch.tensor(place, dtype=torch.float64)[None, None, None]
        return F.grid_sample(map_DGG[None], grid, padding_mode="border", align_corners=corners)[0, :, 0, 0]

    def error(self, cell: tuple[int, int], truth: Sequence[float], longest: int, g: int) -> float:
        """In pixels of the target picture."""
        if self.mode == "probe3d":
            ends = [c / g - s / self.size for c, s in zip(cell, self.scaled(truth, longest), strict=True)]
            return math.hypot(*ends) * longest
        predicted = [((c + 0.5) * self.encoder.patch_size - self.pad) * longest / self.size for c in cell]
        return math.hypot(predicted[0] - truth[0], predicted[1] - truth[1])


def naive_matches(first: np.ndarray, second: np.ndarray, k: int) -> list[tuple[int, int]]:
    """Rows of `first` by uniqueness 1 - d1 / d2, the best k, with their nearest rows of `second`."""
    found = []
    for i, row in enumerate(first):
        cosine = second @ row
        j = int(np.argmax(cosine))
        d1, d2 = (max(1 - c, 1e-9) for c in (cosine[j], np.delete(cosine, j).max()))
        found.append((1 - d1 / d2, i, j))
    found.sort(key=lambda m: (-m[0], m[1]))
    assert len(found) <= k or found[k - 1][0] - found[k][0] > GAP
    return [(i, j) for _, i, j in found[:k]]


def naive_errors(
    pairs: list[tuple[int, int]], xyz0: np.ndarray, xyz1: np.ndarray, pose01: np.ndarray, focal: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Metres and pixels of each match."""
    metres, pixels = [], []
    for i, j in pairs:
        moved, there = pose01[:3, :3] @ xyz0[i].astype(float) + pose01[:3, 3], xyz1[j].astype(float)
        metres.append(float(np.linalg.norm(moved - there)))
        ends = [(p[:2] / max(p[2], 1e-9)) * focal for p in (moved, there)]
        pixels.append(float(np.linalg.norm(ends[0] - ends[1])))
    return metres, pixels


def cubic_grid(map_DHW: Any, places: Sequence[np.ndarray]) -> np.ndarray:
    """Bicubic lookup at (row, column) places in [-1, 1] through torch's own kernel, N,D of unit length."""
    rows, columns = (torch.from_numpy(np.asarray(p, dtype=np.float64)) for p in places)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)[None]
    out = F.grid_sample(map_DHW[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    flat = out.flatten(1).T.numpy()
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def degrees(pose: np.ndarray) -> float:
    return math.degrees(math.acos(max(-1.0, min(1.0, (np.trace(pose[:3, :3]) - 1) / 2))))


def naive_navi_pairs(poses: dict[str, np.ndarray], *, self_pairs: bool, stride: int) -> list[tuple[str, str]]:
    """Section 2.3: one partner per image and object, seed 8, 0 < angle <= 120 in float32."""
    generator = torch.Generator().manual_seed(8)
    drawn = []
    for image, pose in poses.items():
        members = [k for k in poses if k.split("/")[0] == image.split("/")[0]]
        weights = []
        for other in members:
            r = torch.from_numpy(pose[:3, :3]).float() @ torch.from_numpy(poses[other][:3, :3]).float().T
            angle = torch.rad2deg(torch.acos(((r.trace() - 1) / 2).clamp(-1, 1)))
            weights.append(float(0 < angle <= 120 and (self_pairs or other != image)))
        j = int(torch.multinomial(torch.tensor(weights), 1, generator=generator))
        drawn.append((image, members[j]))
    return drawn[::stride]
