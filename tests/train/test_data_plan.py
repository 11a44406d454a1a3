"""What is drawn: exact masks, crops by torchvision's rule, colours, boxes through crops, uniform choices."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.train.data.options import ViewOptions
from mtv.train.data.plan import draw_captions, draw_global, draw_local, draw_masks
from mtv.train.data.regions import ChosenRegions, RegionLabels, choose_regions, crop_boxes

KEYS = [f"k{i}" for i in range(2000)]
EPOCHS = [0] * len(KEYS)


@pytest.mark.parametrize(("patches", "count"), [(196, 98), (256, 128), (49, 24)])
def test_s7_masks_are_exact_and_uniform(patches: int, count: int) -> None:
    masks = np.concatenate(
        [draw_masks(ViewOptions(), seed=0, epochs=[e] * 2000, keys=KEYS, patches=patches) for e in range(5)]
    )
    assert len(masks) == 10_000
    assert (masks.sum(axis=1) == count).all()
    assert abs(masks.mean(axis=0) - count / patches).max() < 0.02
    together = (masks[:, 0] & masks[:, 1]).mean()
    assert abs(together - count * (count - 1) / (patches * (patches - 1))) < 0.02


def test_masks_are_new_in_every_epoch_and_for_every_sample_and_seed() -> None:
    drawn = [
        draw_masks(ViewOptions(), seed=s, epochs=[e], keys=[k], patches=196)[0].tobytes()
        for s in (0, 1)
        for e in (0, 1)
        for k in ("a", "b")
    ]
    assert len(set(drawn)) == 8


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.3, 19), (1.0, 64)])
def test_mask_ratio(ratio: float, count: int) -> None:
    masks = draw_masks(ViewOptions(mask_ratio=ratio), seed=0, epochs=[0] * 50, keys=KEYS[:50], patches=64)
    assert (masks.sum(axis=1) == count).all()


@given(st.floats(0.05, 20), st.integers(1, 400), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_crops_lie_inside_and_have_the_area_and_shape_asked_for(aspect: float, canvas: int, seed: int) -> None:
    views = ViewOptions()
    at = {"seed": seed, "epochs": [0], "keys": ["k"], "aspect_B": np.array([aspect]), "canvas": canvas}
    local, colours = draw_local(views, **at)
    box_V4 = np.concatenate([draw_global(views, **at).box, local.box[0]])
    assert local.box.shape == (1, 6, 4)
    assert (box_V4 >= [0, 0, 1, 1]).all()
    assert (box_V4[:, :2] + box_V4[:, 2:] <= canvas).all()
    assert (np.sort(colours.order, axis=-1) == np.arange(4)).all()
    if canvas < 100 or not 0.8 < aspect < 1.25:
        return  # rounding to whole pixels moves small crops; on longer images a central crop takes over
    for box, (low, high) in zip(box_V4, [views.global_scale, *[views.local_scale] * 6], strict=True):
        w, h = box[2:] / canvas
        slack = 0.5 / canvas * (1 / w + 1 / h)
        if w < 1 and h < 1:
            assert math.log(3 / 4) - slack <= math.log(aspect * w / h) <= math.log(4 / 3) + slack
        assert low * (1 - 2 * slack) <= w * h <= high * (1 + 2 * slack)


@pytest.mark.parametrize(("w", "h"), [(640, 480), (480, 640), (500, 500)])
def test_crops_have_the_distribution_of_torchvision(w: int, h: int) -> None:
    """Area, shape and centre of crops: means and spreads against `RandomResizedCrop`."""
    import torch
    from torchvision.transforms import RandomResizedCrop

    C = 1000
    ours = draw_local(ViewOptions(), seed=3, epochs=EPOCHS, keys=KEYS, aspect_B=np.full(len(KEYS), w / h), canvas=C)[
        0
    ].box.reshape(-1, 4)
    torch.manual_seed(0)
    blank = torch.empty(3, h, w)
    theirs = np.array([RandomResizedCrop.get_params(blank, (0.05, 0.32), (3 / 4, 4 / 3)) for _ in range(6000)])
    x, y, cw, ch = (ours / C).T
    top, left, th, tw = theirs.T
    for a, b in [
        (cw * ch, tw * th / (w * h)),
        (np.log(cw / ch * w / h), np.log(tw / th)),
        (x + cw / 2, (left + tw / 2) / w),
        (y + ch / 2, (top + th / 2) / h),
    ]:
        assert abs(a.mean() - b.mean()) < 4 * b.std() * math.sqrt(1 / len(a) + 1 / len(b)) + 1e-3
        assert abs(a.std() / b.std() - 1) < 0.06


@pytest.mark.parametrize(("aspect", "size"), [(4.0, (1 / 3, 1.0)), (0.25, (1.0, 1 / 3))])
def test_images_too_long_for_any_crop_get_torchvisions_central_one(aspect: float, size: tuple[float, float]) -> None:
    crops = draw_global(ViewOptions(), seed=0, epochs=[0], keys=["k"], aspect_B=np.array([aspect]), canvas=300)
    w, h = round(size[0] * 300), round(size[1] * 300)
    assert crops.box[0].tolist() == [(300 - w) // 2, (300 - h) // 2, w, h]


def test_probabilities_and_ranges_of_colours_and_flips() -> None:
    views = ViewOptions(global_flip=0.25)
    at = {"seed": 0, "epochs": EPOCHS, "keys": KEYS, "aspect_B": np.ones(len(KEYS)), "canvas": 96}
    local, colours = draw_local(views, **at)
    assert abs(local.flip.mean() - 0.5) < 0.02
    assert abs(draw_global(views, **at).flip.mean() - 0.25) < 0.04
    factor = colours.factor.reshape(-1, 4)
    jittered = (factor != [1, 1, 1, 0]).any(axis=1)
    assert abs(jittered.mean() - 0.8) < 0.02
    assert abs(colours.grey.mean() - 0.2) < 0.02
    assert abs((colours.sigma > 0).mean() - 0.5) < 0.02
    low, high = np.array([0.6, 0.6, 0.8, -0.1]), np.array([1.4, 1.4, 1.2, 0.1])
    assert np.allclose(factor[jittered].min(axis=0), low, atol=2e-3)
    assert np.allclose(factor[jittered].max(axis=0), high, atol=2e-3)
    blurred = colours.sigma[colours.sigma > 0]
    assert 0.1 <= blurred.min() < 0.11
    assert 1.99 < blurred.max() <= 2
    orders = Counter(map(tuple, colours.order.reshape(-1, 4).tolist()))
    assert len(orders) == 24
    assert max(orders.values()) < 1.25 * min(orders.values())


def test_each_crop_is_a_draw_of_its_own_and_does_not_depend_on_their_number() -> None:
    at = {"seed": 0, "epochs": [0] * 5, "keys": KEYS[:5], "aspect_B": np.ones(5), "canvas": 96}
    six, six_colours = draw_local(ViewOptions(), **at)
    two, two_colours = draw_local(ViewOptions(local_crops=2), **at)
    assert (six.box[:, :2] == two.box).all()
    assert (six_colours.factor[:, :2] == two_colours.factor).all()
    assert len({tuple(b) for b in six.box[0].tolist()}) == 6


def test_a_sample_is_drawn_the_same_alone_and_in_any_batch() -> None:
    at = {"seed": 0, "canvas": 96}
    keys, epochs, aspect = ["a", "b", "c"], [4, 5, 4], np.array([1.0, 0.7, 1.4])
    many = draw_local(ViewOptions(), **at, keys=keys, epochs=epochs, aspect_B=aspect)[0].box
    one = draw_local(ViewOptions(), **at, keys=["b"], epochs=[5], aspect_B=aspect[1:2])[0].box
    assert (many[1] == one[0]).all()


def test_g8_boxes_through_a_crop_and_its_mirror_image() -> None:
    box, share = crop_boxes(np.array([[0.2, 0.2, 0.6, 0.6]]), (0.1, 0.1, 0.9, 0.9))
    assert np.allclose(box, [[0.125, 0.125, 0.625, 0.625]], atol=1e-12)
    assert np.allclose(share, 1)
    box, _ = crop_boxes(np.array([[0.2, 0.2, 0.6, 0.6]]), (0.1, 0.1, 0.9, 0.9), flip=True)
    assert np.allclose(box, [[0.375, 0.125, 0.875, 0.625]], atol=1e-12)


def test_clipped_boxes_know_what_is_left_of_them() -> None:
    boxes = np.array([[0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9], [0.0, 0.2, 0.2, 0.4]])
    clipped, share = crop_boxes(boxes, (0.2, 0.0, 1.0, 0.8))
    assert np.allclose(share, [0.5, 2 / 3, 0])
    assert np.allclose(clipped[0], [0, 0, 0.25, 0.5])
    assert np.allclose(clipped[1], [0.5, 0.75, 0.875, 1])


def label(*boxes: tuple[float, float, float, float], score: float = 0.5) -> RegionLabels:
    return RegionLabels(
        box_K4=np.array(boxes).reshape(-1, 4),
        score_K=np.full(len(boxes), score),
        names=tuple(f"n{k}" for k in range(len(boxes))),
    )


def choose(
    labels: list[RegionLabels | None], views: ViewOptions, *, epoch: int = 0, image_size: int = 100
) -> ChosenRegions:
    B = len(labels)
    return choose_regions(
        labels,
        views,
        seed=0,
        epochs=[epoch] * B,
        keys=KEYS[:B],
        crop_B4=np.tile([0.0, 0.0, 0.5, 1.0], (B, 1)),
        flip_B=np.zeros(B, bool),
        image_size=image_size,
    )


def test_regions_that_are_hidden_small_or_doubtful_are_left_out() -> None:
    views = ViewOptions(min_side_px=8)
    kept = (0.0, 0.0, 0.2, 0.2)
    hidden, small = (0.3, 0.0, 0.9, 0.5), (0.0, 0.0, 0.2, 0.079)
    chosen = choose([label(kept, hidden, small), label(kept, score=0.09), label(), None], views)
    assert chosen.names == [["n0"], [], [], []]
    assert chosen.valid_BR.tolist() == [[True, False, False, False], *[[False] * 4] * 3]
    assert np.allclose(chosen.box_BR4[0, 0], [0, 0, 0.4, 0.2])
    assert (chosen.box_BR4[~chosen.valid_BR] == [0, 0, 1, 1]).all()
    at_the_edge = choose([label((0.25, 0.0, 0.75, 0.08))], views)  # exactly half is left, exactly 8 pixels high
    assert at_the_edge.names == [["n0"]]


def test_four_of_many_regions_are_drawn_uniformly_without_replacement() -> None:
    boxes = [(0.0, 0.0, 0.3, 0.1 * (k + 1)) for k in range(6)]
    pairs: Counter[str] = Counter()
    first: Counter[str] = Counter()
    for epoch in range(40):
        chosen = choose([label(*boxes)] * 100, ViewOptions(), epoch=epoch)
        assert chosen.valid_BR.all()
        for names in chosen.names:
            assert len(set(names)) == 4
            pairs.update(names)
            first[names[0]] += 1
    assert all(abs(count / 4000 - 4 / 6) < 0.04 for count in pairs.values())
    assert all(abs(count / 4000 - 1 / 6) < 0.03 for count in first.values())


def test_other_samples_of_the_batch_do_not_move_the_choice() -> None:
    boxes = [(0.0, 0.0, 0.3, 0.1 * (k + 1)) for k in range(6)]
    alone = choose([label(*boxes)], ViewOptions())
    beside = choose([label(*boxes), label(*boxes, *boxes), None], ViewOptions())
    assert alone.names[0] == beside.names[0]


def test_captions_are_drawn_uniformly() -> None:
    captions = [("a", "b", "c")] * len(KEYS)
    counts = Counter(draw_captions(captions, seed=0, epochs=EPOCHS, keys=KEYS))
    assert all(abs(counts[c] / len(KEYS) - 1 / 3) < 0.04 for c in "abc")
