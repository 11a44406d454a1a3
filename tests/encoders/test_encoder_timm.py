"""The timm backend: taps against hooks, any size, strict weights, seeded random models, real weights."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import CheckpointError, UsageError

HALF = "mean=0.5,0.5,0.5&std=0.5,0.5,0.5"
TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load(f"timm:{TINY}@random?seed=1")


def hooked(model: Any, images: Tensor) -> tuple[list[Tensor], Tensor]:
    outputs: list[Tensor] = []
    handles = [b.register_forward_hook(lambda m, i, o: outputs.append(o)) for b in model.blocks]
    with torch.no_grad():
        final = model.forward_features(images)
    for handle in handles:
        handle.remove()
    return outputs, final


@pytest.mark.parametrize(
    ("name", "prefix", "norm"),
    [
        (TINY, 1, "norm"),
        ("vit_small_patch14_reg4_dinov2", 5, "norm"),
        ("eva02_tiny_patch14_224", 1, "fc_norm"),
        ("vit_small_patch16_dinov3", 5, "norm"),
        ("vit_base_patch16_siglip_224", 0, "norm"),
        ("deit_tiny_distilled_patch16_224", 2, "norm"),
    ],
)
def test_taps_equal_hooks_at_any_size(name: str, prefix: int, norm: str) -> None:
    encoder = load(f"timm:{name}@random")
    model: Any = encoder.module
    patch = encoder.patch_size
    images = torch.randn(2, 3, 5 * patch, 7 * patch)
    blocks, final = hooked(model, images)
    layers = [encoder.depth - 1, 0, 3]
    none = encoder.features(images, layers=layers, norm="none", pooled=True)
    normed = encoder.features(images, layers=layers, norm="final")
    assert list(none.tokens) == layers
    for i in layers:
        expected = blocks[i][:, prefix:].reshape(2, 5, 7, encoder.width)
        assert torch.allclose(none.tokens[i], expected, atol=1e-5)
        with torch.no_grad():
            assert torch.allclose(normed.tokens[i], getattr(model, norm)(expected), atol=1e-4)
    if norm == "norm":
        last = normed.tokens[encoder.depth - 1]
        assert torch.allclose(last, final[:, prefix:].reshape(last.shape), atol=1e-4)
    assert none.pooled is not None
    assert none.pooled.shape == (2, encoder.embed_dim)
    if name.endswith("siglip_224"):
        with torch.no_grad():
            assert torch.allclose(none.pooled, model.attn_pool(final), atol=1e-5)
        assert encoder.info.pooling == "attention pooling"
    only = encoder.features(images, pooled=True)
    assert not only.tokens
    assert only.pooled is not None
    assert torch.allclose(only.pooled, none.pooled, atol=1e-5)


def test_negative_layers_and_checks(tiny: Encoder) -> None:
    images = torch.randn(1, 3, 64, 64)
    one = tiny.features(images, layers=[-1], norm="none").tokens
    assert list(one) == [11]
    with pytest.raises(UsageError, match="12 blocks"):
        tiny.features(images, layers=[12], norm="none")
    with pytest.raises(UsageError, match="name the tap"):
        tiny.features(images, layers=[0])
    with pytest.raises(UsageError, match="multiple of patch size 16"):
        tiny.features(torch.randn(1, 3, 60, 64), layers=[0], norm="none")
    with pytest.raises(UsageError, match="no text tower"):
        tiny.encode_text(["a cat"])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (TINY, "cls"),
        ("vit_small_patch14_reg4_dinov2", "cls"),
        ("vit_small_patch16_dinov3", "cls"),
        ("vit_medium_patch16_gap_256", "mean"),
    ],
)
def test_pooling_follows_the_documented_rule(name: str, rule: str) -> None:
    encoder = load(f"timm:{name}@random")
    model: Any = encoder.module
    images = torch.randn(2, 3, 4 * encoder.patch_size, 4 * encoder.patch_size)
    with torch.no_grad():
        final = model.forward_features(images)
        expected = {
            "cls": lambda: final[:, 0],
            "mean": lambda: model.fc_norm(final[:, model.num_prefix_tokens :].mean(1)),
        }[rule]()
    out = encoder.features(images, pooled=True)
    assert out.pooled is not None
    assert torch.allclose(out.pooled, expected, atol=1e-5)
    assert rule.lower() in encoder.info.pooling.lower()


def test_native_size_equals_a_model_without_interpolation(tiny: Encoder) -> None:
    fixed = timm.create_model(TINY, num_classes=0, dynamic_img_size=False).eval()
    fixed.load_state_dict(tiny.module.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = fixed.forward_features(images)
    tokens = tiny.features(images, layers=[-1], norm="final").tokens[11]
    assert torch.allclose(tokens.flatten(1, 2), expected[:, 1:], atol=1e-5)


def test_large_inputs_have_the_expected_grid(tiny: Encoder) -> None:
    assert tiny.features(torch.randn(1, 3, 512, 512), layers=[-1], norm="none").tokens[11].shape == (1, 32, 32, 192)
    dino = load("timm:vit_small_patch14_dinov2@random?size=224")
    assert dino.features(torch.randn(1, 3, 518, 504), layers=[0], norm="none").tokens[0].shape == (1, 37, 36, 384)
    assert dino.info.image.size == 224
    assert dino.info.sources["image.size"] == "option: size=224"


def test_random_models_depend_on_the_seed_alone() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one = load(f"timm:{TINY}@random?seed=3")
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(11)
    again, other = load(f"timm:{TINY}@random?seed=3"), load(f"timm:{TINY}@random?seed=4")
    assert one.info.random
    assert one.info.fingerprint == again.info.fingerprint
    assert one.info.fingerprint != other.info.fingerprint
    assert one.info.spec == f"timm:{TINY}@random?seed=3"


def test_frozen_and_complete_record(tiny: Encoder) -> None:
    assert not tiny.module.training
    assert not any(p.requires_grad for p in tiny.module.parameters())
    info = tiny.info
    assert info.params_m == pytest.approx(5.524416)
    assert info.params_by_tower == {"vision": pytest.approx(5.524416), "text": 0.0}
    assert (info.adapter, info.family, info.activation, info.pos_interp) == (
        "timm",
        "vit",
        "gelu",
        "bicubic-antialias",
    )
    json.dumps(info.to_dict())


def test_files_with_and_without_head_and_formats_agree(tmp_path: Path, tiny: Encoder) -> None:
    state = {k: v.contiguous() for k, v in tiny.module.state_dict().items()}
    save_file({**state, "head.weight": torch.ones(10, 192), "head.bias": torch.ones(10)}, tmp_path / "w.safetensors")
    torch.save({"model": state}, tmp_path / "w.pt")
    one = load(f"timm:{TINY}@{tmp_path}/w.safetensors?{HALF}")
    two = load(f"timm:{TINY}@{tmp_path}/w.pt?{HALF}")
    assert one.info.fingerprint == two.info.fingerprint
    assert one.info.weights_sha256 == tiny.info.weights_sha256
    assert one.info.keys.unexpected == ("head.bias", "head.weight")
    assert two.info.keys.unexpected == ()
    assert str(tmp_path) not in json.dumps(one.info.to_dict())


def test_wrong_weights_are_refused(tmp_path: Path, tiny: Encoder) -> None:
    state = {k: v.contiguous() for k, v in tiny.module.state_dict().items()}
    save_file({k: v for k, v in state.items() if k != "blocks.3.norm1.bias"}, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"less\.safetensors.*1 missing: blocks\.3\.norm1\.bias"):
        load(f"timm:{TINY}@{tmp_path}/less.safetensors?{HALF}")
    part = load(f"timm:{TINY}@{tmp_path}/less.safetensors?{HALF}&allow_missing=blocks.*.bias")
    assert part.info.keys.missing == ("blocks.3.norm1.bias",)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"pos_embed: model \[1, 577, 192\]"):
        load(f"timm:vit_tiny_patch16_384@{tmp_path}/w.safetensors?{HALF}")
    save_file({**state, "norm.weight": state["norm.weight"] * float("nan")}, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match=r"nan\.safetensors.*'norm\.weight'"):
        load(f"timm:{TINY}@{tmp_path}/nan.safetensors?{HALF}")


def test_foreign_keys_are_converted_but_never_resampled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """open_clip's nesting of a timm tower goes through timm's filter; another input size is refused, not resampled."""
    source = load("timm:vit_tiny_patch16_224@random?seed=9")
    state = {f"visual.trunk.{k}": v.contiguous() for k, v in source.module.state_dict().items()}
    save_file({**state, "logit_scale": torch.ones(1)}, tmp_path / "clip.safetensors")
    with caplog.at_level(logging.INFO):
        loaded = load(f"timm:{TINY}@{tmp_path}/clip.safetensors?{HALF}")
    assert loaded.info.weights_sha256 == source.info.weights_sha256
    assert "converted by timm" in caplog.text
    with pytest.raises(CheckpointError, match="197 positions"):
        load(f"timm:vit_tiny_patch16_384@{tmp_path}/clip.safetensors?{HALF}")


def test_local_files_without_statistics_are_an_error(tmp_path: Path, tiny: Encoder) -> None:
    save_file({k: v.contiguous() for k, v in tiny.module.state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="unresolved image fields: mean, std"):
        load(f"timm:{TINY}@{tmp_path}/w.safetensors")
    named = load(f"timm:{TINY}.augreg_in21k_ft_in1k@{tmp_path}/w.safetensors")
    assert named.info.sources["image.mean"] == "tag: augreg_in21k_ft_in1k"
    config = {"architecture": TINY, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 0.8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    beside = load(f"timm:{TINY}@{tmp_path}/w.safetensors")
    assert beside.info.image.mean == (0.1, 0.2, 0.3)
    assert beside.info.image.crop_pct == 0.8
    assert beside.info.sources["image.mean"] == "config: config.json"
    assert beside.info.sources["image.filter"] == "family: vit"
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "vit_small_patch16_224"}))
    with pytest.raises(UsageError, match="mean, std"):
        load(f"timm:{TINY}@{tmp_path}/w.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(f"timm:{TINY}@{tmp_path}/w.safetensors")


def test_names_that_do_not_exist_or_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="vit_tiny_patch16_224"):
        load("timm:vit_tiny_patch16_225@random")
    with pytest.raises(UsageError, match=r"'lvd142'; did you mean lvd142m"):
        load("timm:vit_base_patch14_dinov2.lvd142")
    with pytest.raises(CheckpointError, match=r"not in the local hub cache.*\n.*--download.*@FILE"):
        load("dinov2-b14")
    with pytest.raises(UsageError, match="no hub weights"):
        load("timm:vit_huge_patch14_gap_224.in1k_ijepa")


def test_hub_weights_come_from_the_local_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Encoder) -> None:
    revision = "a" * 40
    repo = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    snapshot = repo / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    save_file({k: v.contiguous() for k, v in tiny.module.state_dict().items()}, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = load(f"timm:{TINY}.augreg_in21k_ft_in1k")
    assert encoder.info.weights_sha256 == tiny.info.weights_sha256
    assert encoder.info.image.mean == (0.5, 0.5, 0.5)
    assert encoder.info.image.crop_pct == 0.9
    assert encoder.info.sources["image.crop_pct"] == "tag: augreg_in21k_ft_in1k"


def test_options_without_effect_are_refused() -> None:
    for option in ("length=3", "pos_interp=bicubic", "cleaning=none"):
        with pytest.raises(UsageError, match=option.split("=")[0]):
            load(f"timm:{TINY}@random?{option}")
    with pytest.raises(UsageError, match="no multiple of patch size 16"):
        load(f"timm:{TINY}@random?size=100")


def test_quick_gelu_is_resolved() -> None:
    plain, forced = load(f"timm:{TINY}@random"), load(f"timm:{TINY}@random?quick_gelu=true")
    assert (plain.info.activation, forced.info.activation) == ("gelu", "quick_gelu")
    assert forced.info.sources["activation"] == "option: quick_gelu=True"
    assert plain.info.fingerprint != forced.info.fingerprint
    images = torch.randn(1, 3, 32, 32)
    a, b = (e.features(images, pooled=True).pooled for e in (plain, forced))
    assert a is not None
    assert b is not None
    assert not torch.allclose(a, b, atol=1e-4)


def test_quick_gelu_follows_timms_note_on_openai_tags(tmp_path: Path) -> None:
    from mtv.encoders.spec import parse_spec
    from mtv.encoders.timm_backend import _activation
    from mtv.encoders.timm_weights import timm_entry

    spec = parse_spec("timm:vit_base_patch16_clip_224.openai")
    assert _activation(timm_entry(spec), {}, spec) == ("quick_gelu", "tag: openai")
    other = parse_spec("timm:vit_base_patch16_clip_224.laion2b")
    assert _activation(timm_entry(other), {}, other)[0] is None


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 32), ("convnext_atto", 32), ("pvt_v2_b0", 32)])
def test_models_with_stages_give_their_last_map(name: str, stride: int) -> None:
    encoder = load(f"timm:{name}@random")
    assert (encoder.depth, encoder.patch_size) == (1, stride)
    images = torch.randn(2, 3, 224, 224)
    out = encoder.features(images, layers=[-1], norm="none", pooled=True)
    assert out.tokens[0].shape == (2, 7, 7, encoder.width)
    assert out.pooled is not None
    with torch.no_grad():
        model: Any = encoder.module
        assert torch.allclose(
            out.pooled, model.forward_head(model.forward_features(images), pre_logits=True), atol=1e-5
        )
    with pytest.raises(UsageError, match="norm='none'"):
        encoder.features(images, layers=[0], norm="final")


def test_fixed_size_models_say_so() -> None:
    encoder = load("timm:xcit_nano_12_p16_224@random")
    assert encoder.info.pos_interp == "fixed-size"
    with pytest.raises(UsageError, match=r"\[224, 224\] pixels only"):
        encoder.features(torch.randn(1, 3, 192, 192), layers=[0], norm="none")
    mixer = load("timm:mixer_s32_224@random")
    with pytest.raises(UsageError, match=r"mixer_s32_224 (does not take|takes)"):
        mixer.features(torch.randn(1, 3, 384, 384), layers=[0], norm="none")


def test_real_weights_classify_real_pictures(real_data: Path, tmp_path: Path) -> None:
    """The stored head on our pooled vector reaches the known accuracy, so weights, transform and pooling are right."""
    file = real_data / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    encoder = load(f"timm:{TINY}@{file}?{HALF}")
    assert encoder.info.keys.unexpected == ("head.bias", "head.weight")
    shutil.copy(file, tmp_path / "copy.safetensors")
    torch.save(load_file(file), tmp_path / "copy.pt")
    prints = {load(f"timm:{TINY}@{tmp_path}/{n}?{HALF}").info.fingerprint for n in ("copy.safetensors", "copy.pt")}
    assert prints == {encoder.info.fingerprint}
    weights = load_file(file)
    folders = sorted(p for p in (real_data / "imagenet" / "val").iterdir() if p.is_dir())
    classes = [f.name for f in folders]
    synsets = (real_data / "imagenet" / "imagenet_synsets.txt").read_text().split()
    index = {wnid: sorted(synsets).index(wnid) for wnid in classes}
    pictures = [(p, index[f.name]) for f in folders[::24] for p in sorted(f.iterdir())[:1]]
    transform = encoder.transform()
    batch = torch.stack([transform(Image.open(p)) for p, _ in pictures])
    pooled = encoder.features(encoder.normalize(batch), pooled=True).pooled
    assert pooled is not None
    logits = pooled @ weights["head.weight"].T + weights["head.bias"]
    accuracy = (logits.argmax(1) == torch.tensor([y for _, y in pictures])).float().mean()
    assert len(pictures) >= 40
    theirs = timm.create_model(TINY).eval()
    theirs.load_state_dict(weights)
    cfg = timm.get_pretrained_cfg(f"{TINY}.augreg_in21k_ft_in1k")
    pipeline = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict()))
    with torch.no_grad():
        expected = theirs(torch.stack([pipeline(Image.open(p).convert("RGB")) for p, _ in pictures]))
    assert torch.allclose(logits, expected, atol=1e-3)
    # 82.4 % on the whole sample; ImageNet statistics instead of 0.5 would give about 50 %.
    assert float(accuracy) > 0.65
