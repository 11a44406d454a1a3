"""The renderer against a separate slow ray caster, closed forms, and its promises: order, batch and truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from render_oracle import first_hits
from render_world import PLAIN, camera, instance, light, random_scene, scene

from mtv.errors import UsageError
from mtv.miniworld.materials import Material
from mtv.miniworld.render import render
from mtv.miniworld.rendering import fragments
from mtv.miniworld.scene import Scene, Sensor
from mtv.miniworld.shapes import Part, turn
from mtv.miniworld.vocabulary import PATTERNS, semantic_id

BALL = Part(kind="ellipsoid", centre=(0, 0, 0.5), half=(0.5, 0.5, 0.5))
CUBE = Part(kind="box", centre=(0, 0, 0.5), half=(0.5, 0.5, 0.5))


def closed(s: Scene) -> Scene:
    """The scene with lids on all frusta, as the oracle's solids have them."""
    shut = []
    for i in s.instances:
        parts = tuple(dataclasses.replace(p, open=False) for p in i.shape.parts)
        shut.append(dataclasses.replace(i, shape=dataclasses.replace(i.shape, parts=parts, _corners={})))
    return dataclasses.replace(s, instances=tuple(shut))


@pytest.mark.parametrize("key", range(6))
def test_depth_and_masks_agree_with_the_oracle(key: int) -> None:
    s = closed(random_scene(key))
    frame = render([s])[0]
    rng = np.random.default_rng(key)
    wrong = 0
    for _ in range(150):
        row, column = int(rng.integers(s.camera.height)), int(rng.integers(s.camera.width))
        depth, who = first_hits(s, column, row)
        got = float(frame.depth_HW[row, column])
        if frame.instance_HW[row, column] != who + 1:
            wrong += 1  # the oracle steps over slivers thinner than its step
        elif math.isinf(depth):
            assert got == 0
        else:
            assert got == pytest.approx(depth, rel=1e-4, abs=1e-4 if who < 0 else 2e-3)
    assert wrong <= 1


def test_closed_forms_of_depth() -> None:
    level = camera(41, 41, pitch=0, at=(0, 0, 0.5))
    frame = render([scene(instance(BALL), cam=level)])[0]
    assert frame.depth_HW[20, 20] == pytest.approx(2.5, abs=1e-6)
    frame = render([scene(instance(CUBE), cam=level)])[0]
    face = frame.depth_HW[frame.instance_HW == 1]
    assert np.allclose(face, 2.5, atol=1e-5)
    # The wall is seen above, the floor below: z of the floor is height / slope of the ray.
    assert frame.depth_HW[1, 20] == pytest.approx(6.0, abs=1e-5)
    assert frame.depth_HW[40, 20] == pytest.approx(0.5 * level.focal / 20, abs=1e-4)


def test_open_frustum_shows_its_inside_and_closed_its_lid() -> None:
    cup = Part(kind="frustum", centre=(0, 0, 0.5), half=(0.5, 0.5, 0.5), open=True)
    above = camera(41, 41, pitch=89.9, at=(3, 0, 4))
    deep = render([scene(instance(cup), cam=above)])[0].depth_HW[20, 20]
    lid = render([scene(instance(dataclasses.replace(cup, open=False)), cam=above)])[0].depth_HW[20, 20]
    assert deep == pytest.approx(4.0, abs=1e-3)
    assert lid == pytest.approx(3.0, abs=1e-3)


def test_far_and_small_parts_keep_their_precision() -> None:
    tiny = Part(kind="ellipsoid", centre=(0, 0, 0), half=(0.05, 0.05, 0.05))
    far = camera(33, 33, pitch=0, at=(-60, 0, 0.5))
    cam = dataclasses.replace(far, focal=33 * 300.0)
    frame = render([scene(instance(tiny, at=(3, 0, 0.5)), cam=cam)])[0]
    assert frame.depth_HW[16, 16] == pytest.approx(62.95, abs=2e-3)


