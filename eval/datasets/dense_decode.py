"""Depth and label maps to arrays, with errors that name the file; and how `data check --full` looks at them.

* Depth is decoded from 16-bit grey PNGs only: an 8-bit copy has lost precision and scale, and is refused.
* Label maps are 8-bit grey (mode L) or palette (mode P) PNGs. Of a palette the indices are taken, never the colours.
  Grey with fewer bits is refused: decoders stretch it to 0..255, which would turn class 1 into 17 or 85.
* Values on disk become class indices by a table, never by arithmetic: uint8 0 minus 1 is 255, but 255 minus 1 is 254,
  which is a class to some losses and out of range to others.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef, SegmentationSet
from mtv.eval.datasets.images import DepthEncoding, png_header, read_depth_png

NOT_A_LABEL = -1
"""Entry of `SegmentationSet.raw_to_train` for values that must not occur."""

_GREY, _PALETTE = 0, 3
_COLOUR_TYPES = {0: "grey", 2: "RGB colour", 3: "palette", 4: "grey with transparency", 6: "RGB with transparency"}
_LABELS_ARE = "Label maps must be the original 8-bit PNGs: one channel, grey or palette, one value per class."


def read_depth_metres(ref: FileRef, encoding: DepthEncoding) -> np.ndarray:
    """Depth in metres.

    Args:
        ref: a depth PNG, for example `DepthImage.depth`.
        encoding: `DepthSet.depth_encoding`.

    Returns:
        float32 H,W; 0 where there is no depth. A map without any depth is returned as it is.

    Raises:
        DataError: missing, truncated, no PNG or not 16-bit grey; names the file.
    """
    return read_depth_png(ref.read(), encoding, name=ref.name)


def read_labels(dataset: SegmentationSet, image_id: str) -> np.ndarray:
    """Class indices of one picture.

    Returns:
        uint8 H,W at the picture's full size: position in `dataset.classes`, or `dataset.ignore_index`.

    Raises:
        DataError: missing, truncated, wrong mode or size, or a value that is no label of this set; names the file.
    """
    ref = dataset.labels[image_id]
    check = LabelCheck(raw_to_train=dataset.raw_to_train, size=dataset.sizes[image_id])
    return check.decode(ref.read(), name=ref.name)


def decode_label_png(content: bytes, *, name: str) -> np.ndarray:
    """Values of a label map as they are on disk, uint8 H,W; of a palette the indices.

    Raises:
        DataError: no PNG, not 8-bit grey or palette, or damaged; names `name`.
    """
    label_png_size(content[:26], name=name)
    try:
        with Image.open(io.BytesIO(content)) as image:
            raw_HW = np.asarray(image)
    except Exception as e:  # every way a decoder can fail means the same to the user
        raise DataError(f"{name}: cannot be decoded ({e})", "The file is damaged; copy it again.") from e
    return raw_HW


def label_png_size(head: bytes, *, name: str) -> tuple[int, int]:
    """Width, height of a label map from the first 26 bytes of its file.

    Raises:
        DataError: no PNG, or not 8-bit grey or palette (colour masks, 16-bit masks); names `name`.
    """
    parsed = png_header(head)
    if parsed is None:
        raise DataError(f"{name}: not a PNG file", _LABELS_ARE)
    width, height, bits, colour = parsed
    if (colour == _GREY and bits == 8) or (colour == _PALETTE and bits <= 8):
        return width, height
    kind = _COLOUR_TYPES.get(colour, f"colour type {colour}")
    what = "a colour mask" if colour in (2, 6) else "no label map"
    raise DataError(f"{name}: {what} ({bits}-bit {kind})", _LABELS_ARE)


def to_train_ids(raw_HW: np.ndarray, raw_to_train: np.ndarray, *, name: str) -> np.ndarray:
    """Values on disk to class indices by table.

    Args:
        raw_HW: uint8 H,W.
        raw_to_train: int16, 256, as `SegmentationSet.raw_to_train`.
        name: what an error calls the map.

    Returns:
        uint8 H,W.

    Raises:
        DataError: a value whose table entry is -1.
    """
    bad = unexpected_values(np.bincount(raw_HW.ravel(), minlength=256), raw_to_train)
    if bad:
        raise DataError(f"{name}: holds {ranges(bad)}, which no label of this set is")
    return raw_to_train.astype(np.uint8)[raw_HW]


def unexpected_values(counts_256: np.ndarray, raw_to_train: np.ndarray) -> list[int]:
    """Values that occur (by a histogram of 256 entries) and are no label, ascending."""
    values: list[int] = np.flatnonzero((counts_256 > 0) & (raw_to_train == NOT_A_LABEL)).tolist()
    return values


def ranges(values: list[int]) -> str:
    """`3, 7 to 9` for 3, 7, 8, 9 (ascending)."""
    parts: list[tuple[int, int]] = []
    for v in values:
        if parts and v == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], v)
        else:
            parts.append((v, v))
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in parts)


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """Decodes one label map of a set and refuses what does not belong to it. Satisfies `ContentCheck`."""

    raw_to_train: np.ndarray
    """As `SegmentationSet.raw_to_train`."""
    size: tuple[int, int]
    """Width, height of the picture."""

    def __call__(self, content: bytes, *, name: str) -> None:
        """As `ContentCheck`."""
        self.decode(content, name=name)

    def decode(self, content: bytes, *, name: str) -> np.ndarray:
        """Class indices, uint8 H,W. Raises DataError as `read_labels` says."""
        raw_HW = decode_label_png(content, name=name)
        _check_size(raw_HW, self.size, "label map", name)
        return to_train_ids(raw_HW, self.raw_to_train, name=name)


@dataclass(frozen=True, kw_only=True)
class DepthCheck:
    """Decodes one depth map. Satisfies `ContentCheck`."""

    encoding: DepthEncoding
    """As `DepthSet.depth_encoding`."""
    size: tuple[int, int]
    """Width, height of the picture."""

    def __call__(self, content: bytes, *, name: str) -> None:
        """As `ContentCheck`."""
        _check_size(read_depth_png(content, self.encoding, name=name), self.size, "depth map", name)


def _check_size(map_HW: np.ndarray, size: tuple[int, int], what: str, name: str) -> None:
    height, width = map_HW.shape
    if (width, height) != size:
        raise DataError(f"{name}: the {what} is {width} x {height}, its picture {size[0]} x {size[1]}")
