"""Augmentation against OpenCV, closed forms and array slices (rows A1 to A3)."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes.depth_augment import Augmentation, AugmentConfig, Colour, augment, draw_augmentation, recolour
from mtv.probes.depth_frames import TrainFrame, train_frame
from mtv.probes.depth_loss import depth_loss

NYU = train_frame((480, 640))
SMALL = train_frame((96, 128))


def plan(**changes: Any) -> Augmentation:
    return Augmentation(**{"degrees": 0.0, "flip": False, "top": 0, "left": 0, "colour": None, **changes})


def scene(frame: TrainFrame, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture HW3 and a depth map with a step and holes, of the cropped size."""
    height, width = frame.cropped
    y, x = np.mgrid[0:height, 0:width] / height
    waves = [np.sin(7 * x + 2 * c) * np.cos(5 * y + c + seed) for c in range(3)]
    rgb = (127.5 + 120 * np.stack(waves, axis=-1)).round().astype(np.uint8)
    depth = (1 + 2 * x + y + 3 * (x > 0.6)).astype(np.float32)
    depth[int(0.3 * height) : int(0.4 * height), int(0.2 * width) : int(0.3 * width)] = 0
    return rgb, depth


def batch(frame: TrainFrame, n: int) -> tuple[Tensor, Tensor]:
    pairs = [scene(frame, seed) for seed in range(n)]
    rgb = torch.stack([torch.from_numpy(rgb).permute(2, 0, 1) for rgb, _ in pairs])
    return rgb.contiguous(), torch.stack([torch.from_numpy(depth)[None] for _, depth in pairs])


def one(frame: TrainFrame, how: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Augmented picture HW3 and depth HW of the scene."""
    rgb, depth = augment(*batch(frame, 1), [how], frame)
    return rgb[0].permute(1, 2, 0).numpy(), depth[0, 0].numpy()


def opencv(frame: TrainFrame, how: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, mirror, crop: one pass each."""
    rgb, depth = scene(frame)
    height, width = frame.cropped
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), how.degrees, 1.0)
    rgb = cv2.warpAffine(rgb, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)
    depth = cv2.warpAffine(depth, turn, (width, height), flags=cv2.INTER_NEAREST, borderValue=0)
    if how.flip:
        rgb, depth = rgb[:, ::-1], depth[:, ::-1]
    window = slice(how.top, how.top + frame.output[0]), slice(how.left, how.left + frame.output[1])
    return rgb[window].astype(np.float32), depth[window]


def test_a1_offsets_cover_their_range_evenly() -> None:
    drawn = [draw_augmentation(NYU, seed=0, epoch=e, sample=i) for e in range(4) for i in range(1000)]
    tops, lefts = np.bincount([d.top for d in drawn]), np.bincount([d.left for d in drawn])
    assert (len(tops), len(lefts)) == (12, 22)
    assert tops.min() > 0.75 * 4000 / 12
    assert lefts.min() > 0.65 * 4000 / 22
    turned = [d.degrees for d in drawn if d.degrees]
    colours = [d.colour for d in drawn if d.colour]
    for share in (len(turned), sum(d.flip for d in drawn), len(colours)):
        assert share / 4000 == pytest.approx(0.5, abs=0.03)
    assert -2.5 <= min(turned) < -2.49
    assert 2.49 < max(turned) <= 2.5
    assert np.mean(turned) == pytest.approx(0, abs=0.1)
    gammas = [c.gamma for c in colours]
    assert 0.9 <= min(gammas) < 0.901 < 1.099 < max(gammas) <= 1.1
    factors = np.array([c.factors for c in colours])
    assert 0.75 * 0.9 <= factors.min() < factors.max() <= 1.25 * 1.1
    ratios = factors[:, 0] / factors[:, 1]
    assert 0.9 / 1.1 <= ratios.min() < 0.86
    assert np.std(ratios) > 0.05, "channels have factors of their own"
    # The coins are independent of each other.
    both = [(bool(d.degrees), d.flip, bool(d.colour)) for d in drawn]
    assert np.abs(np.corrcoef(np.array(both, dtype=float).T) - np.eye(3)).max() < 0.06


def test_draws_are_a_function_of_seed_epoch_and_sample() -> None:
    keys = [(seed, epoch, sample) for seed in (0, 1) for epoch in (0, 1) for sample in range(20)]
    once = [draw_augmentation(NYU, seed=s, epoch=e, sample=i) for s, e, i in keys]
    again = [draw_augmentation(NYU, seed=s, epoch=e, sample=i) for s, e, i in reversed(keys)][::-1]
    assert once == again
    always = AugmentConfig(rotate=1)
    assert len({draw_augmentation(NYU, seed=s, epoch=e, sample=i, config=always).degrees for s, e, i in keys}) == 80


