"""Depth metrics against closed forms and a naive version (rows E1 to E4)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import NumericalError, UsageError
from mtv.probes.depth_frames import KITTI_EIGEN, KITTI_GARG, NYU_EIGEN, FrameBox
from mtv.probes.depth_metrics import (
    METRICS,
    ImageScore,
    empty_score,
    flip_average,
    score_image,
    summarise,
    valid_mask,
)


def everywhere(depth: Tensor) -> Tensor:
    return torch.ones_like(depth, dtype=torch.bool)


def naive(pred: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """One pixel at a time."""
    rows = []
    for p, g in zip(pred.ravel().tolist(), depth.ravel().tolist(), strict=True):
        ratio, log = max(p / g, g / p), math.log(p) - math.log(g)
        shares = ratio < 1.25, ratio < 1.25**2, ratio < 1.25**3
        gaps = abs(p - g) / g, (p - g) ** 2 / g, (p - g) ** 2
        rows.append((*shares, *gaps, abs(math.log10(p) - math.log10(g)), log**2, log))
    a1, a2, a3, abs_rel, sq_rel, square, log10, log_square, log_mean = (
        math.fsum(c) / len(rows) for c in zip(*rows, strict=True)
    )
    silog = 100 * math.sqrt(max(log_square - log_mean**2, 0))
    values = (a1, a2, a3, abs_rel, sq_rel, math.sqrt(square), log10, math.sqrt(log_square), silog)
    return dict(zip(METRICS, values, strict=True))


def test_e1_mean_of_images_and_pooled() -> None:
    depth = torch.full((6, 8), 4.0)
    scores = [score_image(depth + error, depth, everywhere(depth)) for error in (1, 3)]
    found = summarise(scores)
    assert [s.values["rmse"] for s in scores] == [1, 3]
    assert found["rmse"] == 2
    assert found["rmse_pooled"] == pytest.approx(2.2361, abs=5e-5)
    assert found["n_empty"] == 0


def test_pooled_counts_pixels() -> None:
    depth = torch.full((4, 4), 4.0)
    few = everywhere(depth)
    few[1:] = False
    found = summarise([score_image(depth + 1, depth, few), score_image(depth + 3, depth, everywhere(depth))])
    assert found["rmse"] == 2
    assert found["rmse_pooled"] == pytest.approx(math.sqrt((4 * 1 + 16 * 9) / 20))


@pytest.mark.parametrize(
    ("size", "box", "bounds", "pixels"),
    [
        ((480, 640), NYU_EIGEN, (0.001, 10), 238_560),
        ((352, 1216), KITTI_EIGEN, (1e-5, 80), 230_316),
        ((352, 1216), KITTI_GARG, (1e-5, 80), 232_574),
        ((480, 640), None, (0.001, 10), 480 * 640),
    ],
)
def test_e2_full_map(size: tuple[int, int], box: FrameBox | None, bounds: tuple[float, float], pixels: int) -> None:
    mask = valid_mask(torch.full((2, *size), 2.0), min_depth=bounds[0], max_depth=bounds[1], box=box)
    assert mask.sum(dim=(1, 2)).tolist() == [pixels] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_e3_bounds_are_excluded(dtype: torch.dtype) -> None:
    """Depth as it is decoded: millimetres / 1000, in either precision."""
    depth = torch.tensor([[0, 1, 2, 9999, 10_000, 10_001]], dtype=dtype) / 1000
    mask = valid_mask(depth, min_depth=0.001, max_depth=10.0, box=None)
    assert mask.tolist() == [[False, False, True, True, False, False]]
    kitti = torch.tensor([[0, 1, 80 * 256 - 1, 80 * 256]], dtype=dtype) / 256
    assert valid_mask(kitti, min_depth=1e-5, max_depth=80.0, box=None).tolist() == [[False, True, True, False]]
    assert not valid_mask(torch.tensor([[math.nan]], dtype=dtype), min_depth=0.001, max_depth=10.0, box=None).any()


def test_e4_flip_averaging() -> None:
    """A predictor that looks to the left only."""

    def predict(image_B1HW: Tensor) -> Tensor:
        return 1 + image_B1HW.cumsum(dim=-1)

    image = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    found = flip_average(predict(image), predict(image.flip(-1)))
    from_right = 1 + torch.stack([image[..., j:].sum(-1) for j in range(7)], dim=-1)
    torch.testing.assert_close(found, (predict(image) + from_right) / 2)
    assert float((found - predict(image)).abs().max()) > 0.1
    mirrored = flip_average(predict(image.flip(-1)), predict(image))
    torch.testing.assert_close(mirrored, found.flip(-1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31), st.floats(0.01, 2))
def test_equals_a_loop(n: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.01, 10, n).astype(np.float32)
    pred = (depth * np.exp(spread * rng.normal(size=n))).astype(np.float32)
    found = score_image(torch.from_numpy(pred), torch.from_numpy(depth), torch.ones(n, dtype=torch.bool))
    assert found.n == n
    assert tuple(found.values) == METRICS
    assert found.values == pytest.approx(naive(pred, depth), rel=1e-9, abs=1e-7)


def test_only_valid_pixels_count() -> None:
    rng = np.random.default_rng(0)
    depth = torch.from_numpy(rng.uniform(0.5, 9, (20, 30)))
    pred = depth * torch.from_numpy(rng.uniform(0.7, 1.3, (20, 30)))
    mask = torch.from_numpy(rng.random((20, 30)) < 0.4)
    expected = naive(pred[mask].numpy(), depth[mask].numpy())
    spoiled = torch.where(mask, pred, math.nan)
    assert score_image(spoiled, depth, mask).values == pytest.approx(expected, rel=1e-9)


def test_thresholds_are_strict_and_symmetric() -> None:
    depth = torch.tensor([1.0, 1.25, 1.0, 1.5625], dtype=torch.float64)
    pred = torch.tensor([1.25, 1.0, 1.5625, 1.0], dtype=torch.float64)
    found = score_image(pred, depth, everywhere(depth)).values
    assert (found["a1"], found["a2"], found["a3"]) == (0, 0.5, 1)


def test_silog_of_a_constant_factor_is_zero_and_not_nan() -> None:
    rng = np.random.default_rng(1)
    for factor in (1.0, 1.1, 3.0):
        depth = torch.from_numpy(rng.uniform(0.1, 9, 5000))
        found = score_image(factor * depth, depth, everywhere(depth)).values
        assert found["silog"] == pytest.approx(0, abs=1e-5)
        assert found["rmse_log"] == pytest.approx(math.log(factor), abs=1e-9)


def test_sums_are_float64() -> None:
    """A float32 sum of a million equal squares is off in the fifth digit."""
    depth = torch.full((1000, 1000), 5.0)
    found = score_image(depth + 0.1, depth, everywhere(depth)).values
    assert found["rmse"] == pytest.approx(float(torch.tensor(5.1)) - 5, rel=1e-12)


def test_images_without_valid_pixels_are_left_out_and_counted() -> None:
    depth = torch.full((3, 3), 2.0)
    nothing = score_image(depth, depth, ~everywhere(depth))
    assert nothing.n == 0
    assert all(math.isnan(v) for v in nothing.values.values())
    assert tuple(empty_score().values) == METRICS
    found = summarise([nothing, score_image(depth + 1, depth, everywhere(depth)), nothing])
    assert (found["rmse"], found["rmse_pooled"], found["n_empty"]) == (1, 1, 2)
    assert not any(math.isnan(v) for v in found.values())
    for scores in ([], [nothing]):
        with pytest.raises(UsageError, match=f"no scored pixel in {len(scores)} images"):
            summarise(scores)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_predictions_are_named(bad: float) -> None:
    depth = torch.full((3, 3), 2.0)
    pred = depth.clone()
    pred[1, 1] = bad
    with pytest.raises(NumericalError, match="bedroom/00012: 1 of 9 scored pixels"):
        score_image(pred, depth, everywhere(depth), name="bedroom/00012")


def test_sizes_must_agree() -> None:
    depth = torch.full((3, 3), 2.0)
    with pytest.raises(UsageError, match=r"prediction \(3, 4\), depth \(3, 3\)"):
        score_image(torch.ones(3, 4), depth, everywhere(depth))
    with pytest.raises(UsageError, match=r"mask \(3, 2\)"):
        score_image(depth, depth, everywhere(depth)[:, :2])


def test_scores_are_plain_values() -> None:
    depth = torch.full((3, 3), 2.0)
    assert score_image(depth, depth, everywhere(depth)) == ImageScore(
        n=9, values={"a1": 1.0, "a2": 1.0, "a3": 1.0, **dict.fromkeys(METRICS[3:], 0.0)}
    )
