"""Bytes to RGB, and RGB to the square uint8 tensor that an `ImageRecord` describes. Everything resizes with PIL."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mtv.encoders.records import ImageRecord
from mtv.errors import DataError

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def decode_rgb(data: bytes, *, exif: bool = False) -> Image.Image:
    """Decode one picture of any format to mode RGB, pixels in memory.

    Args:
        data: the whole file. Of an animation the first frame is taken.
        exif: rotate as the EXIF orientation says. Off by default, as in the reference readers.

    Raises:
        DataError: empty, truncated or no picture; the message has no file name, which the caller puts in front.
    """
    if not data:
        raise DataError("empty file (0 bytes)")
    try:
        picture: Image.Image = Image.open(io.BytesIO(data))
        picture.load()
        return to_rgb(ImageOps.exif_transpose(picture) if exif else picture)
    except DataError:
        raise
    # Decoders of damaged files raise whatever their parser stumbled over (OSError, SyntaxError, struct.error, ...).
    except Exception as e:
        raise DataError(f"no readable image: {(str(e) or type(e).__name__).splitlines()[0]}") from e


def to_rgb(picture: Image.Image) -> Image.Image:
    """Mode RGB by fixed rules.

    Grey is repeated, palettes are looked up, CMYK goes through PIL's conversion, transparency is dropped without
    compositing, and 16-bit grey is divided by 257 (65535 becomes 255) and rounded, where PIL alone would clip at 255.

    Raises:
        DataError: floating-point pixels, whose range is unknown.
    """
    mode = picture.mode
    if mode == "RGB":
        return picture
    if mode == "F":
        raise DataError("floating-point pixels have no defined range; convert the image to 8 or 16 bit")
    if mode == "I" or mode.startswith("I;16"):
        values = np.clip(np.asarray(picture).astype(np.float64), 0, 65535)
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if mode == "P" and "transparency" in picture.info:
        # Same colours as the direct conversion, without its warning.
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


@dataclass(frozen=True)
class ImageTransform:
    """PIL picture to uint8 3,S,S as `record` says. A plain value: picklable, hashable, comparable.

    With T = floor(size / crop_pct), which is `size` unless a crop_pct below 1 is set:
    `crop` resizes the shorter side to T, `squash` both sides, `border` the longer one; then the centre `size` x `size`
    is cut, or padded with the mean colour. Sides and offsets are rounded as in torchvision (`crop`, `squash`) and timm
    (`border`).
    """

    record: ImageRecord

    def __call__(self, picture: Image.Image) -> Tensor:
        """Resize, crop or pad, and hand over the pixels.

        Raises:
            DataError: pixels without a defined range (see `to_rgb`).
        """
        picture = to_rgb(picture)
        size = resized_size(picture.width, picture.height, self.record)
        if size != picture.size:
            picture = picture.resize(size, FILTERS[self.record.filter])
        pixels_HW3 = np.asarray(self._centre(picture))
        return torch.from_numpy(pixels_HW3.transpose(2, 0, 1).copy())

    def _centre(self, picture: Image.Image) -> Image.Image:
        side = self.record.size
        if picture.size == (side, side):
            return picture
        width, height = picture.size
        if width < side or height < side:
            colour = tuple(round(255 * m) for m in self.record.mean)
            padded = Image.new("RGB", (max(width, side), max(height, side)), colour)
            padded.paste(picture, (max(side - width, 0) // 2, max(side - height, 0) // 2))
            picture = padded
        left, top = round((picture.width - side) / 2), round((picture.height - side) / 2)
        return picture.crop((left, top, left + side, top + side))


def resized_size(width: int, height: int, record: ImageRecord) -> tuple[int, int]:
    """Width and height after the resize and before the crop."""
    # Shares such as 224/248 come back as 247.999..., which floor must not cut.
    target = math.floor(record.size / record.crop_pct + 1e-6)
    if record.resize == "squash":
        return target, target
    if record.resize == "border":
        longer = max(width, height)
        return max(1, round(width / (longer / target))), max(1, round(height / (longer / target)))
    if width <= height:
        return target, int(target * height / width)
    return int(target * width / height), target
