"""`python:` specs: modules and files, the contract, and errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtv.encoders import load
from mtv.errors import UsageError

GOOD = """
import torch
from torch import nn
from helper_beside import WIDTH

class Dense(nn.Module):
    patch_size = 8
    size = 64
    mean = (0.1, 0.2, 0.3)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 8, 8)
        self.register_buffer("std", torch.tensor([0.4, 0.5, 0.6]))

    def forward(self, x):
        return self.conv(x)

class WithText(Dense):
    def forward(self, x):
        y = self.conv(x)
        return y, y.amax(dim=(2, 3))[:, :4]

    def encode_text(self, strings):
        self.seen = list(strings)
        return torch.tensor([[len(s), s.count("a"), 1.0, 0.0] for s in strings])

class Dict(Dense):
    pooling = "max"
    def forward(self, x):
        return {"map": self.conv(x)}

def build():
    torch.manual_seed(0)
    return Dense()

def text():
    torch.manual_seed(0)
    return WithText()

def as_dict():
    return Dict()

number = 3

def fails():
    raise RuntimeError("no weights here")

def not_a_model():
    return 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_model.py").write_text(GOOD)
    (tmp_path / "helper_beside.py").write_text("WIDTH = 6\n")
    return tmp_path


def test_a_module_from_a_file(folder: Path) -> None:
    encoder = load(f"python:{folder}/my_model.py:build")
    assert (encoder.patch_size, encoder.depth, encoder.width, encoder.embed_dim) == (8, 1, 6, 6)
    image = encoder.info.image
    assert image.mean == (0.1, 0.2, 0.3)
    assert image.std == pytest.approx((0.4, 0.5, 0.6))
    assert encoder.info.sources["image.mean"] == "config: module attributes"
    assert encoder.info.sources["image.resize"] == "family: custom"
    assert encoder.info.spec == "python:my_model.py:build"
    images = torch.randn(2, 3, 32, 48)
    out = encoder.features(images, layers=[-1], norm="none", pooled=True)
    with torch.no_grad():
        dense = encoder.module(images)
    assert torch.equal(out.tokens[0], dense.permute(0, 2, 3, 1))
    assert out.pooled is not None
    assert torch.allclose(out.pooled, dense.mean((2, 3)))
    assert encoder.info.pooling == "mean of the dense map"


def test_a_module_by_name_from_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "importable_model_xyz.py").write_text(GOOD)
    encoder = load("python:importable_model_xyz:as_dict?mean=0.5,0.5,0.5")
    assert encoder.info.image.mean == (0.5, 0.5, 0.5)
    images = torch.randn(1, 3, 64, 64)
    out = encoder.features(images, layers=[0], norm="final", pooled=True)
    assert out.pooled is not None
    assert torch.equal(out.pooled, out.tokens[0].amax((1, 2)))


def test_text_is_cleaned_deduplicated_and_ordered(folder: Path) -> None:
    encoder = load(f"python:{folder}/my_model.py:text")
    assert encoder.has_text
    assert (encoder.width, encoder.embed_dim) == (6, 4)
    out = encoder.encode_text(["b  a\n", "aaaa", "b a", "c"], batch_size=2)
    assert out.tolist() == [[3, 1, 1, 0], [4, 4, 1, 0], [3, 1, 1, 0], [1, 0, 1, 0]]
    assert encoder.encode_text([]).shape == (0, 4)
    lower = load(f"python:{folder}/my_model.py:text?cleaning=lower")
    assert lower.encode_text(["A"], kind="prompt")[0, 1] == 1
    with pytest.raises(UsageError, match="no text tower"):
        load(f"python:{folder}/my_model.py:build").encode_text(["a"])


def test_the_source_enters_the_fingerprint(folder: Path) -> None:
    first = load(f"python:{folder}/my_model.py:build").info
    (folder / "my_model.py").write_text(GOOD.replace("return self.conv(x)", "return 2 * self.conv(x)"))
    second = load(f"python:{folder}/my_model.py:build").info
    assert first.weights_sha256 == second.weights_sha256
    assert first.fingerprint != second.fingerprint


def test_an_encoder_is_used_as_it_is(folder: Path) -> None:
    (folder / "own.py").write_text(
        "from mtv.encoders import load\ndef build():\n    return load('timm:vit_tiny_patch16_224@random?seed=5')\n"
    )
    encoder = load(f"python:{folder}/own.py:build")
    assert encoder.info.fingerprint == load("timm:vit_tiny_patch16_224@random?seed=5").info.fingerprint
    with pytest.raises(UsageError, match="size=64"):
        load(f"python:{folder}/own.py:build?size=64")


