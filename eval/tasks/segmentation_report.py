"""What a result of the segmentation probe records besides its numbers: sizes, heads, findings, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mtv.encoders.preprocess import decode_rgb
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.dense_decode import read_labels
from mtv.eval.feature_pictures import as_picture, principal_colours
from mtv.eval.heads.segmentation_scoring import EvalPictures
from mtv.eval.heads.segmentation_training import Outcome, TrainingWindows
from mtv.eval.heads.segmentation_views import EvalGrid
from mtv.eval.segmentation_pictures import segmentation_row
from mtv.eval.tasks.common import extremes
from mtv.probes.segmentation_canvas import mean_logits
from mtv.probes.segmentation_metric import AreaCounts, score_areas
from mtv.probes.segmentation_windows import WindowGeometry

if TYPE_CHECKING:
    from PIL import Image

_SHOWN = 8
"""Pictures at each end of the ranking that are drawn."""


def describe_windows(
    geometry: WindowGeometry, grids: Mapping[str, EvalGrid], windows: TrainingWindows
) -> dict[str, Any]:
    """Effective sizes, which depend on the encoder's patch."""
    return {
        "crop": geometry.crop,
        "stride": geometry.stride,
        "fit_into": [geometry.long_side, geometry.crop],
        "tokens": [geometry.crop // geometry.patch] * 2,
        "resize": f"cv2 {cv2.__version__}, bilinear without antialiasing",
        "padding": "mean colour in 8 bits",
        "test_windows": sum(len(g.windows) for g in grids.values()),
        "train_windows": len(windows.train),
        "held_out_images": len(windows.held_out),
    }


def describe_training(outcome: Outcome, classes: Sequence[str]) -> dict[str, Any]:
    """Heads and how they were trained."""
    config, losses = outcome.trainer.config, outcome.training.notes["losses"]
    held_out: list[float | None] = [round(score_areas(a).miou, 4) for a in outcome.held_out]
    heads = [
        {"lr": lr, "final_loss": loss, "held_out_miou": miou}
        for lr, loss, miou in zip(config.lrs, losses, held_out or [None] * len(config.lrs), strict=True)
    ]
    lr = config.lrs[outcome.chosen]
    return {
        "heads": heads,
        "lr": lr,
        "final_lr": lr * config.schedule().factor(config.iters - 1),
        "iters": config.iters,
        "head_parameters": sum(x.numel() for x in outcome.head.parameters()),
        "constant_class": classes[outcome.frequent],
        "seed": config.seed,
    }


def diagnosis(miou: float, constant: float, name: str) -> list[str]:
    """A finding where a head is no better than its most frequent class `name`."""
    if miou > constant:
        return []
    return [
        f"mIoU {miou:.2f} is not above the {constant:.2f} of predicting {name} everywhere. Check the encoder's weights "
        "and its input, and whether the head was trained long enough (iters, lr)."
    ]


def pictures(
    data: SegmentationSet,
    predict: Callable[[str], np.ndarray],
    areas: Sequence[AreaCounts],
    features: Callable[[str], Image.Image | None] = lambda picture: None,
) -> Iterator[tuple[str, Image.Image]]:
    """Best and worst test pictures by their own mIoU; those without labels are left out.

    Args:
        predict: picture id to its classes, H,W at its own size.
        areas: counts of every picture, in the order of `data.images`.
        features: picture id to its features as colours, where they are at hand.
    """
    scores = np.array([score_areas(a).miou if a.labelled_C.any() else np.nan for a in areas])
    ids, labelled = list(data.images), np.flatnonzero(~np.isnan(scores))
    for kind, places in zip(("best", "worst"), extremes(scores[labelled], _SHOWN), strict=True):
        for turn, place in enumerate(labelled[places]):
            key, score = ids[place], score_areas(areas[place])
            lines = [f"{key}: mIoU {score.miou:.1f} %, pixels {score.aacc:.1f} %"]
            picture = decode_rgb(data.images[key].read())
            labels, colours = read_labels(data, key), features(key)
            row = segmentation_row(picture, predict(key), labels, data.classes, lines, features=colours)
            yield f"{kind}-{turn:02d}", row


def feature_picture(test: EvalPictures, picture: str) -> Image.Image:
    """Stored features of a picture's windows as colours, at the picture's size; the mean where windows overlap."""
    grid = test.grids[picture]
    colours = [c.permute(2, 0, 1) for c in principal_colours(list(test.read(picture)))]
    whole_3HW = mean_logits(grid.windows, colours)[:, : grid.resized[0], : grid.resized[1]]
    return as_picture(whole_3HW.permute(1, 2, 0), (grid.size[1], grid.size[0]))
