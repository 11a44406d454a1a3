"""Reading weights: every format, strict keys, and nothing executed; fingerprints; position embeddings."""

from __future__ import annotations

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mtv.encoders.build import activation_of, plain
from mtv.encoders.checkpoint import load_strict, read_state_dict
from mtv.encoders.fingerprint import fingerprint, weights_sha256
from mtv.encoders.posembed import resize_pos_embed
from mtv.encoders.records import ImageRecord, TextRecord
from mtv.errors import CheckpointError, UsageError
from mtv.hashing import canonical_json


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {"module." + k: v for k, v in s.items()},
        lambda s: {"model": {"state_dict": {"_orig_mod.module." + k: v for k, v in s.items()}}},
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_torch_files_and_nestings(tmp_path: Path, wrap: Callable[[Any], Any], suffix: str) -> None:
    state = model().state_dict()
    torch.save(wrap(dict(state)), tmp_path / f"w{suffix}")
    read = read_state_dict(tmp_path / f"w{suffix}")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


def test_safetensors_and_pt_agree(tmp_path: Path) -> None:
    state = {**model().state_dict(), "half": torch.randn(3, 5, dtype=torch.bfloat16), "step": torch.tensor(7)}
    torch.save(state, tmp_path / "w.pt")
    save_file({k: v.contiguous() for k, v in reversed(state.items())}, tmp_path / "w.safetensors")
    one, two = (read_state_dict(tmp_path / n) for n in ("w.pt", "w.safetensors"))
    assert weights_sha256(one) == weights_sha256(two) == weights_sha256(state)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_bomb_is_refused_and_not_executed(tmp_path: Path, legacy: bool) -> None:
    target, path = tmp_path / "exploded", tmp_path / "w.pt"
    if legacy:
        path.write_bytes(pickle.dumps({"a": Bomb(target)}))
    else:
        torch.save({"a": torch.zeros(2), "b": Bomb(target)}, path)
    with pytest.raises(CheckpointError, match=r"w\.pt.*nothing in it was executed"):
        read_state_dict(path)
    assert not target.exists()
    torch.load(path, weights_only=False) if not legacy else pickle.loads(path.read_bytes())
    assert target.exists()


