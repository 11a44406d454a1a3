"""A small corpus whose every value is known, and naive readers to compare with."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mtv.shards import (
    DepthShardWriter,
    ImageShardWriter,
    Region,
    RegionShardWriter,
    build_dataset,
    encode_disparity,
    write_manifest,
)

DEPTH, REGIONS = "depth-truth-v1", "regions-truth-v1"


@dataclass
class Known:
    """What went into one sample."""

    key: str
    jpeg: bytes
    captions: list[str]
    size: tuple[int, int]
    disparity_HW: np.ndarray | None
    regions: list[Region] | None


@dataclass
class World:
    """A corpus on disk and what went into it."""

    root: Path
    shards: dict[str, list[Known]] = field(default_factory=dict)

    @property
    def samples(self) -> list[Known]:
        return [k for shard in self.shards.values() for k in shard]


def jpeg_bytes(rng: np.random.Generator, w: int = 20, h: int = 14, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(file, "jpeg", **options)
    return file.getvalue()


def known(rng: np.random.Generator, key: str, number: int) -> Known:
    """Every 3rd sample has no depth, every 4th a constant map, every 5th no regions, every 6th an empty list."""
    w, h = 16 + number % 5, 12 + number % 7
    map_HW = np.full((h, w), 2.5, np.float32) if number % 4 == 3 else rng.normal(size=(h, w)).astype(np.float32)
    box = (0.1, 0.2, 0.1 + 0.04 * (number % 9 + 1), 1)
    regions = [Region(box=box, name=f"mug {number}", score=0.5), Region(box=(0, 0, 1, 1), name="größe", score=1)]
    return Known(
        key=key,
        jpeg=jpeg_bytes(rng, w, h),
        captions=[f"caption {number} — ünïcode", "a second one"][: 1 + number % 2],
        size=(w, h),
        disparity_HW=None if number % 3 == 2 else map_HW,
        regions=None if number % 5 == 4 else [] if number % 6 == 5 else regions,
    )


def write_shard(root: Path, shard: str, samples: Sequence[Known]) -> None:
    with (
        ImageShardWriter(root, shard) as images,
        DepthShardWriter(root, shard, labels=DEPTH) as depth,
        RegionShardWriter(root, shard, labels=REGIONS) as regions,
    ):
        for s in samples:
            images.add(s.key, s.jpeg, captions=s.captions)
            if s.disparity_HW is not None:
                depth.add(s.key, encode_disparity(s.disparity_HW))
            if s.regions is not None:
                regions.add(s.key, s.regions)


def write_world(root: Path, shards: Sequence[int], seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    world = World(root=root)
    for number, n in enumerate(shards):
        name = f"{number:05d}"
        world.shards[name] = [known(rng, f"{number:05d}{i:04d}", i) for i in range(n)]
        write_shard(root, name, world.shards[name])
    for labels in (DEPTH, REGIONS):
        write_manifest(root, labels, {"model": "truth", "git": "0" * 40})
    build_dataset(root)
    return world


def members(tar: Path) -> dict[str, bytes]:
    """Every member of a tar in order, read the plain way."""
    with tarfile.open(tar) as t:
        return {m.name: t.extractfile(m).read() for m in t.getmembers() if m.isreg()}  # type: ignore[union-attr]


def plain_tar(path: Path, files: Sequence[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> Path:
    """A tar as somebody else would write it: times, owners, folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as t:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.uname = len(data), 1747969211, 1000, "bigdata"
            t.addfile(info, io.BytesIO(data))
    return path


def triple(rng: np.random.Generator, key: str, caption: str = "a cat") -> list[tuple[str, bytes]]:
    """The members that img2dataset writes for a sample."""
    record = {"caption": caption, "url": "u", "key": key, "width": 640, "height": 480, "sha256": "of the download"}
    return [
        (f"{key}.jpg", jpeg_bytes(rng)),
        (f"{key}.txt", caption.encode()),
        (f"{key}.json", json.dumps(record).encode()),
    ]
