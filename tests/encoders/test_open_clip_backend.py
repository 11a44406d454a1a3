"""The open_clip backend: sources, strictness, activation (Z12), preprocessing (Z10, Z11), image taps."""

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


# --- image towers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "final"])
@pytest.mark.parametrize("change", [{}, {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}])
def test_tokens_and_pooled_equal_the_library(arch: Any, norm: Any, change: dict[str, Any]) -> None:
    arch("ViT-B-16", vision_cfg=TINY["vision_cfg"] | change)
    encoder = load("open_clip:ViT-B-16@random?seed=1")
    x = torch.randn(2, 3, 32, 32)
    out = encoder.features(x, layers=[2, 0], norm=norm, pooled=True)
    with torch.no_grad():
        visual: Any = encoder.module.visual
        reference = visual.forward_intermediates(x, indices=[0, 2], normalize_intermediates=norm == "final")
        pooled = encoder.module.encode_image(x)  # type: ignore[operator]
    for index, map_BDHW in zip([0, 2], reference["image_intermediates"], strict=True):
        torch.testing.assert_close(out.tokens[index], map_BDHW.permute(0, 2, 3, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(out.pooled, pooled, rtol=0, atol=1e-6)
    assert out.global_token is not None
    assert out.global_token.shape == (2, 64)
    torch.testing.assert_close(out.global_token @ visual.proj, pooled, rtol=0, atol=1e-6)


def test_other_sizes_resample_positions_as_open_clip_does_for_weights(arch: Any, tmp_path: Path) -> None:
    """Oracle: the library's own resize when weights of another grid are loaded into a model built for 64 px."""
    config = arch("ViT-B-16")
    state = state_of(config)
    save_file(state, tmp_path / "w.safetensors")
    big = build_model(
        TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": 64}}, seed=0, spec=parse_spec("open_clip:x@random")
    )
    open_clip.factory.load_checkpoint(big, str(tmp_path / "w.safetensors"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = big.eval().encode_image(x)
    encoder = load(f"open_clip:ViT-B-16@{tmp_path / 'w.safetensors'}")
    torch.testing.assert_close(encoder.features(x, pooled=True).pooled, expected, rtol=1e-5, atol=1e-6)
    assert encoder.info.pos_interp == "bicubic-antialias"
    plain = load(f"open_clip:ViT-B-16@{tmp_path / 'w.safetensors'}?pos_interp=bicubic")
    assert not torch.allclose(plain.features(x, pooled=True).pooled, expected, atol=1e-4)  # type: ignore[arg-type]


def test_non_square_grid_is_row_major(arch: Any) -> None:
    """With no blocks' mixing to rely on: a bright patch shows up at its own place."""
    arch("ViT-B-16")
    encoder = load("open_clip:ViT-B-16@random")
    x = torch.zeros(1, 3, 32, 48)
    y = x.clone()
    y[:, :, 8:16, 40:48] = 5.0
    a, b = (encoder.features(i, layers=[0], norm="none").tokens[0] for i in (x, y))
    assert a.shape == (1, 4, 6, 64)
    change = (a - b).norm(dim=-1)[0]
    assert int(change.argmax()) == 1 * 6 + 5


def test_layers_none_and_single_pass_agree(arch: Any) -> None:
    arch("ViT-B-16")
    encoder = load("open_clip:ViT-B-16@random")
    x = torch.randn(1, 3, 32, 32)
    together = encoder.features(x, layers=[0, 1, 2], norm="none", pooled=True)
    for layer in range(3):
        alone = encoder.features(x, layers=[layer], norm="none")
        assert torch.equal(alone.tokens[layer], together.tokens[layer])
        assert alone.pooled is None
    assert not together.pooled.requires_grad  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["RN50", "convnext_tiny"])
def test_towers_without_tokens_say_so(arch: Any, name: str) -> None:
    small = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    vision = (
        {**small, "patch_size": None}
        if name == "RN50"
        else {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    )
    arch(name, vision_cfg=vision)
    encoder = load(f"open_clip:{name}@random")
    assert (encoder.info.family, encoder.info.activation) == ("clip", "gelu")
    assert load(f"open_clip:{name}@random?quick_gelu=true").info.activation == "quick_gelu"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder.module.encode_image(x)  # type: ignore[operator]
    torch.testing.assert_close(encoder.features(x, pooled=True).pooled, expected)
    with pytest.raises(UsageError, match="has no patch tokens"):
        encoder.features(x, layers=[-1], norm="none")
    with pytest.raises(UsageError, match="64x64 only"):
        encoder.features(torch.randn(1, 3, 128, 128), pooled=True)
    with pytest.raises(UsageError, match="takes 64 px only"):
        load(f"open_clip:{name}@random?size=128")


def test_coca_has_no_norm_over_tokens(arch: Any) -> None:
    config = open_clip.get_model_config("coca_ViT-B-32")
    config["vision_cfg"] |= {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    config["text_cfg"] |= {"width": 32, "heads": 2, "layers": 1}
    config["multimodal_cfg"] |= {"width": 32, "heads": 2, "layers": 1}
    arch("coca_ViT-B-32", config, embed_dim=32)
    encoder = load("open_clip:coca_ViT-B-32@random")
    x = torch.randn(1, 3, 32, 32)
    out = encoder.features(x, layers=[-1], norm="none", pooled=True)
    with torch.no_grad():
        expected = encoder.module.encode_image(x, normalize=False)  # type: ignore[operator]
    torch.testing.assert_close(out.pooled, expected)
    assert not encoder.info.text.trim  # type: ignore[union-attr]
    with torch.no_grad():
        text = encoder.module.encode_text(open_clip.tokenizer.tokenize(["a cat"], 76), normalize=False)  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode_text(["a cat"]), text)
    with pytest.raises(UsageError, match="norm=none"):
        encoder.features(x, layers=[-1], norm="final")


# --- SigLIP towers through timm ---------------------------------------------------------------------------------------


def siglip_config() -> dict[str, Any]:
    # timm's smallest transformer with attention pooling; it has a register token, which patch tokens must not show.
    vision = {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "image_size": 160}
    return {"embed_dim": 96, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": SIGLIP_TEXT}


def test_timm_tower_equals_the_library_and_takes_other_sizes(arch: Any) -> None:
    config = siglip_config()
    config["text_cfg"] = SIGLIP_TEXT | {"width": 96}
    arch("ViT-T-16-SigLIP", config)
    encoder = load("open_clip:ViT-T-16-SigLIP@random?tokenizer=none")
    assert encoder.info.text is None
    reference = build_model(config, seed=0, spec=parse_spec("open_clip:x@random")).eval()
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = reference.encode_image(x)
        taps = reference.visual.forward_intermediates(x, indices=[1, 8], normalize_intermediates=True)
    out = encoder.features(x, layers=[1, 8], norm="final", pooled=True)
    torch.testing.assert_close(out.pooled, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.global_token, expected, rtol=0, atol=1e-5)
    for index, map_BDHW in zip([1, 8], taps["image_intermediates"], strict=True):
        torch.testing.assert_close(out.tokens[index], map_BDHW.permute(0, 2, 3, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.features(x, pooled=True).pooled, expected, rtol=0, atol=1e-5)
    assert encoder.features(torch.randn(1, 3, 64, 96), layers=[-1], norm="none").tokens[8].shape == (1, 4, 6, 96)


def test_rotary_tower_follows_the_size(arch: Any) -> None:
    """EVA-type towers cache rotary tables per grid: a later size must not be read with an earlier table."""
    config = siglip_config()
    config["vision_cfg"] = {
        "timm_model_name": "vit_tiny_eva_test",
        "timm_pool": "map",
        "timm_proj": None,
        "image_size": 32,
    }
    register_small_towers()
    config["text_cfg"] = TINY["text_cfg"]
    config["embed_dim"] = 24
    arch("PE-Core-T-16", config)
    encoder = load("open_clip:PE-Core-T-16@random")
    assert encoder.info.pos_interp == "bicubic-antialias+rope"
    small, large = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 48, 64)
    first = encoder.features(small, layers=[-1], norm="final", pooled=True)
    encoder.features(large, layers=[-1], norm="final")
    again = encoder.features(small, layers=[-1], norm="final", pooled=True)
    assert torch.equal(first.tokens[1], again.tokens[1])
    with torch.no_grad():
        expected = build_model(config, seed=0, spec=parse_spec("open_clip:x@random")).eval().encode_image(small)
    torch.testing.assert_close(first.pooled, expected, rtol=0, atol=1e-5)
    import timm

    dynamic = timm.create_model("vit_tiny_eva_test", dynamic_img_size=True, num_classes=24).eval()
    dynamic.load_state_dict(encoder.module.visual.trunk.state_dict())  # type: ignore[union-attr,operator]
    with torch.no_grad():
        expected_large = dynamic.forward_features(large)[:, 1:].unflatten(1, (6, 8))
    torch.testing.assert_close(
        encoder.features(large, layers=[-1], norm="final").tokens[1], expected_large, rtol=0, atol=1e-5
    )


def register_small_towers() -> None:
    from timm.models import is_model, register_model
    from timm.models.eva import Eva

    def vit_tiny_eva_test(pretrained: bool = False, **kwargs: Any) -> Eva:
        small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "use_rot_pos_emb": True}
        kwargs = {k: v for k, v in kwargs.items() if not k.startswith("pretrained_cfg") and k != "cache_dir"}
        model = Eva(
            **{**small, "global_pool": "map", "attn_pool_num_heads": 3, "use_post_transformer_norm": True, **kwargs}
        )
        model.default_cfg = {}
        return model

    if not is_model("vit_tiny_eva_test"):
        register_model(vit_tiny_eva_test)


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


def test_half_precision_towers_run_and_text_stays_fp32(arch: Any) -> None:
    arch("ViT-B-16")
    full, half = load("open_clip:ViT-B-16@random"), load("open_clip:ViT-B-16@random", dtype="bf16")
    x = torch.randn(2, 3, 48, 32)
    a = full.features(x, layers=[-1], norm="final", pooled=True)
    b = half.features(x.bfloat16(), layers=[-1], norm="final", pooled=True)
    assert b.tokens[2].dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(a.pooled, b.pooled.float()).min() > 0.99  # type: ignore[union-attr,arg-type]
    texts = ["a cat", "a dog on a sofa"]
    assert half.encode_text(texts).dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(full.encode_text(texts), half.encode_text(texts)).min() > 0.99
