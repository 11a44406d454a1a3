"""Small scenes with depth and labels, and PNG files of any pixel format, for the tests of the dense readers."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class View:
    """One picture with its truth."""

    rgb_HW3: np.ndarray
    """uint8."""
    metres_HW: np.ndarray
    """float64, above 0 everywhere."""
    classes_HW: np.ndarray
    """int64, 0 .. n - 1."""


def view(width: int, height: int, seed: int, *, near: float = 0.8, far: float = 6.0, classes: int = 12) -> View:
    """Boxes in front of a slanted wall: edges of colour, depth and class coincide, as in a photo. Not symmetric."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(far, far * 0.8, width)[None].repeat(height, 0)
    colour = np.full((height, width, 3), 120.0)
    labels = np.zeros((height, width), np.int64)
    for k in range(24):
        left, top = rng.integers(0, width), rng.integers(0, height)
        box = (
            slice(top, top + rng.integers(height // 12, height // 3)),
            slice(left, left + rng.integers(width // 12, width // 4)),
        )
        depth[box] = far - (far - near) * (k + 1) / 24 + rng.uniform(0, 0.01, depth[box].shape)
        colour[box] = rng.uniform(20, 235, 3)
        labels[box] = k % classes
    colour += rng.normal(0, 2, colour.shape)
    return View(rgb_HW3=np.clip(colour, 0, 255).astype(np.uint8), metres_HW=depth, classes_HW=labels)


def codes(metres_HW: np.ndarray, per_metre: float, *, holes: float = 0.0) -> np.ndarray:
    """uint16 depth codes; a block of the given share of the columns is missing."""
    encoded = np.rint(metres_HW * per_metre).astype(np.uint16)
    encoded[:, : int(holes * encoded.shape[1])] = 0
    return encoded


def save(path: Path, pixels: np.ndarray) -> Path:
    """8-bit or 16-bit, grey or RGB; the folder is made. PNG without effort, JPEG at quality 95."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compress_level": 1} if path.suffix == ".png" else {"quality": 95}
    Image.fromarray(pixels).save(path, **options)
    return path


def save_palette(path: Path, indices_HW: np.ndarray, palette: list[tuple[int, int, int]], *, bits: int = 8) -> Path:
    """A palette PNG of the given bits per pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices_HW.astype(np.uint8), mode="P")
    image.putpalette([v for colour in palette for v in colour])
    image.save(path, bits=bits)
    return path


def link(source: Path, target: Path) -> None:
    """The same file under another name: many files at the price of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)


def png_bytes(values_HW: np.ndarray, *, bits: int, colour: int) -> bytes:
    """A PNG by hand (specification, sections 5, 7 and 9), for formats that PIL does not write: grey of 2 or 4 bits.

    Args:
        values_HW: samples of one channel, below 2 ** bits.
        bits: 1, 2, 4, 8 or 16.
        colour: colour type of one channel: 0 grey.
    """
    height, width = values_HW.shape
    unpacked = ((values_HW[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1).reshape(height, -1)
    rows = np.packbits(unpacked.astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body
