"""The transformers architectures that the hf backend knows: where blocks, norm and pooling live. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mtv.errors import UsageError, unknown


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Structure of one `model_type`; paths are attribute paths from the loaded model, empty for the model itself."""

    cls: str
    """Class in transformers."""
    vision: str = ""
    """The image tower."""
    blocks: str
    """Its block list, from the tower."""
    norm: str
    """Its final norm, from the tower."""
    pooled: Literal["cls", "mean", "head"]
    """Global token: CLS after the final norm, mean of patch tokens after it, or the tower's own pooling head."""
    pos_interp: str = "bicubic"
    """How the library resamples position embeddings; those not in `posembed.POS_INTERP` are left to it."""
    has_text: bool = False
    """Whether there is a text tower."""
    projection: str = ""
    """Projection of the global token to the image embedding, or none."""
    optional: tuple[str, ...] = ()
    """Keys of checkpoints that this class has no place for and features do not need."""
    optional_missing: tuple[str, ...] = ()
    """Keys of this class that checkpoints may lack, because nothing reads them."""
    arguments: tuple[tuple[str, Any], ...] = ()
    """Extra constructor arguments."""


_VIT: dict[str, Any] = {"blocks": "layers", "norm": "layernorm", "pooled": "cls"}
_DINO: dict[str, Any] = {"blocks": "encoder.layer", "norm": "layernorm", "pooled": "cls"}
_TOWER: dict[str, Any] = {"blocks": "encoder.layers", "norm": "post_layernorm"}
_HEADS = ("classifier.*", "*pooler.*", "cls_classifier.*", "distillation_classifier.*", "*mask_token")
_PROJECTED = Layout(
    cls="CLIPVisionModelWithProjection", vision="vision_model", pooled="cls", projection="visual_projection", **_TOWER
)

LAYOUTS: dict[str, Layout] = {
    "siglip": Layout(cls="SiglipModel", vision="vision_model", pooled="head", has_text=True, **_TOWER),
    "siglip_vision_model": Layout(cls="SiglipVisionModel", pooled="head", **_TOWER),
    "clip": Layout(
        cls="CLIPModel", vision="vision_model", pooled="cls", has_text=True, projection="visual_projection", **_TOWER
    ),
    "clip_vision_model": Layout(cls="CLIPVisionModel", pooled="cls", optional=("visual_projection.*",), **_TOWER),
    "dinov2": Layout(cls="Dinov2Model", optional=_HEADS, **_DINO),
    "dinov2_with_registers": Layout(
        cls="Dinov2WithRegistersModel", pos_interp="bicubic-antialias", optional=_HEADS, **_DINO
    ),
    "dinov3_vit": Layout(
        cls="DINOv3ViTModel", blocks="model.layer", norm="norm", pooled="cls", pos_interp="rope", optional=_HEADS
    ),
    "vit": Layout(cls="ViTModel", optional=(*_HEADS, "decoder.*"), arguments=(("add_pooling_layer", False),), **_VIT),
    "deit": Layout(cls="DeiTModel", optional=(*_HEADS, "decoder.*"), arguments=(("add_pooling_layer", False),), **_VIT),
    "vit_msn": Layout(cls="ViTMSNModel", optional=_HEADS, **_VIT),
    "vit_mae": Layout(cls="ViTMAEModel", optional=(*_HEADS, "decoder.*"), **_VIT),
    "ijepa": Layout(
        cls="IJepaModel",
        optional=_HEADS,
        arguments=(("add_pooling_layer", False),),
        blocks="layers",
        norm="layernorm",
        pooled="mean",
    ),
}


def layout_of(config: Mapping[str, Any], spec_text: str) -> Layout:
    """The layout of a `config.json`.

    Raises:
        UsageError: an architecture that the backend does not know, with what to do instead.
    """
    model_type = str(config.get("model_type"))
    if model_type in ("siglip2", "siglip2_vision_model"):
        raise UsageError(
            f"{spec_text}: model_type {model_type!r} is the NaFlex form of SigLIP2, which packs images of any shape",
            "Use a fixed-resolution checkpoint (google/siglip2-base-patch16-224, ...); its model_type is 'siglip'.",
        )
    if model_type not in LAYOUTS:
        error = unknown("Hugging Face model_type", model_type, LAYOUTS)
        raise UsageError(
            f"{spec_text}: {error.message}", "Wrap other models in a python: spec; remote code never runs."
        )
    if model_type == "clip_vision_model" and "CLIPVisionModelWithProjection" in (config.get("architectures") or ()):
        return _PROJECTED
    return LAYOUTS[model_type]
