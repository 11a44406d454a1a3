"""A segmentation head on the test pictures: counts per picture and class, and the metrics as recipes over them.

Every picture has a row for every class, those of zeros too: the rows of all models are then the same, as a paired
comparison needs, and a resampled mIoU is a ratio of sums per class. Protocol page `segmentation.md`, sections 6 to 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.dense_decode import read_labels
from mtv.eval.heads.prefetch import prefetch
from mtv.eval.heads.segmentation_tap import WindowTokens
from mtv.eval.heads.segmentation_views import EvalGrid, eval_id
from mtv.probes.precision import fp32_matmul
from mtv.probes.segmentation_canvas import label_map
from mtv.probes.segmentation_head import LinearHead, fold_norm
from mtv.probes.segmentation_metric import (
    AreaCounts,
    SegmentationScore,
    area_rows,
    count_areas,
    score_areas,
    sum_areas,
)
from mtv.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class EvalPictures:
    """Test pictures with stored features of their windows."""

    data: SegmentationSet
    """Pictures and truth."""
    grids: Mapping[str, EvalGrid]
    """Picture id to its windows."""
    tokens: WindowTokens
    """Features of the windows."""

    def read(self, picture: str) -> Tensor:
        """Tokens of the windows of one picture, W,h,w,D on the CPU."""
        return self.tokens.get([eval_id(picture, k) for k in range(len(self.grids[picture].windows))])

    @torch.no_grad()
    @fp32_matmul()
    def predict(self, head: LinearHead, picture: str, tokens_WhwD: Tensor) -> Tensor:
        """Classes at the picture's own size, uint8 H,W on the device of the head.

        Args:
            head: without norm (`fold_norm`).
            tokens_WhwD: from `read`.

        Raises:
            NumericalError: logits that are not finite; names the window.
        """
        grid = self.grids[picture]
        maps_WDhw = tokens_WhwD.to(head.conv.weight.device).permute(0, 3, 1, 2)
        return label_map(grid.windows, list(head(maps_WDhw)), content=grid.resized, size=grid.size)

    def predictor(self, head: LinearHead) -> Callable[[str], np.ndarray]:
        """Picture id to its classes, H,W at its own size."""
        folded = fold_norm(head)
        return lambda picture: self.predict(folded, picture, self.read(picture)).cpu().numpy()


def score_pictures(head: LinearHead, test: EvalPictures, progress: Callable[[int, int], None]) -> list[AreaCounts]:
    """Counts of every picture at the size of its label map, in the order of `test.data.images`.

    Raises:
        DataError: a label map that cannot be used; names file and value.
        NumericalError: logits that are not finite.
    """
    pictures, folded = list(test.data.images), fold_norm(head)
    areas = []

    def read(place: int) -> tuple[Tensor, np.ndarray]:
        return test.read(pictures[place]), read_labels(test.data, pictures[place])

    for place, (tokens_WhwD, label_HW) in prefetch(range(len(pictures)), read, folded.conv.weight.device):
        predicted_HW = test.predict(folded, pictures[place], tokens_WhwD)
        areas.append(count_areas(predicted_HW, label_HW, len(test.data.classes), name=pictures[place]))
        progress(place + 1, len(pictures))
    return areas


def sample_table(pictures: Sequence[str], areas: Sequence[AreaCounts]) -> dict[str, np.ndarray]:
    """One row per picture and class: counts of pixels."""
    rows = area_rows(areas, every_class=True)
    ids = np.array(pictures, dtype=str)[rows.image_R]
    return {
        "sample_id": np.array(
            [f"{i}#{c}" for i, c in zip(ids.tolist(), rows.class_R.tolist(), strict=True)], dtype=str
        ),
        "cluster_id": ids,
        "class": rows.class_R,
        "intersection": rows.intersection_R,
        "predicted": rows.predicted_R,
        "labelled": rows.labelled_R,
        "union": rows.predicted_R + rows.labelled_R - rows.intersection_R,
    }


def recipes_of(constant: SegmentationScore) -> dict[str, Recipe]:
    """The metrics; `chance` is that of `constant`, the most frequent training class everywhere."""
    return {
        "miou": Recipe(
            kind="ratio", column="intersection", weight="union", group="class", chance=constant.miou, headline=True,
            describe="mean over classes of intersection over union of all pixels; classes neither labelled nor "
            "predicted are left out; chance is the most frequent training class everywhere",
        ),
        "macc": Recipe(
            kind="ratio", column="intersection", weight="labelled", group="class", chance=constant.macc,
            describe="mean over labelled classes of the share of their pixels that is found",
        ),
        "aacc": Recipe(
            kind="ratio", column="intersection", weight="labelled", chance=constant.aacc,
            describe="share of labelled pixels that get their class",
        ),
        "classes_present": Recipe(
            kind="present", column="union", group="class", scale=1.0, unit="classes",
            describe="classes labelled or predicted, which miou averages",
        ),
    }  # fmt: skip


def class_table(areas: AreaCounts, classes: Sequence[str]) -> dict[str, float | None]:
    """IoU in percent by class name; None where the class is neither labelled nor predicted."""
    iou_C = score_areas(areas).iou_C
    return {name: None if np.isnan(v) else round(100 * float(v), 4) for name, v in zip(classes, iou_C, strict=True)}


def total_of(areas: Sequence[AreaCounts]) -> AreaCounts:
    """The counts of all pictures."""
    return sum_areas(areas, areas[0].n_classes)
