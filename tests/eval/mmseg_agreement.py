"""The same head trained twice on the same stored windows: by our trainer, and by mmsegmentation's head and optimiser.

Each is then scored by its own side: ours on stored features of the test windows, the other by sliding inference and
IoUMetric. Loss, optimiser, schedule, order and initial weights are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mtv.encoders.base import Encoder
from mtv.eval.features.api import FeatureProvider
from mtv.eval.features.options import ExtractOptions
from mtv.eval.heads.segmentation_scoring import EvalPictures, score_pictures, total_of
from mtv.eval.heads.segmentation_tap import WindowTokens, resolve_tap
from mtv.eval.heads.segmentation_training import (
    WindowBatches,
    make_trainer,
    open_labels,
    train_heads,
    training_windows,
)
from mtv.eval.heads.segmentation_views import eval_grid, geometry_of
from mtv.eval.mmseg import scoring
from mtv.eval.mmseg.config import Setup, build_model, build_optimiser, build_pictures, model_config
from mtv.eval.mmseg.installed import quiet
from mtv.eval.protocols import protocol_for
from mtv.eval.tasks.segmentation import SegmentationTask
from mtv.probes.precision import fp32_matmul
from mtv.probes.segmentation_head import LinearHead
from mtv.probes.segmentation_metric import score_areas


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Both outcomes."""

    native: float
    """mIoU of our head by our test, percent."""
    mmseg: float
    """mIoU of mmsegmentation's head by its test."""
    swapped: float
    """mIoU of mmsegmentation's head by our test: what training alone changes."""


def agreement(
    encoder: Encoder, task: str, data: Path, *, iters: int, crop: int, tick: Any = None, **fields: Any
) -> Agreement:
    """Train and score both heads."""
    tick = tick or (lambda *_: None)
    values = {"loss": "pixel", "lr": (1e-3,), "storage": "fp32", "epochs": None, "held_out": 0.0, "warmup": 0.0375}
    p: Any = protocol_for(task, "fast", {**values, "crop": crop, "iters": iters, **fields})
    probe = SegmentationTask(p)
    pair, tap, geometry = probe.open(data), resolve_tap(p, encoder), geometry_of(p, encoder.patch_size)
    provider = FeatureProvider(encoder, ExtractOptions(workers=0, progress=tick))
    tokens = WindowTokens([provider.get(r) for r in probe.requests(encoder, pair)], tap)
    windows = training_windows(p, list(pair.train.images))
    plain, augmented = probe._preparations(encoder, pair, tap)
    trainer = make_trainer(
        p, width=tap.width(encoder), n_classes=len(pair.classes), n_windows=len(windows.train), device=encoder.device
    )
    setup = Setup(protocol=p, geometry=geometry, iters=iters)
    with quiet(), open_labels(None, pair.train, windows.all, plain=plain, augmented=augmented, tick=tick) as labels:
        batches = WindowBatches(protocol=p, windows=windows, tokens=tokens, labels_NHW=labels, device=encoder.device)
        train_heads(trainer, batches, work=None, tick=tick)
        model = build_model(model_config(setup, encoder, tap, len(pair.classes)), encoder.device)
        _train(model, setup, batches)
        areas, _ = scoring.score_pictures(model, build_pictures(setup, pair), lambda n, of: tick("mmseg", n, of, ""))
    grids = {k: eval_grid((height, width), geometry, p.infer) for k, (width, height) in pair.sizes.items()}
    test = EvalPictures(data=pair, grids=grids, tokens=tokens)
    own, other = trainer.heads[0], as_linear(model.decode_head, trainer.heads[0])

    def native(head: LinearHead) -> float:
        return score_areas(total_of(score_pictures(head, test, lambda n, of: tick("native", n, of, "")))).miou

    return Agreement(
        native=native(own),
        mmseg=score_areas(total_of(areas)).miou,
        swapped=native(other),
    )


def as_linear(theirs: Any, ours: LinearHead) -> LinearHead:
    """mmsegmentation's head in our form."""
    head = LinearHead(ours.config).to(ours.conv.weight.device)
    head.conv.load_state_dict(theirs.conv_seg.state_dict())
    if head.norm is not None:
        head.norm.load_state_dict(theirs.norm.state_dict())
    return head.eval()


def labelled(labels_BHW: torch.Tensor | np.ndarray) -> list[SegDataSample]:
    """mmsegmentation's form of label maps."""
    samples = []
    for label_HW in torch.as_tensor(labels_BHW):
        samples.append(SegDataSample())
        samples[-1].gt_sem_seg = PixelData(data=label_HW[None].long())
    return samples


def _train(model: Any, setup: Setup, batches: WindowBatches) -> None:
    """mmsegmentation's head, loss, optimiser and schedulers on stored windows."""
    wrapper, schedulers = build_optimiser(setup, model)
    model.decode_head.train()
    for step in range(setup.iters):
        tokens_BhwD, labels_BHW = batches.read(step)
        map_BDhw = tokens_BhwD.permute(0, 3, 1, 2).contiguous().to(batches.device)
        samples = [s.to(batches.device) for s in labelled(labels_BHW)]
        with fp32_matmul():
            loss, _ = model.parse_losses(model.decode_head.loss([map_BDhw], samples, {}))
            wrapper.update_params(loss)
        for scheduler in schedulers:
            scheduler.step()
    model.eval()
