"""Depth objective: scale and shift invariant error of the depth head's disparity (pretraining.md 5.6)."""

from __future__ import annotations

from mtv.losses.depth import depth_loss
from mtv.model.config import DptConfig
from mtv.model.model import MtvModel
from mtv.train.data.batch import Batch, Needs
from mtv.train.objectives.base import Context, Objective, Outcome, Passes, Views
from mtv.train.options import DepthOptions


class Depth(Objective):
    """The depth loss.

    Args:
        options: precision, space of the gradients.
        dpt: which blocks the head reads.
    """

    name = "depth"
    needs = Needs(depth=True)

    def __init__(self, options: DepthOptions, dpt: DptConfig) -> None:
        self.options = options
        self.passes = Passes(taps=dpt.taps)

    def outcome(self, model: MtvModel, views: Views, batch: Batch, context: Context) -> Outcome:
        """Mean over the valid maps of the global batch."""
        assert batch.depth_BHW is not None
        assert batch.depth_valid_B is not None
        height, width = batch.depth_BHW.shape[1:]
        prediction_BHW = model.predict_disparity(views.image, (height, width), precision=self.options.precision)
        loss, report = depth_loss(prediction_BHW, batch.depth_BHW, batch.depth_valid_B, gm_space=self.options.gm_space)
        # Micro-batches with more labels count for more, in the logged means as in the gradient.
        share = context.depth_share
        values = {
            "loss/depth": share * loss.detach(),
            "depth/ssi_trim": share * report.ssi_trim,
            "depth/gradient": share * report.gradient_matching,
            "depth/valid_share": report.share,
        }
        return Outcome(loss=self.options.weight * share * loss, values=values)
