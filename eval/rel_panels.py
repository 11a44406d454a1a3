"""Draws predictions beside the truth, as in the paper's Figure 4: picture, predictions, truth, errors, row by row.

All disparities of a row share one range of colours, that of the true disparity; all its errors share another. Both are
written below the row. The truth of KITTI covers a fifth of the pixels: blocks are averaged over what is known, so that
it stays visible at the size of a figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mtv.eval.rel_frames import DepthFrame
from mtv.probes.depth_align import MIN_DEPTH, MIN_DISPARITY, AlignConfig, RelativeScore

WIDTH = 300
"""Width of a panel in pixels; tall frames are narrower."""
TALLEST = 240
"""Largest height of a panel."""
GAP, MARGIN, LINE = 6, 12, 16
INK, GREY, UNKNOWN = (30, 30, 30), (105, 105, 105), (225, 225, 225)
NEAR_FAR, ERROR = "inferno", "YlOrRd"
"""Colour maps: bright is near; pale is right."""
PERCENTILES = (2.0, 98.0)
"""Of the true disparity, where its colours begin and end."""
WORST = 95.0
"""Percentile of the errors where their colours end."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One model on one frame, aligned."""

    disparity_HW: np.ndarray
    """float32, 1 / metres, everywhere."""
    error_HW: np.ndarray
    """float32 |depth - truth| / truth; NaN where nothing is scored."""
    caption: str
    """Below the panel."""


@dataclass(frozen=True, kw_only=True)
class PanelRow:
    """One frame with the predictions of all models, in the order of the columns."""

    title: str
    """Id of the frame."""
    frame: DepthFrame
    """Picture and truth."""
    predictions: Sequence[Prediction]
    """One per model."""


def aligned_depth(pred_HW: Tensor, score: RelativeScore, config: AlignConfig) -> Tensor:
    """Depth in metres of a whole prediction under the fit of its score, float64: what is compared with the truth."""
    assert score.fit is not None
    fitted_HW = score.fit(pred_HW.double())
    depth_HW = 1 / fitted_HW.clamp(min=MIN_DISPARITY) if config.align == "disp" else fitted_HW
    return depth_HW.clamp(max(config.min_depth, MIN_DEPTH), config.max_depth)


def shown(frame: DepthFrame, pred_HW: Tensor, score: RelativeScore, config: AlignConfig) -> Prediction:
    """A prediction as it is drawn, with its AbsRel."""
    depth_HW = aligned_depth(pred_HW.cpu(), score, config)
    truth_HW = frame.depth_HW.double()
    error_HW = ((depth_HW - truth_HW).abs() / truth_HW).where(frame.valid_HW, float("nan"))
    (key,) = {"absrel_depth", "absrel_depth_ls"} & set(score.absrel)
    return Prediction(
        disparity_HW=(1 / depth_HW).float().numpy(),
        error_HW=error_HW.float().numpy(),
        caption=f"AbsRel {100 * score.absrel[key]:.1f} %" + (" (inverted)" if score.fit and score.fit.inverted else ""),
    )


