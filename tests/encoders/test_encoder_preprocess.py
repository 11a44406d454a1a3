"""Decoding and the image transform, against torchvision's and timm's own transforms (Z10, Z11)."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from mtv.encoders.preprocess import ImageTransform, decode_rgb, resized_size, to_rgb
from mtv.encoders.records import ImageRecord
from mtv.errors import DataError

HALF = (0.5, 0.5, 0.5)


def record(**fields: object) -> ImageRecord:
    base: dict[str, object] = {"size": 224, "mean": HALF, "std": HALF, "resize": "crop"}
    return ImageRecord(**{**base, **fields})  # type: ignore[arg-type]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_z10_stripes_under_siglip_and_clip() -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:, :80] = pixels[:, -80:] = 255
    picture = Image.fromarray(pixels)
    squashed = ImageTransform(record(resize="squash"))(picture)
    row = squashed[0, 112]
    assert squashed.shape == (3, 224, 224)
    assert int((row[:112] > 127).sum()) == 28
    assert int((row[112:] > 127).sum()) == 28
    cropped = record(resize="crop")
    assert resized_size(640, 480, cropped) == (298, 224)
    # 37 of 298 columns are cut on each side, the stripes are 80 * 298 / 640 = 37 columns wide: none is left.
    assert int((ImageTransform(cropped)(picture)[0, 112, 2:-2] > 127).sum()) == 0


def test_z11_timm_crop_pct_resizes_to_248_and_crops_224() -> None:
    spec = record(crop_pct=0.9)
    assert resized_size(500, 400, spec) == (310, 248)
    assert ImageTransform(spec)(noise(500, 400)).shape == (3, 224, 224)


FILTERS = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "nearest": InterpolationMode.NEAREST,
}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 400),
    st.integers(20, 400),
    st.sampled_from(sorted(FILTERS)),
    st.sampled_from([(96, 1.0), (64, 0.875), (70, 0.9), (57, 0.95)]),
)
def test_crop_equals_torchvision(width: int, height: int, how: str, size: tuple[int, float]) -> None:
    side, pct = size
    picture = noise(width, height)
    oracle = T.Compose([T.Resize(int(side / pct + 1e-6), FILTERS[how]), T.CenterCrop(side), T.PILToTensor()])
    ours = ImageTransform(record(size=side, crop_pct=pct, filter=how))(picture)
    assert torch.equal(ours, oracle(picture))


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 400), st.integers(20, 400), st.sampled_from(sorted(FILTERS)))
def test_squash_equals_torchvision(width: int, height: int, how: str) -> None:
    picture = noise(width, height)
    oracle = T.Compose([T.Resize((64, 64), FILTERS[how]), T.PILToTensor()])
    assert torch.equal(ImageTransform(record(size=64, resize="squash", filter=how))(picture), oracle(picture))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(30, 300),
    st.integers(30, 300),
    st.sampled_from(["border", "squash", "center"]),
    st.sampled_from([1.0, 0.95, 0.9]),
)
def test_all_timm_modes_equal_timm(width: int, height: int, mode: str, pct: float) -> None:
    from timm.data import create_transform

    mean = (0.485, 0.456, 0.406)
    oracle = create_transform(96, interpolation="bicubic", mean=mean, crop_pct=pct, crop_mode=mode, normalize=False)
    resize = "crop" if mode == "center" else mode
    picture = noise(width, height)
    ours = ImageTransform(record(size=96, mean=mean, resize=resize, crop_pct=pct))(picture)
    theirs: Tensor = oracle(picture)
    assert torch.equal(ours, theirs if theirs.dtype == torch.uint8 else theirs.mul(255).round().to(torch.uint8))


def test_every_crop_share_in_timm_gives_timms_size() -> None:
    import math

    import timm

    for name in timm.list_models(pretrained=True):
        cfg = timm.get_pretrained_cfg(name)
        if cfg.crop_pct > 1:
            continue
        side = cfg.input_size[1]
        spec = record(size=side, crop_pct=cfg.crop_pct, resize="squash")
        assert resized_size(9, 9, spec)[0] == math.floor(side / cfg.crop_pct), name


def test_the_transform_is_a_plain_value() -> None:
    first = ImageTransform(record())
    again = pickle.loads(pickle.dumps(first))
    assert again == first
    assert torch.equal(again(noise(50, 40)), first(noise(50, 40)))


def test_tiny_and_extreme_pictures() -> None:
    for size in ((1, 1), (1, 500), (500, 1)):
        for resize in ("crop", "squash", "border"):
            out = ImageTransform(record(size=32, resize=resize))(Image.new("RGB", size, (9, 8, 7)))
            assert out.shape == (3, 32, 32)
            assert out.dtype == torch.uint8


def test_decode_modes() -> None:
    colour = Image.new("RGBA", (4, 3), (10, 20, 30, 0))
    assert decode_rgb(encode(colour)).getpixel((0, 0)) == (10, 20, 30)
    assert decode_rgb(encode(Image.new("L", (4, 3), 77))).getpixel((0, 0)) == (77, 77, 77)
    assert decode_rgb(encode(Image.new("LA", (4, 3), (77, 3)))).getpixel((0, 0)) == (77, 77, 77)
    assert decode_rgb(encode(Image.new("1", (4, 3), 1))).getpixel((0, 0)) == (255, 255, 255)
    cmyk = decode_rgb(encode(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG"))
    assert cmyk.mode == "RGB"
    assert min(cmyk.getpixel((8, 8))) >= 253  # type: ignore[type-var]
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 50, 60, 70])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_rgb(encode(palette, transparency=b"\x00\x00")).getpixel((0, 0)) == (50, 60, 70)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 128 * 257 + 5, 65535]], np.uint16)
    decoded = np.asarray(decode_rgb(encode(Image.fromarray(values))))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]
    assert np.asarray(to_rgb(Image.fromarray(values.astype(np.int32))))[0, :, 1].tolist() == [0, 1, 128, 255]
    with pytest.raises(DataError, match="floating-point"):
        decode_rgb(encode(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_exif_rotation_only_on_request() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(noise(40, 20), "JPEG", exif=exif)
    assert decode_rgb(data).size == (40, 20)
    assert decode_rgb(data, exif=True).size == (20, 40)


def test_broken_files_are_data_errors() -> None:
    whole = encode(noise(80, 60), "JPEG")
    png = encode(noise(80, 60))
    for data in (b"", b"hello", whole[: len(whole) // 2], png[: len(png) // 2], png[:30], b"GIF89a"):
        with pytest.raises(DataError):
            decode_rgb(data)
    with pytest.raises(DataError, match="0 bytes"):
        decode_rgb(b"")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_bytes_never_escape_as_other_errors(position: int, value: int) -> None:
    data = bytearray(encode(noise(40, 30)))
    data[position % len(data)] = value
    with contextlib.suppress(DataError):
        assert decode_rgb(bytes(data)).mode == "RGB"
