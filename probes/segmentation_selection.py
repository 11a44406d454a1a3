"""Choosing among trained heads on held-out windows, by the metric of the test.

The windows of the training scale stand for pictures: logits go bilinearly to the label's size, and counts are added
over all of them. The test set never takes part. Protocol `segmentation`, section 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from mtv.errors import UsageError
from mtv.probes.precision import fp32_matmul
from mtv.probes.segmentation_canvas import label_map
from mtv.probes.segmentation_head import LinearHead, fold_norm
from mtv.probes.segmentation_metric import AreaCounts, count_areas, no_areas, score_areas
from mtv.probes.segmentation_stream import TokenBatch
from mtv.probes.segmentation_windows import Window


@torch.no_grad()
@fp32_matmul()
def held_out_areas(heads: Sequence[LinearHead], batches: Iterable[TokenBatch]) -> list[AreaCounts]:
    """Counts of every head over all windows of `batches`, each window scored whole at its label's size.

    The heads are used with their running statistics and are left as they are.

    Raises:
        DataError: a label outside the classes.
        NumericalError: NaN or infinite logits.
    """
    folded = [fold_norm(head) for head in heads]
    areas = [no_areas(head.config.n_classes) for head in heads]
    for batch in batches:
        height, width = batch.labels_BHW.shape[1:]
        whole = [Window(top=0, left=0, height=height, width=width)]
        map_BDhw = batch.tokens_BhwD.float().permute(0, 3, 1, 2)
        for k, head in enumerate(folded):
            for logits_Chw, label_HW in zip(head(map_BDhw), batch.labels_BHW, strict=True):
                predicted_HW = label_map(whole, [logits_Chw], content=(height, width), size=(height, width))
                areas[k] += count_areas(predicted_HW, label_HW, head.config.n_classes, name="held-out window")
    return areas


def best_head(areas: Sequence[AreaCounts]) -> int:
    """Position of the highest mIoU; the first one of a tie.

    Raises:
        UsageError: no heads.
        DataError: not a single labelled pixel.
    """
    if not areas:
        raise UsageError("there is no head to choose")
    scores = [score_areas(a).miou for a in areas]
    return scores.index(max(scores))
