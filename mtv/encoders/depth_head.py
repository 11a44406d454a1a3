"""A linear depth head in a file: fitted on the patch tokens of one encoder, and only ever applied to that one.

The file is a safetensors of one vector, with the rest as JSON in its header. `?depth_head=FILE` on any spec attaches
it. An encoder with a head is another model than without: its fingerprint covers the head, so results of two heads are
never taken for one another (nor are features shared between them).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtv.atomic import atomic_write
from mtv.encoders.base import Encoder, Tap
from mtv.encoders.fingerprint import weights_sha256
from mtv.encoders.records import DepthHeadRecord, DepthKind
from mtv.errors import CheckpointError, UsageError
from mtv.hashing import sha256_json

FORMAT = 1
"""Version of the file."""
_HEADER = "mtv_depth_head"
_FIT = "Fit one with mtv-eval depth-head."


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearDepthHead:
    """One number per patch token: weight . token + bias. Where a picture's depth is only known up to scale and shift,
    a global token would add a constant per picture and change nothing, so there is none."""

    weight_D: Tensor
    """float32."""
    bias: float
    """Added to every token's number."""
    kind: DepthKind
    """What comes out."""
    layer: int
    """Block whose tokens are read, 0-based or negative from the end."""
    norm: Tap
    """Tap of that block."""
    encoder: str
    """Fingerprint of the encoder it was fitted on."""
    fitted_on: str
    """Data, in words: printed beside every number."""
    fit: dict[str, Any] = field(default_factory=dict)
    """How it was fitted: regularisation, input size, counts, data fingerprint (JSON values)."""

    def __post_init__(self) -> None:
        if self.weight_D.ndim != 1 or self.weight_D.dtype != torch.float32:
            raise UsageError(
                f"depth head: weight must be a float32 vector, got {self.weight_D.dtype} {tuple(self.weight_D.shape)}"
            )
        if not (bool(torch.isfinite(self.weight_D).all()) and math.isfinite(self.bias)):
            raise UsageError("depth head: weight or bias is not finite")
        if self.norm not in ("none", "final"):
            raise UsageError(f"depth head: norm must be none or final, got {self.norm!r}")
        if not self.fitted_on:
            raise UsageError("depth head: fitted_on is empty, so its numbers could not be labelled")

    @property
    def record(self) -> DepthHeadRecord:
        """What results say about the head."""
        return DepthHeadRecord(kind=self.kind, fitted_on=self.fitted_on)

    @property
    def sha256(self) -> str:
        """Hash of the weights and of everything in the header."""
        return sha256_json({"weights": weights_sha256({"weight": self.weight_D}), **self._header()})

    def __call__(self, tokens_BHWD: Tensor) -> Tensor:
        """B,H,W float32, one value per token, on the device of the tokens."""
        # A sum of products and not a matrix product, which a GPU may compute in TF32.
        return (tokens_BHWD.float() * self.weight_D.to(tokens_BHWD.device)).sum(-1) + self.bias

    def _header(self) -> dict[str, Any]:
        fields = ("bias", "kind", "layer", "norm", "encoder", "fitted_on", "fit")
        return {"format": FORMAT, **{name: getattr(self, name) for name in fields}}


def save_depth_head(path: Path, head: LinearDepthHead) -> None:
    """Write a head atomically.

    Raises:
        CacheError: the file cannot be written.
    """
    header = {_HEADER: json.dumps(head._header(), sort_keys=True, allow_nan=False)}
    atomic_write(path, lambda p: save_file({"weight": head.weight_D.contiguous()}, p, metadata=header))


def load_depth_head(path: Path) -> LinearDepthHead:
    """Read a head.

    Raises:
        CheckpointError: no such file, not a head, another format version, or values that are none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header: Mapping[str, Any] = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            weight_D = file.get_tensor("weight") if header else None
    except (OSError, SafetensorError, ValueError) as e:
        raise CheckpointError(f"depth head {path}: cannot be read ({str(e).splitlines()[0]})", _FIT) from e
    if weight_D is None:
        raise CheckpointError(f"depth head {path}: not a depth head", _FIT)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"depth head {path}: format {header.get('format')!r}, this mtv reads {FORMAT}", _FIT)
    try:
        return LinearDepthHead(weight_D=weight_D, **{k: v for k, v in header.items() if k != "format"})
    except (TypeError, UsageError) as e:
        raise CheckpointError(f"depth head {path}: {e}", _FIT) from e


def attach_depth_head(encoder: Encoder, path: Path) -> Encoder:
    """Give a loaded encoder the head of a file, in place; its record and fingerprint say so.

    Raises:
        CheckpointError: an unreadable file, or a head that was fitted on another encoder.
        UsageError: the encoder has a depth head already.
    """
    spec = encoder.info.spec
    if encoder.has_depth:
        raise UsageError(f"{spec} brings a depth head of its own", "Leave out depth_head.")
    head = load_depth_head(path)
    if head.encoder != encoder.info.fingerprint:
        raise CheckpointError(
            f"depth head {path}: fitted on encoder {head.encoder[:16]}, but {spec} is {encoder.info.fingerprint[:16]}",
            "A head belongs to the weights, the preprocessing and the seed that it was fitted on; fit one for this "
            "encoder with mtv-eval depth-head.",
        )
    encoder.fitted_depth = head
    encoder.info = replace(
        encoder.info,
        fingerprint=sha256_json({"encoder": encoder.info.fingerprint, "depth_head": head.sha256}),
        depth_head=head.record,
        sources={**encoder.info.sources, "depth_head": f"option: depth_head={path.name}"},
    )
    return encoder
