"""Depth models of transformers against the library: predictions, features, what files may lack, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_world import TOWER, save, seeded
from safetensors.torch import load_file, save_file

from mtv.encoders import load
from mtv.encoders.hf_depth_layouts import DEPTH_MODELS
from mtv.errors import CheckpointError, UsageError

BACKBONE = {**TOWER, "num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False}
NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
TOWER_FIELDS = ("image_size", "patch_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
NO_TOWER = dict.fromkeys(TOWER_FIELDS)
PROCESSOR = {
    "size": {"height": 32, "width": 32},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 8,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}
BEIT = {"use_relative_position_bias": True, "use_absolute_position_embeddings": False}
BIT = {
    "model_type": "bit",
    "depths": [1, 1, 1],
    "hidden_sizes": [16, 32, 64],
    "embedding_size": 8,
    "out_features": ["stage1", "stage2", "stage3"],
    "embedding_dynamic_padding": True,
    "global_padding": "same",
    "num_groups": 2,
}


def depth_anything(**changes: Any) -> Any:
    config = transformers.DepthAnythingConfig(
        backbone_config={"model_type": "dinov2", **BACKBONE},
        reassemble_hidden_size=32,
        head_hidden_size=8,
        patch_size=8,
        **NECK,
        **changes,
    )
    return transformers.DepthAnythingForDepthEstimation(config)


def dpt(**changes: Any) -> Any:
    tower = {**TOWER, "num_hidden_layers": 4}
    config = {**tower, **NECK, "backbone_out_indices": [0, 1, 2, 3], **changes}
    return transformers.DPTForDepthEstimation(transformers.DPTConfig(**config))


def dpt_over(kind: str, **changes: Any) -> Any:
    return dpt(**NO_TOWER, backbone_config={"model_type": kind, **BACKBONE, **changes}, reassemble_hidden_size=32)


BUILD: dict[str, Any] = {
    "depth_anything relative": depth_anything,
    "depth_anything metric": lambda: depth_anything(depth_estimation_type="metric", max_depth=20),
    "dpt vit": dpt,
    "dpt hybrid": lambda: dpt(
        is_hybrid=True,
        image_size=32,
        patch_size=16,
        backbone_config=BIT,
        backbone_featmap_shape=[1, 64, 2, 2],
        neck_ignore_stages=[0, 1],
        neck_hidden_sizes=[16, 32, 8, 8],
    ),
    "dpt beit": lambda: dpt_over("beit", **BEIT),
    "dpt dinov2": lambda: dpt_over("dinov2"),
}
KINDS = {
    "depth_anything relative": ("disparity", True),
    "depth_anything metric": ("depth", False),
    "dpt vit": ("disparity", True),
    "dpt hybrid": ("disparity", True),
    "dpt beit": ("disparity", True),
    "dpt dinov2": ("depth", True),
}
LAST_BLOCK = {"dpt vit": "dpt", "dpt hybrid": "dpt", "dpt beit": "backbone.beit"}


def alive(model: Any) -> Any:
    """Random weights end below the ReLU as often as not; this bias puts the head's output above it."""
    last = model.head.conv3 if hasattr(model.head, "conv3") else model.head.head[-2]
    torch.nn.init.constant_(last.bias, 0.5)
    torch.nn.init.normal_(last.weight, std=3.0)
    return model


@pytest.fixture(scope="module", params=sorted(BUILD))
def depth_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    model = alive(seeded(BUILD[request.param]))
    return request.param, model, save(model, tmp_path_factory.mktemp("depth"), PROCESSOR)


def test_the_table_covers_what_is_tested() -> None:
    assert set(BUILD) == set(DEPTH_MODELS) == set(KINDS)


def sizes(kind: str) -> list[tuple[int, int]]:
    return {"dpt vit": [(32, 32), (64, 64)], "dpt hybrid": [(32, 32)]}.get(kind, [(32, 32), (32, 64)])


