"""Relative depth: affine alignment and AbsRel in three spaces (rows R1 to R8)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mtv.errors import DataError, NumericalError, UsageError
from mtv.probes.depth_align import (
    AlignConfig,
    Fit,
    RelativeScore,
    check_alignment,
    check_inverted,
    fit_scale_shift,
    score_relative,
    summarise_relative,
)
from mtv.probes.depth_frames import KITTI_EIGEN, NYU_EIGEN, bottom_crop
from mtv.probes.depth_metrics import METRICS, valid_mask


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def score(pred: Tensor, depth: Tensor, **fields: Any) -> RelativeScore:
    return score_relative(pred, depth, depth > 0, config=AlignConfig(**fields))


def room(seed: int = 0, noise: float = 0.1, size: tuple[int, int] = (60, 80)) -> tuple[Tensor, Tensor]:
    """Noisy disparity of arbitrary scale and shift, all positive, and depth with holes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / size[0]
    depth = 1.5 + 3 * (1 - y) + np.sin(4 * x + seed)
    disparity = 40 / depth * np.exp(noise * rng.normal(size=size)) + 5
    return torch.from_numpy(disparity).float(), torch.from_numpy(depth * (rng.random(size) > 0.2)).float()


def naive(pred: np.ndarray, depth: np.ndarray, fitted: np.ndarray, low: float, high: float) -> dict[str, float]:
    """The definitions with numpy's least squares."""

    def lstsq(mask: np.ndarray, target: np.ndarray) -> np.ndarray:
        design = np.stack([pred, np.ones_like(pred)], axis=1)
        s, t = np.linalg.lstsq(design[mask], target[mask], rcond=None)[0]
        return s * pred + t

    aligned = np.clip(1 / np.maximum(lstsq(fitted, 1 / depth), 1e-3), low, high)
    capped = np.clip(1 / np.maximum(lstsq(fitted, 1 / depth), 1 / depth.max()), low, high)
    return {
        "absrel_depth": float(np.mean(np.abs(aligned - depth) / depth)),
        "absrel_depth_cap": float(np.mean(np.abs(capped - depth) / depth)),
        "absrel_disp": float(np.mean(np.abs(lstsq(np.full(len(depth), True), 1 / depth) - 1 / depth) * depth)),
        "absrel_depth_ls": float(np.mean(np.abs(np.clip(lstsq(fitted, depth), low, high) - depth) / depth)),
    }


def test_r1_exact_disparity() -> None:
    depth = row(1, 2, 4, 5)
    pred = 3 / depth + 0.5
    found = score(pred, depth)
    assert found.fit is not None
    assert (found.fit.scale, found.fit.shift) == pytest.approx((1 / 3, -1 / 6))
    assert found.absrel["absrel_depth"] == pytest.approx(0, abs=1e-9)
    assert found.absrel["absrel_disp"] == pytest.approx(0, abs=1e-9)
    assert found.image.values["a1"] == 1
    assert score(pred, depth, align="depth").absrel == {"absrel_depth_ls": pytest.approx(0.247278, abs=1e-6)}


def test_r2_noisy_disparity() -> None:
    depth, pred = row(1, 2, 4, 5), row(1, 0.6, 0.2, 0.25)
    found = score(pred, depth)
    assert found.fit is not None
    assert (found.fit.scale, found.fit.shift) == pytest.approx((0.972686, -0.011002), abs=1e-6)
    assert found.absrel["absrel_depth"] == pytest.approx(0.166836, abs=1e-6)
    assert found.absrel["absrel_disp"] == pytest.approx(0.152561, abs=1e-6)
    assert score(pred, depth, align="depth").absrel["absrel_depth_ls"] == pytest.approx(0.203813, abs=1e-6)


