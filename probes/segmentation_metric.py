"""mIoU, mean and pixel accuracy of segmentation from int64 counts per class: exact, additive over images and shards.

Imports no torch, so that a folder of predicted PNGs can be scored without it; tensors are taken all the same. Notable:
pixels with the ignored label count nowhere, whatever is predicted there; a class that is predicted but never labelled
has IoU 0 and counts, one that is neither is left out; division in float64. What a result stores are the non-zero rows
(image, class, I, P, G): intervals resample images and add integers again. Protocol `segmentation`, section 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from mtv.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = 255
"""Label of pixels that are not scored and give no gradient."""

IntArray: TypeAlias = npt.NDArray[np.int64]
LabelMap: TypeAlias = "npt.NDArray[np.integer] | Tensor"


@dataclass(frozen=True, kw_only=True)
class AreaCounts:
    """Pixels per class of one picture, or of any number of them; scored pixels only."""

    intersection_C: IntArray
    """I: predicted and labelled as the class."""
    predicted_C: IntArray
    """P: predicted as the class."""
    labelled_C: IntArray
    """G: labelled as the class."""

    @property
    def union_C(self) -> IntArray:
        """U = P + G - I."""
        return self.predicted_C + self.labelled_C - self.intersection_C

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.labelled_C)

    def __add__(self, other: AreaCounts) -> AreaCounts:
        if other.n_classes != self.n_classes:
            raise UsageError(f"counts of {self.n_classes} and of {other.n_classes} classes cannot be added")
        return AreaCounts(
            intersection_C=self.intersection_C + other.intersection_C,
            predicted_C=self.predicted_C + other.predicted_C,
            labelled_C=self.labelled_C + other.labelled_C,
        )


@dataclass(frozen=True, kw_only=True)
class SegmentationScore:
    """The numbers of a split; percent where not said otherwise."""

    miou: float
    """Mean of IoU over the classes with U > 0."""
    macc: float
    """Mean of I / G over the classes with G > 0."""
    aacc: float
    """Sum of I / sum of G."""
    classes_present: int
    """Classes with U > 0: those that `miou` averages."""
    iou_C: npt.NDArray[np.float64]
    """IoU per class, NaN where U = 0."""


@dataclass(frozen=True, kw_only=True)
class AreaRows:
    """Counts per picture and class as columns of R rows, ordered by picture, then class."""

    image_R: IntArray
    """Position of the picture in the list that was passed."""
    class_R: IntArray
    """Class."""
    intersection_R: IntArray
    """I."""
    predicted_R: IntArray
    """P."""
    labelled_R: IntArray
    """G."""


def count_areas(
    predicted_HW: LabelMap, label_HW: LabelMap, n_classes: int, *, ignore_index: int = IGNORE_INDEX, name: str = "image"
) -> AreaCounts:
    """Counts of one picture at the size of its label.

    Args:
        predicted_HW: integers 0 .. C-1 wherever the label is not ignored; numpy or torch, any device.
        label_HW: integers 0 .. C-1 or `ignore_index`, never resized.
        name: what an error calls this picture.

    Raises:
        DataError: shapes that differ, a label or a scored prediction outside the classes; names the value.
        UsageError: no class, or values that are not integers.
    """
    predicted, label = _as_integers(predicted_HW, "prediction", name), _as_integers(label_HW, "label map", name)
    if n_classes < 1:
        raise UsageError(f"n_classes must be at least 1, got {n_classes}")
    if predicted.shape != label.shape:
        raise DataError(
            f"{name}: prediction {predicted.shape} and label map {label.shape} differ in size",
            "Predictions are scored at the size of the original label map.",
        )
    scored = label != ignore_index
    predicted_N, label_N = predicted[scored], label[scored]
    _check_range(label_N, n_classes, "label", name)
    _check_range(predicted_N, n_classes, "predicted class", name)
    return AreaCounts(
        intersection_C=_histogram(label_N[predicted_N == label_N], n_classes),
        predicted_C=_histogram(predicted_N, n_classes),
        labelled_C=_histogram(label_N, n_classes),
    )


def no_areas(n_classes: int) -> AreaCounts:
    """Zero counts: where adding starts."""
    return AreaCounts(
        **{f"{name}_C": np.zeros(n_classes, np.int64) for name in ("intersection", "predicted", "labelled")}
    )


def sum_areas(parts: Iterable[AreaCounts], n_classes: int) -> AreaCounts:
    """The counts of many pictures or shards; no part may be there twice."""
    return sum(parts, start=no_areas(n_classes))


def score_areas(areas: AreaCounts) -> SegmentationScore:
    """mIoU, mAcc and aAcc.

    Raises:
        DataError: not a single labelled pixel.
    """
    intersection_C, union_C, labelled_C = areas.intersection_C, areas.union_C, areas.labelled_C
    _need_labels(areas)
    iou_C = _ratio(intersection_C, union_C)
    return SegmentationScore(
        miou=100 * float(np.nanmean(iou_C)),
        macc=100 * float(np.nanmean(_ratio(intersection_C, labelled_C))),
        aacc=100 * (int(intersection_C.sum()) / int(labelled_C.sum())),
        classes_present=int((union_C > 0).sum()),
        iou_C=iou_C,
    )


def chance_miou(areas: AreaCounts) -> float:
    """mIoU, percent, of predicting the most frequent labelled class everywhere (ties: the lowest class).

    Raises:
        DataError: not a single labelled pixel.
    """
    _need_labels(areas)
    return score_areas(constant_areas(areas, int(areas.labelled_C.argmax()))).miou


def constant_areas(areas: AreaCounts, label: int) -> AreaCounts:
    """The counts that predicting class `label` everywhere gives on the pictures of `areas`."""
    everywhere = np.zeros_like(areas.labelled_C)
    everywhere[label] = areas.labelled_C.sum()
    return AreaCounts(
        intersection_C=np.minimum(everywhere, areas.labelled_C), predicted_C=everywhere, labelled_C=areas.labelled_C
    )


def area_rows(per_image: Sequence[AreaCounts], *, every_class: bool = False) -> AreaRows:
    """One row per picture and class that occurs in its label or prediction.

    Args:
        per_image: counts of each picture, with equal numbers of classes.
        every_class: also the rows of zeros. They make the rows of all models the same, which is what a paired
            comparison by sample id needs.
    """
    counts_3NC = np.zeros((3, 0, 0), dtype=np.int64)
    if per_image:
        parts = [(a.intersection_C, a.predicted_C, a.labelled_C) for a in per_image]
        counts_3NC = np.array(parts, dtype=np.int64).transpose(1, 0, 2)
    image_R, class_R = np.nonzero(np.ones_like(counts_3NC[0]) if every_class else counts_3NC.any(axis=0))
    intersection_R, predicted_R, labelled_R = counts_3NC[:, image_R, class_R]
    return AreaRows(
        image_R=image_R.astype(np.int64),
        class_R=class_R.astype(np.int64),
        intersection_R=intersection_R,
        predicted_R=predicted_R,
        labelled_R=labelled_R,
    )


def areas_of_rows(rows: AreaRows, n_classes: int) -> AreaCounts:
    """The rows added up: the counts of all their pictures."""
    sums = []
    for column_R in (rows.intersection_R, rows.predicted_R, rows.labelled_R):
        total_C = np.zeros(n_classes, dtype=np.int64)
        np.add.at(total_C, rows.class_R, column_R)
        sums.append(total_C)
    return AreaCounts(intersection_C=sums[0], predicted_C=sums[1], labelled_C=sums[2])


def _as_integers(values: LabelMap, what: str, name: str) -> npt.NDArray[np.integer]:
    array = np.asarray(values if isinstance(values, np.ndarray) else values.detach().cpu().numpy())
    if not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"{name}: the {what} must hold integers, got {array.dtype}")
    return array


def _check_range(values_N: npt.NDArray[np.integer], n_classes: int, what: str, name: str) -> None:
    bad_N = (values_N < 0) | (values_N >= n_classes)
    if bad_N.any():
        raise DataError(
            f"{name}: {what} {int(values_N[bad_N][0])} is no class 0 to {n_classes - 1} "
            f"({int(bad_N.sum())} pixels hold such values)",
            "Check the mapping from values on disk to classes.",
        )


def _histogram(values_N: npt.NDArray[np.integer], n_classes: int) -> IntArray:
    return np.bincount(values_N, minlength=n_classes).astype(np.int64)


def _need_labels(areas: AreaCounts) -> None:
    if not areas.labelled_C.any():
        raise DataError("segmentation: not a single labelled pixel in the pictures scored", "Check the label maps.")


def _ratio(part_C: IntArray, whole_C: IntArray) -> npt.NDArray[np.float64]:
    return np.divide(part_C, whole_C, out=np.full(len(part_C), np.nan), where=whole_C > 0)
