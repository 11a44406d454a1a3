"""Hand answers of the dense probes: rows of the tables in `protocols/depth.md` (section 7) and `segmentation.md` (8).

Heads are trained, so a whole task has no answer on paper; what turns predictions into numbers has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mtv.eval.selftest.checks import Check
from mtv.probes.depth_align import AlignConfig, score_relative
from mtv.probes.depth_expectation import expected_depth
from mtv.probes.depth_head import DepthHeadConfig
from mtv.probes.depth_loss import depth_loss
from mtv.probes.segmentation_metric import count_areas, score_areas


def dense_checks() -> list[Check]:
    """Depth head and loss, segmentation metric, alignment of relative depth."""
    return [
        _check("nyuv2: flat logits give the middle of the range (H1)", 5.0005, _flat_depth),
        _check("nyuv2: loss of twice the depth (L1)", 0.268261, _loss_of_double),
        _check("ade20k, camvid, nyu40: mIoU, aAcc, mAcc of fixture A", (44.4444, 62.5, 61.1111), _fixture_a),
        _check("rel_nyu, rel_kitti: both disparity keys (R2)", (0.166836, 0.152561), _aligned),
    ]


def _check(name: str, expected: Any, measure: Callable[[], Any]) -> Check:
    return Check(layer="hand", name=name, expected=expected, measure=measure)


def _flat_depth() -> float:
    config = DepthHeadConfig()
    flat_BhwK = torch.zeros(1, 2, 2, config.bins)
    centres_K = torch.as_tensor(config.centres(), dtype=torch.float32)
    depth = expected_depth(flat_BhwK, centres_K, floor=config.floor, upsample=config.upsample)
    return round(float(depth.mean()), 4)


def _loss_of_double() -> float:
    depth_B1HW = torch.ones(2, 1, 8, 8)
    return round(float(depth_loss(2 * depth_B1HW, depth_B1HW, step=200).value), 6)


def _fixture_a() -> tuple[float, ...]:
    labels = (np.array([[0, 0, 1, 255]]), np.array([[1, 1, 2, 2, 2]]))
    predicted = (np.array([[0, 1, 1, 2]]), np.array([[1, 2, 2, 0, 2]]))
    first, second = (count_areas(p, y, 4) for p, y in zip(predicted, labels, strict=True))
    score = score_areas(first + second)
    return tuple(round(v, 4) for v in (score.miou, score.aacc, score.macc))


def _aligned() -> tuple[float, ...]:
    depth_HW = torch.tensor([[1.0, 2.0, 4.0, 5.0]])
    pred_HW = torch.tensor([[1.0, 0.6, 0.2, 0.25]])
    score = score_relative(pred_HW, depth_HW, torch.ones_like(depth_HW, dtype=torch.bool), config=AlignConfig())
    return tuple(round(score.absrel[key], 6) for key in ("absrel_depth", "absrel_disp"))
