"""Bytes to canvases: every image becomes one square uint8 array, every disparity label one square 16-bit array.

Notable choices: decoded once on the CPU, whatever the number of views; the true aspect travels beside the canvas, so
that crops have the shapes they would have on the image. Arrays are stored as rows, channels, columns: both products of
`device.py` then read them without a transpose. Disparity keeps 16 bits of its own range. What is damaged raises a
`DataError` here, and only here.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mtv.errors import DataError
from mtv.shards import EncodedDepth, ShardSample, decode_disparity
from mtv.train.data.options import DataOptions

DEPTH_OFFSET = 32768
"""Added to a stored disparity code to make it 0 to 65535."""
DEPTH_STEPS = 65535
"""Largest disparity code: the label's maximum."""
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The decoded arrays of a sample."""

    canvas_HCW: np.ndarray
    """uint8 [C, 3, C]: rows, channels, columns."""
    depth_HW: np.ndarray | None
    """int16 [D, D]: `DEPTH_OFFSET` below the code; None without a valid label."""


def decode_sample(sample: ShardSample, data: DataOptions, *, depth: bool) -> Pixels:
    """Decode a sample as a run does; what this refuses is a bad sample.

    Args:
        sample: as read.
        data: canvas sizes and limits.
        depth: decode the disparity label too, where there is one.

    Raises:
        DataError: it has no caption, or image or depth label are damaged or do not belong together.
    """
    if not sample.captions:
        raise DataError("there is no caption")
    canvas_HCW, size = decode_canvas(sample.image, side=data.canvas, min_side=data.min_image_side)
    if size != (sample.w, sample.h):
        raise DataError(f"the image is {size[0]} x {size[1]} pixels, its .json says {sample.w} x {sample.h}")
    depth_HW = None
    if depth and sample.disparity is not None:
        depth_HW = decode_depth(sample.disparity, side=data.depth_canvas, image_size=size)
    return Pixels(canvas_HCW=canvas_HCW, depth_HW=depth_HW)


def decode_canvas(image: bytes, *, side: int, min_side: int = 1) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image and bring it to the canvas.

    Args:
        image: JPEG, PNG or WebP bytes.
        side: canvas side C.
        min_side: least allowed shorter side of the image in pixels.

    Returns:
        uint8 [C, 3, C] (rows, channels, columns), and the true width and height.

    Raises:
        DataError: truncated, not decodable, or too small.
    """
    try:
        with Image.open(io.BytesIO(image), formats=["JPEG", "PNG", "WEBP"]) as opened:
            size = opened.size
            if min(size) < min_side:
                raise DataError(f"the image is {size[0]} x {size[1]} pixels; at least {min_side} are needed")
            # A JPEG of twice the canvas or more is decoded at 1/2, 1/4 or 1/8: never below the canvas.
            opened.draft("RGB", (side, side))
            rgb = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as e:
        raise DataError(f"the image cannot be decoded ({e})") from e
    if rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(rgb).transpose(0, 2, 1)), size


def decode_depth(label: EncodedDepth, *, side: int, image_size: tuple[int, int]) -> np.ndarray:
    """Decode a disparity label and bring it to its canvas.

    Args:
        label: a valid label.
        side: canvas side D.
        image_size: true width and height of the image.

    Returns:
        int16 [D, D]; (value + `DEPTH_OFFSET`) / `DEPTH_STEPS` is the disparity in units of the label's range.

    Raises:
        DataError: not decodable, or of another aspect than the image.
    """
    unit_HW = decode_disparity(label.png, 0.0, 1.0)
    h, w = unit_HW.shape
    image_w, image_h = image_size
    stretch = (w / h) / (image_w / image_h)
    # The reduction rounds the longer side to whole pixels.
    if abs(stretch - 1) > max(_ASPECT_TOLERANCE, 1 / min(h, w)):
        raise DataError(f"the depth label is {w} x {h} pixels, the image {image_w} x {image_h}: other aspect")
    if (h, w) != (side, side):
        unit_HW = np.asarray(Image.fromarray(unit_HW).resize((side, side), Image.Resampling.BILINEAR))
    code_HW = np.rint(unit_HW.astype(np.float64) * DEPTH_STEPS)
    return (np.clip(code_HW, 0, DEPTH_STEPS) - DEPTH_OFFSET).astype(np.int16)