def test_r3_fit_mask_and_clipping() -> None:
    depth, pred = row(1, 2, 4, 8), row(1, 0.4, 0.1, -0.1)
    positive = score(pred, depth, fit_mask="positive")
    assert positive.fit is not None
    assert (positive.fit.scale, positive.fit.shift) == pytest.approx((5 / 6, 1 / 6))
    assert 1 / float(positive.fit(pred)[0, 3]) == pytest.approx(12), "the dropped pixel is scored, clipped to 10 m"
    assert positive.absrel["absrel_depth"] == pytest.approx(0.0625)
    assert positive.absrel["absrel_depth_cap"] == pytest.approx(0, abs=1e-9)
    assert positive.absrel["absrel_disp"] == pytest.approx(0.061595, abs=1e-6)
    assert positive.dropped == pytest.approx(0.25)
    assert positive.image.n == 4
    everything = score(pred, depth)
    assert everything.absrel["absrel_disp"] == pytest.approx(0.061595, abs=1e-6)
    assert everything.dropped == 0
    assert everything.absrel["absrel_depth"] != pytest.approx(positive.absrel["absrel_depth"], abs=1e-3)


@pytest.mark.parametrize("fields", [{}, {"fit_mask": "positive"}, {"align": "depth"}])
def test_r4_scale_and_shift_of_the_prediction_do_not_matter(fields: dict[str, Any]) -> None:
    disparity, depth = room()
    pred = disparity.double()
    assert float((7 * pred - 3).min()) > 0
    before, after = score(pred, depth, **fields), score(7 * pred - 3, depth, **fields)
    assert after.absrel == pytest.approx(before.absrel, abs=1e-9)
    assert after.image.values == pytest.approx(before.image.values, abs=1e-7)


def test_r5_inverted_and_constant_predictions() -> None:
    disparity, depth = room()
    good, negated, flat = (score(p, depth) for p in (disparity, -disparity + 100, torch.full_like(disparity, 0.1)))
    assert good.fit is not None
    assert negated.fit is not None
    assert flat.fit is not None
    assert good.fit.scale > 0 > negated.fit.scale
    assert (good.fit.inverted, negated.fit.inverted, flat.fit.inverted) == (False, True, False)
    assert (good.fit.constant, negated.fit.constant, flat.fit.constant) == (False, False, True)
    assert flat.fit.scale == 0
    valid = depth > 0
    assert flat.fit.shift == pytest.approx(float((1 / depth[valid].double()).mean()), rel=1e-12)
    assert all(math.isfinite(v) for v in flat.absrel.values())
    found = summarise_relative([good, negated, flat, good])
    assert (found["n_inverted"], found["n_constant"], found["share_positive_scale"]) == (1, 1, 0.5)


def test_r5_a_constant_that_rounding_moves_is_still_constant() -> None:
    """The float64 mean of many 0.1 is not 0.1, so the variance alone would not tell."""
    pred = torch.full((238_560,), 0.1, dtype=torch.float64)  # imported predictions may be float64
    centred = pred - pred.mean()
    assert float(centred @ centred) != 0
    target = torch.rand(238_560, generator=torch.Generator().manual_seed(0))
    assert fit_scale_shift(pred, target) == Fit(scale=0.0, shift=float(target.double().mean()), constant=True)


def test_a_fit_mask_without_pixels_gives_a_constant() -> None:
    _, depth = room()
    pred = torch.zeros_like(depth)
    found = score(pred, depth, fit_mask="positive")
    assert found.fit is not None
    assert found.fit.constant
    assert found.dropped == 1
    assert found.absrel == pytest.approx(score(pred, depth).absrel)


def test_r5_more_than_a_twentieth_inverted_is_an_error() -> None:
    disparity, depth = room()
    good, bad = score(disparity, depth), score(-disparity, depth)
    empty = score_relative(disparity, depth, depth > 100, config=AlignConfig())
    check_inverted([*[good] * 19, bad, *[empty] * 40])
    with pytest.raises(UsageError, match="not positive in 2 of 39 images"):
        check_inverted([*[good] * 37, bad, bad])
    with pytest.raises(UsageError, match="1 of 19"):
        check_inverted([*[good] * 18, bad, *[empty] * 40])
    flat = score(torch.ones_like(disparity), depth)
    check_inverted([flat] * 5)


