"""Depth codes, EXIF and header checks of the correspondence readers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.eval.datasets.images import depth_size, open_exif, picture_size, read_depth_png


def png(array: np.ndarray) -> bytes:
    """The array as PNG bytes."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_n1_navi_depth_codes() -> None:
    depth = read_depth_png(png(np.array([[0, 1, 655, 65535]], np.uint16)), "navi_disparity", name="d.png")
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[0] * 1000, [0, 655350, 1000.534, 10.0], rtol=1e-6)


def test_navi_depth_agrees_with_the_reference_formula() -> None:
    codes = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    depth = read_depth_png(png(codes), "navi_disparity", name="d.png")
    disparity = codes.reshape(-1)[1:].astype(np.float64) / (65535 * 10)  # google/navi data_util.py
    np.testing.assert_allclose(depth.reshape(-1)[1:] * 1000.0, 1 / disparity, rtol=1e-6)


def test_millimetres() -> None:
    depth = read_depth_png(png(np.array([[0, 1], [1500, 65535]], np.uint16)), "millimetres", name="d.png")
    np.testing.assert_array_equal(depth, np.array([[0, 0.001], [1.5, 0]], np.float32))


def test_depth_must_be_16_bit_grey_and_whole() -> None:
    whole = png(np.random.default_rng(0).integers(0, 65535, (64, 64)).astype(np.uint16))
    for data, message in (
        (png(np.zeros((4, 4), np.uint8)), "8-bit, grey"),
        (png(np.zeros((4, 4, 3), np.uint8)), "8-bit, not grey"),
        (b"\xff\xd8\xff" + bytes(40), "not a PNG"),
        (b"", "not a PNG"),
        (whole[: len(whole) // 2], "cannot be decoded"),
    ):
        with pytest.raises(DataError, match=rf"a/b\.png: .*{message}"):
            read_depth_png(data, "millimetres", name="a/b.png")
    with pytest.raises(UsageError, match="metres"):
        read_depth_png(whole, "metres", name="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_header_size_equals_decoded_size(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert picture_size(path, name="a", exif=True) == open_exif(path.read_bytes(), name="a").size
    assert picture_size(path, name="a", exif=False) == (30, 20)


def test_exif_turns_the_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the top becomes the right
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif, quality=95)
    upright = np.asarray(open_exif(stream.getvalue(), name="a"))
    assert upright.shape == (30, 20, 3)
    assert upright[:, 12:].min() > 200
    assert upright[:, :8].max() < 50


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (5, 4)).save(stream, "TIFF")
    assert open_exif(stream.getvalue(), name="a").mode == "RGB"


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(stream, "JPEG")
    with pytest.raises(DataError, match=r"x/y\.jpg: cannot be decoded"):
        open_exif(stream.getvalue()[:600], name="x/y.jpg")
    empty = tmp_path / "e.png"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match="e: no readable image header"):
        picture_size(empty, name="e", exif=False)
    with pytest.raises(DataError, match="e: not a PNG"):
        depth_size(empty, name="e")
    with pytest.raises(DataError, match="gone: cannot be read"):
        depth_size(tmp_path / "gone.png", name="gone")
