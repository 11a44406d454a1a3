"""What a few decoded label maps tell: values that are no labels, labels shifted twice, masks that were resized.

A map that was resized with interpolation has runs of one pixel whose value lies between its neighbours' along most
borders. The share of borders with such a run is at most 0.08 in real maps (ADE20k, CamVid, NYUv2, also reduced to 96
pixels by nearest neighbour), and at least 0.25 after bilinear enlarging or reducing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtv.errors import DataError
from mtv.eval.datasets.dense_decode import NOT_A_LABEL, decode_label_png, ranges, unexpected_values
from mtv.eval.datasets.dense_headers import MapPair, spread

INTERPOLATED = 0.2
"""Share of borders with a one-pixel run in between, from which on a set counts as interpolated."""
ENOUGH_BORDERS = 200
"""Fewer class borders in all decoded maps tell nothing."""


def label_problems(pairs: Sequence[MapPair], raw_to_train: np.ndarray) -> list[str]:
    """Decode a spread sample of label maps.

    Args:
        pairs: whose headers are known to agree.
        raw_to_train: as `SegmentationSet.raw_to_train`.

    Returns:
        One sentence per problem: broken files, values out of range, labels already shifted, interpolated maps.
    """
    problems = []
    counts_256 = np.zeros(256, np.int64)
    runs = borders = 0
    sample = spread(pairs)
    for pair in sample:
        try:
            raw_HW = decode_label_png(pair.target.read(), name=pair.target.name)
        except DataError as e:
            problems.append(e.message)
            continue
        own_256 = np.bincount(raw_HW.ravel(), minlength=256)
        bad = unexpected_values(own_256, raw_to_train)
        if bad:
            problems.append(f"{pair.target.name}: holds {ranges(bad)}, which no label of this set is")
        counts_256 += own_256
        between, changes = runs_in_between(raw_HW)
        runs, borders = runs + between, borders + changes
    problems += _shifted(counts_256, raw_to_train, len(sample))
    if borders >= ENOUGH_BORDERS and runs > INTERPOLATED * borders:
        problems.append(
            f"resized masks: at {runs / borders:.0%} of the class borders of {len(sample)} decoded maps lies a class "
            "between its neighbours in number, as interpolation leaves them"
        )
    return problems


def runs_in_between(raw_HW: np.ndarray) -> tuple[int, int]:
    """Along rows: pixels strictly between their left and right neighbour in value, and changes of value."""
    left, middle, right = (raw_HW[:, i : raw_HW.shape[1] - 2 + i].astype(np.int16) for i in range(3))
    between = ((left < middle) & (middle < right)) | ((left > middle) & (middle > right))
    return int(between.sum()), int((raw_HW[:, 1:] != raw_HW[:, :-1]).sum())


def _shifted(counts_256: np.ndarray, raw_to_train: np.ndarray, maps: int) -> list[str]:
    """Sets whose 0 is unlabelled hold no 255; where it occurs and the last class does not, 1 was subtracted already."""
    last = int(np.flatnonzero((raw_to_train != NOT_A_LABEL) & (raw_to_train != 255)).max())
    if raw_to_train[0] != 255 or raw_to_train[1] != 0 or counts_256[255] == 0 or counts_256[last] > 0:
        return []
    return [
        f"labels are already shifted by one: 255 occurs in {maps} decoded maps and {last} does not; the set has 0 for "
        f"unlabelled pixels and 1 to {last} for the classes"
    ]
