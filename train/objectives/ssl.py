"""Self-supervised objective: DINO on local views, iBOT on masked patches, KoLeo on pooled views (pretraining.md 5).

The centres are part of the objective, as buffers of the learner: they follow the teacher's rows, which are collected
here and taken over once per optimiser step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from mtv.losses.centre import Centre
from mtv.losses.koleo import koleo_loss
from mtv.losses.masked_prediction import masked_index, masked_prediction_loss, masked_rows
from mtv.losses.prototypes import PrototypeReport
from mtv.losses.self_distillation import self_distillation_loss
from mtv.model.config import SslConfig
from mtv.model.model import MtvModel, Teacher
from mtv.model.ssl_head import SslHead
from mtv.train.data.batch import Batch, Needs
from mtv.train.objectives.base import Context, Objective, Outcome, Passes, Views
from mtv.train.options import SslOptions


class SelfSupervised(Objective):
    """The three self-supervised losses.

    Args:
        options: weights, temperatures.
        heads: sizes of the heads, for the centres.
        teacher: its heads make the targets.
    """

    name = "ssl"
    needs = Needs(locals=True, mask=True)
    passes = Passes(pooled=True, masked=True, locals=True, teacher=True)

    def __init__(self, options: SslOptions, heads: SslConfig, teacher: Teacher) -> None:
        self.options = options
        self.teacher = teacher
        self.centres = nn.ModuleDict(
            {k: Centre(heads.prototypes, heads.bottleneck, options.center_momentum) for k in ("dino", "ibot")}
        )

    def outcome(self, model: MtvModel, views: Views, batch: Batch, context: Context) -> Outcome:
        """Weighted sum of the three losses."""
        o = self.options
        dino, dino_report = self._distil(model, views, context)
        ibot, ibot_report = self._predict(model, views, batch, context)
        koleo = koleo_loss(views.pooled_BD, o.koleo_group)
        values = {"loss/dino": dino.detach(), "loss/ibot": ibot.detach(), "loss/koleo": koleo.detach()}
        for name, report in (("dino", dino_report), ("ibot", ibot_report)):
            values |= {
                f"ssl/{name}_target_entropy": report.entropy,
                f"ssl/{name}_kl": report.kl,
                f"ssl/{name}_prototype_entropy": report.mean_target_entropy,
                f"ssl/{name}_centre_norm": self._centre(name).value.norm(),
            }
        return Outcome(loss=o.dino_weight * dino + o.ibot_weight * ibot + o.koleo_weight * koleo, values=values)

    def update_centres(self, whole: Callable[[Tensor], Tensor]) -> None:
        """Move both centres by what the forward passes collected; before the teacher's own update of the step.

        Args:
            whole: the full tensor of a shard (`Parallel.whole`); all ranks call.
        """
        self._centre("dino").update(whole(self.teacher.dino_head.prototypes()))
        self._centre("ibot").update(whole(self.teacher.ibot_head.prototypes()))

    def discard(self) -> None:
        """The step was skipped: forget what was collected."""
        for name in self.centres:
            self._centre(name).discard()

    def collapsed(self, values: dict[str, float]) -> list[str]:
        """Alarms: targets that are nearly one prototype, or nearly all of them alike."""
        largest = math.log(len(self._centre("dino").value[0]))
        alarms = []
        for name in self.centres:
            entropy = values.get(f"ssl/{name}_target_entropy", largest / 2)
            used = values.get(f"ssl/{name}_prototype_entropy", largest)
            if entropy > (1 - self.options.alarm / 10) * largest:
                alarms.append(f"{name}: targets are uniform (entropy {entropy:.3f} of {largest:.3f})")
            if used < self.options.alarm * largest:
                alarms.append(f"{name}: all samples share a prototype (entropy of the mean target {used:.3f})")
        return alarms

    def _distil(self, model: MtvModel, views: Views, context: Context) -> tuple[Tensor, PrototypeReport]:
        assert views.local_BMD is not None
        assert views.teacher is not None
        assert views.teacher.pooled_BD is not None
        assert model.dino_head is not None
        target_BC = self.teacher.dino_head.bottleneck(views.teacher.pooled_BD).detach()
        self._centre("dino").observe(target_BC)
        return self_distillation_loss(
            model.dino_head.bottleneck(views.local_BMD),
            self._prototypes(model.dino_head, context),
            target_BC,
            self.teacher.dino_head.prototypes(),
            self._centre("dino").value,
            tau_t=context.tau_t,
            tau_s=self.options.tau_s,
            reduction=self.options.reduction,
            chunk_rows=self.options.chunk_rows,
        )

    def _predict(self, model: MtvModel, views: Views, batch: Batch, context: Context) -> tuple[Tensor, PrototypeReport]:
        assert views.masked_BND is not None
        assert views.teacher is not None
        assert batch.mask_BN is not None
        assert model.ibot_head is not None
        index_P = masked_index(batch.mask_BN)
        seen_PD = self.teacher.vision.norm(masked_rows(views.teacher.tokens_BND, index_P))
        target_PC = self.teacher.ibot_head.bottleneck(seen_PD).detach()
        self._centre("ibot").observe(target_PC)
        return masked_prediction_loss(
            model.ibot_head.bottleneck(model.vision.norm(masked_rows(views.masked_BND, index_P))),
            self._prototypes(model.ibot_head, context),
            target_PC,
            self.teacher.ibot_head.prototypes(),
            self._centre("ibot").value,
            batch.mask_BN,
            index_P,
            tau_t=context.tau_t,
            tau_s=self.options.tau_s,
            chunk_rows=self.options.chunk_rows,
        )

    def _prototypes(self, head: SslHead, context: Context) -> Tensor:
        weight_KC = head.prototypes()
        if context.step < self.options.freeze_prototypes:
            # A gradient of exactly 0 keeps the parameter in the graph, which replicas count on.
            return weight_KC.detach() + 0 * weight_KC
        return weight_KC

    def _centre(self, name: str) -> Centre:
        centre = self.centres[name]
        assert isinstance(centre, Centre)
        return centre
