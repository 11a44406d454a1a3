"""Image-text objective: sigmoid loss of pooled image and caption (pretraining.md 5.1)."""

from __future__ import annotations

from torch import Tensor

from mtv.losses.sigmoid import sigmoid_loss
from mtv.model.model import MtvModel
from mtv.train.data.batch import Batch, Needs
from mtv.train.objectives.base import Context, Contrastive, Outcome, Passes, Views
from mtv.train.options import VlOptions


class VisionLanguage(Contrastive):
    """The image-text loss."""

    name = "vl"
    needs = Needs()
    passes = Passes(pooled=True, captions=True)

    def __init__(self, options: VlOptions) -> None:
        self.options = options

    def outcome(self, model: MtvModel, views: Views, batch: Batch, context: Context) -> Outcome:
        """Loss over the images of this rank and the captions of all."""
        return self.contrast(self.embed(model, views, batch), {}, *self.scale(model))

    def embed(self, model: MtvModel, views: Views, batch: Batch) -> dict[str, Tensor]:
        """Pooled images and captions."""
        assert views.caption_BD is not None
        return {"image": views.pooled_BD, "text": views.caption_BD}

    def labels(self, batch: Batch) -> dict[str, Tensor]:
        """None."""
        return {}

    def contrast(
        self, embedded: dict[str, Tensor], labels: dict[str, Tensor], log_scale: Tensor, bias: Tensor
    ) -> Outcome:
        """Sigmoid loss."""
        loss = sigmoid_loss(embedded["image"], embedded["text"], log_scale, bias)
        values = {
            "loss/vl": loss.detach(),
            "vl/scale": log_scale.detach().exp()[0],
            "vl/bias": bias.detach().clone()[0],
        }
        return Outcome(loss=self.options.weight * loss, values=values)

    def scale(self, model: MtvModel) -> tuple[Tensor, Tensor]:
        """The model's pair."""
        assert model.log_scale is not None
        assert model.bias is not None
        return model.log_scale, model.bias
