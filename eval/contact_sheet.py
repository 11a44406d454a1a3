"""Draws a contact sheet: rows of pictures with truth drawn over them and text below. PIL pictures in, one out.

Small pictures are enlarged before anything is drawn on them, so that boxes, points and names stay sharp.
"""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 172
"""Height of a picture on the sheet, pixels; wide ones are lower."""
WIDEST = 470
"""Largest width of a picture on the sheet."""
GAP = 10
LINE = 15
MARGIN = 16
HEADING = 26
INK, GREY = (30, 30, 30), (105, 105, 105)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture on the sheet with its text."""

    image: Image.Image
    """As large as it is drawn (`enlarge`)."""
    text: str = ""
    """Below the picture, wrapped."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Pictures of one set."""

    title: str
    """Name of the set."""
    remark: str
    """Beside the name: counts, what is drawn."""
    panels: Sequence[Panel]
    """From left to right; what does not fit the sheet goes into further lines."""


def enlarge(image: Image.Image, *, smooth: bool = True) -> Image.Image:
    """The picture at its size on the sheet; labels keep hard edges with `smooth=False`."""
    scale = min(HEIGHT / image.height, WIDEST / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour per number; neighbours differ strongly (golden-angle hues). 0 is black."""
    if number == 0:
        return 0, 0, 0
    r, g, b = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 + 0.4 * (number % 3) / 2, 0.95 - 0.25 * (number % 4) / 3)
    return round(255 * r), round(255 * g), round(255 * b)


def with_boxes(image: Image.Image, boxes: Sequence[tuple[Sequence[float], str]]) -> Image.Image:
    """Named boxes l, t, r, b, in fractions of the picture's sides."""
    out = image.copy()
    draw, font = ImageDraw.Draw(out), _font(11)
    for number, ((left, top, right, bottom), name) in enumerate(boxes, 1):
        colour = colour_of(number)
        corners = (left * out.width, top * out.height, right * out.width - 1, bottom * out.height - 1)
        draw.rectangle(corners, outline=colour, width=2)
        place = (min(corners[0] + 2, out.width - 4 - draw.textlength(name, font)), max(0.0, corners[1] - 14))
        draw.rectangle(draw.textbbox(place, name, font), fill=(255, 255, 255))
        draw.text(place, name, fill=INK, font=font)
    return out


def with_mask(image: Image.Image, mask_HW: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """The picture tinted where the mask is set; the mask may have another size."""
    mask = Image.fromarray(np.where(mask_HW, 90, 0).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", image.size, colour), image, mask)


def with_points(image: Image.Image, points: Sequence[tuple[float, float, int]]) -> Image.Image:
    """Dots at x, y in fractions of the sides; the number chooses the colour, so that equal numbers correspond."""
    out = image.copy()
    draw = ImageDraw.Draw(out)
    for x, y, number in points:
        at = x * out.width, y * out.height
        draw.circle(at, 5, fill=(255, 255, 255))
        draw.circle(at, 4, fill=colour_of(number + 1))
    return out


def coloured_labels(labels_HW: np.ndarray) -> Image.Image:
    """A class map in colours."""
    palette = np.array([colour_of(i) for i in range(256)], np.uint8)
    return enlarge(Image.fromarray(palette[labels_HW]), smooth=False)


def coloured_depth(depth_HW: np.ndarray) -> Image.Image:
    """Depth in colours, near to far from yellow to violet on a logarithmic scale; black where there is none."""
    from matplotlib import colormaps

    valid_HW = depth_HW > 0
    out = np.zeros((*depth_HW.shape, 3), np.uint8)
    if valid_HW.any():
        log = np.log(depth_HW[valid_HW])
        unit = (log - log.min()) / max(float(np.ptp(log)), 1e-6)
        out[valid_HW] = np.round(255 * colormaps["plasma_r"](0.05 + 0.95 * unit)[:, :3])
    return enlarge(Image.fromarray(out), smooth=False)


def compose(rows: Sequence[Row], *, width: int) -> Image.Image:
    """All rows on a white sheet.

    Args:
        width: width of the sheet in pixels; its height follows.
    """
    lines = [(row, _wrapped(row.panels, width)) for row in rows]
    height = MARGIN + sum(HEADING + sum(_height(line) + GAP for line in wrapped) + GAP for _, wrapped in lines)
    sheet = Image.new("RGB", (width, height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for row, wrapped in lines:
        draw.text((MARGIN, top), row.title, fill=INK, font=_font(16))
        draw.text((MARGIN + 12 + draw.textlength(row.title, _font(16)), top + 3), row.remark, fill=GREY, font=_font(12))
        top += HEADING
        for line in wrapped:
            _draw_line(sheet, line, top)
            top += _height(line) + GAP
        top += GAP
    return sheet


def _wrapped(panels: Sequence[Panel], width: int) -> list[list[Panel]]:
    """Panels in lines that fit the sheet."""
    lines: list[list[Panel]] = [[]]
    used = MARGIN
    for panel in panels:
        if lines[-1] and used + panel.image.width > width - MARGIN:
            lines.append([])
            used = MARGIN
        lines[-1].append(panel)
        used += panel.image.width + GAP
    return lines


def _text_lines(panel: Panel) -> list[str]:
    return [
        part for line in panel.text.splitlines() for part in textwrap.wrap(line, max(12, panel.image.width * 10 // 62))
    ]


def _height(line: Sequence[Panel]) -> int:
    return max((panel.image.height + 4 + LINE * len(_text_lines(panel)) for panel in line), default=0)


def _draw_line(sheet: Image.Image, line: Sequence[Panel], top: int) -> None:
    draw, left = ImageDraw.Draw(sheet), MARGIN
    for panel in line:
        sheet.paste(panel.image, (left, top))
        for number, text in enumerate(_text_lines(panel)):
            draw.text((left, top + panel.image.height + 4 + LINE * number), text, fill=INK, font=_font(12))
        left += panel.image.width + GAP


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
