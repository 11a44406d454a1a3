"""Centre of the teacher's prototype logits: a running mean that keeps self-distillation from collapsing.

Notable choices:
- The last layer is linear without bias, so the mean of the logits is W times the mean bottleneck row: ranks exchange
  one short vector and a count, and no pass over [rows, K] logits is made (trainer_performance.md 3.7).
- Rows are collected during the forward passes and the centre moves once per optimiser step, whatever the number of
  micro-batches; a skipped step forgets them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtv.collectives import all_sum
from mtv.losses.precision import in_full_precision


class Centre(nn.Module):
    """FP32 centre [1, K], a buffer of the checkpoint: `c <- m c + (1 - m) mean(teacher logits)`; starts at 0.

    Args:
        prototypes: K.
        bottleneck: C, the width of the rows before the prototype layer.
        momentum: m.
    """

    value: Tensor
    """[1, K]; the loss of a step uses it as it was before the step."""
    collected: Tensor
    """[C + 1]: sum of the bottleneck rows seen since the last update, then their number; not in the checkpoint."""

    def __init__(self, prototypes: int, bottleneck: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(1, prototypes))
        self.register_buffer("collected", torch.zeros(bottleneck + 1), persistent=False)

    @torch.no_grad()
    def observe(self, teacher_RC: Tensor) -> None:
        """Collect this rank's teacher rows of one micro-batch (iBOT: masked rows only)."""
        self.collected[:-1] += teacher_RC.sum(0, dtype=self.collected.dtype)
        self.collected[-1] += len(teacher_RC)

    @torch.no_grad()
    def update(self, teacher_W_KC: Tensor) -> None:
        """Move the centre to the global mean of what was collected and start anew. All ranks must call.

        Args:
            teacher_W_KC: the prototypes that the forward pass used: take them **before** the EMA of the step.
        """
        self._move(all_sum(self.collected), teacher_W_KC)
        self.discard()

    @torch.no_grad()
    def discard(self) -> None:
        """Forget what was collected: the optimiser step was skipped."""
        self.collected.zero_()

    def _move(self, total: Tensor, teacher_W_KC: Tensor) -> None:
        mean_K = mean_logits(total[:-1] / total[-1].clamp(min=1), teacher_W_KC)
        # without any row there is nothing to follow, and a mean of 0 would pull the centre home
        step = torch.where(total[-1] > 0, 1 - self.momentum, 0.0)
        self.value.lerp_(mean_K.to(self.value).unsqueeze(0), step.to(self.value))


@in_full_precision
def mean_logits(mean_C: Tensor, W_KC: Tensor) -> Tensor:
    """[K] mean of the logits `W z` over rows z, from the mean row."""
    return W_KC @ mean_C
