"""A corpus whose pixels tell where they come from: red is x, green is y, blue is full inside the first box."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mtv.shards import (
    DepthShardWriter,
    ImageShardWriter,
    Region,
    RegionShardWriter,
    ShardDataset,
    build_dataset,
    encode_disparity,
    write_manifest,
)

DEPTH, REGIONS = "depth-map-v1", "regions-map-v1"


class ByteTokenizer:
    """Bytes as ids; counts what it is asked."""

    def __init__(self, positions: int = 24) -> None:
        self.positions = positions
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        out = np.ones((len(texts), self.positions), dtype=np.int64)
        for row, text in zip(out, texts, strict=True):
            codes = list(text.lower().encode()[: self.positions])
            row[: len(codes)] = codes
        return out


@dataclass
class Sample:
    """What goes into one sample; None leaves a label out."""

    key: str
    image: bytes
    captions: list[str]
    disparity_HW: np.ndarray | None
    regions: list[Region] | None


def picture(w: int, h: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """uint8 [h, w, 3]: red and green are the position of the pixel's centre, blue marks the box."""
    y, x = np.mgrid[0:h, 0:w] + 0.5
    x, y = x / w, y / h
    inside = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
    return np.rint(np.stack([x, y, inside], axis=2) * 255).astype(np.uint8)


def encode(pixels_HWC: np.ndarray) -> bytes:
    """JPEG with the least loss."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "jpeg", quality=100, subsampling=0)
    return file.getvalue()


def sample(number: int) -> Sample:
    """A sound sample; sizes, boxes and number of regions vary."""
    rng = np.random.default_rng(number)
    w, h = int(rng.integers(40, 90)), int(rng.integers(40, 90))
    x0, y0 = rng.uniform(0.15, 0.35, 2)
    box = (float(x0), float(y0), float(x0 + 0.45), float(y0 + 0.4))
    y, x = np.mgrid[0:h, 0:w] + 0.5
    regions = [Region(box=box, name="mug", score=0.9)]
    regions += [Region(box=(0.2, 0.2, 0.8, 0.3 + 0.1 * k), name=f"Thing {k}", score=0.5) for k in range(number % 6)]
    return Sample(
        key=f"s{number:05d}",
        image=encode(picture(w, h, box)),
        captions=[f"caption {k} of {number}" for k in range(1 + number % 3)],
        disparity_HW=(2 * x / w + y / h + 5).astype(np.float32),
        regions=regions,
    )


def write_corpus(
    root: Path, shards: Sequence[int] = (7, 5, 12, 8), change: Callable[[int, Sample], None] | None = None
) -> ShardDataset:
    """Write, index and open a corpus; `change(number, sample)` edits samples before they are written."""
    number = 0
    for shard, count in enumerate(shards):
        name = f"{shard:05d}"
        with (
            ImageShardWriter(root, name) as images,
            DepthShardWriter(root, name, labels=DEPTH) as depth,
            RegionShardWriter(root, name, labels=REGIONS) as regions,
        ):
            for _ in range(count):
                s = sample(number)
                if change is not None:
                    change(number, s)
                images.add(s.key, s.image, captions=s.captions)
                if s.disparity_HW is not None:
                    depth.add(s.key, encode_disparity(s.disparity_HW))
                if s.regions is not None:
                    regions.add(s.key, s.regions)
                number += 1
    for labels in (DEPTH, REGIONS):
        write_manifest(root, labels, {"model": "arithmetic"})
    build_dataset(root)
    return ShardDataset.open(root, labels=(DEPTH, REGIONS))
