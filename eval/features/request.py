"""What a task asks of an encoder: which pictures, prepared how, read at which tap. Pure description, hashable."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mtv.encoders.records import EncoderInfo
from mtv.errors import UsageError
from mtv.eval.datasets.base import FileRef

if TYPE_CHECKING:
    from torch import Tensor

EXTRACTOR_VERSION = 1
"""Raised when the same inputs would give other features."""


class Preparation(abc.ABC):
    """Bytes to pixels: a picklable, pure function, run in loader workers."""

    @abc.abstractmethod
    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 pixels 3,H,W, the same size for every sample of a request.

        Args:
            sample_id: for messages.
            blobs: the bytes of the sample's files, in the order of `FeatureRequest.files`.

        Raises:
            DataError: the picture cannot be decoded or does not fit; names the sample.
        """

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """Everything that determines the pixels, for the cache key (canonical JSON values)."""


@dataclass(frozen=True, kw_only=True)
class FeatureRequest:
    """One forward pass per sample, and what is kept of it."""

    data: str
    """Data set name; part of the key, so that `cache ls` can say what an entry is."""
    files: dict[str, tuple[FileRef, ...]]
    """Sample id to the files whose bytes determine the pixels (picture, and depth where the crop follows it)."""
    preparation: Preparation
    """Bytes to uint8 pixels."""
    mean: tuple[float, float, float]
    """Normalisation of pixels in [0, 1]."""
    std: tuple[float, float, float]
    """Normalisation of pixels in [0, 1]."""
    layers: tuple[int, ...] = ()
    """Blocks to keep, 0-based (already resolved)."""
    norm: Literal["none", "final"] = "none"
    """Tap of `layers`."""
    pooled: bool = False
    """Keep `Features.pooled` (fp32)."""
    global_token: bool = False
    """Keep `Features.global_token` (fp32)."""
    class_token: bool = False
    """Keep the class token of each of `layers` under `norm` (fp32)."""
    pad_to_patch: bool = False
    """Zero-pad normalised pixels symmetrically (extra pixel right/bottom) to the next multiple of the patch."""
    storage: Literal["fp16", "fp32"] = "fp16"
    """Dtype of stored token maps; scoring sees the rounded values whether or not the cache is on."""
    tower_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Dtype of the forward pass."""
    extra_key: dict[str, Any] = field(default_factory=dict)
    """More key fields, for tasks that need them."""

    def __post_init__(self) -> None:
        if not (self.layers or self.pooled or self.global_token):
            raise UsageError("FeatureRequest: ask for layers, pooled or global_token")

    @property
    def ids(self) -> list[str]:
        """Sample ids in request order."""
        return list(self.files)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors kept per sample: `layer<i>` (H,W,D), `cls<i>`, `pooled` and `global` (D)."""
        return (
            *(f"layer{i}" for i in self.layers),
            *(f"cls{i}" for i in self.layers if self.class_token),
            *(("pooled",) if self.pooled else ()),
            *(("global",) if self.global_token else ()),
        )

    def key(self, model: EncoderInfo) -> dict[str, Any]:
        """The full cache key in clear text. Rows inside an entry are further keyed by (sample id, digest of its bytes),
        so a changed file can never be served and data sets of any extent share one entry."""
        return {
            "kind": "image",
            "extractor": EXTRACTOR_VERSION,
            "model": model.fingerprint,
            "data": self.data,
            "pixels": self.preparation.record(),
            "mean": list(self.mean),
            "std": list(self.std),
            "outputs": list(self.outputs),
            "norm": self.norm if self.layers else None,
            "pad_to_patch": self.pad_to_patch,
            "tower_dtype": self.tower_dtype,
            "storage": self.storage if self.layers else "fp32",
            **self.extra_key,
        }
