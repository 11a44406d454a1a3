"""What is planted in the pictures: a flat colour that says who it is, or a gradient that says where on a surface.

The codes survive JPEG and resizing. Identities are far apart (levels 26, 128 and 230 per channel), and a surface code
is linear in the position, so that averages over patches and bicubic interpolation read it exactly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LEVELS = (0.1, 0.5, 0.9)
"""Channel values of identities."""
N_IDENTITIES = len(LEVELS) ** 3


def identity_colour(identity: int) -> tuple[float, float, float]:
    """RGB in [0, 1] of an identity 0..26: its digits to base 3."""
    digits = (identity // 9 % 3, identity // 3 % 3, identity % 3)
    return LEVELS[digits[0]], LEVELS[digits[1]], LEVELS[digits[2]]


def identity_picture(identity: int, variant: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A flat picture of an identity; `variant` moves all levels a little, so that files differ."""
    shift = (variant % 5 - 2) / 255
    pixels = np.clip(np.array(identity_colour(identity)) + shift, 0, 1)
    return Image.new("RGB", size, tuple(int(v) for v in np.rint(255 * pixels)))


def surface_picture(u_HW: np.ndarray, v_HW: np.ndarray) -> Image.Image:
    """A picture whose red says u and whose green says v, both in 0..1; values beyond are cut."""
    blue = np.full_like(u_HW, 0.5)
    rgb_HW3 = np.stack([0.1 + 0.8 * np.clip(u_HW, 0, 1), 0.1 + 0.8 * np.clip(v_HW, 0, 1), blue], axis=-1)
    return Image.fromarray(np.rint(255 * rgb_HW3).astype(np.uint8))


def pixel_centres(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel centre, H,W each."""
    y_HW, x_HW = np.mgrid[0:height, 0:width]
    return x_HW + 0.5, y_HW + 0.5


def save(image: Image.Image, path: Path) -> None:
    """Write a picture as JPEG for .jpg and .JPEG names, else as PNG; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image.save(path, format="JPEG", quality=95)
    else:
        image.save(path, format="PNG", compress_level=1)


def save_codes(codes_HW: np.ndarray, path: Path) -> None:
    """Write a 16-bit grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(codes_HW.astype(np.uint16)).save(path, format="PNG", compress_level=1)
