"""What every backend does at the end: freeze the module and write down what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mtv.encoders.fingerprint import fingerprint, weights_sha256
from mtv.encoders.records import DepthHeadRecord, EncoderInfo, ImageRecord, KeyReport, TextRecord
from mtv.encoders.spec import ModelSpec
from mtv.hashing import sha256_json


def make_info(
    *,
    spec: ModelSpec,
    adapter: str,
    architecture: str,
    family: str,
    config: Mapping[str, Any],
    module: nn.Module,
    vision: nn.Module,
    text_module: nn.Module | None,
    activation: str,
    pos_interp: str,
    pooling: str,
    image: ImageRecord,
    text: TextRecord | None,
    sources: Mapping[str, str],
    keys: KeyReport,
    depth_head: DepthHeadRecord | None = None,
) -> EncoderInfo:
    """Hash the weights, count the parameters and assemble the record.

    Args:
        config: architecture configuration; enters the fingerprint. Any nesting of plain values, dtypes, classes.
        module: the whole model, on the CPU in fp32 (its state dict is hashed as it is).
        vision: image tower, for counting.
        text_module: text tower, for counting; None where there is none.

    Other arguments are the fields of `EncoderInfo`.
    """
    sha = weights_sha256(module)
    # The activation carries no weights, so without it two different models would share a fingerprint.
    identity = {"config": plain(config), "activation": activation, "pooling": pooling, "pos_interp": pos_interp}
    if depth_head is not None:
        identity["depth_head"] = depth_head.to_dict()
    return EncoderInfo(
        spec=spec.public,
        alias=spec.alias,
        adapter=adapter,
        architecture=architecture,
        family=family,
        random=spec.random,
        weights_sha256=sha,
        fingerprint=fingerprint(architecture, identity, sha, image, text),
        params_m=millions(module),
        params_by_tower={"vision": millions(vision), "text": millions(text_module)},
        activation=activation,
        pos_interp=pos_interp,
        pooling=pooling,
        image=image,
        text=text,
        sources=dict(sources),
        keys=keys,
        depth_head=depth_head,
    )


def identified(info: EncoderInfo, module: nn.Module, spec: ModelSpec) -> EncoderInfo:
    """`info` for the weights that `module` has now: as it is, unless they were changed since it was written.

    A user's code may load a model and change its weights in place (merge an adapter, average two checkpoints). Under
    the identity of the untouched model, stored features of that model would be taken for this one's.

    Args:
        info: record of the model as it was loaded.
        module: the whole model.
        spec: how the changed model was asked for.
    """
    weights = weights_sha256(module)
    if weights == info.weights_sha256:
        return info
    return replace(
        info,
        spec=spec.public,
        alias=spec.alias,
        weights_sha256=weights,
        fingerprint=sha256_json({"encoder": info.fingerprint, "weights": weights}),
        training=None,
    )


def millions(module: nn.Module | None) -> float:
    """Parameters in millions, shared ones counted once; 0 for None."""
    return 0.0 if module is None else sum(p.numel() for p in module.parameters()) / 1e6


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients, fp32, on the CPU; in place."""
    module.eval()
    module.requires_grad_(False)
    return module.to(device="cpu", dtype=torch.float32)


def activation_of(module: nn.Module) -> str:
    """The MLP activation as `EncoderInfo.activation` spells it: the first in `module`, `unknown` without any."""
    for child in module.modules():
        name = type(child).__name__.lower().replace("activation", "")
        if "quickgelu" in name.replace("_", ""):
            return "quick_gelu"
        if isinstance(child, nn.GELU):
            return "gelu" if child.approximate == "none" else "gelu_tanh"
        if name in _ACTIVATIONS:
            return _ACTIVATIONS[name]
        # Gated blocks multiply two projections, which the bare SiLU inside does not show.
        if "swiglu" in name or (name == "glumlp" and isinstance(getattr(child, "act", None), nn.SiLU)):
            return "swiglu"
    return "unknown"


_ACTIVATIONS = {"gelu": "gelu", "gelutanh": "gelu_tanh", "silu": "silu", "swish": "silu", "relu": "relu"}


def plain(value: Any) -> Any:
    """`value` with dtypes, classes and functions as names, so that it has a canonical JSON form."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # An address in a repr would make the fingerprint differ from run to run.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
