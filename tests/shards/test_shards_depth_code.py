"""The disparity code: half a step of error, any size, and nothing that is no map."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mtv.errors import DataError, NumericalError
from mtv.shards import decode_disparity, encode_disparity

finite32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=finite32)


@settings(max_examples=200, deadline=None)
@given(maps)
@example(np.array([[-3.4e38, 3.4e38]], np.float32))
@example(np.array([[0.0, 1e-45]], np.float32))
@example(np.array([[1.0, np.nextafter(np.float32(1), np.float32(2))]], np.float32))
def test_error_is_at_most_half_a_step(map_HW: np.ndarray) -> None:
    code = encode_disparity(map_HW)
    assert (code.min, code.max) == (map_HW.min(), map_HW.max())
    assert code.valid == (map_HW.min() != map_HW.max())
    back_HW = decode_disparity(code.png, code.min, code.max)
    assert back_HW.dtype == np.float32
    assert back_HW.shape == map_HW.shape
    exact_HW = map_HW.astype(np.float64)
    rounding = 2.0**-23 * abs(exact_HW) + 1e-12 * (code.max - code.min) + 2e-45
    assert (abs(back_HW - exact_HW) <= (code.max - code.min) / 4095 / 2 + rounding).all()
    assert encode_disparity(map_HW) == code


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (191, 193), (192, 1000), (192, 192)])
def test_maps_up_to_the_short_side_keep_their_size(shape: tuple[int, int]) -> None:
    map_HW = np.random.default_rng(0).normal(size=shape)
    code = encode_disparity(map_HW)
    assert decode_disparity(code.png, code.min, code.max).shape == shape
    assert code.valid == (shape != (1, 1))


@pytest.mark.parametrize(
    ("shape", "small"), [((193, 193), (192, 192)), ((517, 1033), (192, 384)), ((1033, 517), (384, 192))]
)
def test_larger_maps_shrink_without_aliasing(shape: tuple[int, int], small: tuple[int, int]) -> None:
    h, w = shape
    ramp_HW = np.add.outer(np.arange(h) / h, 2 * np.arange(w) / w)
    code = encode_disparity(ramp_HW)
    back_HW = decode_disparity(code.png, code.min, code.max)
    assert back_HW.shape == small
    # A linear map stays the same, sampled at the new pixel centres; picking pixels would miss by half a pixel.
    y_H = (np.arange(small[0]) + 0.5) * h / small[0] - 0.5
    x_W = (np.arange(small[1]) + 0.5) * w / small[1] - 0.5
    expected_HW = np.add.outer(y_H / h, 2 * x_W / w)
    inner = np.s_[2:-2, 2:-2]
    tenth_of_a_pixel = 0.1 * (1 / h + 2 / w)
    tolerance = (code.max - code.min) / 8190 + tenth_of_a_pixel
    np.testing.assert_allclose(back_HW[inner], expected_HW[inner], rtol=0, atol=tolerance)


def test_shrinking_averages() -> None:
    checks_HW = np.indices((800, 800)).sum(axis=0) % 2
    code = encode_disparity(checks_HW, short_side=100)
    back_HW = decode_disparity(code.png, code.min, code.max)
    np.testing.assert_allclose(back_HW, 0.5, atol=1e-3)
    assert decode_disparity(encode_disparity(checks_HW, short_side=800).png, 0, 1).std() == 0.5


def test_the_file_is_what_the_protocol_says() -> None:
    code = encode_disparity(np.array([[0.0, 0.25, 1.0], [0.5, 1 / 4095, 0.1]]))
    with Image.open(io.BytesIO(code.png)) as image:
        assert image.format == "PNG"
        values_HW = np.array(image)
    assert code.png[24:26] == bytes([16, 0])  # IHDR: 16 bits, grey
    np.testing.assert_array_equal(
        values_HW, [[0, 1024, 4095], [2048, 1, 410]]
    )  # 1023.75, 2047.5 to even, 409.5 to even


def test_constant_map_is_not_valid() -> None:
    code = encode_disparity(np.full((5, 4), -7.0))
    assert not code.valid
    assert (code.min, code.max) == (-7, -7)
    assert (decode_disparity(code.png, code.min, code.max) == -7).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(bad: float) -> None:
    map_HW = np.zeros((300, 300))
    map_HW[7, 11] = bad
    with pytest.raises(NumericalError, match="row 7, column 11"):
        encode_disparity(map_HW)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (1, 4, 4), ()])
def test_what_is_no_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="height x width"):
        encode_disparity(np.zeros(shape))


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cannot be read as PNG"),
        (b"\xff\xd8 jpeg", "cannot be read as PNG"),
        (png(np.zeros((4, 4), np.uint16))[:-20], "cannot be read as PNG"),
        (png(np.zeros((4, 4), np.uint8)), "mode L"),
        (png(np.zeros((4, 4, 3), np.uint8)), "mode RGB"),
        (png(np.full((4, 4), 4096, np.uint16)), "4096; values end at 4095"),
    ],
)
def test_what_is_no_depth_label_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        decode_disparity(data, 0, 1)


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 10_000), st.integers(0, 255))
def test_a_damaged_file_is_an_error_or_a_map(position: int, value: int) -> None:
    data = bytearray(encode_disparity(np.random.default_rng(0).normal(size=(40, 60))).png)
    data[position % len(data)] = value
    try:
        back_HW = decode_disparity(bytes(data), 0, 1)
    except DataError:
        return
    assert back_HW.ndim == 2
