"""Names of the towers' weights in transformers' `SiglipModel`, both ways (`protocols/pretraining.md` section 13).

Ours keep q, k and v in one matrix (rows in that order), theirs in three for the blocks; their pooling head keeps the
matrix whole. Everything else is a change of name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

KINDS = ("weight", "bias")
_BLOCK = {
    "norm1": "layer_norm1",
    "proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_POOL = {
    "pool.proj": "head.attention.out_proj",
    "pool.norm": "head.layernorm",
    "pool.mlp.fc1": "head.mlp.fc1",
    "pool.mlp.fc2": "head.mlp.fc2",
}
_SINGLE = {
    "vision.patch_weight": "vision_model.embeddings.patch_embedding.weight",
    "vision.patch_bias": "vision_model.embeddings.patch_embedding.bias",
    "vision.positions": "vision_model.embeddings.position_embedding.weight",
    "vision.pool.probe": "vision_model.head.probe",
    "text.tokens": "text_model.embeddings.token_embedding.weight",
    "text.positions": "text_model.embeddings.position_embedding.weight",
    "log_scale": "logit_scale",
    "bias": "logit_bias",
}


def pairs(vision_layers: int, text_layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our name, and the one name or the three (q, k, v) of `SiglipModel`.

    Args:
        vision_layers: blocks of the image tower.
        text_layers: blocks of the text tower; 0 for a model without text, scale and bias.
    """
    for ours, theirs in _SINGLE.items():
        if text_layers or ours.startswith("vision."):
            yield ours, (theirs,)
    for kind in KINDS:
        yield f"vision.norm.{kind}", (f"vision_model.post_layernorm.{kind}",)
        yield f"vision.pool.qkv.{kind}", (f"vision_model.head.attention.in_proj_{kind}",)
        yield from ((f"vision.{ours}.{kind}", (f"vision_model.{theirs}.{kind}",)) for ours, theirs in _POOL.items())
        if text_layers:
            yield f"text.norm.{kind}", (f"text_model.final_layer_norm.{kind}",)
            yield f"text.head.{kind}", (f"text_model.head.{kind}",)
        for tower, layers in (("vision", vision_layers), ("text", text_layers)):
            for i in range(layers):
                yield from _block_pairs(f"{tower}.blocks.{i}", f"{tower}_model.encoder.layers.{i}", kind)


def _block_pairs(ours: str, theirs: str, kind: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{ours}.qkv.{kind}", tuple(f"{theirs}.self_attn.{p}_proj.{kind}" for p in "qkv")
    yield from ((f"{ours}.{a}.{kind}", (f"{theirs}.{b}.{kind}",)) for a, b in _BLOCK.items())


def to_hf(state: Mapping[str, Tensor], *, vision_layers: int, text_layers: int) -> dict[str, Tensor]:
    """Our tower weights under `SiglipModel`'s names, contiguous, on the CPU; other entries of `state` are left out."""
    out: dict[str, Tensor] = {}
    for ours, theirs in pairs(vision_layers, text_layers):
        for name, part in zip(theirs, state[ours].detach().chunk(len(theirs)), strict=True):
            # A copy, because slices of one memory cannot be written to a safetensors file.
            out[name] = part.cpu().clone().contiguous()
    return out


def from_hf(state: Mapping[str, Tensor], *, vision_layers: int, text_layers: int) -> dict[str, Tensor]:
    """The inverse of `to_hf`; every name must be there (see `mtv.model.hf_import` for the checks)."""
    return {
        ours: state[theirs[0]] if len(theirs) == 1 else torch.cat([state[name] for name in theirs])
        for ours, theirs in pairs(vision_layers, text_layers)
    }
