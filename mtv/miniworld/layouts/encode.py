"""Picture sizes and file encodings that the layouts share. Equal values give equal bytes."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from mtv.draws import Draws
from mtv.miniworld.spec import WorldSpec

LONGEST = 1024
"""No picture has a longer side, in pixels."""
ASPECTS = ((1, 1), (1, 1), (4, 3), (3, 4))
"""Width to height of ordinary pictures."""
JPEG_QUALITY = 92


def fit(width: float, height: float) -> tuple[int, int]:
    """Whole pixels, shrunk where the longer side would exceed `LONGEST`.

    >>> fit(512 * 1242 / 375, 512)
    (1024, 309)
    """
    shrink = min(1.0, LONGEST / max(width, height))
    return round(width * shrink), round(height * shrink)


def mixed_size(spec: WorldSpec, split: str, index: int, *, shorter: float) -> tuple[int, int]:
    """Width and height of a picture whose aspect is drawn: square, 4:3 or 3:4.

    Args:
        shorter: shorter side in pixels.
    """
    w, h = Draws(spec.seed, split, index, "aspect").choice(ASPECTS)
    return fit(shorter * w / min(w, h), shorter * h / min(w, h))


def equal_area_size(spec: WorldSpec, split: str, index: int) -> tuple[int, int]:
    """Width and height of a picture whose aspect is drawn and whose area is that of a square of the world's size."""
    w, h = Draws(spec.seed, split, index, "aspect").choice(ASPECTS)
    return fit(spec.size * (w / h) ** 0.5, spec.size * (h / w) ** 0.5)


def jpeg(rgb_HW3: np.ndarray) -> bytes:
    """uint8 picture as JPEG without chroma subsampling, which would blur colours at these sizes."""
    file = io.BytesIO()
    Image.fromarray(rgb_HW3).save(file, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def png(values: np.ndarray) -> bytes:
    """uint8 [H,W] (mode L), uint8 [H,W,3] or uint16 [H,W] (16-bit grey) as PNG."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png", compress_level=4)
    return file.getvalue()


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """Sorted JSON with a final newline; NaN is refused."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent)
    return (text + "\n").encode("utf-8")


def text_bytes(lines: list[str]) -> bytes:
    """Lines with a newline after each."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8")
