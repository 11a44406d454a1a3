"""Depth heads of users: the contract of `python:` modules, and linear heads in files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.encoders.depth_head import LinearDepthHead, attach_depth_head, load_depth_head, save_depth_head
from mtv.errors import CheckpointError, UsageError

PYTHON = """
import torch
from torch import nn

class Plain(nn.Module):
    patch_size = 8
    size = 32
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 8, 8)
    def forward(self, x):
        return self.conv(x)

class Depth(Plain):
    depth_kind = "disparity"
    depth_floored = True
    def predict_depth(self, x):
        return torch.relu(self.conv(x)[:, 0])

class NoKind(Plain):
    def predict_depth(self, x):
        return x[:, 0]

class OddKind(NoKind):
    depth_kind = "distance"

class FourAxes(Plain):
    depth_kind = "depth"
    def predict_depth(self, x):
        return x[:, :1]
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("python") / "depths.py"
    file.write_text(PYTHON)
    return f"python:{file}"


def test_python_modules_may_bring_a_head(python: str) -> None:
    encoder = load(f"{python}:Depth")
    assert encoder.info.depth_head is not None
    assert (encoder.info.depth_head.kind, encoder.info.depth_head.floored) == ("disparity", True)
    x = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(encoder.predict_depth(x), torch.relu(encoder.module.conv(x)[:, 0]))  # type: ignore[operator]
    assert not load(f"{python}:Plain").has_depth
    with pytest.raises(UsageError, match="no multiple of patch size 8"):
        encoder.predict_depth(torch.zeros(1, 3, 30, 32))


@pytest.mark.parametrize(
    ("factory", "named"),
    [
        ("NoKind", "needs the attribute depth_kind, got None"),
        ("OddKind", "needs the attribute depth_kind, got 'distance'"),
        ("FourAxes", r"predict_depth is \[2, 1, 32, 32\], expected \[2, h, w\]"),
    ],
)
def test_python_contract(python: str, factory: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load(f"{python}:{factory}")


def head_for(encoder: Encoder, **changes: Any) -> LinearDepthHead:
    weight = torch.linspace(-1, 1, encoder.width)
    fields: dict[str, Any] = {
        "weight_D": weight,
        "bias": 0.25,
        "kind": "disparity",
        "layer": -1,
        "norm": "none",
        "encoder": encoder.info.fingerprint,
        "fitted_on": "a test",
        "fit": {"ridge": 0.1},
        **changes,
    }
    return LinearDepthHead(**fields)


def test_a_head_in_a_file_is_a_sum_over_channels(python: str, tmp_path: Path) -> None:
    spec, file = f"{python}:Plain", tmp_path / "head.safetensors"
    bare = load(spec)
    head = head_for(bare)
    save_depth_head(file, head)
    read = load_depth_head(file)
    assert read.sha256 == head.sha256
    encoder = load(f"{spec}?depth_head={file}")
    x = torch.randn(2, 3, 32, 48)
    tokens = bare.features(x, layers=[0], norm="none").tokens[0].numpy()
    found = encoder.predict_depth(x)
    assert found.shape == (2, 4, 6)
    for b, i, j in np.ndindex(2, 4, 6):
        expected = sum(float(t) * float(w) for t, w in zip(tokens[b, i, j], head.weight_D, strict=True)) + 0.25
        assert float(found[b, i, j]) == pytest.approx(expected, abs=1e-5)
    assert encoder.info.fingerprint != bare.info.fingerprint
    assert encoder.info.weights_sha256 == bare.info.weights_sha256
    assert encoder.info.depth_head is not None
    assert encoder.info.depth_head.fitted_on == "a test"
    assert encoder.info.spec.endswith("depth_head=head.safetensors")
    assert str(tmp_path) not in json.dumps(encoder.info.to_dict())
    save_depth_head(file, replace(head, bias=0.5))
    assert load(f"{spec}?depth_head={file}").info.fingerprint != encoder.info.fingerprint


def test_a_head_belongs_to_one_encoder(python: str, tmp_path: Path) -> None:
    file = tmp_path / "head.safetensors"
    save_depth_head(file, head_for(load(f"{python}:Plain")))
    with pytest.raises(CheckpointError, match=r"head\.safetensors: fitted on encoder \w{16}, but"):
        load(f"{python}:Plain?size=64&depth_head={file}")
    with pytest.raises(UsageError, match="brings a depth head of its own"):
        load(f"{python}:Depth?depth_head={file}")
    own = load(f"{python}:Depth")
    with pytest.raises(UsageError, match="brings a depth head of its own"):
        attach_depth_head(own, file)


def test_files_that_are_no_heads(python: str, tmp_path: Path) -> None:
    encoder = load(f"{python}:Plain")
    file = tmp_path / "head.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_depth_head(file)
    file.write_bytes(b"not a head")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_depth_head(file)
    save_file({"weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="not a depth head"):
        load_depth_head(file)
    save_depth_head(file, head_for(encoder))
    with safe_header(file) as header:
        header["format"] = 7
    with pytest.raises(CheckpointError, match="format 7, this mtv reads 1"):
        load_depth_head(file)
    with safe_header(file) as header:
        header["format"] = 1
        header["norm"] = "layer"
    with pytest.raises(CheckpointError, match="norm must be none or final"):
        load_depth_head(file)
    with safe_header(file) as header:
        header["surplus"] = 1
    with pytest.raises(CheckpointError, match="surplus"):
        load_depth_head(file)


class safe_header:
    """Rewrites the JSON header of a head file in place."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> dict[str, Any]:
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as f:
            self.weight = f.get_tensor("weight")
            self.header: dict[str, Any] = json.loads(f.metadata()["mtv_depth_head"])
        return self.header

    def __exit__(self, *_: object) -> None:
        save_file({"weight": self.weight}, self.file, metadata={"mtv_depth_head": json.dumps(self.header)})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weight_D": torch.zeros(2, 3)}, "float32 vector"),
        ({"weight_D": torch.tensor([0.0, float("nan")])}, "not finite"),
        ({"bias": float("inf")}, "not finite"),
        ({"fitted_on": ""}, "fitted_on is empty"),
    ],
)
def test_heads_are_checked(python: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        head_for(load(f"{python}:Plain"), **changes)
