"""Windows of the segmentation probe: picture and label cut alike, padding, draws, colour, pixels of test windows."""

from __future__ import annotations

import colorsys
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from mtv.eval.heads.segmentation_augment import Recolour, TrainWindow, augmented_window, plain_window
from mtv.eval.heads.segmentation_views import (
    AugmentedPreparation,
    EvalPreparation,
    PlainPreparation,
    eval_grid,
    fill_of,
    geometry_of,
)
from mtv.eval.protocols import protocol_for
from mtv.eval.segmentation_pictures import class_colours, segmentation_row
from mtv.probes.segmentation_windows import window_geometry

CROP = 64
FILL = (10, 250, 130)
STILL = Recolour(brightness=None, contrast=None, contrast_first=True, saturation=None, hue=None)


def protocol(**fields: Any) -> Any:
    return protocol_for("camvid", "fast", fields)


def blocks(height: int, width: int, seed: int, n: int = 6) -> np.ndarray:
    """Labels in blocks of 24 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, n, (height // 24 + 1, width // 24 + 1))
    return coarse.repeat(24, 0).repeat(24, 1)[:height, :width].astype(np.uint8)


def painted(label_HW: np.ndarray) -> np.ndarray:
    """A picture whose red is 40 times the label, and whose green and blue give the place."""
    height, width = label_HW.shape
    rows, columns = np.mgrid[:height, :width]
    place = [np.rint(255 * (rows + 0.5) / height), np.rint(255 * (columns + 0.5) / width)]
    return np.stack([40 * label_HW, *place], axis=-1).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def inner(label_HW: np.ndarray, margin: int) -> np.ndarray:
    """Pixels that have one label within `margin` pixels; none at the border."""
    size = 2 * margin + 1
    lowest, highest = (
        f(label_HW, size, mode="constant", cval=c) for f, c in ((minimum_filter, 0), (maximum_filter, 255))
    )
    return lowest == highest


@settings(max_examples=40, deadline=None)
@given(height=st.integers(30, 200), width=st.integers(30, 200), number=st.integers(0, 5), seed=st.integers(0, 9))
def test_picture_and_labels_are_cut_alike(height: int, width: int, number: int, seed: int) -> None:
    p = protocol(colour=0.0, seed=seed)
    geometry = window_geometry(16, crop=CROP)
    label_HW = blocks(height, width, seed)
    table = np.arange(256, dtype=np.int16)
    augmented = AugmentedPreparation(
        geometry=geometry, protocol=p, raw_to_train=table, sizes={"a": (width, height)}, fill=FILL
    )
    plain = PlainPreparation(geometry=geometry, seed=seed, fill=FILL)
    blobs = [png(painted(label_HW)), png(label_HW)]
    preparation = pickle.loads(pickle.dumps(augmented if number else plain))
    pixels = preparation(f"a@v{number}", blobs).numpy().transpose(1, 2, 0)
    window = augmented.window("a", number, label_HW) if number else plain.window("a", label_HW.shape)  # type: ignore[arg-type]
    labels = window.labels(label_HW, CROP)
    assert pixels.shape == (CROP, CROP, 3)
    assert labels.shape == (CROP, CROP)
    padded = labels == 255
    assert (pixels[padded] == FILL).all()
    enlarged = max(1, window.size[0] / height)
    sure = inner(labels, math.ceil(enlarged) + 1) & ~padded
    assert np.abs(pixels[sure][:, 0].astype(int) - 40 * labels[sure].astype(int)).max(initial=0) <= 1
    # Green and blue tell where each pixel came from.
    rows, columns = np.mgrid[:CROP, :CROP]
    columns = (min(CROP, window.size[1] - window.left) - 1 - columns) if window.flip else columns
    for channel, place, start, side in ((1, rows, window.top, 0), (2, columns, window.left, 1)):
        expected = 255 * (place + start + 0.5) / window.size[side]
        assert np.abs(pixels[..., channel] - expected)[sure].max(initial=0) <= 4
    if not number:
        assert not window.flip
        assert min(window.size) == CROP or max(window.size) == 4 * CROP


def test_windows_follow_their_key_alone() -> None:
    p, label_HW = protocol(), blocks(90, 120, 0)
    first = [augmented_window("a", n, label_HW, crop=CROP, protocol=p) for n in range(1, 40)]
    assert first == [augmented_window("a", n, label_HW, crop=CROP, protocol=p) for n in range(1, 40)]
    assert len({(w.size, w.top, w.left) for w in first}) > 35
    assert first[0] != augmented_window("b", 1, label_HW, crop=CROP, protocol=p)
    assert first[0] != augmented_window("a", 1, label_HW, crop=CROP, protocol=protocol(seed=1))
    shares = [w.flip for w in first]
    assert 8 < sum(shares) < 31
    short = [min(w.size) for w in first]
    assert min(short) < 45
    assert max(short) > 110
    assert max(short) <= 2 * CROP
    drawn = [w.recolour for w in first if w.recolour is not None]
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert 8 < sum(getattr(r, name) is not None for r in drawn) < 31
    assert max(abs(r.brightness) for r in drawn if r.brightness is not None) <= 32
    hues = [r.hue for r in drawn if r.hue is not None]
    assert max(map(abs, hues)) <= 18
    places = {plain_window(str(n), (CROP, 2 * CROP), crop=CROP, seed=0).left for n in range(300)}
    assert min(places) <= 2
    assert max(places) >= CROP - 2
    assert max(places) <= CROP


def test_a_crop_with_one_class_is_drawn_anew() -> None:
    """One corner has another class: without redraws few crops would show both."""
    label_HW = np.zeros((128, 128), np.uint8)
    label_HW[96:, 96:] = 1
    label_HW[:, :8] = 255

    def varied(p: Any) -> float:
        windows = [augmented_window(str(n), 1, label_HW, crop=CROP, protocol=p) for n in range(60)]
        return float(np.mean([len(set(np.unique(w.labels(label_HW, CROP))) - {255}) > 1 for w in windows]))

    large = {"scale": (2.0, 2.0), "flip": 0.0}
    # A share of 1 is never reached by two classes, so one class alone is the only reason to draw anew.
    assert varied(protocol(cat_max=1.0, **large)) > 0.8
    once = [plain_window(str(n), (128, 128), crop=CROP, seed=0) for n in range(300)]
    assert np.mean([w.top > 32 and w.left > 32 for w in once]) < 0.35


@pytest.mark.parametrize("first", [True, False])
def test_colour_steps_pixel_by_pixel(first: bool) -> None:
    """Against colorsys, in exact arithmetic up to the 8-bit steps of OpenCV's HSV."""
    rng = np.random.default_rng(0)
    rgb_HW3 = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    step = Recolour(brightness=-12.5, contrast=1.3, contrast_first=first, saturation=0.6, hue=15)
    out = step(rgb_HW3)
    assert out.dtype == np.uint8
    worst = 0.0
    for before, after in zip(rgb_HW3.reshape(-1, 3), out.reshape(-1, 3), strict=True):
        v = np.clip(before.astype(float) - 12.5, 0, 255)
        v = np.clip(v * 1.3, 0, 255) if first else v
        h, s, value = colorsys.rgb_to_hsv(*(v / 255))
        v = 255 * np.array(colorsys.hsv_to_rgb((h + 15 / 180) % 1, s * 0.6, value))
        v = v if first else np.clip(v * 1.3, 0, 255)
        worst = max(worst, float(np.abs(v - after).max()))
    assert worst < 8
    assert STILL(rgb_HW3) is rgb_HW3
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    green = Recolour(brightness=None, contrast=None, contrast_first=True, saturation=None, hue=60)(red)
    assert green[0, 0].tolist() == [0, 200, 0]


