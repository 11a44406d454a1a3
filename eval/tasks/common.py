"""Pieces that several tasks share: the pooled-feature request, the dense request, limits, chosen samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mtv.eval.datasets.base import CaptionSet, ClassificationSet, FileRef
from mtv.eval.features.request import FeatureRequest, Preparation
from mtv.eval.preparations import RecordPreparation, statistics_of
from mtv.eval.protocols import DenseProtocol
from mtv.eval.task import TaskRun, stable_subset

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder, TextKind

CLIP_LIKE = ("clip", "pe", "clipa", "coca", "mobileclip", "mobileclip2")
"""Families whose library returns the residual stream before the final norm as last_hidden_state."""


def pooled_request(
    encoder: Encoder,
    data: str,
    files: dict[str, FileRef],
    *,
    size: int | None,
    tower_dtype: Literal["fp32", "bf16", "fp16"],
    global_token: bool = False,
) -> FeatureRequest:
    """One pooled vector per picture under the model's own image record."""
    record = encoder.info.image if size is None else encoder.info.image.with_(size=size)
    return FeatureRequest(
        data=data,
        files={k: (v,) for k, v in files.items()},
        preparation=RecordPreparation(image=record),
        mean=record.mean,
        std=record.std,
        pooled=not global_token,
        global_token=global_token,
        tower_dtype=tower_dtype,
    )


def dense_request(
    encoder: Encoder,
    data: str,
    files: dict[str, tuple[FileRef, ...]],
    preparation: Preparation,
    protocol: DenseProtocol,
) -> FeatureRequest:
    """One token map per picture at the protocol's tap."""
    mean, std = statistics_of(protocol.statistics, encoder.info.image)
    return FeatureRequest(
        data=data,
        files=files,
        preparation=preparation,
        mean=mean,
        std=std,
        layers=(encoder.resolve_layer(protocol.layer),),
        norm=resolved_norm(encoder, protocol),
        pad_to_patch=True,
        storage=protocol.storage,
        tower_dtype=protocol.tower_dtype,
    )


def resolved_norm(encoder: Encoder, protocol: DenseProtocol) -> Literal["none", "final"]:
    """The tap that `auto` stands for: what the common library classes return as last_hidden_state."""
    if protocol.norm != "auto":
        return protocol.norm
    return "none" if encoder.info.family in CLIP_LIKE else "final"


def pixels_of(request: FeatureRequest, sample: str) -> Tensor:
    """uint8 pixels of one sample, read again (for pictures and for the diagnosis)."""
    return request.preparation(sample, [f.read() for f in request.files[sample]])


def tokens_of(run: TaskRun[Any], pair: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Stored token maps of two samples, H,W,D each, of the first request's first output."""
    first, second = (run.sets[0].get(i)[run.requests[0].outputs[0]] for i in pair)
    return first, second


def normalised_batch(encoder: Encoder, request: FeatureRequest, n: int = 64) -> Tensor:
    """The first pictures as the encoder saw them, on the CPU in float32: what the diagnosis looks at."""
    pixels = torch.stack([pixels_of(request, i) for i in request.ids[:n]])
    record = encoder.info.image.with_(mean=request.mean, std=request.std)
    return encoder.normalize(pixels, record).float().cpu()


def n_truncated(encoder: Encoder, strings: Sequence[str], kind: TextKind) -> int:
    """How many of `strings` the tokenizer cuts, for the diagnosis; 0 where a user's tower hides its tokenizer."""
    pipeline = getattr(encoder, "text", None)
    return round(pipeline.truncated_share(strings, kind) * len(strings)) if pipeline is not None else 0


def tap_details(encoder: Encoder, protocol: DenseProtocol, request: FeatureRequest) -> dict[str, object]:
    """What a dense result records about its features."""
    return {
        "layer": encoder.resolve_layer(protocol.layer),
        "norm": request.norm,
        "mean": list(request.mean),
        "std": list(request.std),
        "patch_size": encoder.patch_size,
        "pos_interp": encoder.info.pos_interp,
    }


def limit_classification(data: ClassificationSet, n: int | None) -> ClassificationSet:
    """At most `n` pictures, spread over the classes."""
    if n is None or n >= len(data.images):
        return data
    ids = list(data.images)
    keep = stable_subset(ids, [str(label) for label in data.labels], n)
    return replace(data, images={ids[i]: data.images[ids[i]] for i in keep}, labels=data.labels[keep])


def limit_captions(data: CaptionSet, n: int | None) -> CaptionSet:
    """At most `n` pictures with all their captions."""
    if n is None or n >= len(data.images):
        return data
    ids = list(data.images)
    keep = stable_subset(ids, [""] * len(ids), n)
    position = np.full(len(ids), -1, dtype=np.int64)
    position[keep] = np.arange(len(keep))
    rows = np.flatnonzero(position[data.owner] >= 0)
    return replace(
        data,
        images={ids[i]: data.images[ids[i]] for i in keep},
        captions=tuple(data.captions[r] for r in rows),
        caption_ids=tuple(data.caption_ids[r] for r in rows),
        owner=position[data.owner[rows]],
    )


def extremes(scores: np.ndarray, n: int = 16) -> tuple[list[int], list[int]]:
    """Positions of the `n` best and `n` worst scores, best first and worst first; no sample is in both."""
    order = np.argsort(-scores, kind="stable")
    n = min(n, len(order) // 2 if len(order) > 1 else 1)
    return [int(i) for i in order[:n]], [int(i) for i in order[::-1][:n]]
