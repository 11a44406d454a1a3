"""Image towers of the hf backend against the library, at any size: taps, pooling, position embeddings, kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_world import TOWER, save, seeded

from mtv.encoders import load
from mtv.errors import UsageError

IMAGE_CONFIGS: dict[str, tuple[Any, int, str]] = {
    "vit": (transformers.ViTConfig, 1, "bicubic"),
    "vit_mae": (transformers.ViTMAEConfig, 1, "bicubic"),
    "deit": (transformers.DeiTConfig, 2, "bicubic"),
    "vit_msn": (transformers.ViTMSNConfig, 1, "bicubic"),
    "ijepa": (transformers.IJepaConfig, 0, "bicubic"),
    "dinov2": (transformers.Dinov2Config, 1, "bicubic"),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersConfig, 5, "bicubic-antialias"),
    "dinov3_vit": (transformers.DINOv3ViTConfig, 5, "rope"),
    "siglip_vision_model": (transformers.SiglipVisionConfig, 0, "bicubic"),
    "clip_vision_model": (transformers.CLIPVisionConfig, 1, "bicubic"),
}


@pytest.fixture(scope="module", params=sorted(IMAGE_CONFIGS))
def image_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    config = IMAGE_CONFIGS[request.param][0](**TOWER)
    if request.param == "dinov3_vit":
        config.num_register_tokens = 4
    model = seeded(lambda: transformers.AutoModel.from_config(config))
    if request.param == "vit_mae":
        model.config.mask_ratio = 0.0
    return request.param, model, save(model, tmp_path_factory.mktemp(request.param))


def library_pass(kind: str, model: Any, x_B3HW: torch.Tensor) -> Any:
    arguments: dict[str, Any] = {"output_hidden_states": True}
    if not kind.startswith("dino"):
        arguments["interpolate_pos_encoding"] = True
    if kind == "vit_mae":
        count = x_B3HW.shape[2] * x_B3HW.shape[3] // 64
        arguments["noise"] = torch.arange(count).float().expand(len(x_B3HW), -1)
    with torch.no_grad():
        return model(x_B3HW, **arguments)


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_tokens_equal_the_library_at_any_size(image_model: tuple[str, Any, Path], size: tuple[int, int]) -> None:
    """Every block's tokens against the library's own hidden states and its own position resampling."""
    kind, model, folder = image_model
    encoder = load(f"hf:{folder}")
    prefix, interp = IMAGE_CONFIGS[kind][1:]
    assert encoder.info.pos_interp == interp
    x = torch.randn(2, 3, *size)
    expected = library_pass(kind, model, x)
    grid = (size[0] // 8, size[1] // 8)
    out = encoder.features(x, layers=[0, 1, 2], norm="none", pooled=True)
    for i in range(3):
        state_BHWD = expected.hidden_states[i + 1][:, prefix:].unflatten(1, grid)
        torch.testing.assert_close(out.tokens[i], state_BHWD, rtol=0, atol=1e-5)
    final = encoder.features(x, layers=[-1], norm="final").tokens[2]
    last_BND = expected.last_hidden_state
    if kind == "clip_vision_model":
        last_BND = model.post_layernorm(last_BND)
    torch.testing.assert_close(final, last_BND[:, prefix:].unflatten(1, grid), rtol=0, atol=1e-5)


def test_pooled_vector(image_model: tuple[str, Any, Path]) -> None:
    kind, model, folder = image_model
    x = torch.randn(2, 3, 32, 32)
    expected = library_pass(kind, model, x)
    out = load(f"hf:{folder}").features(x, pooled=True)
    if kind == "ijepa":
        want = expected.last_hidden_state.mean(1)
    elif kind in ("siglip_vision_model", "clip_vision_model"):
        want = expected.pooler_output
    else:
        want = expected.last_hidden_state[:, 0]
    torch.testing.assert_close(out.pooled, want, rtol=0, atol=1e-5)
    assert torch.equal(out.pooled, out.global_token)  # type: ignore[arg-type]


def test_mae_is_deterministic_and_in_order(tmp_path: Path) -> None:
    model = seeded(
        lambda: transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**TOWER, decoder_num_hidden_layers=1))
    )
    encoder = load(f"hf:{save(model, tmp_path)}")
    assert encoder.info.family == "mae"
    assert any(k.startswith("decoder.") for k in encoder.info.keys.unexpected)
    x = torch.randn(1, 3, 32, 32)
    one, two = (encoder.features(x, layers=[0], norm="none").tokens[0] for _ in range(2))
    assert torch.equal(one, two)
    y = x.clone()
    y[:, :, 8:16, 24:32] += 3.0
    change = (encoder.features(y, layers=[0], norm="none").tokens[0] - one).norm(dim=-1)[0]
    assert int(change.argmax()) == 1 * 4 + 3


def test_position_resampling_can_be_chosen(tmp_path: Path) -> None:
    folder = save(seeded(lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TOWER))), tmp_path)
    plain, anti = load(f"hf:{folder}"), load(f"hf:{folder}?pos_interp=bicubic-antialias")
    native, smaller = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 16, 16)
    assert torch.equal(plain.features(native, pooled=True).pooled, anti.features(native, pooled=True).pooled)  # type: ignore[arg-type]
    a, b = (e.features(smaller, layers=[0], norm="none").tokens[0] for e in (plain, anti))
    assert not torch.allclose(a, b, atol=1e-4)
    assert anti.info.pos_interp == "bicubic-antialias"
    assert anti.info.fingerprint != plain.info.fingerprint
    with pytest.raises(UsageError, match="pos_interp must be one of"):
        load(f"hf:{folder}?pos_interp=linear")


def test_pooling_option(tmp_path: Path) -> None:
    folder = save(seeded(lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER))), tmp_path)
    x = torch.randn(2, 3, 32, 32)
    encoder = load(f"hf:{folder}?pooling=mean")
    out = encoder.features(x, layers=[-1], norm="final", pooled=True)
    torch.testing.assert_close(out.pooled, out.tokens[2].flatten(1, 2).mean(1))
    with pytest.raises(UsageError, match="pooling must be cls or mean"):
        load(f"hf:{folder}?pooling=max")
    with pytest.raises(UsageError, match="no text tower"):
        load(f"hf:{folder}?cleaning=none")
    with pytest.raises(UsageError, match="no text tower"):
        encoder.encode_text(["a"])


def test_attention_kernels_agree(tmp_path: Path) -> None:
    model = seeded(lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER)))
    encoder = load(f"hf:{save(model, tmp_path)}")
    x = torch.randn(1, 3, 32, 32)
    model.set_attn_implementation("eager")
    assert encoder.module.config._attn_implementation == "sdpa"  # type: ignore[union-attr]
    expected = library_pass("dinov2", model, x).last_hidden_state[:, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(encoder.features(x, layers=[-1], norm="final").tokens[2], expected, rtol=0, atol=1e-5)
