"""A row of pictures about one label map: picture, prediction, truth, in one colour per class, with a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mtv.eval.artefacts import beside, captioned_row, to_picture
from mtv.eval.feature_pictures import LEGEND
from mtv.probes.segmentation_metric import IGNORE_INDEX

_GAP = 6
_UNLABELLED = (255, 255, 255)
_LEGEND = 9
"""Classes that the legend names."""
_LINE = 17


def class_colours(n: int) -> np.ndarray:
    """uint8 n,3: hues by the golden ratio, so that neighbours differ, in three steps of lightness."""
    turns = [(k * 0.618034) % 1.0 for k in range(n)]
    rows = [colorsys.hls_to_rgb(h, (0.45, 0.62, 0.3)[k % 3], 0.75) for k, h in enumerate(turns)]
    return np.rint(255 * np.array(rows).reshape(n, 3)).astype(np.uint8)


def coloured(label_HW: np.ndarray, n_classes: int) -> Image.Image:
    """A label map in colours, white where it is ignored."""
    table_256x3 = np.full((256, 3), _UNLABELLED, np.uint8)
    table_256x3[:n_classes] = class_colours(n_classes)
    table_256x3[IGNORE_INDEX] = _UNLABELLED
    return Image.fromarray(table_256x3[label_HW])


def segmentation_row(
    picture: Image.Image,
    pred_HW: np.ndarray,
    label_HW: np.ndarray,
    classes: Sequence[str],
    lines: Sequence[str],
    *,
    features: Image.Image | None = None,
) -> Image.Image:
    """Picture, prediction and truth side by side, with a legend of the largest classes and text below.

    Args:
        pred_HW, label_HW: uint8 at the size of the picture.
        classes: names in index order.
        features: the patch features as colours, drawn last.
    """
    drawn = [picture, coloured(pred_HW, len(classes)), coloured(label_HW, len(classes))]
    row = beside([to_picture(p) for p in (*drawn, *([features] if features else []))], gap=_GAP)
    counts = np.bincount(np.concatenate([pred_HW.ravel(), label_HW.ravel()]), minlength=256)[: len(classes)]
    largest = [int(c) for c in np.argsort(-counts, kind="stable")[:_LEGEND] if counts[c]]
    legend = _legend(largest, classes, row.width)
    canvas = Image.new("RGB", (row.width, row.height + legend.height), "white")
    canvas.paste(row, (0, 0))
    canvas.paste(legend, (0, row.height))
    panels = "picture, prediction, truth" + (f", {LEGEND}" if features else "")
    return captioned_row(canvas, [*lines, panels])


def _legend(shown: Sequence[int], classes: Sequence[str], width: int) -> Image.Image:
    """Squares of colour with names, in as many lines as they need."""
    font, colours = ImageFont.load_default(size=13), class_colours(len(classes))
    places, left, top = [], 0, 2
    for label in shown:
        needed = 16 + round(font.getlength(classes[label])) + 12
        if left and left + needed > width:
            left, top = 0, top + _LINE
        places.append((label, left, top))
        left += needed
    image = Image.new("RGB", (width, top + _LINE), "white")
    draw = ImageDraw.Draw(image)
    for label, x, y in places:
        draw.rectangle([x + 1, y + 2, x + 12, y + 13], fill=tuple(colours[label].tolist()))
        draw.text((x + 16, y), classes[label], fill="black", font=font)
    return image
