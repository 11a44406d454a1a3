"""Reading pictures and depth maps: sizes from headers only, and decoding with named errors.

Callers pass the bytes (`FileRef.read`) and the name that an error should bear (`FileRef.name`).
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from mtv.errors import DataError, UsageError

DepthEncoding = Literal["navi_disparity", "millimetres", "metres_256"]
"""`navi_disparity`: metres = 655.350 / code; `millimetres`: code / 1000, 65535 invalid; `metres_256`: code / 256, as in
KITTI. Code 0 is invalid in all."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = 0
_EXIF_ORIENTATION = 0x0112
_BROKEN = "The file is damaged or not an image; copy it again."


def read_depth_png(data: bytes, encoding: DepthEncoding, *, name: str) -> np.ndarray:
    """Depth in metres from a 16-bit grey PNG.

    Args:
        data: bytes of the file.
        encoding: how codes become metres.
        name: what an error calls the file.

    Returns:
        float32 H,W; 0 where there is no depth.

    Raises:
        DataError: not a PNG, not 16-bit grey, or damaged.
    """
    check_depth_header(data[:26], name=name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            codes_HW = np.asarray(image).astype(np.uint16)
    except Exception as e:  # every way a decoder can fail means the same to the user
        raise DataError(f"{name}: cannot be decoded ({e})", _BROKEN) from e
    return _metres_of_code(encoding)[codes_HW]


def open_exif(data: bytes, *, name: str) -> Image.Image:
    """RGB picture, upright: the EXIF orientation is applied. Grey, palette and CMYK pictures are converted.

    Raises:
        DataError: damaged or not an image; names `name`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as e:  # every way a decoder can fail means the same to the user
        raise DataError(f"{name}: cannot be decoded ({e})", _BROKEN) from e


def picture_size(path: Path, *, name: str, exif: bool) -> tuple[int, int]:
    """Width, height from the header; nothing is decoded.

    Args:
        path: the file.
        name: what an error calls it.
        exif: True for the size after EXIF transposition.
    """
    (width, height), orientation = picture_header(path, name=name)
    return (height, width) if exif and orientation in (5, 6, 7, 8) else (width, height)


def picture_header(path: Path, *, name: str) -> tuple[tuple[int, int], int]:
    """(Width, height) as stored and the EXIF orientation (1 where there is none); nothing is decoded.

    Raises:
        DataError: no readable header; names `name`.
    """
    try:
        with Image.open(path) as image:
            # PIL decodes a whole PNG in search of an EXIF chunk after the pixels.
            with_exif = image.format != "PNG" or "exif" in image.info
            return image.size, image.getexif().get(_EXIF_ORIENTATION, 1) if with_exif else 1
    except Exception as e:  # every way a decoder can fail means the same to the user
        raise DataError(f"{name}: no readable image header ({e})", _BROKEN) from e


def depth_size(path: Path, *, name: str) -> tuple[int, int]:
    """Width, height of a depth PNG from its header. Raises DataError unless it is a 16-bit grey PNG."""
    return check_depth_header(read_head(path, name=name), name=name)


def read_head(path: Path, *, name: str) -> bytes:
    """The first 26 bytes, which hold a PNG's size and pixel format. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as f:
            return f.read(26)
    except OSError as e:
        raise DataError(f"{name}: cannot be read ({e.strerror or e})") from e


def check_depth_header(head: bytes, *, name: str) -> tuple[int, int]:
    """Width, height from the first 26 bytes of a depth PNG (PNG specification, IHDR).

    Raises:
        DataError: not a PNG, or not 16-bit grey (8-bit copies have lost precision and scale).
    """
    parsed = png_header(head)
    if parsed is None:
        raise DataError(f"{name}: not a PNG file", "Depth maps must be the original 16-bit grey PNGs.")
    width, height, bits, colour = parsed
    if bits != 16 or colour != _PNG_GREY:
        kind = "grey" if colour == _PNG_GREY else "not grey"
        raise DataError(f"{name}: depth is {bits}-bit, {kind}", "Depth maps must be the original 16-bit grey PNGs.")
    return width, height


def png_header(head: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, bits per sample and colour type of a PNG from its first 26 bytes; None when it is no PNG."""
    if len(head) < 26 or head[:8] != _PNG_SIGNATURE:
        return None
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    return width, height, bits, colour


@lru_cache(maxsize=3)
def _metres_of_code(encoding: DepthEncoding) -> np.ndarray:
    codes = np.arange(65536, dtype=np.float64)
    if encoding == "navi_disparity":
        metres = np.divide(655.350, codes, out=np.zeros_like(codes), where=codes > 0)
    elif encoding == "millimetres":
        metres = codes / 1000
        metres[65535] = 0
    elif encoding == "metres_256":
        metres = codes / 256
    else:
        raise UsageError(f"unknown depth encoding {encoding!r}; known: navi_disparity, millimetres, metres_256")
    return metres.astype(np.float32)