def test_draws_are_pinned() -> None:
    """A change of the stream would change every trained head without a change of its protocol."""
    first = draw_augmentation(NYU, seed=0, epoch=0, sample=0)
    named = draw_augmentation(NYU, seed=3, epoch=7, sample="kitchen_0028b/rgb_00045")
    assert (first.flip, first.top, first.left) == (False, 8, 21)
    assert first.degrees == pytest.approx(-2.47445427803924, rel=1e-12)
    assert first.colour is not None
    assert first.colour.gamma == pytest.approx(1.0999504919962209, rel=1e-12)
    assert first.colour.factors == pytest.approx(
        (0.9687783238204786, 0.9440759146664671, 0.9205074970162902), rel=1e-12
    )
    assert (named.flip, named.top, named.left) == (True, 9, 19)
    assert named.degrees == pytest.approx(1.6308817884047215, rel=1e-12)
    assert named.colour is not None
    assert named.colour.gamma == pytest.approx(0.9776649922267868, rel=1e-12)


def test_a_probability_moves_no_other_draw() -> None:
    for i in range(30):
        usual = draw_augmentation(NYU, seed=0, epoch=0, sample=i)
        without = draw_augmentation(NYU, seed=0, epoch=0, sample=i, config=AugmentConfig(rotate=0, colour=0))
        always = draw_augmentation(NYU, seed=0, epoch=0, sample=i, config=AugmentConfig(rotate=1, colour=1))
        assert (without.degrees, without.colour) == (0, None)
        assert always.degrees != 0
        assert always.colour is not None
        assert {(d.flip, d.top, d.left) for d in (usual, without, always)} == {(usual.flip, usual.top, usual.left)}
        assert usual.colour in (None, always.colour)


def test_a2_colour() -> None:
    levels = torch.tensor([128.0, 40.0, 255.0, 0.0]).view(1, 1, 1, 4).expand(3, 3, 1, 4)
    plain = (1.0, 1.0, 1.0)
    found = recolour(levels, [Colour(gamma=g, factors=plain) for g in (1.1, 0.9, 1.0)])
    assert found[0, 0, 0].tolist() == pytest.approx([207.937, 57.845, 255, 0], abs=1e-3)
    assert found[1, 0, 0, 0].item() == pytest.approx(78.793, abs=1e-3)
    assert torch.equal(found[2], levels[2])
    tinted = recolour(levels[:1], [Colour(gamma=0.9, factors=(0.5, 1.0, 1.5))])
    expected = [[min(v**0.9 * f, 255) for v in (128, 40, 255, 0)] for f in (0.5, 1.0, 1.5)]
    assert tinted[0, :, 0].tolist() == [pytest.approx(row, abs=1e-3) for row in expected]


@pytest.mark.parametrize("degrees", [2.5, -2.5, 0.7, -0.001])
@pytest.mark.parametrize("flip", [False, True])
def test_a3_rotation_equals_opencv(degrees: float, flip: bool) -> None:
    how = plan(degrees=degrees, flip=flip, top=3, left=17)
    rgb, depth = one(NYU, how)
    expected_rgb, expected_depth = opencv(NYU, how)
    assert rgb.shape == (416, 544, 3)
    assert np.array_equal(rgb, rgb.round()), "whole grey levels"
    # OpenCV rounds places to 1/32 pixel; the picture changes by at most 2 levels per pixel, the frame's edge by 250.
    gap = np.abs(rgb - expected_rgb).max(axis=-1)
    assert (gap <= 1).mean() > 0.999
    assert gap.max() <= 10
    assert (depth != expected_depth).mean() < 0.002


