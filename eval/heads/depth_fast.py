"""Batches of the depth probe from stored features: every picture in a few fixed views, one view per epoch in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtv.eval.features.api import FeatureSet
from mtv.eval.heads.depth_tap import DepthTap
from mtv.eval.heads.depth_training import Batch, SampleOrder
from mtv.eval.heads.depth_views import view_id, view_of
from mtv.eval.heads.frame_store import FrameStore, metres
from mtv.eval.protocols_dense import NyuProtocol
from mtv.probes.depth_frames import TrainFrame
from mtv.probes.depth_head import check_token_grid


@dataclass(frozen=True, kw_only=True)
class CachedBatches:
    """Stored maps paired with the depth of their view."""

    protocol: NyuProtocol
    """Views, seed, batch."""
    features: FeatureSet
    """Of all views."""
    tap: DepthTap
    """What was stored."""
    pictures: Sequence[str]
    """Ids in the order of the frames."""
    frames: FrameStore
    """Depth."""
    frame: TrainFrame
    """Geometry."""
    patch: int
    """Of the encoder."""
    device: torch.device
    """Of the head."""

    def read(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, global tokens and depth of a step, on the CPU."""
        p = self.protocol
        order = SampleOrder(n=len(self.pictures), batch=p.batch, seed=p.seed)
        # The row is added, so that an epoch holds all views and a picture goes through its own in turn.
        chosen = [(row, (epoch + row) % p.views) for row, epoch in order.at(step)]
        ids = [view_id(self.pictures[row], number) for row, number in chosen]
        layer, global_name = self.tap.outputs
        return self.features.stack(ids, layer), self.features.stack(ids, global_name), self._depth(chosen)

    def batch(self, raw: tuple[Tensor, Tensor, Tensor]) -> Batch:
        """What was read, on the device."""
        tokens_BHWD, global_BD, depth_B1HW = (x.to(self.device, non_blocking=True) for x in raw)
        check_token_grid(tokens_BHWD, size=self.frame.output, patch=self.patch)
        return Batch(tokens_BHWD=tokens_BHWD, global_BD=global_BD, depth_B1HW=depth_B1HW)

    def _depth(self, chosen: Sequence[tuple[int, int]]) -> Tensor:
        cut = []
        for row, number in chosen:
            view = view_of(self.frame, seed=self.protocol.seed, picture=self.pictures[row], number=number)
            cut.append(view.cut(self.frames.millimetres(row), self.frame))
        return metres(np.stack(cut))
