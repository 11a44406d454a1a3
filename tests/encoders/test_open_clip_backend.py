"""The open_clip backend: sources, strictness, activation (Z12), local SigLIP files (Z10), directories."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file

from mtv.encoders import load
from mtv.encoders.open_clip_backend import build_model, load_open_clip
from mtv.encoders.open_clip_source import family_of_config
from mtv.encoders.spec import ModelSpec, parse_spec
from mtv.errors import CheckpointError, UsageError

HALF = (0.5, 0.5, 0.5)
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": 32000,
    "width": 32,
    "heads": 2,
    "layers": 1,
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}


@pytest.fixture
def arch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers small configurations under the library's own names, so that tags and families are the real ones."""

    def register(name: str, config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        config = copy.deepcopy(config or TINY) | changes
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        return config

    return register


def state_of(config: dict[str, Any], seed: int = 5) -> dict[str, torch.Tensor]:
    model = build_model(config, seed=seed, spec=parse_spec("open_clip:x@random"))
    return {k: v.clone().contiguous() for k, v in model.state_dict().items()}


def quick(encoder: Any) -> int:
    return sum(isinstance(m, QuickGELU) for m in encoder.module.modules())


def fake_cache(monkeypatch: pytest.MonkeyPatch, root: Path, repo: str, files: dict[str, Any]) -> None:
    """A hub cache in the real layout, holding `repo` at one commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = root / ("models--" + repo.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        if name.endswith(".json"):
            (snapshot / name).write_text(json.dumps(content))
        else:
            save_file(content, snapshot / name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))


def test_z12_tag_forces_quick_gelu(arch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """open_clip itself would build plain GELU here and only warn."""
    config = arch("ViT-B-16")
    weights = {"open_clip_model.safetensors": state_of(config)}
    fake_cache(monkeypatch, tmp_path, "timm/vit_base_patch16_clip_224.openai", weights)
    encoder = load("open_clip:ViT-B-16/openai")
    assert quick(encoder) == 5
    assert not any(isinstance(m, torch.nn.GELU) for m in encoder.module.modules())
    assert encoder.info.activation == "quick_gelu"
    assert encoder.info.sources["activation"] == "tag: openai"
    assert encoder.info.sources["image.mean"] == "tag: ViT-B-16/openai"
    plain = load("open_clip:ViT-B-16/openai?quick_gelu=false")
    assert (quick(plain), plain.info.sources["activation"]) == (0, "option: quick_gelu=false")
    assert plain.info.fingerprint != encoder.info.fingerprint


def test_z12_local_file_is_decided_by_the_name_and_logged(
    arch: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "w.safetensors"
    save_file(state_of(arch("ViT-B-16")), file)
    arch("ViT-B-16-quickgelu", quick_gelu=True)
    with caplog.at_level(logging.INFO):
        encoder = load(f"open_clip:ViT-B-16@{file}")
    assert quick(encoder) == 0
    assert encoder.info.sources["activation"] == "family: architecture name ViT-B-16"
    assert "activation gelu (family: architecture name ViT-B-16)" in caplog.text
    assert quick(load(f"open_clip:ViT-B-16-quickgelu@{file}")) == 5
    assert quick(load(f"open_clip:ViT-B-16@{file}?quick_gelu=true")) == 5


def test_z12_openai_archive_entries_contradict_plain_gelu(arch: Any, tmp_path: Path) -> None:
    state = state_of(arch("ViT-B-16")) | {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    file = tmp_path / "openai.pt"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, file)
    with pytest.raises(CheckpointError, match="input_resolution, context_length, vocab_size") as e:
        load(f"open_clip:ViT-B-16@{file}")
    assert "ViT-B-16-quickgelu@FILE or ?quick_gelu=true" in e.value.hint
    encoder = load(f"open_clip:ViT-B-16@{file}?quick_gelu=true")
    assert encoder.dtype == torch.float32
    assert encoder.info.keys.unexpected == ()


def test_torchscript_archive_is_refused_unexecuted(arch: Any, tmp_path: Path) -> None:
    arch("ViT-B-16")
    file = tmp_path / "ViT-B-16.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    with pytest.raises(CheckpointError, match="TorchScript archive") as e:
        load(f"open_clip:ViT-B-16@{file}")
    assert "open_clip:ViT-B-16-quickgelu/openai" in e.value.hint


def test_uncached_tag_names_both_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="not in the local hub cache") as e:
        load("open_clip:ViT-B-16/openai")
    assert "--download" in e.value.hint
    assert "open_clip:ViT-B-16@FILE" in e.value.hint


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match="did you mean ViT-B-16"):
        load("open_clip:VIT-B-16/openai")
    with pytest.raises(UsageError, match="did you mean openai"):
        load("open_clip:ViT-B-16/openal")


def test_config_in_the_cache_beats_the_tag(
    arch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = arch("ViT-B-16")
    files = {
        "open_clip_model.safetensors": state_of(config),
        "open_clip_config.json": {"preprocess_cfg": {"mean": HALF, "resize_mode": "squash"}},
    }
    fake_cache(monkeypatch, tmp_path, "timm/vit_base_patch16_clip_224.openai", files)
    with caplog.at_level(logging.WARNING):
        info = load("open_clip:ViT-B-16/openai").info
    assert info.image.mean == HALF
    assert info.image.resize == "squash"
    assert info.sources["image.mean"] == "config: open_clip_config.json"
    assert info.sources["image.std"] == "tag: ViT-B-16/openai"
    assert "contradicts family clip" in caplog.text


def test_strict_keys(arch: Any, tmp_path: Path) -> None:
    state = state_of(arch("ViT-B-16"))
    file = tmp_path / "w.safetensors"
    save_file({k: v for k, v in state.items() if k != "visual.proj"} | {"extra.w": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"1 missing: visual\.proj; 1 unexpected: extra\.w"):
        load(f"open_clip:ViT-B-16@{file}")
    encoder = load(f"open_clip:ViT-B-16@{file}?allow_missing=visual.proj&allow_unexpected=extra.*")
    assert encoder.info.keys.missing == ("visual.proj",)
    assert encoder.info.keys.unexpected == ("extra.w",)
    arch("ViT-B-32", vision_cfg=TINY["vision_cfg"] | {"patch_size": 16})
    with pytest.raises(CheckpointError, match="of another shape"):
        load(f"open_clip:ViT-B-32@{file}?allow_missing=visual.proj&allow_unexpected=extra.*")


def test_pt_and_safetensors_and_training_wrappers_agree(arch: Any, tmp_path: Path) -> None:
    state = state_of(arch("ViT-B-16"))
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "epoch_3.pt")
    one, two = (load(f"open_clip:ViT-B-16@{tmp_path / n}").info for n in ("w.safetensors", "epoch_3.pt"))
    assert (one.weights_sha256, one.fingerprint) == (two.weights_sha256, two.fingerprint)
    assert one.spec == "open_clip:ViT-B-16@w.safetensors"


def test_flat_text_tower_of_old_files_fits_the_nested_class(arch: Any, tmp_path: Path) -> None:
    flat = state_of(arch("ViT-B-16"))
    arch("ViT-B-16-nested", custom_text=True)
    save_file(flat, tmp_path / "w.safetensors")
    file = tmp_path / "w.safetensors"
    texts = ["a cat", "two dogs"]
    expected = load(f"open_clip:ViT-B-16@{file}").encode_text(texts)
    torch.testing.assert_close(load(f"open_clip:ViT-B-16-nested@{file}").encode_text(texts), expected)


def test_random_depends_on_the_seed_alone(arch: Any) -> None:
    arch("ViT-B-16")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = load("open_clip:ViT-B-16@random?seed=4").info
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert load("open_clip:ViT-B-16@random?seed=4").info.weights_sha256 == one.weights_sha256
    assert load("open_clip:ViT-B-16@random?seed=5").info.weights_sha256 != one.weights_sha256
    assert one.random
    assert one.params_by_tower["vision"] + one.params_by_tower["text"] == pytest.approx(one.params_m, abs=2e-6)


def siglip_config() -> dict[str, Any]:
    # timm's smallest transformer with attention pooling; it has a register token, which patch tokens must not show.
    vision = {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "image_size": 160}
    return {"embed_dim": 96, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": SIGLIP_TEXT}


def test_z10_local_siglip_file_is_never_clip(arch: Any, tmp_path: Path) -> None:
    config = siglip_config()
    config["text_cfg"] = SIGLIP_TEXT | {"width": 96}
    arch("ViT-T-16-SigLIP", config)
    save_file(state_of(config), tmp_path / "siglip.safetensors")
    encoder = load(f"open_clip:ViT-T-16-SigLIP@{tmp_path / 'siglip.safetensors'}?tokenizer=none&size=224")
    image = encoder.info.image
    assert (image.mean, image.std, image.resize, image.filter) == (HALF, HALF, "squash", "bicubic")
    assert encoder.info.sources["image.mean"] == "family: siglip"
    assert stripe_width(encoder) == 28
    # CLIP's transform on the same picture: 298 x 224, 37 px cut on each side, so every stripe (37.3 px) is gone.
    clip = image.with_(resize="crop")
    assert stripe_width(encoder, clip) == 0


def stripe_width(encoder: Any, record: Any = None) -> int:
    """Dark columns at the left of a white 640 x 480 picture with 80 px black side stripes, after the transform."""
    pixels = np.full((480, 640, 3), 255, dtype=np.uint8)
    pixels[:, :80] = pixels[:, -80:] = 0
    out = encoder.transform(record)(Image.fromarray(pixels))
    assert out.shape == (3, 224, 224)
    return int((out[0, 112, :112] < 128).sum())


def test_missing_tokenizer_names_the_ways_out(arch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = siglip_config()
    config["text_cfg"] = SIGLIP_TEXT | {"width": 96}
    arch("ViT-T-16-SigLIP", config)
    with pytest.raises(CheckpointError, match="no usable tokenizer in hub id timm/ViT-B-16-SigLIP") as e:
        load("open_clip:ViT-T-16-SigLIP@random")
    assert "tokenizer=none" in e.value.hint
    without = load("open_clip:ViT-T-16-SigLIP@random?tokenizer=none")
    with pytest.raises(UsageError, match="no text tower"):
        without.encode_text(["a"])


# --- directories ------------------------------------------------------------------------------------------------------


def directory_spec(folder: Path, **options: str) -> ModelSpec:
    text = f"open_clip:./{folder.name}"
    return ModelSpec(scheme="open_clip", name=folder.name, file=str(folder), options=options, text=text)


def test_directory_layout(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    config = {**TINY, "quick_gelu": True}
    save_file(state_of(config), folder / "open_clip_model.safetensors")
    preprocess = {"mean": HALF, "std": HALF, "interpolation": "bilinear", "resize_mode": "squash", "size": 32}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    encoder = load_open_clip(directory_spec(folder), options={}, download=False)
    assert (encoder.info.architecture, encoder.info.family) == ("export", "clip")
    assert encoder.info.sources["activation"] == "config: open_clip_config.json"
    assert quick(encoder) == 5
    image = encoder.info.image
    assert (image.mean, image.resize, image.filter, image.size) == (HALF, "squash", "bilinear", 32)
    reference = open_clip.create_model(f"local-dir:{folder}").eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(x, pooled=True).pooled, reference.encode_image(x))


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "holds no open_clip_config.json"),
        ({"open_clip_config.json": "{"}, "cannot be read as JSON"),
        ({"open_clip_config.json": '{"model_cfg": {}}'}, "needs embed_dim"),
        ({"open_clip_config.json": json.dumps({"model_cfg": TINY})}, "holds no weights"),
    ],
)
def test_incomplete_directories_are_named(tmp_path: Path, files: dict[str, str], match: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=match):
        load_open_clip(directory_spec(tmp_path), options={}, download=False)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("ViT-B-16-SigLIP", "siglip"),
        ("ViT-L-16-SigLIP2-256", "siglip2"),
        ("PE-Core-B-16", "pe"),
        ("ViT-L-14-CLIPA", "clipa"),
        ("coca_ViT-L-14", "coca"),
        ("ViT-B-16", "clip"),
        ("ViT-H-14-worldwide", None),
    ],
)
def test_family_from_structure_alone(name: str, family: str | None) -> None:
    assert family_of_config(open_clip.get_model_config(name)) == family
