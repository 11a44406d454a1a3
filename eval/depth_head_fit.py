"""Fits a linear disparity head on an encoder that brings none, on the training frames of NYUv2.

One pass over the pictures, prepared as `rel_nyu` prepares them, and one linear system: seconds to minutes, and the same
head every time. What comes out is labelled everywhere as fitted on these frames: it is no zero-shot number.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch

from mtv.encoders.base import Encoder
from mtv.encoders.depth_head import LinearDepthHead
from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import DepthSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.features.extract import auto_batch_size
from mtv.eval.protocols_rel import RelNyuProtocol
from mtv.eval.rel_frames import frames, input_record, input_size, model_input
from mtv.eval.task import stable_subset
from mtv.probes.disparity_fit import DisparityFit
from mtv.probes.precision import fp32_matmul

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HeadFitConfig:
    """What the head depends on beside encoder and data."""

    layer: int = -1
    """Block whose patch tokens are read, 0-based or negative from the end."""
    norm: Literal["none", "final"] = "final"
    """Residual stream, or after the final norm."""
    ridge: float = 0.1
    """Penalty on the weights, in units of each channel's mean variance inside pictures."""
    limit: int | None = None
    """Use this many training pictures, spread over the scenes; none for all."""
    size: int | None = None
    """Input side in pixels; none for the model's own."""

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise UsageError(f"ridge must be positive, got {self.ridge}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit must be at least 1, got {self.limit}")


def fit_depth_head(
    encoder: Encoder,
    data: Path,
    config: HeadFitConfig,
    *,
    tick: Callable[[str, int, int, str], None] = lambda stage, done, total, detail: None,
) -> LinearDepthHead:
    """Fit a head for `?depth_head=FILE`.

    Args:
        encoder: without a depth head, in float32.
        data: root of the data sets; NYUv2's training list is looked for.
        tick: progress.

    Raises:
        UsageError: the encoder gives no tokens, or has a depth head, or the tap does not exist.
        DataError: no training frames, an unreadable one, or none with varied depth.
    """
    if encoder.has_depth:
        raise UsageError(f"{encoder.info.spec} has a depth head already")
    if encoder.depth == 0:
        raise UsageError(f"{encoder.info.spec} gives no dense tokens")
    layer = encoder.resolve_layer(config.layer)
    dataset = cast(DepthSet, open_dataset("nyuv2", data, split="train"))
    ids = list(dataset.images)
    if config.limit is not None:
        ids = [ids[i] for i in stable_subset(ids, [dataset.items[i].group for i in ids], config.limit)]
    fit = _fit(encoder, dataset, ids, layer, config, tick)
    if not fit.n:
        raise DataError(f"nyuv2 train: none of {len(ids)} frames has varied depth inside the scored part")
    weight_D, bias = fit.solve(config.ridge)
    counts = f"{len(ids)} of {len(dataset.images)} frames, " if len(ids) < len(dataset.images) else ""
    label = f"{counts}{dataset.report.label or 'full set'}"
    return LinearDepthHead(
        weight_D=weight_D,
        bias=bias,
        kind="disparity",
        layer=layer,
        norm=config.norm,
        encoder=encoder.info.fingerprint,
        fitted_on=f"nyuv2 train, {label}",
        fit={
            "ridge": config.ridge,
            "size": input_record(encoder, RelNyuProtocol(size=config.size)).size,
            "n_images": fit.n,
            "data_fingerprint": dataset.fingerprint,
        },
    )


@fp32_matmul()
def _fit(
    encoder: Encoder,
    dataset: DepthSet,
    ids: list[str],
    layer: int,
    config: HeadFitConfig,
    tick: Callable[[str, int, int, str], None],
) -> DisparityFit:
    protocol = RelNyuProtocol(size=config.size)
    record, fit, done = input_record(encoder, protocol), DisparityFit(encoder.width), 0
    stream = frames(dataset, ids, protocol)
    # All NYUv2 frames of a set have one size.
    while batch := list(itertools.islice(stream, auto_batch_size(encoder.device, (record.size, record.size)))):
        size = input_size(batch[0].size, encoder, protocol)
        pixels_B3HW = torch.stack([model_input(frame, size, record) for frame in batch])
        out = encoder.features(encoder.normalize(pixels_B3HW, record), layers=(layer,), norm=config.norm)
        for frame, tokens_HWD in zip(batch, out.tokens[layer], strict=True):
            if not fit.add(tokens_HWD, frame.depth_HW, frame.valid_HW):
                log.warning("nyuv2 train: %s has no varied depth and is left out", frame.id)
            done += 1
            tick("fit", done, len(ids), frame.id)
    return fit