def test_flip_and_padding_of_one_window() -> None:
    label_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    window = TrainWindow(size=(3, 4), top=1, left=1, flip=True)
    assert window.labels(label_HW, 4).tolist() == [[7, 6, 5, 255], [11, 10, 9, 255], [255] * 4, [255] * 4]
    rgb_HW3 = label_HW[..., None].repeat(3, -1)
    assert window.picture(rgb_HW3, 4, FILL)[..., 0].tolist() == [
        [7, 6, 5, 10], [11, 10, 9, 10], [10] * 4, [10] * 4
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("patch", "base", "crop", "stride", "long_side"),
    [
        (16, 576, 576, 368, 2304),
        (14, 576, 504, 322, 2016),
        (8, 576, 576, 184, 2304),
        (32, 576, 576, 576, 2304),
        (16, 192, 192, 192, 768),
        (14, 192, 168, 168, 672),
        (14, 384, 336, 322, 1344),
        (14, 15, 14, 14, 56),
    ],
)
def test_effective_sizes(patch: int, base: int, crop: int, stride: int, long_side: int) -> None:
    geometry = geometry_of(protocol(base=base), patch)
    assert (geometry.crop, geometry.stride, geometry.long_side) == (crop, stride, long_side)


@pytest.mark.parametrize(("infer", "windows"), [("slide", 2), ("whole", 1)])
def test_test_windows_show_the_padded_picture(infer: Any, windows: int) -> None:
    """75 x 100 becomes 64 x 85, padded to 64 x 96."""
    geometry = window_geometry(16, crop=CROP)
    grid = eval_grid((75, 100), geometry, infer)
    assert (grid.resized, grid.padded, len(grid.windows)) == ((64, 85), (64, 96), windows)
    assert grid.window == ((64, 64) if infer == "slide" else (64, 96))
    preparation = EvalPreparation(geometry=geometry, infer=infer, window=grid.window, fill=FILL)
    rgb_HW3 = np.full((75, 100, 3), 90, np.uint8)
    last = preparation(f"some/picture@w1@w{windows - 1}", [png(rgb_HW3)]).numpy().transpose(1, 2, 0)
    assert (last[:, -11:] == FILL).all()
    assert (last[:, :-11] == 90).all()
    assert preparation.record()["window"] == list(grid.window)
    assert fill_of((0.485, 0.456, 0.406)) == (124, 116, 104)


def test_a_row_of_pictures_has_a_colour_per_class() -> None:
    colours = class_colours(150)
    assert len({tuple(c) for c in colours.tolist()}) == 150
    distance = np.abs(colours[:-1].astype(int) - colours[1:].astype(int)).sum(axis=1)
    assert distance.min() > 60, "neighbours differ"
    label_HW = blocks(60, 80, 0)
    label_HW[:5] = 255
    names = [f"a class with a long name {k}" for k in range(6)]
    row = segmentation_row(Image.new("RGB", (80, 60)), blocks(60, 80, 1), label_HW, names, ["text"])
    pixels = np.asarray(row)
    assert row.width == 3 * 80 + 12
    truth = pixels[:60, 172:252]
    assert (truth[2] == 255).all()
    assert truth[30, 40].tolist() == class_colours(6)[label_HW[30, 40]].tolist()
