"""The depth models of transformers that the hf backend knows: what their heads predict, and where their blocks are.

transformers calls every output `predicted_depth`, also where it is disparity. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mtv.encoders.hf_layouts import Layout
from mtv.encoders.records import DepthKind
from mtv.errors import UsageError, unknown


@dataclass(frozen=True, kw_only=True)
class DepthModel:
    """One kind of depth model."""

    layout: Layout
    """Its image tower, for features."""
    kind: DepthKind
    """What the head predicts."""
    floored: bool
    """Whether the head ends in a ReLU."""
    sides: Literal["any", "square", "native"] = "any"
    """Pictures that the library's code takes: any multiple of the patch, only square ones, only the native square."""
    why: str
    """Where `kind` comes from."""


_DEPTH_ANYTHING = Layout(
    cls="DepthAnythingForDepthEstimation",
    vision="backbone",
    blocks="encoder.layer",
    norm="layernorm",
    pooled="cls",
    optional=("*mask_token",),
)
# The first fusion layer gets nothing from a layer before it, so files without its first unit are whole.
_UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.*",)
_DPT_KEYS: dict[str, Any] = {
    "cls": "DPTForDepthEstimation",
    "pooled": "cls",
    "optional": ("auxiliary_head.*", "dpt.pooler.*", "*mask_token"),
    "optional_missing": _UNUSED,
}
_DPT_VIT = Layout(vision="dpt", blocks="encoder.layer", norm="layernorm", pos_interp="bilinear", **_DPT_KEYS)

DEPTH_MODELS: dict[str, DepthModel] = {
    "depth_anything relative": DepthModel(
        layout=_DEPTH_ANYTHING,
        kind="disparity",
        floored=True,
        why="Depth Anything (V1, V2) is trained on affine-invariant disparity",
    ),
    "depth_anything metric": DepthModel(
        layout=_DEPTH_ANYTHING,
        kind="depth",
        floored=False,
        why="the metric heads of Depth Anything give a sigmoid times max_depth, metres",
    ),
    "dpt vit": DepthModel(
        layout=_DPT_VIT, kind="disparity", floored=True, sides="square", why="MiDaS 3.0 is trained on disparity"
    ),
    "dpt hybrid": DepthModel(
        layout=_DPT_VIT, kind="disparity", floored=True, sides="native", why="MiDaS 3.0 is trained on disparity"
    ),
    "dpt beit": DepthModel(
        layout=Layout(vision="backbone.beit", blocks="layers", norm="layernorm", pos_interp="bilinear", **_DPT_KEYS),
        kind="disparity",
        floored=True,
        why="MiDaS 3.1 is trained on disparity",
    ),
    "dpt dinov2": DepthModel(
        layout=Layout(vision="backbone", blocks="encoder.layer", norm="layernorm", **_DPT_KEYS),
        kind="depth",
        floored=True,
        why="the DPT heads of DINOv2 are trained on the metres of NYUv2 or KITTI",
    ),
}
"""`model_type variant` to the model."""


def depth_model(config: Mapping[str, Any], spec_text: str) -> DepthModel | None:
    """The depth model that a `config.json` describes; None where it describes none.

    Raises:
        UsageError: a variant of a depth architecture that is not in the table.
    """
    model_type = config.get("model_type")
    if model_type == "depth_anything":
        variant = str(config.get("depth_estimation_type", "relative"))
    elif model_type == "dpt":
        backbone = config.get("backbone_config") or {}
        variant = "hybrid" if config.get("is_hybrid") else str(backbone.get("model_type", "vit"))
    else:
        return None
    if f"{model_type} {variant}" not in DEPTH_MODELS:
        error = unknown("depth model", f"{model_type} {variant}", DEPTH_MODELS)
        raise UsageError(f"{spec_text}: {error.message}", "Wrap other models in a python: spec with predict_depth.")
    return DEPTH_MODELS[f"{model_type} {variant}"]
