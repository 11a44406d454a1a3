"""`mtv.encoders.load`: registry, entry points, overrides, device and dtype."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mtv.encoders
from mtv.encoders import BACKENDS, load, parse_spec
from mtv.errors import CheckpointError, UsageError

RANDOM = "timm:vit_tiny_patch16_224@random"


def test_overrides_win_over_the_spec_and_change_the_fingerprint() -> None:
    plain = load(RANDOM)
    encoder = load(f"{RANDOM}?size=64&crop_pct=1.0", overrides={"image.size": 96, "image.mean": (0.1, 0.1, 0.1)})
    assert encoder.info.image.size == 96
    assert encoder.info.image.crop_pct == 1.0
    assert encoder.info.sources["image.size"] == "option: size=96"
    assert encoder.info.sources["image.mean"] == "option: mean=0.1,0.1,0.1"
    assert encoder.info.weights_sha256 == plain.info.weights_sha256
    assert encoder.info.fingerprint != plain.info.fingerprint
    with pytest.raises(UsageError, match=r"image\.sizes"):
        load(RANDOM, overrides={"image.sizes": 96})


def test_from_picture_to_features() -> None:
    encoder = load(RANDOM)
    pixels = torch.stack([encoder.transform()(Image.new("RGB", (300, 200), (255, 128, 0)))])
    x = encoder.normalize(pixels)
    assert x[0, :, 5, 5].tolist() == pytest.approx([1.0, 128 / 255 * 2 - 1, -1.0], abs=1e-6)
    assert encoder.features(x, layers=[-1], norm="final").tokens[11].shape == (1, 14, 14, 192)


@pytest.mark.parametrize(
    ("word", "dtype"), [("bf16", torch.bfloat16), (torch.bfloat16, torch.bfloat16), (None, torch.float32)]
)
def test_dtype(word: Any, dtype: torch.dtype) -> None:
    encoder = load(RANDOM, dtype=word)
    assert encoder.dtype == dtype
    assert encoder.info.fingerprint == load(RANDOM).info.fingerprint
    out = encoder.features(encoder.normalize(torch.zeros(1, 3, 96, 96, dtype=torch.uint8)), layers=[0], norm="final")
    assert out.tokens[0].dtype == dtype


def test_wrong_device_and_dtype_fail_before_loading() -> None:
    with pytest.raises(UsageError, match="did you mean"):
        load("timm:does_not_exist@random", dtype="fp33")
    with pytest.raises(UsageError, match="no tower dtype"):
        load("timm:does_not_exist@random", dtype=torch.int8)
    with pytest.raises(UsageError, match="unknown device"):
        load("timm:does_not_exist@random", device="gpu")
    with pytest.raises(UsageError, match=r"device cuda:99 does not exist"):
        load("timm:does_not_exist@random", device="cuda:99")


def test_seed_needs_random_weights() -> None:
    with pytest.raises(UsageError, match="seed"):
        load("dinov2-b14?seed=3")


def test_a_run_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="runs/b16 is no directory"):
        load("mtv:runs/b16/step_048828")


def test_backends_are_lazy_strings() -> None:
    assert set(BACKENDS) == {"open_clip", "timm", "hf", "mtv", "python"}
    assert all(target.count(":") == 1 and target.startswith("mtv.encoders.") for target in BACKENDS.values())


def test_a_backend_from_an_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "plugin_backend_xyz.py").write_text(
        "from mtv.encoders.spec import parse_spec\n"
        "from mtv.encoders.timm_backend import load_timm\n"
        "def load_it(spec, *, options, download):\n"
        "    assert (spec.scheme, spec.name) == ('xyz', 'any:thing')\n"
        "    return load_timm(parse_spec('timm:vit_tiny_patch16_224@random'), options=options, download=download)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint(name="xyz", value="plugin_backend_xyz:load_it", group="mtv.encoders")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    assert parse_spec("xyz:any:thing?size=32").name == "any:thing"
    assert load("xyz:any:thing?size=32").info.image.size == 32
    with pytest.raises(UsageError, match="xyz"):
        parse_spec("xyy:any")


def test_weights_are_checked_whatever_backend_made_them(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class M(nn.Conv2d):\n    patch_size = 8; size = 64\n"
        "def build():\n    m = M(3, 5, 8, 8)\n    m.bias.data[1] = float('nan')\n    return m\n"
    )
    with pytest.raises(CheckpointError, match="'bias' holds 1"):
        load(f"python:{tmp_path}/m.py:build")


def test_lazy_names() -> None:
    assert mtv.encoders.Encoder.__name__ == "Encoder"
    with pytest.raises(AttributeError, match="nothing"):
        _ = mtv.encoders.nothing
