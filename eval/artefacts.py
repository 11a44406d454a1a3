"""Small pictures of the best and worst samples, for the report. Pixels in, PIL out; the store writes them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mtv.eval.feature_pictures import LEGEND, as_picture, principal_colours

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 320
"""Longer side of a picture in an artefact."""
_PAIR_GAP = 8


def to_picture(pixels_3HW: Tensor | Image.Image) -> Image.Image:
    """uint8 pixels as a PIL picture whose longer side is at most `SIDE`."""
    if isinstance(pixels_3HW, Image.Image):
        image = pixels_3HW.convert("RGB")
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels_3HW.permute(1, 2, 0).cpu().numpy()))
    scale = min(SIDE / max(image.size), 1.0)
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))


def captioned(pixels_3HW: Tensor | Image.Image, lines: Sequence[str], *, width: int = 240) -> Image.Image:
    """The picture with lines of text below it."""
    image = to_picture(pixels_3HW)
    canvas = Image.new("RGB", (max(width, image.width), image.height), "white")
    canvas.paste(image, ((canvas.width - image.width) // 2, 0))
    return captioned_row(canvas, lines)


def match_lines(
    left_3HW: Tensor | Image.Image,
    right_3HW: Tensor | Image.Image,
    points_left_K2: np.ndarray,
    points_right_K2: np.ndarray,
    good_K: np.ndarray,
    lines: Sequence[str],
    *,
    truth_right_K2: np.ndarray | None = None,
    tokens: tuple[Tensor, Tensor] | None = None,
) -> Image.Image:
    """Two pictures side by side with a line per match: green where it is right, red where it is wrong.

    Args:
        points_left_K2, points_right_K2: x, y as fractions of width and height of each picture.
        good_K: whether each match is right.
        truth_right_K2: where the matches should end (fractions), marked by small rings.
        tokens: the features that were matched, H,W,D of both pictures; drawn as colours below them.
    """
    left, right = to_picture(left_3HW), to_picture(right_3HW)
    canvas = beside([left, right], gap=_PAIR_GAP)
    draw = ImageDraw.Draw(canvas)
    start_K2 = points_left_K2 * [left.width, left.height]
    offset = [left.width + _PAIR_GAP, 0]
    end_K2 = points_right_K2 * [right.width, right.height] + offset
    for a, b, good in zip(start_K2, end_K2, good_K, strict=True):
        draw.line([*map(float, a), *map(float, b)], fill=(30, 160, 60) if good else (210, 40, 40), width=1)
    if truth_right_K2 is not None:
        for x, y in truth_right_K2 * [right.width, right.height] + offset:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], outline=(30, 90, 220), width=1)
    if tokens is None:
        return captioned_row(canvas, lines)
    colours = zip(principal_colours(tokens), (left, right), strict=True)
    below = beside([as_picture(c, picture.size) for c, picture in colours], gap=_PAIR_GAP)
    both = Image.new("RGB", (canvas.width, canvas.height + _PAIR_GAP + below.height), "white")
    both.paste(canvas, (0, 0))
    both.paste(below, (0, canvas.height + _PAIR_GAP))
    return captioned_row(both, [*lines, f"below: {LEGEND}"])


def beside(panels: Sequence[Image.Image], *, gap: int) -> Image.Image:
    """Panels in a row, aligned at the top, `gap` white pixels between them."""
    width = sum(p.width for p in panels) + gap * (len(panels) - 1)
    canvas = Image.new("RGB", (width, max(p.height for p in panels)), "white")
    left = 0
    for panel in panels:
        canvas.paste(panel, (left, 0))
        left += panel.width + gap
    return canvas


def captioned_row(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """A picture with lines of text below it, wrapped at its width; it is not scaled."""
    font = ImageFont.load_default(size=13)
    wrapped = [part for line in lines for part in (textwrap.wrap(line, max(image.width // 7, 10)) or [""])]
    canvas = Image.new("RGB", (image.width, image.height + 17 * len(wrapped) + 8), "white")
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(wrapped):
        draw.text((4, image.height + 4 + 17 * row), line, fill="black", font=font)
    return canvas