def test_predictions_equal_the_library(depth_model: tuple[str, Any, Path]) -> None:
    kind, model, folder = depth_model
    encoder = load(f"hf:{folder}")
    head = encoder.info.depth_head
    assert head is not None
    assert encoder.has_depth
    assert (head.kind, head.floored) == KINDS[kind]
    assert (head.keep_aspect, head.multiple, head.fitted_on) == (True, 8, "")
    assert encoder.info.sources["depth_head.kind"].startswith("family: ")
    for size in sizes(kind):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected = model(x).predicted_depth
        found = encoder.predict_depth(x)
        assert found.dtype == torch.float32
        assert found.std() > 0
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_features_are_those_of_the_tower(depth_model: tuple[str, Any, Path]) -> None:
    kind, model, folder = depth_model
    encoder = load(f"hf:{folder}")
    tower = model.get_submodule(LAST_BLOCK.get(kind, "backbone"))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        hidden = tower(x, output_hidden_states=True).hidden_states
        normed = tower.layernorm(hidden[-1])
    features = encoder.features(x, layers=[1, -1], norm="none", pooled=True)
    for layer in (1, 3):
        torch.testing.assert_close(features.tokens[layer].flatten(1, 2), hidden[layer + 1][:, 1:])
    final = encoder.features(x, layers=[3], norm="final").tokens[3]
    torch.testing.assert_close(final.flatten(1, 2), normed[:, 1:])
    torch.testing.assert_close(features.pooled, normed[:, 0])


def test_the_head_stays_in_float32(depth_model: tuple[str, Any, Path]) -> None:
    _, model, folder = depth_model
    encoder = load(f"hf:{folder}", dtype="bf16")
    assert encoder.dtype == torch.bfloat16
    assert {p.dtype for part in ("neck", "head") for p in encoder.module.get_submodule(part).parameters()} == {
        torch.float32
    }
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x).predicted_depth
    found = encoder.predict_depth(x.bfloat16())
    assert found.dtype == torch.float32
    # The tower's rounding remains; bf16 has 8 bits.
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.std() + expected.mean())


@pytest.mark.parametrize(
    ("kind", "size", "named"),
    [("dpt vit", (32, 64), "takes square pictures only"), ("dpt hybrid", (64, 64), "takes 32x32 pictures only")],
)
def test_sizes_that_the_library_cannot_take(tmp_path: Path, kind: str, size: tuple[int, int], named: str) -> None:
    encoder = load(f"hf:{save(seeded(BUILD[kind]), tmp_path, PROCESSOR)}")
    with pytest.raises(UsageError, match=f"{named}, got {size[0]}x{size[1]}") as caught:
        encoder.predict_depth(torch.zeros(1, 3, *size))
    assert "resize=squash" in str(caught.value)


def test_files_may_lack_what_nothing_reads(tmp_path: Path) -> None:
    """Published DPT files lack the first fusion layer's first unit; the fingerprint is the same at every load."""
    folder = save(alive(seeded(dpt)), tmp_path, PROCESSOR)
    x = torch.randn(1, 3, 32, 32)
    whole = load(f"hf:{folder}").predict_depth(x)
    state = load_file(folder / "model.safetensors")
    unused = [k for k in state if "fusion_stage.layers.0.residual_layer1" in k]
    assert unused
    save_file({k: v for k, v in state.items() if k not in unused}, folder / "model.safetensors")
    encoders = [load(f"hf:{folder}") for _ in range(2)]
    assert set(encoders[0].info.keys.missing) == set(unused)
    assert encoders[0].info.fingerprint == encoders[1].info.fingerprint
    torch.testing.assert_close(encoders[0].predict_depth(x), whole)
    state.pop("neck.fusion_stage.layers.1.residual_layer1.convolution1.weight")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 missing"):
        load(f"hf:{folder}")


def test_the_kind_can_be_named(tmp_path: Path) -> None:
    folder = save(seeded(dpt), tmp_path / "dpt", PROCESSOR)
    plain, named = load(f"hf:{folder}"), load(f"hf:{folder}?depth_kind=depth")
    assert named.info.depth_head is not None
    assert named.info.depth_head.kind == "depth"
    assert named.info.sources["depth_head.kind"] == "option: depth_kind=depth"
    assert named.info.fingerprint != plain.info.fingerprint
    with pytest.raises(UsageError, match=r"depth_head\.kind must be disparity or depth, got 'near'"):
        load(f"hf:{folder}?depth_kind=near")
    vit = save(seeded(lambda: transformers.ViTModel(transformers.ViTConfig(**TOWER))), tmp_path / "vit")
    with pytest.raises(UsageError, match=r"depth_kind='depth' has no effect here: ViTModel has no depth head"):
        load(f"hf:{vit}?depth_kind=depth")
    with pytest.raises(UsageError, match="has no depth head"):
        load(f"hf:{vit}").predict_depth(torch.zeros(1, 3, 32, 32))


def test_unknown_variants_are_refused(tmp_path: Path) -> None:
    folder = save(seeded(dpt), tmp_path, PROCESSOR)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "backbone_config": {"model_type": "swinv2"}}))
    with pytest.raises(UsageError, match="unknown depth model 'dpt swinv2'"):
        load(f"hf:{folder}")