def test_damaged_files(tmp_path: Path) -> None:
    state = {"a": torch.randn(100, 100)}
    torch.save(state, tmp_path / "whole.pt")
    save_file(state, tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        data = (tmp_path / name).read_bytes()
        for share in (0.02, 0.5, 0.99):
            cut = tmp_path / f"cut{share}{Path(name).suffix}"
            cut.write_bytes(data[: int(len(data) * share)])
            with pytest.raises(CheckpointError, match=cut.name):
                read_state_dict(cut)
    cases = {
        "empty.pt": (b"", "empty"),
        "text.pt": (b"hello world, no checkpoint", "no PyTorch checkpoint"),
        "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid", "LFS"),
        "w.npz": (b"PK", "unknown ending"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            read_state_dict(tmp_path / name)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="directory"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_non_finite_weights_name_file_and_tensor(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    state = {"fine": torch.ones(3), "blocks.0.bad": torch.ones(5, dtype=dtype)}
    state["blocks.0.bad"][2] = value
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors.*'blocks\.0\.bad' holds 1 values"):
        read_state_dict(tmp_path / "w.safetensors")


def test_things_that_are_no_state_dict(tmp_path: Path) -> None:
    for number, thing in enumerate((torch.ones(3), [torch.ones(3)], {}, {"a": torch.ones(1), "cfg": "ViT"})):
        path = tmp_path / f"{number}.pt"
        torch.save(thing, path)
        with pytest.raises(CheckpointError, match=f"{number}.pt"):
            read_state_dict(path)


def test_bare_numbers_stay_visible_to_strict_loading(tmp_path: Path) -> None:
    torch.save({**model().state_dict(), "input_resolution": 224}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="input_resolution"):
        load_strict(model(), read_state_dict(tmp_path / "w.pt"), file="w.pt")


def test_strict_loading() -> None:
    state, target = dict(model(1).state_dict()), model(0)
    report = load_strict(target, state, file="w")
    assert report.missing == report.unexpected == ()
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())

    changed = {k: v for k, v in state.items() if k != "0.bias"} | {"head.a": torch.ones(1), "head.b": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"1 missing: 0\.bias; 2 unexpected: head\.a, head\.b"):
        load_strict(model(), changed, file="w")
    with pytest.raises(CheckpointError, match=r"1 missing: 0\.bias") as caught:
        load_strict(model(), changed, file="w", allow_unexpected=["head.*"])
    assert "unexpected:" not in str(caught.value)
    before = model(5)
    kept = before.state_dict()["0.bias"].clone()
    report = load_strict(before, changed, file="w", allow_missing=["*.bias"], allow_unexpected=["head.?"])
    assert report.missing == ("0.bias",)
    assert report.unexpected == ("head.a", "head.b")
    assert torch.equal(before.state_dict()["0.bias"], kept)

    with pytest.raises(CheckpointError, match=r"0\.weight: model \[3, 4\] float32, file \[4, 3\]"):
        load_strict(model(), {**state, "0.weight": torch.ones(4, 3)}, file="w", allow_missing=["*"])
    with pytest.raises(CheckpointError, match=r"0\.weight: model .*, file \[3, 4\] int8"):
        load_strict(model(), {**state, "0.weight": torch.ones(3, 4, dtype=torch.int8)}, file="w")


def test_a_failed_load_leaves_the_module_alone() -> None:
    target = model(0)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_strict(target, {**model(1).state_dict(), "x": torch.ones(1)}, file="w")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_weights_sha_follows_its_definition() -> None:
    state: dict[str, Tensor] = {"b": torch.arange(6.0).view(2, 3).t(), "a": torch.tensor(3, dtype=torch.int64)}
    expected = hashlib.sha256()
    expected.update(b'["a","int64",[]]\n' + (3).to_bytes(8, "little"))
    expected.update(b'["b","float32",[3,2]]\n' + torch.tensor([0.0, 3, 1, 4, 2, 5]).numpy().tobytes())
    assert weights_sha256(state) == expected.hexdigest()


def test_weights_sha_sees_every_change() -> None:
    base = {"a": torch.ones(4), "b": torch.zeros(2, 3)}
    variants = [
        base,
        {"a": torch.ones(4), "c": torch.zeros(2, 3)},
        {"a": torch.ones(4), "b": torch.zeros(3, 2)},
        {"a": torch.ones(4).half(), "b": torch.zeros(2, 3)},
        {"a": torch.tensor([1.0, 1, 1, 1.0000001]), "b": torch.zeros(2, 3)},
        {"a": torch.ones(4), "b": -torch.zeros(2, 3)},
    ]
    assert len({weights_sha256(v) for v in variants}) == len(variants)


def test_hashing_streams_fast() -> None:
    state = {str(i): torch.zeros(5_000_000) for i in range(5)}
    start = time.perf_counter()
    weights_sha256(state)
    # 100 MB; a copy per byte or a Python loop would need many times as long.
    assert time.perf_counter() - start < 1.5


def test_fingerprint_covers_everything() -> None:
    image = ImageRecord(size=8, mean=(0.5,) * 3, std=(0.5,) * 3, resize="crop")
    text = TextRecord(
        cleaning="none",
        caption_cleaning="none",
        tokenizer="t",
        length=4,
        bos=None,
        eos=1,
        pad=0,
        causal=True,
        trim=True,
    )
    prints = {
        fingerprint("a", {"x": 1}, "w", image, None),
        fingerprint("b", {"x": 1}, "w", image, None),
        fingerprint("a", {"x": 2}, "w", image, None),
        fingerprint("a", {"x": 1}, "v", image, None),
        fingerprint("a", {"x": 1}, "w", image.with_(filter="bilinear"), None),
        fingerprint("a", {"x": 1}, "w", image, text),
    }
    assert len(prints) == 6


def test_plain_configs_have_a_canonical_form() -> None:
    config = {"act": nn.GELU, "dtype": torch.float32, "size": torch.Size([2, 3]), 3: {"b", "a"}, "f": object()}
    assert canonical_json(plain(config)) == canonical_json(plain({**config, "f": object()}))
    assert plain(config)["act"] == "torch.nn.modules.activation.GELU"


def test_activation_names() -> None:
    from open_clip.transformer import QuickGELU

    assert activation_of(nn.Sequential(nn.Linear(2, 2), QuickGELU())) == "quick_gelu"
    assert activation_of(nn.Sequential(nn.GELU())) == "gelu"
    assert activation_of(nn.Sequential(nn.GELU(approximate="tanh"))) == "gelu_tanh"
    assert activation_of(nn.Linear(2, 2)) == "unknown"


def test_position_embeddings_are_untouched_at_native_size() -> None:
    pos = torch.randn(1, 1 + 14 * 14, 8)
    for mode in ("bicubic", "bicubic-antialias"):
        assert resize_pos_embed(pos, (14, 14), (14, 14), 1, mode) is pos


@pytest.mark.parametrize("new", [(32, 32), (7, 9), (14, 20), (1, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_antialiased_positions_equal_timm(new: tuple[int, int], prefix: int) -> None:
    from timm.layers import resample_abs_pos_embed

    pos = torch.randn(1, prefix + 14 * 14, 8)
    ours = resize_pos_embed(pos, new, (14, 14), prefix, "bicubic-antialias")
    assert torch.equal(ours, resample_abs_pos_embed(pos, list(new), [14, 14], prefix))
    assert torch.equal(ours[:, :prefix], pos[:, :prefix])


def test_plain_positions_equal_transformers() -> None:
    from transformers import SiglipVisionConfig
    from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "image_size": 96, "patch_size": 16}
    embeddings = SiglipVisionEmbeddings(SiglipVisionConfig(**sizes))
    table = embeddings.position_embedding.weight.detach()[None]
    theirs = embeddings.interpolate_pos_encoding(torch.zeros(1, 6 * 10, 8), 96 * 2, 160)
    ours = resize_pos_embed(table, (12, 10), (6, 6), 0, "bicubic")
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)
    other = resize_pos_embed(table, (12, 10), (6, 6), 0, "bicubic-antialias")
    assert float((ours - other).norm() / ours.norm()) > 0.02


def test_positions_keep_dtype_and_constants() -> None:
    pos = torch.full((1, 1 + 9, 4), 0.25, dtype=torch.bfloat16)
    out = resize_pos_embed(pos, (5, 7), (3, 3), 1)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), torch.full((1, 36, 4), 0.25))


def test_position_errors() -> None:
    with pytest.raises(UsageError, match="bilinear"):
        resize_pos_embed(torch.zeros(1, 4, 2), (3, 3), (2, 2), 0, "bilinear")
    with pytest.raises(UsageError, match="has 5 entries"):
        resize_pos_embed(torch.zeros(1, 5, 2), (3, 3), (2, 2), 0)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(CheckpointError, match=r"ViT-B-32\.pt is a TorchScript archive"):
        read_state_dict(tmp_path / "ViT-B-32.pt")