def test_a3_picture_and_depth_agree_and_filled_depth_is_not_trained_on() -> None:
    """A picture that encodes its own depth still does after every geometric step."""
    height, width = NYU.cropped
    y, x = np.mgrid[0:height, 0:width]
    depth = (1 + 0.01 * x + 0.005 * y).astype(np.float32)
    rgb = np.repeat((20 * depth).round().astype(np.uint8)[None], 3, axis=0)
    drawn = [
        plan(degrees=2.5),
        plan(degrees=-2.5, flip=True, top=11, left=21),
        plan(degrees=1.3, flip=True, left=9),
        plan(flip=True, top=5),
    ]
    pictures, depths = augment(
        torch.from_numpy(rgb).expand(4, -1, -1, -1), torch.from_numpy(depth).expand(4, 1, -1, -1), drawn, NYU
    )
    filled = depths == 0
    assert [bool(f.any()) for f in filled] == [True, True, True, False]
    assert float(filled.float().mean(dim=(1, 2, 3)).max()) < 0.05
    inside = ~filled[:, 0]
    assert float((pictures[:, 0] / 20 - depths[:, 0]).abs()[inside].quantile(0.995)) < 0.05
    pred = torch.full_like(depths, 2.0)
    spoiled = torch.where(filled, 9.0, pred)
    assert depth_loss(pred, depths, step=100).value == depth_loss(spoiled, depths, step=100).value
    black = pictures[:, 0][filled[:, 0]]
    assert float((black == 0).float().mean()) > 0.9, "outside is black but for the blended edge"


def test_rotation_turns_counter_clockwise() -> None:
    rgb = torch.zeros(1, 3, *NYU.cropped, dtype=torch.uint8)
    depth = torch.zeros(1, 1, *NYU.cropped)
    depth[0, 0, 213, 500] = 1.0  # right of the centre
    moved = augment(rgb, depth, [plan(degrees=2.5)], NYU)[1][0, 0].nonzero()
    row = 213 - (500 - 282) * math.sin(math.radians(2.5))
    assert moved[:, 0].float().mean().item() == pytest.approx(row, abs=1)


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.integers(0, SMALL.max_offset[0]), st.integers(0, SMALL.max_offset[1]))
def test_unrotated_samples_are_copied_exactly(flip: bool, top: int, left: int) -> None:
    how = plan(flip=flip, top=top, left=left)
    found, expected = one(SMALL, how), opencv(SMALL, how)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
    # A rotation by next to nothing goes the other way and arrives at the same pixels.
    nearly = one(SMALL, plan(flip=flip, top=top, left=left, degrees=1e-6))
    assert np.array_equal(nearly[0], expected[0])
    assert np.array_equal(nearly[1], expected[1])


def test_a_sample_does_not_depend_on_its_batch() -> None:
    rgb, depth = batch(SMALL, 12)
    before = rgb.clone(), depth.clone()
    drawn = [draw_augmentation(SMALL, seed=4, epoch=2, sample=i) for i in range(12)]
    assert any(d.degrees for d in drawn)
    assert not all(d.degrees for d in drawn)
    assert any(d.colour for d in drawn)
    whole = augment(rgb, depth, drawn, SMALL)
    assert torch.equal(rgb, before[0])
    assert torch.equal(depth, before[1])
    for i in range(12):
        alone = augment(rgb[i : i + 1], depth[i : i + 1], drawn[i : i + 1], SMALL)
        torch.testing.assert_close(alone[0][0], whole[0][i], rtol=0, atol=1e-4)
        assert torch.equal(alone[1][0], whole[1][i])
    assert whole[0].shape == (12, 3, *SMALL.output)
    assert 0 <= float(whole[0].min()) < float(whole[0].max()) <= 255


def test_a_batch_equals_its_parts_bit_by_bit_when_resumed() -> None:
    """The same batch after a restart: the same pictures."""
    rgb, depth = batch(SMALL, 6)
    runs = [
        augment(rgb, depth, [draw_augmentation(SMALL, seed=1, epoch=3, sample=f"s{i}") for i in range(6)], SMALL)
        for _ in range(2)
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_inputs_are_checked() -> None:
    rgb, depth = batch(SMALL, 2)
    drawn = [plan(), plan()]
    with pytest.raises(UsageError, match="uint8 pictures"):
        augment(rgb.float(), depth, drawn, SMALL)
    with pytest.raises(UsageError, match=r"torch.float64"):
        augment(rgb, depth.double(), drawn, SMALL)
    with pytest.raises(UsageError, match=r"pictures \(2, 3, 85, 113\) for 1 draws"):
        augment(rgb, depth, drawn[:1], SMALL)
    with pytest.raises(UsageError, match=r"Crop frames with frame\.window first"):
        augment(rgb, depth[..., 1:], drawn, SMALL)
    for field, value in (
        ("rotate", 1.5),
        ("flip", -0.1),
        ("degrees", 90.0),
        ("gamma", (1.1, 0.9)),
        ("channel", (0.0, 1.0)),
    ):
        with pytest.raises(UsageError, match=field):
            AugmentConfig(**{field: value})  # type: ignore[arg-type]