def test_an_encoder_with_changed_weights_has_an_identity_of_its_own(folder: Path) -> None:
    (folder / "own.py").write_text(
        "import torch\nfrom mtv.encoders import load\n"
        "def build(factor=0.5):\n"
        "    encoder = load('timm:vit_tiny_patch16_224@random?seed=5')\n"
        "    with torch.no_grad():\n"
        "        for parameter in encoder.module.parameters():\n"
        "            parameter.mul_(factor)\n"
        "    return encoder\n"
        "def other():\n    return build(0.25)\n"
    )
    plain = load("timm:vit_tiny_patch16_224@random?seed=5").info
    half, quarter = (load(f"half=python:{folder}/own.py:{name}").info for name in ("build", "other"))
    assert len({info.fingerprint for info in (plain, half, quarter)}) == 3
    assert half.fingerprint == load(f"python:{folder}/own.py:build").info.fingerprint
    assert half.weights_sha256 != plain.weights_sha256
    assert half.alias == "half"
    assert half.spec.startswith("python:")
    assert half.image == plain.image


@pytest.mark.parametrize(
    ("target", "fragment"),
    [
        ("absent.py:build", "there is no file"),
        ("my_model.py:bild", "Callables there:"),
        ("my_model.py:number", "not callable"),
        ("my_model.py:fails", "RuntimeError: no weights here"),
        ("my_model.py:not_a_model", "returned int"),
        ("my_model.py:build?length=3", "length=3"),
        ("my_model.py:build?size=60", "no multiple of patch_size 8"),
    ],
)
def test_errors(folder: Path, target: str, fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(f"python:{folder}/{target}")
    assert fragment in str(caught.value)


def test_missing_module_and_broken_code(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no_such_module_xyz.*ModuleNotFoundError"):
        load("python:no_such_module_xyz:build")
    (folder / "broken.py").write_text("import torch\n\nraise ValueError('half done')\n")
    with pytest.raises(UsageError, match=r"half done \(broken\.py:3\)"):
        load(f"python:{folder}/broken.py:build")


@pytest.mark.parametrize(
    ("body", "attributes", "fragment"),
    [
        ("x.mean((2, 3))", "patch_size = 8", "map is [2, 3], expected [2, C, 8, 8]"),
        ("x", "patch_size = 8", "map is [2, 3, 64, 64]"),
        ("(c(x), x)", "patch_size = 8", "pooled vector is [2, 3, 64, 64], expected [2, D]"),
        ("(c(x), None, 1)", "patch_size = 8", "3 values"),
        ("{'dense': c(x)}", "patch_size = 8", "without key 'map'"),
        ("'text'", "patch_size = 8", "map is str"),
        ("c(x)", "", "patch_size, got None"),
        ("c(x)", "patch_size = 8; mean = (1, 2)", "image.mean needs three"),
        ("c(x)", "patch_size = 8; pooling = 'cls'", "pooling must be one of mean, max"),
    ],
)
def test_contract(tmp_path: Path, body: str, attributes: str, fragment: str) -> None:
    (tmp_path / "m.py").write_text(
        "from torch import nn\n"
        "class M(nn.Module):\n"
        f"    size = 64; {attributes}\n"
        "    def __init__(self):\n        super().__init__()\n        self.c = nn.Conv2d(3, 5, 8, 8)\n"
        f"    def forward(self, x):\n        c = self.c\n        return {body}\n"
        "def build():\n    return M()\n"
    )
    with pytest.raises(UsageError) as caught:
        load(f"python:{tmp_path}/m.py:build")
    assert fragment in str(caught.value)


def test_size_has_no_default(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from torch import nn\nclass M(nn.Conv2d):\n    patch_size = 8\ndef build():\n    return M(3, 5, 8, 8)\n"
    )
    with pytest.raises(UsageError, match=r"unresolved image fields: size;"):
        load(f"python:{tmp_path}/m.py:build")
    encoder = load(f"python:{tmp_path}/m.py:build?size=64")
    assert encoder.info.image.mean == (0.5, 0.5, 0.5)
    assert encoder.info.sources["image.mean"] == "family: custom"
