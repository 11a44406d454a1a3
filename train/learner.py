"""Model, teacher, centres and objectives as one module: a micro-batch in, weighted losses out.

* The passes of all active objectives are planned once from the union of their needs.
* All that needs a gradient happens inside one `forward`: replicas and shards see one call per micro-batch.
* Towers run under autocast; losses leave it by themselves (float32).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mtv.model.blocks import widen
from mtv.model.model import MtvModel, Teacher, VisionOutput, teacher
from mtv.train.data.batch import Batch, Needs
from mtv.train.objectives.base import Context, Contrastive, Objective, Outcome, Passes, Views
from mtv.train.objectives.depth import Depth
from mtv.train.objectives.ground import Grounding
from mtv.train.objectives.ssl import SelfSupervised
from mtv.train.objectives.vl import VisionLanguage
from mtv.train.recipe import Recipe

Embedded = dict[str, dict[str, Tensor]]
"""Objective to its named embeddings."""


@dataclass(frozen=True, kw_only=True)
class Cached:
    """Gradients of the contrastive losses with respect to one micro-batch's embeddings (`accum=cached`)."""

    embedded: Embedded
    """Gradients, shapes as `Learner.embed` returns them."""
    scales: Mapping[str, tuple[Tensor, Tensor]]
    """Objective to the gradients of log-scale and bias, this micro-batch's share."""


class Learner(nn.Module):
    """What is trained.

    Args:
        recipe: resolved.
        model: built from it.
    """

    teacher: Teacher | None
    """Follows the student; with ssl."""
    centres: nn.ModuleDict | None
    """Centres of the targets; with ssl."""

    def __init__(self, recipe: Recipe, model: MtvModel) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.teacher = teacher(model) if "ssl" in recipe.tasks else None
        self.objectives = _objectives(recipe, self.teacher)
        ssl = self.self_supervised
        self.centres = ssl.centres if ssl else None
        self.needs = functools.reduce(lambda a, o: a | o.needs, self.objectives, Needs())
        self.passes = functools.reduce(lambda a, o: a | o.passes, self.objectives, Passes())

    @property
    def self_supervised(self) -> SelfSupervised | None:
        """The self-supervised objective, where it is active."""
        return next((o for o in self.objectives if isinstance(o, SelfSupervised)), None)

    @property
    def contrastive(self) -> list[Contrastive]:
        """Objectives that compare samples."""
        return [o for o in self.objectives if isinstance(o, Contrastive)]

    def forward(
        self,
        batch: Batch,
        context: Context,
        *,
        mode: Literal["losses", "embed"] = "losses",
        cached: Cached | None = None,
    ) -> dict[str, Outcome] | Embedded:
        """Losses by objective; or, with `mode=embed`, the embeddings of the contrastive ones.

        Args:
            batch: on the device.
            context: step and temperatures.
            mode: `embed` runs the contrastive passes only.
            cached: gradients of the contrastive losses, which then stand in for these losses.
        """
        with self._autocast():
            if mode == "embed":
                passes = functools.reduce(lambda a, o: a | o.passes, self.contrastive, Passes())
                views = self.views(batch, passes)
                return {o.name: o.embed(self.model, views, batch) for o in self.contrastive}
            views = self.views(batch, self.passes)
            return {o.name: self._outcome(o, views, batch, context, cached) for o in self.objectives}

    def views(self, batch: Batch, passes: Passes) -> Views:
        """Run encoder passes."""
        vision, x_BCHW = self.model.vision, batch.global_BCHW
        masked_BND: Tensor | None = None
        if passes.masked and self.recipe.perf.fuse_views:
            image, masked_BND = self._fused(batch, passes)
        else:
            image = vision(x_BCHW, taps=passes.taps, pool=passes.pooled)
            if passes.masked:
                masked_BND = vision(x_BCHW, mask_BN=batch.mask_BN, pool=False).tokens_BND
        local_BMD = None
        if passes.locals:
            assert batch.local_BMCHW is not None
            pooled = vision(batch.local_BMCHW.flatten(0, 1)).pooled_BD
            local_BMD = pooled.unflatten(0, batch.local_BMCHW.shape[:2])
        seen = None
        if passes.teacher:
            assert self.teacher is not None
            with torch.no_grad():
                seen = self.teacher.vision(x_BCHW)
        caption_BD = None
        if passes.captions:
            assert self.model.text is not None
            caption_BD = self.model.text(batch.text_BT)
        return Views(image=image, masked_BND=masked_BND, local_BMD=local_BMD, teacher=seen, caption_BD=caption_BD)

    def trunk(self) -> list[nn.Parameter]:
        """Trainable parameters of the image tower that every objective reaches: no pooling, norm or mask token."""
        own = ("blocks.", "patch_", "positions")
        return [p for n, p in self.model.vision.named_parameters() if n.startswith(own) and p.requires_grad]

    def _fused(self, batch: Batch, passes: Passes) -> tuple[VisionOutput, Tensor]:
        """Plain and masked view in one call of the tower: the masked one has no other differences."""
        vision, rows = self.model.vision, len(batch)
        assert batch.mask_BN is not None
        mask_2BN = torch.cat([torch.zeros_like(batch.mask_BN), batch.mask_BN])
        both = vision(batch.global_BCHW.repeat(2, 1, 1, 1), mask_BN=mask_2BN, taps=passes.taps, pool=False)
        tokens_BND, masked_BND = both.tokens_BND[:rows], both.tokens_BND[rows:]
        image = VisionOutput(
            tokens_BND=tokens_BND,
            pooled_BD=vision.pool(vision.norm(tokens_BND)) if passes.pooled else None,
            taps={t: tap_2BND[:rows] for t, tap_2BND in both.taps.items()},
            grid_hw=both.grid_hw,
        )
        return image, masked_BND

    def _outcome(
        self, objective: Objective, views: Views, batch: Batch, context: Context, cached: Cached | None
    ) -> Outcome:
        if cached is None or not isinstance(objective, Contrastive):
            return objective.outcome(self.model, views, batch, context)
        embedded = objective.embed(self.model, views, batch)
        gradients = cached.embedded[objective.name]
        terms = [(widen(embedded[k]) * gradients[k]).sum() for k in embedded]
        for own, gradient in zip(objective.scale(self.model), cached.scales[objective.name], strict=True):
            terms.append((own * gradient).sum())
        return Outcome(loss=torch.stack(terms).sum(), values={})

    def _autocast(self) -> torch.autocast:
        device = self.model.vision.positions.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=uses_bf16(self.recipe, device))


def uses_bf16(recipe: Recipe, device_type: str) -> bool:
    """Whether the towers run in bf16 on this kind of device."""
    if recipe.perf.precision != "auto":
        return recipe.perf.precision == "bf16"
    # Without matrix units a CPU emulates bf16, slower than float32.
    return device_type == "cuda" or (device_type == "cpu" and torch.cpu._is_amx_tile_supported())


def _objectives(recipe: Recipe, follower: Teacher | None) -> list[Objective]:
    found: list[Objective] = []
    for name in recipe.tasks:
        if name == "vl":
            found.append(VisionLanguage(recipe.vl))
        elif name == "ssl":
            assert follower is not None
            found.append(SelfSupervised(recipe.ssl, recipe.heads, follower))
        elif name == "ground":
            found.append(Grounding(recipe.ground))
        else:
            found.append(Depth(recipe.depth, recipe.model.dpt))
    return found
