"""One optimiser step, for one process, replicas and shards alike (what differs is in `mtv.train.parallel`).

Order (pretraining.md section 6): forward with the old centres, backward, clip, optimiser, then centres and teacher. A
step whose loss or gradient is not finite is skipped as a whole: weights, centres, teacher stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.collectives import all_sum, world_size
from mtv.model.blocks import widen
from mtv.train.data.batch import Batch
from mtv.train.learner import Cached, Embedded
from mtv.train.objectives.base import Context, Outcome
from mtv.train.parallel import Parallel
from mtv.train.schedules import learning_rate, teacher_temperature


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What happened."""

    values: dict[str, float]
    """Mean over ranks and micro-batches: `loss`, `loss/<objective>`, and the objectives' own values."""
    lr: float
    """Learning rate."""
    gradient_norm: float
    """Norm of the gradient of all parameters before clipping."""
    wrong: dict[str, tuple[str, ...]]
    """If the step was skipped: on this rank, objective to the samples of the micro-batches it failed on."""
    skipped: bool
    """Whether nothing was updated."""


class Stepper:
    """Takes optimiser steps.

    Args:
        parallel: learner and optimiser on this process.
        steps: updates of the whole run.
    """

    def __init__(self, parallel: Parallel, steps: int) -> None:
        self.parallel = parallel
        self.learner = parallel.learner
        self.recipe = parallel.learner.recipe
        self.steps = steps

    def step(self, batches: Sequence[Batch], number: int) -> StepReport:
        """One update from the micro-batches of this rank.

        Args:
            batches: `optim.accumulate` micro-batches of equal size, on the device.
            number: updates done before.
        """
        contexts = self.contexts(batches, number)
        self.parallel.optimizer.zero_grad(set_to_none=True)
        outcomes = self._backward(batches, contexts)
        norm = self.parallel.clip(self.recipe.optim.clip_norm)
        values = self._means(outcomes)
        lr = learning_rate(number, self.steps, self.recipe.optim)
        sound = all(math.isfinite(v) for k, v in values.items() if k.startswith("loss"))
        if not (sound and math.isfinite(norm)):
            self._discard()
            wrong = _wrong(outcomes, batches, only_gradient=sound)
            return StepReport(values=values, lr=lr, gradient_norm=norm, wrong=wrong, skipped=True)
        for group in self.parallel.optimizer.param_groups:
            group["lr"] = lr
        self.parallel.optimizer.step()
        self._follow()
        return StepReport(values=values, lr=lr, gradient_norm=norm, wrong={}, skipped=False)

    def tau_t(self, number: int) -> float:
        """Temperature of the teacher in the update that follows `number` updates."""
        return teacher_temperature(number, self.steps, self.recipe.ssl)

    def contexts(self, batches: Sequence[Batch], number: int) -> list[Context]:
        """What the losses of each micro-batch may know."""
        tau_t = self.tau_t(number)
        shares = [1.0] * len(batches)
        if len(batches) > 1 and batches[0].depth_valid_B is not None:
            valid = torch.stack([b.depth_valid_B.sum().float() for b in batches if b.depth_valid_B is not None])
            counts = all_sum(valid).tolist()
            mean = sum(counts) / len(counts)
            shares = [c / mean if mean else 0.0 for c in counts]
        return [Context(step=number, tau_t=tau_t, depth_share=s) for s in shares]

    def _backward(self, batches: Sequence[Batch], contexts: Sequence[Context]) -> list[dict[str, Outcome]]:
        """Gradients of all micro-batches; outcomes without their graphs."""
        cached: list[Cached | None] = [None] * len(batches)
        contrasted: dict[str, Outcome] = {}
        if self.recipe.optim.accum == "cached" and len(batches) > 1 and self.learner.contrastive:
            cached, contrasted = self._contrast(batches, contexts)
        done = []
        for i, (batch, context) in enumerate(zip(batches, contexts, strict=True)):
            with self.parallel.synced(i == len(batches) - 1):
                outcomes = self.parallel.losses(batch, context, cached[i])
                # A stand-in's gradient is that of the whole batch already; other losses are means over micro-batches.
                terms = [o.loss if n in contrasted else o.loss / len(batches) for n, o in outcomes.items()]
                torch.stack(terms).sum().backward()
            outcomes = outcomes | contrasted
            done.append({n: Outcome(loss=o.loss.detach(), values=o.values) for n, o in outcomes.items()})
        return done

    def _contrast(
        self, batches: Sequence[Batch], contexts: Sequence[Context]
    ) -> tuple[list[Cached | None], dict[str, Outcome]]:
        """Embeddings of the whole batch without gradient, their contrast, and its gradients per micro-batch."""
        with torch.no_grad():
            parts = [self.parallel.embed(b, c) for b, c in zip(batches, contexts, strict=True)]
        gradients: dict[str, dict[str, Tensor]] = {}
        scales: dict[str, tuple[Tensor, Tensor]] = {}
        outcomes = {}
        for objective in self.learner.contrastive:
            leaves = {
                k: widen(torch.cat([p[objective.name][k] for p in parts])).requires_grad_()
                for k in parts[0][objective.name]
            }
            labels = [objective.labels(b) for b in batches]
            joined = {k: torch.cat([part[k] for part in labels]) for k in labels[0]}
            log_scale, bias = (
                self.parallel.whole(t).detach().clone().requires_grad_() for t in objective.scale(self.learner.model)
            )
            outcome = objective.contrast(leaves, joined, log_scale, bias)
            outcome.loss.backward()
            gradients[objective.name] = {k: _gradient(t) for k, t in leaves.items()}
            scales[objective.name] = (_gradient(log_scale) / len(batches), _gradient(bias) / len(batches))
            outcomes[objective.name] = Outcome(loss=outcome.loss.detach(), values=outcome.values)
        size = len(batches[0])
        return [
            Cached(embedded=_rows(gradients, slice(i * size, (i + 1) * size)), scales=scales)
            for i in range(len(batches))
        ], outcomes

    def _means(self, outcomes: Sequence[dict[str, Outcome]]) -> dict[str, float]:
        """Mean over micro-batches and ranks, in one sum."""
        rows = [
            {"loss": torch.stack([o.loss for o in out.values()]).sum()}
            | {k: v for o in out.values() for k, v in o.values.items()}
            for out in outcomes
        ]
        names = list(rows[0])
        mine = torch.stack([torch.stack([r[n].detach().float() for n in names]) for r in rows]).mean(0)
        return dict(zip(names, (all_sum(mine) / world_size()).tolist(), strict=True))

    def _follow(self) -> None:
        model, ssl = self.learner.model, self.learner.self_supervised
        limit = self.recipe.vl.max_log_scale
        if limit is not None and model.log_scale is not None:
            with torch.no_grad():
                model.log_scale.clamp_(max=limit)
        if ssl is not None:
            ssl.update_centres(self.parallel.whole)
            self.parallel.update_teacher(self.recipe.ssl.teacher_momentum)

    def _discard(self) -> None:
        self.parallel.optimizer.zero_grad(set_to_none=True)
        if self.learner.self_supervised is not None:
            self.learner.self_supervised.discard()


def _rows(gradients: Embedded, rows: slice) -> Embedded:
    return {name: {k: t[rows] for k, t in own.items()} for name, own in gradients.items()}


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _wrong(
    outcomes: Sequence[dict[str, Outcome]], batches: Sequence[Batch], *, only_gradient: bool
) -> dict[str, tuple[str, ...]]:
    """Objectives with a loss that is not finite on this rank, or all of them if only a gradient was."""
    found: dict[str, tuple[str, ...]] = {}
    for out, batch in zip(outcomes, batches, strict=True):
        for name, outcome in out.items():
            if only_gradient or not bool(torch.isfinite(outcome.loss)):
                found[name] = (*found.get(name, ()), *batch.keys)
    return found