def draw_rows(rows: Sequence[PanelRow], models: Sequence[tuple[str, str]]) -> Image.Image:
    """The figure: a heading per column, then the rows.

    Args:
        rows: at least one.
        models: name of each model, which heads its errors, and the heading of its predictions.
    """
    drawn = [_draw_row(row) for row in rows]
    errors = [f"error, {name}" if len(models) > 1 else "error" for name, _ in models]
    heads = ["image", *(heading for _, heading in models), "ground truth", *errors]
    wrapped = [textwrap.wrap(head, 34) or [""] for head in heads]
    top = MARGIN + LINE * max(len(lines) for lines in wrapped) + GAP
    width = max(image.width for image in drawn) + 2 * MARGIN
    sheet = Image.new("RGB", (width, top + sum(image.height + 2 * GAP for image in drawn)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(wrapped):
        left = MARGIN + column * (WIDTH + GAP) + WIDTH / 2
        for number, line in enumerate(lines):
            place = left - draw.textlength(line, _font(13)) / 2
            draw.text((place, MARGIN + LINE * number), line, fill=INK, font=_font(13))
    for image in drawn:
        sheet.paste(image, (MARGIN, top))
        top += image.height + 2 * GAP
    return sheet


def _draw_row(row: PanelRow) -> Image.Image:
    frame = row.frame
    truth_HW = np.where(frame.valid_HW.numpy(), 1 / frame.depth_HW.clamp(min=MIN_DEPTH).numpy(), np.nan)
    low, high = (float(v) for v in np.nanpercentile(truth_HW, PERCENTILES))
    worst = max(float(np.nanpercentile([p.error_HW for p in row.predictions], WORST)), 0.01)
    scale = min(WIDTH / frame.size[1], TALLEST / frame.size[0])
    size = max(1, round(frame.size[0] * scale)), max(1, round(frame.size[1] * scale))
    photo = Image.fromarray(np.ascontiguousarray(frame.rgb_HW3)).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    panels = [
        (photo, row.title),
        *((_coloured(p.disparity_HW, size, low, high, NEAR_FAR), p.caption) for p in row.predictions),
        (_coloured(truth_HW, size, low, high, NEAR_FAR), ""),
        *((_coloured(p.error_HW, size, 0.0, worst, ERROR), "") for p in row.predictions),
    ]
    image = Image.new("RGB", (len(panels) * (WIDTH + GAP) - GAP, size[0] + 2 * LINE + GAP), "white")
    draw = ImageDraw.Draw(image)
    for column, (panel, caption) in enumerate(panels):
        left = column * (WIDTH + GAP)
        image.paste(panel, (left + (WIDTH - size[1]) // 2, 0))
        draw.text((left, size[0] + 2), _tail(caption, draw), fill=INK, font=_font(12))
    _legend(image, size[0] + LINE + 2, low, high, worst)
    return image


def _tail(text: str, draw: ImageDraw.ImageDraw) -> str:
    """As much of the end of `text` as fits below a panel: ids differ at their end."""
    cut = text
    while draw.textlength(cut, _font(12)) > WIDTH:
        text = text[1:]
        cut = f"…{text}"
    return cut


def _legend(image: Image.Image, top: int, low: float, high: float, worst: float) -> None:
    """Both colour bars with their ranges."""
    draw = ImageDraw.Draw(image)
    far, near = (f"{1 / max(end, MIN_DISPARITY):.3g} m" for end in (low, high))
    legends = ((far, f"{near}, linear in 1 / depth", NEAR_FAR), ("0", f"{100 * worst:.0f} % of the depth", ERROR))
    for column, (before, after, name) in enumerate(legends):
        left = column * (WIDTH + GAP)
        draw.text((left, top), before, fill=GREY, font=_font(12))
        start = left + round(draw.textlength(before, _font(12))) + 4
        bar = _coloured(np.linspace(0, 1, 90)[None].repeat(9, 0), (9, 90), 0.0, 1.0, name)
        image.paste(bar, (start, top + 3))
        draw.text((start + 94, top), after, fill=GREY, font=_font(12))


def _coloured(values_HW: np.ndarray, size: tuple[int, int], low: float, high: float, name: str) -> Image.Image:
    """Values at another size in colours; grey where a block holds none."""
    from matplotlib import colormaps

    mean_HW = block_means(values_HW, size)
    unit_HW = np.clip((mean_HW - low) / max(high - low, 1e-9), 0, 1)
    rgb_HW3 = np.round(255 * colormaps[name](np.nan_to_num(unit_HW))[..., :3]).astype(np.uint8)
    rgb_HW3[np.isnan(mean_HW)] = UNKNOWN
    return Image.fromarray(rgb_HW3)


def block_means(values_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Means over the known values of each block of pixels that becomes one; NaN where there are none.

    A map that is enlarged repeats its pixels.
    """
    known_HW = ~np.isnan(values_HW)
    sums = []
    for part_HW in (np.where(known_HW, values_HW, 0).astype(np.float64), known_HW.astype(np.float64)):
        for axis in (0, 1):
            starts = np.arange(size[axis]) * part_HW.shape[axis] // size[axis]
            part_HW = np.add.reduceat(part_HW, starts, axis=axis)
        sums.append(part_HW)
    out_HW = np.full(size, np.nan)
    return np.divide(sums[0], sums[1], out=out_HW, where=sums[1] > 0)


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
