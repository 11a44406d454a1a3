"""Image towers of the open_clip backend against the library: taps, pooling, sizes, towers without tokens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mtv.encoders import load
from mtv.encoders.open_clip_backend import build_model
from mtv.encoders.spec import parse_spec
from mtv.errors import UsageError

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
