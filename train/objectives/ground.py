"""Grounding objective: sigmoid loss of region embeddings and region names (pretraining.md 5.5).

With `unique_text` every name of the global batch is encoded once, by one rank; a contrast over several micro-batches
encodes the distinct names of each and compares slots, which is the same number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtv.collectives import gather_rows
from mtv.losses.grounding import RegionReport, region_loss, unique_region_loss
from mtv.losses.names import unique_names
from mtv.model.model import MtvModel
from mtv.train.data.batch import Batch, Needs
from mtv.train.objectives.base import Context, Contrastive, Outcome, Passes, Views
from mtv.train.options import GroundOptions


class Grounding(Contrastive):
    """The region-text loss."""

    name = "ground"
    needs = Needs(regions=True)
    passes = Passes()

    def __init__(self, options: GroundOptions) -> None:
        self.options = options

    def outcome(self, model: MtvModel, views: Views, batch: Batch, context: Context) -> Outcome:
        """Loss over the regions of this rank and the names of all."""
        if not self.options.unique_text:
            return self.contrast(self.embed(model, views, batch), self.labels(batch), *self.scale(model))
        box_BR4, text_BRT, valid_BR, name_BR = _regions(batch)
        assert model.prompter is not None
        assert model.text is not None
        names = unique_names(name_BR, valid_BR)
        tokens_LT = gather_rows(text_BRT).flatten(0, 1)[names.local_slots]
        loss, report = unique_region_loss(
            model.prompter(views.image.tokens_BND, box_BR4),
            model.text(tokens_LT),
            names,
            valid_BR,
            *self.scale(model),
            duplicates=self.options.duplicates,
            ignore_cos=self.options.ignore_cos,
        )
        return self._outcome(loss, report)

    def embed(self, model: MtvModel, views: Views, batch: Batch) -> dict[str, Tensor]:
        """Region embeddings and the embedding of each slot's name."""
        box_BR4, text_BRT, _, name_BR = _regions(batch)
        assert model.prompter is not None
        assert model.text is not None
        region_BRD = model.prompter(views.image.tokens_BND, box_BR4)
        if not self.options.unique_text:
            return {"region": region_BRD, "name": model.text(text_BRT.flatten(0, 1)).unflatten(0, name_BR.shape)}
        ids_U, row_S = name_BR.flatten().unique(return_inverse=True)
        slots_S = torch.arange(len(row_S), device=row_S.device)
        first_U = torch.full_like(ids_U, len(row_S)).scatter_reduce(0, row_S, slots_S, "amin")
        name_UD = model.text(text_BRT.flatten(0, 1)[first_U])
        return {"region": region_BRD, "name": name_UD[row_S].unflatten(0, name_BR.shape)}

    def labels(self, batch: Batch) -> dict[str, Tensor]:
        """Name ids and which slots hold a region."""
        _, _, valid_BR, name_BR = _regions(batch)
        return {"name": name_BR, "valid": valid_BR}

    def contrast(
        self, embedded: dict[str, Tensor], labels: dict[str, Tensor], log_scale: Tensor, bias: Tensor
    ) -> Outcome:
        """Every region against the name of every slot."""
        loss, report = region_loss(
            embedded["region"],
            embedded["name"],
            labels["name"],
            labels["valid"],
            log_scale,
            bias,
            duplicates=self.options.duplicates,
            ignore_cos=self.options.ignore_cos,
        )
        return self._outcome(loss, report)

    def scale(self, model: MtvModel) -> tuple[Tensor, Tensor]:
        """Its own pair, or that of the image-text loss."""
        return model.region_scale

    def _outcome(self, loss: Tensor, report: RegionReport) -> Outcome:
        values = {"loss/ground": loss.detach(), "ground/valid_share": report.share}
        return Outcome(loss=self.options.weight * loss, values=values)


def _regions(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert batch.box_BR4 is not None
    assert batch.region_text_BRT is not None
    assert batch.region_valid_BR is not None
    assert batch.region_name_BR is not None
    return batch.box_BR4, batch.region_text_BRT, batch.region_valid_BR, batch.region_name_BR