def test_r6_closed_form_equals_library_least_squares() -> None:
    rng = np.random.default_rng(0)
    pred = (1e4 + rng.normal(size=250_000)).astype(np.float32)
    target = (0.3 * (pred.astype(np.float64) - 1e4) + 2 + 0.1 * rng.normal(size=250_000)).astype(np.float32)
    design = np.stack([pred.astype(np.float64), np.ones(250_000)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, target.astype(np.float64), rcond=None)
    found = fit_scale_shift(torch.from_numpy(pred), torch.from_numpy(target))
    assert (found.scale, found.shift) == pytest.approx((scale, shift), rel=1e-6)
    x, y = torch.from_numpy(pred), torch.from_numpy(target)
    normal = torch.stack([torch.stack([x @ x, x.sum()]), torch.stack([x.sum(), torch.tensor(250_000.0)])])
    careless = torch.linalg.solve(normal, torch.stack([x @ y, y.sum()]))
    assert abs(float(careless[0]) / scale - 1) > 1e-3, "fp32 normal equations lose the digits"


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(0, 2**31), st.booleans(), st.floats(-1, 0.4))
def test_equals_numpy(n: int, seed: int, positive: bool, shift: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 9.5, n)
    pred = 1 / depth + 0.1 * rng.normal(size=n) + shift
    pred[:2] = 0.5, 1.0  # two positive ones at least
    mask = pred > 0 if positive else np.full(n, True)
    expected = naive(pred, depth, mask, 0.3, 9.8)
    fields: dict[str, Any] = {"fit_mask": "positive" if positive else "all", "min_depth": 0.3, "max_depth": 9.8}
    pair = torch.from_numpy(pred), torch.from_numpy(depth)
    found = score(*pair, **fields).absrel | score(*pair, align="depth", **fields).absrel
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_clipping_to_the_range_of_the_data_set() -> None:
    depth = row(1, 2, 40, 70)
    pred = row(1, 0.5, 0.3, -0.2)  # aligned disparity below 0 for the last
    nyu, kitti = score(pred, depth), score(pred, depth, min_depth=1e-5, max_depth=80)
    assert nyu.fit == kitti.fit
    assert nyu.fit is not None
    assert float(nyu.fit(pred)[0, 3]) < 0
    # The floor of 1e-3 is 1000 m, clipped to 10 or 80 m.
    disparity = np.maximum(nyu.fit(pred).numpy(), 1e-3)
    for found, far in ((nyu, 10), (kitti, 80)):
        expected = np.abs(np.minimum(1 / disparity, far) - depth.numpy()) / depth.numpy()
        assert found.absrel["absrel_depth"] == pytest.approx(float(expected.mean()))
        assert found.image.values["abs_rel"] == pytest.approx(found.absrel["absrel_depth"])
    zero = score(row(0, 1, 2), row(1e-9, 1e-9, 5), align="depth", min_depth=0.0)
    assert all(math.isfinite(v) for v in zero.image.values.values()), "depth has a last floor of 1e-6 m"


def test_depth_space_fit_is_wrong_for_disparity() -> None:
    """What the refusal of R8 is for, on indoor-like data."""
    disparity, depth = room(noise=0.01)
    good = score(disparity, depth).absrel["absrel_depth"]
    assert score(disparity, depth, align="depth").absrel["absrel_depth_ls"] > 3 * good


def test_r7_prediction_at_another_size() -> None:
    depth = torch.full((352, 1216), 5.0)
    with pytest.raises(DataError, match=r"0000000069: prediction \(375, 1242\) and true depth \(352, 1216\)"):
        score_relative(torch.ones(375, 1242), depth, depth > 0, config=AlignConfig(), name="0000000069")
    with pytest.raises(UsageError, match=r"mask \(352, 1215\)"):
        score_relative(depth, depth, depth[:, 1:] > 0, config=AlignConfig())


