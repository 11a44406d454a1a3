"""The configuration files of an export in `SiglipModel` form, and the sizes that such a file states. No torch here.

The class defaults are wrong in four places, so everything is written out: BOS and EOS ids lie outside the vocabulary,
image statistics are ImageNet's nowhere and 0.5 here, and a processor that returns a mask would hide the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtv.errors import CheckpointError, UsageError
from mtv.model.config import ModelSize, TextConfig, VisionConfig
from mtv.model.tokenizer import EOS_ID

ACTIVATION = "gelu_pytorch_tanh"
_SHARED = {"hidden_act": ACTIVATION, "layer_norm_eps": 1e-6, "attention_dropout": 0.0}
_TOWER = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
_TOWER |= {"intermediate_size": "mlp_width"}
_VISION = {**_TOWER, "image_size": "image_size", "patch_size": "patch_size"}
_TEXT = {**_TOWER, "vocab_size": "vocab_size", "max_position_embeddings": "positions"}
_FIXED: dict[str, dict[str, Any]] = {
    "vision_config": {**_SHARED, "num_channels": 3, "vision_use_head": True},
    "text_config": _SHARED,
}
# Published files leave out what equals the class's default.
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vision_config": {**_BASE, "image_size": 224, "patch_size": 16},
    "text_config": {**_BASE, "vocab_size": 32000, "max_position_embeddings": 64},
}


def config_json(size: ModelSize, *, text: bool) -> dict[str, Any]:
    """`config.json`: a `SiglipModel`, or a `SiglipVisionModel` for a model without a text tower."""
    vision = {theirs: getattr(size.vision, ours) for theirs, ours in _VISION.items()}
    vision |= {**_SHARED, "model_type": "siglip_vision_model", "num_channels": 3, "vision_use_head": True}
    if not text:
        return {"architectures": ["SiglipVisionModel"], **vision, "dtype": "float32"}
    words = {theirs: getattr(size.text, ours) for theirs, ours in _TEXT.items()}
    words |= {**_SHARED, "model_type": "siglip_text_model", "projection_size": size.text.width}
    words |= {"pad_token_id": EOS_ID, "eos_token_id": EOS_ID, "bos_token_id": None}
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "initializer_factor": 1.0,
        "vision_config": vision,
        "text_config": words,
        "dtype": "float32",
    }


def preprocessor_json(size: ModelSize) -> dict[str, Any]:
    """`preprocessor_config.json`: resize to a square without a crop, then (x - 0.5) / 0.5."""
    side = size.vision.image_size
    return {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def towers_of(config: Mapping[str, Any], file: str) -> tuple[VisionConfig, TextConfig]:
    """The sizes of a `SiglipModel` configuration; fields it leaves out have the class's defaults.

    Raises:
        CheckpointError: another architecture, or a structure that our towers do not have; names file and field.
    """
    if config.get("model_type") != "siglip":
        raise CheckpointError(
            f"{file}: model_type is {config.get('model_type')!r}, expected 'siglip'", "Give a SiglipModel directory."
        )
    given = {name: {**_DEFAULTS[name], **(config.get(name) or {})} for name in _DEFAULTS}
    for name, part in given.items():
        for field, expected in _FIXED[name].items():
            if part.get(field, expected) != expected:
                raise CheckpointError(f"{file}: {name}.{field} is {part[field]!r}, our towers have {expected!r}")
    vision, text = given["vision_config"], given["text_config"]
    if text.get("projection_size") not in (None, vision["hidden_size"]):
        raise CheckpointError(
            f"{file}: text_config.projection_size is {text['projection_size']}, the width {vision['hidden_size']}"
        )
    try:
        return (
            VisionConfig(**{ours: vision[theirs] for theirs, ours in _VISION.items()}),
            TextConfig(**{ours: text[theirs] for theirs, ours in _TEXT.items()}),
        )
    except UsageError as e:
        raise CheckpointError(f"{file}: {e.message}") from e
