"""What a sample is made of, before augmentation: the record of `protocols/pretraining.md` section 2.1.

Notable choices: boxes are normalised to the image and checked here, on writing and on reading; what no labeller has
seen is None, what a labeller found empty is `()`; captions keep their text unmodified, blank ones are left out.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mtv.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Region:
    """A named box."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in fractions of the image's width and height, origin top left, x0 < x1, y0 < y1."""
    name: str
    """The tag, without a template."""
    score: float
    """Confidence of the labeller, 0 to 1."""

    def __post_init__(self) -> None:
        if len(self.box) != 4:
            raise DataError(f"box {self.box!r} has {len(self.box)} numbers; expected x0, y0, x1, y1")
        object.__setattr__(self, "box", tuple(float(v) for v in self.box))
        object.__setattr__(self, "score", float(self.score))
        x0, y0, x1, y1 = self.box
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise DataError(
                f"box {self.box!r} of {self.name!r} is not 0 <= x0 < x1 <= 1, 0 <= y0 < y1 <= 1",
                "Boxes are fractions of the image's width and height; clip them and drop the empty ones.",
            )
        if not isinstance(self.name, str) or not self.name.strip():
            raise DataError(f"box {self.box!r} has the name {self.name!r}; a name is text")
        if not (math.isfinite(self.score) and 0 <= self.score <= 1):
            raise DataError(f"score {self.score!r} of {self.name!r} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class EncodedDepth:
    """A disparity map as it is stored (see `depth_code.py`)."""

    png: bytes
    """Single-channel 16-bit PNG with values 0 to 4095."""
    min: float
    """Disparity of 0."""
    max: float
    """Disparity of 4095."""
    valid: bool
    """False for a constant map, which carries no depth."""


@dataclass(frozen=True, kw_only=True)
class ShardSample:
    """One sample with the labels that the data set was opened with."""

    key: str
    """Unique in the corpus."""
    image: bytes
    """JPEG, PNG or WebP as stored."""
    captions: tuple[str, ...]
    """Unmodified texts; blank ones are left out, so that `()` means no caption."""
    regions: tuple[Region, ...] | None
    """Named boxes; `()` where the labeller found none, None where the image has no region label."""
    disparity: EncodedDepth | None
    """Depth label; None where there is none or where it is constant."""
    w: int
    """Width of the stored image in pixels."""
    h: int
    """Height of the stored image in pixels."""


def regions_to_json(regions: Sequence[Region]) -> list[dict[str, Any]]:
    """The plain form of a region label."""
    return [{"box": list(r.box), "name": r.name, "score": r.score} for r in regions]


def parse_regions(data: bytes) -> tuple[Region, ...]:
    """Read a region label.

    Raises:
        DataError: no JSON list of {box, name, score}, or a value that `Region` refuses.
    """
    try:
        items = json.loads(data)
        if not isinstance(items, list):
            raise TypeError(f"a {type(items).__name__}")
        return tuple(Region(box=tuple(i["box"]), name=i["name"], score=i["score"]) for i in items)
    except (ValueError, TypeError, KeyError) as e:
        raise DataError(f"not a list of {{box, name, score}} ({type(e).__name__}: {e})") from e


@dataclass(frozen=True, kw_only=True)
class ImageText:
    """What the text members of an image say."""

    captions: tuple[str, ...]
    """As in `ShardSample`."""
    size: tuple[int, int] | None
    """Width and height; None where the JSON is not our own (img2dataset's may describe the picture before resizing)."""
    sha256: str | None
    """Hash of the image bytes; None where the JSON is not our own (img2dataset hashes the download)."""


def parse_text(txt: bytes | None, record: bytes | None) -> ImageText:
    """Captions, size and hash from the `.txt` and `.json` members of a sample; either may be missing.

    The list `captions` of our own JSON wins; otherwise the text member, otherwise the JSON's `caption`.

    Raises:
        DataError: not UTF-8, no JSON object, or captions that are no text.
    """
    try:
        text = None if txt is None else txt.decode("utf-8")
        fields = {} if record is None else json.loads(record)
        if not isinstance(fields, dict):
            raise TypeError(f"JSON is a {type(fields).__name__}, not an object")
        ours = fields.keys() >= {"w", "h", "sha256", "captions"}
        found = fields["captions"] if ours else fields.get("caption") if text is None else text
        captions = [found] if isinstance(found, str) else list(found or ())
        if any(not isinstance(c, str) for c in captions):
            raise TypeError(f"caption {captions!r} is no text")
        size = (int(fields["w"]), int(fields["h"])) if ours else None
    except (ValueError, TypeError) as e:
        raise DataError(f"caption or metadata cannot be read ({type(e).__name__}: {e})") from e
    kept = tuple(c for c in captions if c.strip())
    return ImageText(captions=kept, size=size, sha256=str(fields["sha256"]) if ours else None)


def image_size(image: bytes) -> tuple[int, int]:
    """Width and height from the header of a JPEG, PNG or WebP file.

    Raises:
        DataError: none of these.
    """
    try:
        with Image.open(io.BytesIO(image), formats=["JPEG", "PNG", "WEBP"]) as opened:
            return opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"image cannot be read ({e})") from e
