"""Test geometry: the table of protocol `segmentation` section 7, the patch rule, and naive windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.probes.segmentation_windows import Window, WindowGeometry, padded_size, resized_size, tile, window_geometry

P16, P14 = window_geometry(16), window_geometry(14)


def grid(windows: list[Window]) -> tuple[int, int]:
    """Rows and columns of windows."""
    return len({w.top for w in windows}), len({w.left for w in windows})


@pytest.mark.parametrize(
    ("original", "resized", "padded", "windows", "resized14", "windows14"),
    [
        ((683, 512), (768, 576), (768, 576), (1, 2), (672, 504), (1, 2)),
        ((500, 364), (791, 576), (800, 576), (1, 2), (692, 504), (1, 2)),
        ((1280, 720), (1024, 576), (1024, 576), (1, 3), (896, 504), (1, 3)),
        ((256, 256), (576, 576), (576, 576), (1, 1), (504, 504), (1, 1)),
        ((256, 50), (2304, 450), (2304, 464), (1, 6), (2016, 394), (1, 6)),
    ],
)
def test_table_of_section_7(
    original: tuple[int, int],
    resized: tuple[int, int],
    padded: tuple[int, int],
    windows: tuple[int, int],
    resized14: tuple[int, int],
    windows14: tuple[int, int],
) -> None:
    """All sizes are width x height there, height x width here."""
    width, height = original
    for geometry, size, expected in ((P16, resized, windows), (P14, resized14, windows14)):
        small = resized_size(height, width, geometry)
        assert small == size[::-1]
        full = padded_size(*small, geometry.patch)
        assert grid(tile(*full, geometry)) == expected
        # The same picture on its side.
        assert resized_size(width, height, geometry) == size
        assert grid(tile(*full[::-1], geometry)) == expected[::-1]
    assert padded_size(*resized_size(height, width, P16), 16) == padded[::-1]


def test_a_short_side_gives_a_smaller_window() -> None:
    windows = tile(464, 2304, P16)
    assert {(w.top, w.height, w.width) for w in windows} == {(0, 464, 576)}
    assert [w.left for w in windows] == [0, 368, 736, 1104, 1472, 1728]


def test_the_effective_sizes() -> None:
    assert (P16.crop, P16.stride, P16.long_side) == (576, 368, 2304)
    assert (P14.crop, P14.stride, P14.long_side) == (504, 322, 2016)
    assert P16.crop // 16 == P14.crop // 14 == 36
    eight = window_geometry(8)
    assert (eight.crop, eight.stride) == (576, 184)
    # 23 patches of 32 would be 736 pixels and leave gaps between windows of 576.
    thirty_two = window_geometry(32)
    assert (thirty_two.crop, thirty_two.stride) == (576, 576)
    assert (window_geometry(13).crop, window_geometry(13).stride) == (572, 299)
    for crop in (574, 588):
        assert (window_geometry(14, crop=crop).crop, window_geometry(14, crop=crop).stride) == (crop, 322)
    assert window_geometry(16, crop=96, stride=64) == WindowGeometry(patch=16, crop=96, stride=64)


def test_whole_is_one_window() -> None:
    assert tile(464, 2304, P16, "whole") == [Window(top=0, left=0, height=464, width=2304)]


def test_rounding_is_neither_floor_nor_pythons() -> None:
    rng = np.random.default_rng(0)
    floor = python = 0
    for height, width in rng.integers(50, 3000, (5000, 2)).tolist():
        scale = min(2304 / max(height, width), 576 / min(height, width))
        size = resized_size(height, width, P16)
        floor += size != (math.floor(height * scale), math.floor(width * scale))
        python += size != (round(height * scale), round(width * scale))
    assert floor > 1500
    assert python < 50
    assert resized_size(128, 129, P16) == (576, 581)  # 129 * 4.5 = 580.5, which Python rounds to 580


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from([8, 14, 16, 32]),
    st.integers(1, 8),
    st.floats(0, 1),
)
def test_windows_cover_and_equal_a_loop(height: int, width: int, patch: int, tokens: int, share: float) -> None:
    crop = patch * tokens
    geometry = WindowGeometry(patch=patch, crop=crop, stride=8 + round(share * (crop - 8)))
    height, width = padded_size(height, width, patch)
    spans = []
    for length in (height, width):
        found, start = [], 0
        while True:  # walk until a window reaches the border, then move that one back
            end = min(start + crop, length)
            found.append((max(end - crop, 0), end))
            if start + crop >= length:
                break
            start += geometry.stride
        spans.append(found)
    windows = tile(height, width, geometry)
    expected = [(t, b, le, r) for t, b in spans[0] for le, r in spans[1]]
    assert [(w.top, w.top + w.height, w.left, w.left + w.width) for w in windows] == expected
    covered = np.zeros((height, width), bool)
    for w in windows:
        covered[w.top : w.top + w.height, w.left : w.left + w.width] = True
        assert w.height % patch == w.width % patch == 0
        assert (w.height, w.width) == (min(crop, height), min(crop, width))
    assert covered.all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([8, 14, 16, 32]))
def test_resized_fits_and_keeps_the_aspect(height: int, width: int, patch: int) -> None:
    geometry = window_geometry(patch)
    small = resized_size(height, width, geometry)
    assert min(small) >= 1
    assert max(small) <= geometry.long_side
    assert min(small) <= geometry.crop
    assert min(small) == geometry.crop or max(small) == geometry.long_side
    scale = min(geometry.long_side / max(height, width), geometry.crop / min(height, width))
    assert abs(small[0] - height * scale) <= 0.5 or small[0] == 1
    assert abs(small[1] - width * scale) <= 0.5 or small[1] == 1


def test_inputs_are_checked() -> None:
    with pytest.raises(UsageError, match=r"(?s)crop 576 is no multiple of patch 14.*Use 574 or 588"):
        window_geometry(14, crop=576)
    with pytest.raises(UsageError, match=r"(?s)crop 8 is no multiple of patch 14.*Use 14 or 28"):
        window_geometry(14, crop=8)
    with pytest.raises(UsageError, match=r"stride must be 1 to the crop \(576\), got 577"):
        window_geometry(16, stride=577)
    with pytest.raises(UsageError, match="patch of 1 to 576"):
        window_geometry(600)
    with pytest.raises(UsageError, match="patch"):
        window_geometry(0, crop=16)
    with pytest.raises(UsageError, match="multiples of patch 16, got 576x791"):
        tile(576, 791, P16)
    with pytest.raises(UsageError, match="slidee"):
        tile(576, 576, P16, "slidee")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0x5"):
        resized_size(0, 5, P16)
