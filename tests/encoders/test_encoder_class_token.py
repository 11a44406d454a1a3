"""`Features.class_token` of every back end: first prefix token behind a block, under the tap; absent without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_world import TOWER, save

from mtv.encoders import load
from mtv.encoders.base import Encoder


def hooked(blocks: Any, run: Any) -> list[torch.Tensor]:
    """What each block returns during `run`, B,N,D."""
    outputs: list[torch.Tensor] = []
    handles = [
        b.register_forward_hook(lambda m, i, o: outputs.append(o[0] if isinstance(o, tuple) else o)) for b in blocks
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return outputs


def check(encoder: Encoder, blocks: Any, norm: Any, run: Any, x_B3HW: torch.Tensor) -> None:
    """Both taps, with and without the pooled vector."""
    assert encoder.has_class_token
    outputs, last = hooked(blocks, run), encoder.depth - 1
    for pooled in (False, True):
        plain = encoder.features(x_B3HW, layers=[-1, 0], norm="none", pooled=pooled)
        assert sorted(plain.class_token) == [0, last]
        for i in (0, last):
            torch.testing.assert_close(plain.class_token[i], outputs[i][:, 0], rtol=0, atol=1e-5)
        normed = encoder.features(x_B3HW, layers=[-1], norm="final", pooled=pooled).class_token[last]
        with torch.no_grad():
            torch.testing.assert_close(normed, norm(outputs[last])[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_timm(name: str) -> None:
    encoder = load(f"timm:{name}@random")
    model: Any = encoder.module
    x = torch.randn(2, 3, 3 * encoder.patch_size, 4 * encoder.patch_size)
    check(encoder, model.blocks, model.norm, lambda: model.forward_features(x), x)


def test_open_clip(clip_tower: Encoder) -> None:
    visual: Any = clip_tower.module.visual
    x = torch.randn(2, 3, 32, 32)
    check(clip_tower, visual.transformer.resblocks, visual.ln_post, lambda: visual(x), x)


@pytest.fixture
def clip_tower(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16", config)
    return load("open_clip:ViT-B-16@random")


@pytest.mark.parametrize(
    ("config", "blocks", "norm"),
    [
        (transformers.Dinov2Config, "encoder.layer", "layernorm"),
        (transformers.CLIPVisionConfig, "encoder.layers", "post_layernorm"),
    ],
)
def test_hf(config: Any, blocks: str, norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = load(f"hf:{save(transformers.AutoModel.from_config(config(**TOWER)), tmp_path)}")
    tower: Any = getattr(encoder.module, "vision_model", encoder.module)
    x = torch.randn(2, 3, 32, 32)
    part = tower
    for name in blocks.split("."):
        part = getattr(part, name)
    check(encoder, part, getattr(tower, norm), lambda: encoder.module(x), x)


def test_registers_alone_and_attention_pooling_are_no_class_token(tmp_path: Path) -> None:
    torch.manual_seed(0)
    siglip = transformers.AutoModel.from_config(transformers.SiglipVisionConfig(**TOWER))
    for spec in ("timm:vit_pwee_patch16_reg1_gap_256@random", f"hf:{save(siglip, tmp_path)}"):
        encoder = load(spec)
        assert not encoder.has_class_token
        side = 2 * encoder.patch_size
        out = encoder.features(torch.randn(1, 3, side, side), layers=[-1], norm="none", pooled=True)
        assert out.class_token == {}
        assert out.global_token is not None
        assert out.global_token.shape == (1, encoder.width)