def test_pictures_do_not_depend_on_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [random_scene(k) for k in range(5)] + [random_scene(9, width=40, height=56)]
    together = render(scenes)
    monkeypatch.setattr(fragments, "_CHUNK", 5000)
    alone = [render([s])[0] for s in reversed(scenes)][::-1]
    for a, b in zip(together, alone, strict=True):
        assert a.scene.id == b.scene.id
        assert a.size == b.size
        for name in ("rgb_HW3", "depth_HW", "semantic_HW", "instance_HW"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert repr(a.seen) == repr(b.seen)
        assert all(repr(a.keypoints(i)) == repr(b.keypoints(i)) for i in range(len(a.scene.instances)))


def test_threads_do_not_change_a_bit() -> None:
    scenes = [random_scene(k) for k in range(3)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = render(scenes)
        torch.set_num_threads(2)
        two = render(scenes)
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a.rgb_HW3, b.rgb_HW3) for a, b in zip(one, two, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_agrees_with_the_cpu() -> None:
    scenes = [random_scene(k) for k in range(4)]
    for a, b in zip(render(scenes), render(scenes, device="cuda"), strict=True):
        assert (a.instance_HW != b.instance_HW).mean() < 1e-3
        assert np.abs(a.rgb_HW3.astype(int) - b.rgb_HW3).mean() < 0.5


def test_what_is_seen_agrees_with_the_masks() -> None:
    front = instance(CUBE, at=(2.5, 0.2, 0))
    behind = instance(BALL, at=(4.0, 0.0, 0), name="dog")
    outside = instance(BALL, at=(-3.0, 0.0, 0), name="car")
    frame = render([scene(front, behind, outside, cam=camera(96, 80))])[0]
    for number, seen in enumerate(frame.seen):
        rows, columns = np.nonzero(frame.instance_HW == number + 1)
        assert seen.pixels == len(rows)
        if len(rows):
            assert seen.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert seen.depth == pytest.approx(float(np.median(frame.depth_HW[rows, columns])))
    assert frame.seen[0].whole == frame.seen[0].pixels
    assert frame.seen[1].whole > frame.seen[1].pixels > 0
    alone = render([scene(behind, cam=camera(96, 80))])[0].seen[0]
    assert frame.seen[1].whole == alone.pixels
    assert frame.seen[2] == dataclasses.replace(frame.seen[2], pixels=0, whole=0, box=None, cut=False)
    assert set(np.unique(frame.semantic_HW)) == {semantic_id(n) for n in ("mug", "dog", "floor", "wall")}
    assert np.array_equal(frame.semantic_HW == semantic_id("dog"), frame.instance_HW == 2)


def test_cut_by_the_border() -> None:
    frame = render([scene(instance(CUBE, at=(2.2, 1.2, 0)), instance(BALL, at=(4, 0, 0)), cam=camera(96, 80))])[0]
    assert frame.seen[0].cut
    assert not frame.seen[1].cut


def test_sky_has_no_depth_and_no_disparity() -> None:
    frame = render([scene(instance(BALL), wall=None)])[0]
    sky = frame.semantic_HW == semantic_id("sky")
    assert sky.any()
    assert (frame.depth_HW[sky] == 0).all()
    assert (frame.disparity_HW[sky] == 0).all()
    assert np.allclose((frame.disparity_HW * frame.depth_HW)[~sky], 1)


def test_keypoints_project_and_hide() -> None:
    points = (("near", (-0.5, 0.0, 0.5)), ("far", (0.5, 0.0, 0.5)), ("top", (0.0, 0.0, 1.0)), ("absent", None))
    ball = instance(BALL, keypoints=points)
    level = camera(81, 81, pitch=0, at=(0, 0, 0.5))
    near, far, top, absent = render([scene(ball, cam=level)])[0].keypoints(0)
    assert (near.x, near.y) == pytest.approx((40.5, 40.5))
    assert near.visible
    assert not far.visible
    assert math.isnan(absent.x)
    assert not absent.visible
    assert top.y == pytest.approx(40.5 - level.focal * 0.5 / 3)
    screen = instance(CUBE, at=(1.5, 0, 0), name="crate")
    hidden = render([scene(ball, screen, cam=level)])[0]
    assert not any(k.visible for k in hidden.keypoints(0))
    assert hidden.keypoints(1) == ()
    turned = render([scene(dataclasses.replace(ball, rotation=turn(z=180)), cam=level)])[0].keypoints(0)
    assert turned[1].visible
    assert not turned[0].visible
    behind = render([scene(dataclasses.replace(ball, position=(-3, 0, 0)), cam=level)])[0].keypoints(0)
    assert math.isnan(behind[0].x)
    assert not behind[0].visible


def test_shadow_falls_away_from_the_light() -> None:
    cam = camera(96, 96, pitch=50, at=(0, 0, 4))
    for side in (1.0, -1.0):
        ball = instance(BALL, at=(3, 0, 0))
        lit = render([scene(cam=cam, sun=light((0, 0.6 * side, 0.8)))])[0].rgb_HW3[..., 0].astype(int)
        shaded = render([scene(ball, cam=cam, sun=light((0, 0.6 * side, 0.8)))])[0]
        dark = (lit - shaded.rgb_HW3[..., 0] > 20) & (shaded.instance_HW == 0)
        columns = np.nonzero(dark)[1]
        assert dark.sum() > 30
        # World +y is left in the picture: light from the left throws its shadow to the right.
        assert (columns.mean() - 48) * side > 3


def test_shadow_has_the_size_of_its_caster() -> None:
    cam = camera(128, 128, pitch=89.99, at=(3, 0, 6))
    cube = instance(CUBE, at=(3, 0, 0))
    sun = light((-0.6, 0.0, 0.8))
    frame = render([scene(cube, cam=cam, sun=sun)])[0]
    lit = int(render([scene(cam=cam, sun=sun)])[0].rgb_HW3[64, 10, 0])
    dark = (lit - frame.rgb_HW3[..., 0].astype(int) > 20) & (frame.instance_HW == 0)
    metres = 6 / cam.focal
    # A cube of side 1 under a light of slope 0.6 / 0.8 throws 0.75 m x 1 m; its top hides a part of it by perspective.
    hidden = 0.5 * 6 / 5 - 0.5
    assert dark.sum() * metres**2 == pytest.approx((0.75 - hidden) * 1.0, rel=0.12)


def test_soft_light_blurs_the_edge_of_a_shadow() -> None:
    cam = camera(128, 128, pitch=89.99, at=(3, 0, 6))
    partly = []
    for softness in (0.0, 0.3):
        frame = render([scene(instance(CUBE), cam=cam, sun=light((-0.6, 0, 0.8), softness=softness), wall=None)])[0]
        floor = frame.rgb_HW3[..., 0][frame.instance_HW == 0].astype(int)
        low, high = floor.min(), floor.max()
        partly.append(int(((floor > low + 10) & (floor < high - 10)).sum()))
    assert partly[1] > 3 * partly[0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_main_pigment_covers_most(pattern: str) -> None:
    """The colour that names a thing is the one that most of it has."""
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    shares = []
    for k in range(6):
        look = Material(
            colour="red",
            pigment=red,
            second_colour="blue",
            second_pigment=blue,
            pattern=pattern,
            period=0.21,
            phase=1.7 * k,
        )
        frame = render([scene(instance(CUBE, BALL, material=look), cam=camera(64, 64))])[0]
        mine = frame.rgb_HW3[frame.instance_HW == 1].astype(float)
        shares.append(float((mine[:, 0] > mine[:, 2]).mean()))
    assert 0.5 < np.mean(shares) <= 1
    assert (min(shares) == 1) == (pattern == "plain")


def test_gloss_adds_a_highlight() -> None:
    ball = instance(BALL)
    glossy = instance(BALL, material=dataclasses.replace(PLAIN, finish="glossy"))
    cam = camera(64, 64)
    dull, shiny = (render([scene(i, cam=cam, sun=light((-0.8, 0, 0.6)))])[0] for i in (ball, glossy))
    gain = shiny.rgb_HW3.astype(int).max(axis=2) - dull.rgb_HW3.max(axis=2)
    assert gain.max() > 40
    assert (gain[dull.instance_HW == 1] > 25).mean() < 0.4


def test_sensor_noise_blur_and_exposure() -> None:
    base = scene(instance(CUBE), cam=camera(96, 96))
    clean = render([base])[0].rgb_HW3.astype(float)

    def taken(**changes: object) -> np.ndarray:
        sensor = dataclasses.replace(base.sensor, **changes)  # type: ignore[arg-type]
        return render([dataclasses.replace(base, sensor=sensor)])[0].rgb_HW3.astype(float)

    noisy = taken(noise=0.02)
    spread = (noisy - clean)[clean.max(axis=2) < 200]
    assert spread.std() == pytest.approx(0.02 * 255, rel=0.05)
    assert abs(spread.mean()) < 0.2
    assert not np.array_equal(noisy, taken(noise=0.02, seed=2))
    assert np.abs(np.diff(taken(blur=1.0), axis=1)).max() < 0.7 * np.abs(np.diff(clean, axis=1)).max()
    assert taken(exposure=0.5).mean() < clean.mean() < taken(exposure=1.3).mean()
    assert isinstance(base.sensor, Sensor)


def test_empty_scene_and_limits() -> None:
    frame = render([scene()])[0]
    assert frame.seen == ()
    assert (frame.instance_HW == 0).all()
    assert render([]) == []
    with pytest.raises(UsageError, match="256 instances"):
        render([scene(*[instance(BALL)] * 256)])
