"""How the objectives pull at the shared trunk: norm of each one's gradient there, cosines between them, feature rank.

The cosines are the mechanism behind synergy and interference: near 1, two objectives ask for the same change; below 0,
they undo each other. Nothing of the run changes by looking (what self-distillation collected for its centres is
forgotten again), and there is no randomness in a pass that could be used up.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from mtv.collectives import all_sum, gather_rows, world_size
from mtv.errors import UsageError
from mtv.train.data.batch import Batch
from mtv.train.objectives.base import Context, Outcome, Passes
from mtv.train.parallel import Parallel


class GradientMonitor:
    """Measures between two steps. All ranks must call.

    Args:
        parallel: learner on this process.

    Raises:
        UsageError: sharded parameters, whose gradients exist in parts only.
    """

    def __init__(self, parallel: Parallel) -> None:
        if parallel.sharded:
            raise UsageError(
                "log.gradients_every does not work with perf.parallel=fsdp", "Set one of them to 0 or ddp."
            )
        self.learner = parallel.learner

    def measure(self, batch: Batch, context: Context) -> dict[str, float]:
        """`norm/<objective>`, `cosine/<a>-<b>` and `rank`, from the weights before the next step.

        Args:
            batch: its first micro-batch on this rank.
            context: of that.
        """
        trunk = self.learner.trunk()
        names = [o.name for o in self.learner.objectives]
        # Compiled blocks give their buffers away in the first of several backward passes.
        with torch.compiler.set_stance("force_eager"):
            outcomes = self.learner(batch, context)
            rows = [self._gradient(outcomes[n], trunk, last=n == names[-1]) for n in names]
            del outcomes
            rank = effective_rank(gather_rows(self._pooled(batch)))
        if self.learner.self_supervised is not None:
            self.learner.self_supervised.discard()
        gradient_OP = torch.stack(rows)
        gram_OO = (gradient_OP @ gradient_OP.T).double().cpu()
        norm_O = gram_OO.diagonal().sqrt()
        values = {f"norm/{n}": float(v) for n, v in zip(names, norm_O, strict=True)}
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
            values[f"cosine/{a}-{b}"] = float(gram_OO[i, j] / (norm_O[i] * norm_O[j]))
        return {**values, "rank": rank}

    def _gradient(self, outcome: Outcome, trunk: list[torch.nn.Parameter], *, last: bool) -> Tensor:
        """One objective's gradient on the trunk as a vector, mean over ranks."""
        found = torch.autograd.grad(outcome.loss, trunk, retain_graph=not last, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(trunk, found, strict=True)]
        return all_sum(torch.cat([g.flatten() for g in parts])) / world_size()

    @torch.no_grad()
    def _pooled(self, batch: Batch) -> Tensor:
        """Pooled features; where no objective trains the pooling, the mean of the tokens."""
        pooled = self.learner.passes.pooled
        image = self.learner.views(batch, Passes(pooled=pooled)).image
        return image.pooled_BD if image.pooled_BD is not None else image.tokens_BND.mean(1)


def effective_rank(x_ND: Tensor) -> float:
    """RankMe (arXiv 2210.02885): exp of the entropy of the normalised singular values; at most min(N, D)."""
    share = torch.linalg.svdvals(x_ND.double())
    share = share / share.sum() + 1e-7
    return float((-(share * share.log()).sum()).exp())
