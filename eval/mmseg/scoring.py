"""The trained model on the test pictures: mmsegmentation's inference and metric, beside our counts per picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmseg.registry import METRICS

from mtv.errors import NumericalError
from mtv.eval.mmseg.loading import Samples
from mtv.probes.precision import fp32_matmul
from mtv.probes.segmentation_metric import AreaCounts, score_areas, sum_areas

TOLERANCE = 0.01
"""How far both metrics may be apart, percent; mmsegmentation's is rounded to two decimals."""


def build_metric(classes: Sequence[str]) -> Any:
    """A `MtvIoUMetric`."""
    metric = METRICS.build({"type": "MtvIoUMetric", "iou_metrics": ["mIoU"]})
    metric.dataset_meta = {"classes": list(classes)}
    return metric


@torch.no_grad()
@fp32_matmul()
def predict(model: Any, data: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Predictions and labels of pictures of one size, at the size of their label maps, on the CPU; without logits."""
    samples = model.test_step(data)
    return [{k: {"data": s.get(k).data.cpu()} for k in ("pred_sem_seg", "gt_sem_seg")} for s in samples]


def score_pictures(
    model: Any, pictures: Any, progress: Callable[[int, int], None], *, workers: int = 0
) -> tuple[list[AreaCounts], dict[str, float]]:
    """Counts of every picture in order, and mmsegmentation's figures (`mIoU`, `mAcc`, `aAcc`; percent, rounded).

    Args:
        pictures: data set of the test pictures.

    Raises:
        DataError: a picture or label map that cannot be used.
        NumericalError: tokens that are not finite, or two metrics that disagree.
    """
    metric, total = build_metric(pictures.metainfo["classes"]), len(pictures)
    model.eval()
    with Samples(pictures, workers) as samples:
        for place, data in samples.batches(range(total), 1):
            metric.process(data, predict(model, data))
            progress(place + 1, total)
    # Not `evaluate`, which would wait for other processes of a group in which this one scores alone.
    figures = {name: float(value) for name, value in metric.compute_metrics(metric.results).items()}
    check_agreement(sum_areas(metric.areas, len(metric.dataset_meta["classes"])), figures)
    return metric.areas, figures


def check_agreement(areas: AreaCounts, figures: dict[str, float]) -> None:
    """Refuse a result on which mmsegmentation's metric and ours differ.

    Raises:
        NumericalError: names both.
    """
    score = score_areas(areas)
    for name, ours in (("mIoU", score.miou), ("mAcc", score.macc), ("aAcc", score.aacc)):
        if not np.abs(figures[name] - ours) <= TOLERANCE:
            raise NumericalError(
                f"{name} is {ours:.4f} by our counts, and {figures[name]:.2f} by mmsegmentation",
                "One of them is wrong, so nothing is stored; please report it with the versions of both.",
            )
