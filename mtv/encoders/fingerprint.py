"""The identity of a model: a hash of its weights, and of everything beside them that changes a feature."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.records import ImageRecord, TextRecord
from mtv.hashing import canonical_json, sha256_json


def weights_sha256(module_or_state: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 over the entries of a state dict in sorted order: name, dtype, shape, little-endian bytes.

    The file format does not enter, so a `.pt` and a `.safetensors` of the same weights agree. Streamed, without a copy
    of contiguous CPU tensors.
    """
    state = module_or_state.state_dict() if isinstance(module_or_state, nn.Module) else module_or_state
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(canonical_json(header).encode("utf-8") + b"\n")
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw bytes of a tensor of any dtype (numpy has no bfloat16, so the view goes through uint8)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def fingerprint(
    architecture: str, config: Mapping[str, Any], weights_sha: str, image: ImageRecord, text: TextRecord | None
) -> str:
    """Hash over architecture, its configuration, weights, and the image and text record.

    Raises:
        TypeError: `config` holds a value without canonical JSON form.
    """
    return sha256_json(
        {
            "architecture": architecture,
            "config": dict(config),
            "weights": weights_sha,
            "image": image.to_dict(),
            "text": text.to_dict() if text is not None else None,
        }
    )
