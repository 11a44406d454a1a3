"""The two splits of a segmentation probe as one data set: what is scored, and what heads are trained on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtv.draws import Draws
from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.eval.task import stable_subset
from mtv.hashing import sha256_json


@dataclass(frozen=True, kw_only=True)
class SegmentationPair(SegmentationSet):
    """The split that is scored, and the one that heads are trained on."""

    train: SegmentationSet
    """Training split."""


def open_pair(protocol: SegmentationProtocol, data: Path) -> SegmentationPair:
    """Both splits, each cut to its limit.

    Raises:
        DataError: missing or wrong, or splits with different classes.
    """
    p: Any = protocol  # the field `split` belongs to the tasks' own classes
    test, train = (_open(p.task, data, split) for split in (p.split, p.train_split))
    if test.classes != train.classes or not np.array_equal(test.raw_to_train, train.raw_to_train):
        raise DataError(f"{p.task}: {p.split} and {p.train_split} have different classes", "Use one copy of the set.")
    fingerprint = sha256_json({"test": test.fingerprint, "train": train.fingerprint})
    labels = [test.report.label, f"trained on {train.report.label}" if train.report.label else ""]
    report = replace(test.report, fingerprint=fingerprint, label=", ".join(part for part in labels if part))
    ids = list(test.images)
    if p.limit is not None and p.limit < len(ids):
        folders = [i.rpartition("/")[0] for i in ids]
        test = _restricted(test, {ids[k] for k in stable_subset(ids, folders, p.limit)})
    if p.train_images is not None:
        drawn = Draws("segmentation_train", p.seed).sample(sorted(train.images), p.train_images)
        train = _restricted(train, set(drawn))
    values = {f.name: getattr(test, f.name) for f in fields(SegmentationSet)}
    return SegmentationPair(**{**values, "report": report}, train=train)


def _open(name: str, data: Path, split: str) -> SegmentationSet:
    found = open_dataset(name, data, split=split)
    if not isinstance(found, SegmentationSet):
        raise UsageError(f"{name} {split}: the reader returned {type(found).__name__}")
    return found


def _restricted(data: SegmentationSet, keep: set[str]) -> SegmentationSet:
    """The pictures of `keep` alone."""
    images = {k: v for k, v in data.images.items() if k in keep}
    return replace(
        data,
        images=images,
        labels={k: data.labels[k] for k in images},
        sizes={k: data.sizes[k] for k in images},
        extra_files={f"{k}.label": data.labels[k] for k in images},
    )