def test_r8_depth_space_is_refused_for_disparity_heads() -> None:
    with pytest.raises(UsageError, match="align=depth is wrong for a head that predicts disparity"):
        check_alignment("disparity", "depth")
    assert check_alignment("disparity", "depth", force=True) == "depth-space fit of a disparity head (forced)"
    assert (
        check_alignment("disparity", "disp")
        == check_alignment("depth", "depth")
        == check_alignment("depth", "disp")
        == ""
    )
    with pytest.raises(UsageError, match="kind"):
        check_alignment("normals", "disp")  # type: ignore[arg-type]


def test_means_over_images() -> None:
    pairs = [room(seed, noise=0.05 * seed + 0.02) for seed in range(4)]
    scores = [score(*pair) for pair in pairs]
    empty = score_relative(*pairs[0], pairs[0][1] > 100, config=AlignConfig())
    assert empty.fit is None
    found = summarise_relative([*scores, empty])
    for key in ("absrel_depth", "absrel_disp", "absrel_depth_cap"):
        assert found[key] == pytest.approx(np.mean([s.absrel[key] for s in scores]))
    for key in METRICS:
        assert found[key] == pytest.approx(np.mean([s.image.values[key] for s in scores]))
    assert (found["n_empty"], found["fit_dropped"], found["share_positive_scale"]) == (1, 0, 1)
    with pytest.raises(UsageError, match="different spaces"):
        summarise_relative([scores[0], score(*pairs[1], align="depth")])
    with pytest.raises(UsageError, match="no scored pixel in 1 images"):
        summarise_relative([empty])


def test_bad_predictions_and_fields_are_named() -> None:
    disparity, depth = room()
    holes = torch.where(depth > 0, disparity, math.nan)
    assert score(holes, depth).image.n == int((depth > 0).sum()), "where nothing is scored, nothing is read"
    disparity[depth > 0] = math.inf
    with pytest.raises(NumericalError, match="image: the predicted depth has NaN or infinity"):
        score(disparity, depth)
    for field, value in (("align", "log"), ("fit_mask", "none"), ("max_depth", 0.0), ("min_depth", -1.0)):
        with pytest.raises(UsageError, match=field):
            AlignConfig(**{field: value})  # type: ignore[arg-type]


def test_real_depth_maps_as_their_own_prediction(real_data: Path) -> None:
    """Metric ground truth as disparity of unknown scale aligns to itself; inverted it does not."""
    maps: list[tuple[Tensor, Tensor, AlignConfig]] = []
    for path in sorted((real_data / "nyuv2/raw16bit").glob("*depth*.png")):
        depth = torch.from_numpy(np.array(Image.open(path)).astype(np.float32) / 1000)
        maps.append((depth, valid_mask(depth, min_depth=0.001, max_depth=10.0, box=NYU_EIGEN), AlignConfig()))
    for path in sorted((real_data / "kitti/depth_selection/val_selection_cropped/groundtruth_depth").glob("*.png")):
        depth = torch.from_numpy(np.array(Image.open(path)).astype(np.float32) / 256)
        depth = depth[bottom_crop((depth.shape[0], depth.shape[1]))]
        config = AlignConfig(min_depth=1e-5, max_depth=80.0)
        maps.append((depth, valid_mask(depth, min_depth=1e-5, max_depth=80.0, box=KITTI_EIGEN), config))
    assert len(maps) >= 6
    for depth, valid, config in maps:
        assert int(valid.sum()) > 10_000
        found = score_relative(7 / depth.clamp(min=1e-3) + 2, depth, valid, config=config)
        assert found.absrel["absrel_depth"] < 1e-4
        assert found.absrel["absrel_disp"] < 1e-5
        assert found.fit is not None
        assert found.fit.scale == pytest.approx(1 / 7, rel=1e-4)
        wrong = score_relative(depth, depth, valid, config=config)
        assert wrong.fit is not None
        assert wrong.fit.inverted
        assert wrong.absrel["absrel_depth"] > 0.05
