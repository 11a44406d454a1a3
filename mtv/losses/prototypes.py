"""Cross-entropy of student and teacher over K prototypes, the common part of DINO and iBOT.

Notable choices:
- Default form in row chunks: a [25,088 x 32,768] FP32 tensor is 3.3 GB, and the literal graph keeps several. Here each
  chunk forms its logits, its share of the loss and at once its gradients; the backward pass only scales them, so what
  lives between the passes is one gradient the size of the rows and one the size of the prototype matrix.
- The literal form is kept beside it as the definition; the two agree to rounding (trainer_performance.md 3.6).
- Cross-entropy is optimised; its gradient equals that of the KL divergence, which the report shows with the entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtv.losses.precision import in_full_precision


@dataclass(frozen=True, kw_only=True)
class PrototypeReport:
    """What to log about one prototype loss: means over this rank's rows, detached and on the device."""

    cross_entropy: Tensor
    """Mean CE per row in nats (the loss before any sum over crops)."""
    entropy: Tensor
    """Mean entropy H(q) of the targets: 0 and ln K are the two ways to collapse."""
    mean_target_K: Tensor
    """Mean target q over rows, [K]."""

    @property
    def kl(self) -> Tensor:
        """CE - H, never below 0 (rounding is clipped)."""
        return (self.cross_entropy - self.entropy).clamp(min=0)

    @property
    def mean_target_entropy(self) -> Tensor:
        """Entropy of the batch-mean target: how many prototypes this rank's batch uses."""
        return torch.special.entr(self.mean_target_K).sum()


@in_full_precision
def prototype_cross_entropy(
    student_RC: Tensor,
    student_W_KC: Tensor,
    teacher_QC: Tensor,
    teacher_W_KC: Tensor,
    centre_K: Tensor,
    weights_R: Tensor,
    *,
    tau_s: float,
    tau_t: float,
    chunk_rows: int,
) -> tuple[Tensor, PrototypeReport]:
    """`sum_r weights_r CE(q_r, p_r)` with q = softmax((teacher - centre) / tau_t), p = softmax(student / tau_s).

    Args:
        student_RC: bottleneck rows. R is a multiple of Q: rows r with the same r // (R // Q) share a target.
        student_W_KC: prototypes (after weight norm, so that gain and direction get their gradients).
        teacher_QC: bottleneck rows of the targets.
        teacher_W_KC: prototypes of the teacher.
        centre_K: centre, [K] or [1, K].
        weights_R: weight of each row; 1 / R for a mean.
        tau_s: student temperature.
        tau_t: teacher temperature.
        chunk_rows: student rows per chunk; three FP32 tensors [chunk_rows, K] are alive at most.

    Returns:
        The scalar loss, with gradients for `student_RC` and `student_W_KC` only, and the report.
    """
    _check_rows(student_RC, teacher_QC)
    if not torch.is_grad_enabled():  # the function below sees only whether its inputs ask for a gradient
        student_RC, student_W_KC = student_RC.detach(), student_W_KC.detach()
    loss, cross_entropy_R, entropy_Q, target_K = _ChunkedCrossEntropy.apply(
        student_RC, student_W_KC, teacher_QC, teacher_W_KC, centre_K.flatten(), weights_R, tau_s, tau_t, chunk_rows
    )
    return loss, _report(cross_entropy_R, entropy_Q, target_K)


@in_full_precision
def literal_prototype_cross_entropy(
    student_RC: Tensor,
    student_W_KC: Tensor,
    teacher_QC: Tensor,
    teacher_W_KC: Tensor,
    centre_K: Tensor,
    weights_R: Tensor,
    *,
    tau_s: float,
    tau_t: float,
) -> tuple[Tensor, PrototypeReport]:
    """The definition of `prototype_cross_entropy` with whole [rows, K] tensors; the same arguments and results."""
    _check_rows(student_RC, teacher_QC)
    with torch.no_grad():
        log_q_QK = ((teacher_QC @ teacher_W_KC.T - centre_K.flatten()) / tau_t).log_softmax(-1)
        q_QK = log_q_QK.exp()
        entropy_Q = -(q_QK * log_q_QK).sum(-1)
    log_p_QMK = (student_RC @ student_W_KC.T / tau_s).log_softmax(-1).unflatten(0, (len(q_QK), -1))
    cross_entropy_R = -(q_QK.unsqueeze(1) * log_p_QMK).sum(-1).flatten()
    return weights_R @ cross_entropy_R, _report(cross_entropy_R.detach(), entropy_Q, q_QK.sum(0))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Outputs: loss; CE per row, entropy per target and the sum of the targets (no gradient)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        student_RC, student_W_KC, teacher_QC, teacher_W_KC, centre_K, weights_R, tau_s, tau_t, chunk_rows = inputs
        crops = max(1, len(student_RC) // max(1, len(teacher_QC)))
        targets = max(1, min(chunk_rows // crops, len(teacher_QC)))  # per chunk
        buffers = _Buffers(student_W_KC, targets, crops)
        shift_K, target_K = centre_K / -tau_t, torch.zeros_like(centre_K)
        cross_entropy_R, entropy_Q = weights_R.new_empty(len(student_RC)), weights_R.new_empty(len(teacher_QC))
        gradient_RC, gradient_W_KC = torch.empty_like(student_RC), torch.zeros_like(student_W_KC)
        for start in range(0, len(teacher_QC), targets):
            here_Q = slice(start, start + targets)
            here_R = slice(start * crops, (start + targets) * crops)
            rows_RC, weights_R1 = student_RC[here_R], weights_R[here_R].unsqueeze(1) / tau_s
            q_QK, entropy_Q[here_Q] = buffers.targets(teacher_QC[here_Q] / tau_t, teacher_W_KC, shift_K)
            log_p_RK, cross_entropy_R[here_R] = buffers.losses(rows_RC / tau_s, student_W_KC, q_QK)
            target_K += q_QK.sum(0)
            if any(ctx.needs_input_grad):
                residual_RK = buffers.residuals(log_p_RK, q_QK)
                torch.mm(residual_RK, student_W_KC, out=gradient_RC[here_R]).mul_(weights_R1)
                gradient_W_KC.addmm_(residual_RK.T, rows_RC * weights_R1)
        ctx.save_for_backward(gradient_RC, gradient_W_KC)
        outputs = weights_R @ cross_entropy_R, cross_entropy_R, entropy_Q, target_K
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        rows, matrix, *_others = ctx.needs_input_grad
        gradient_RC, gradient_W_KC = ctx.saved_tensors
        return (gradient_RC * scale if rows else None, gradient_W_KC * scale if matrix else None, *[None] * 7)


class _Buffers:
    """The three [chunk, K] tensors, written over by every chunk: fresh pages would cost as much as the arithmetic."""

    def __init__(self, W_KC: Tensor, targets: int, crops: int) -> None:
        self.crops = crops
        self.first_QK = W_KC.new_empty(targets, len(W_KC))
        self.second_RK = W_KC.new_empty(targets * crops, len(W_KC))
        self.third_RK = torch.empty_like(self.second_RK)

    def targets(self, scaled_QC: Tensor, W_KC: Tensor, shift_K: Tensor) -> tuple[Tensor, Tensor]:
        """Targets q in the first buffer, and their entropies."""
        q_QK, log_q_QK = self.first_QK[: len(scaled_QC)], self.third_RK[: len(scaled_QC)]
        torch.addmm(shift_K, scaled_QC, W_KC.T, out=q_QK)
        torch.log_softmax(q_QK, -1, out=log_q_QK)
        torch.exp(log_q_QK, out=q_QK)
        return q_QK, log_q_QK.mul_(q_QK).sum(-1).neg_()

    def losses(self, scaled_RC: Tensor, W_KC: Tensor, q_QK: Tensor) -> tuple[Tensor, Tensor]:
        """log p in the third buffer, and the cross-entropies with `q_QK`."""
        work_RK, log_p_RK = self.second_RK[: len(scaled_RC)], self.third_RK[: len(scaled_RC)]
        torch.mm(scaled_RC, W_KC.T, out=work_RK)
        torch.log_softmax(work_RK, -1, out=log_p_RK)
        torch.mul(self._by_target(log_p_RK), q_QK.unsqueeze(1), out=self._by_target(work_RK))
        return log_p_RK, work_RK.sum(-1).neg_()

    def residuals(self, log_p_RK: Tensor, q_QK: Tensor) -> Tensor:
        """`p - q`, the gradient of each cross-entropy with respect to its logits, in place of `log_p_RK`."""
        self._by_target(log_p_RK.exp_()).sub_(q_QK.unsqueeze(1))
        return log_p_RK

    def _by_target(self, x_RK: Tensor) -> Tensor:
        return x_RK.view(-1, self.crops, x_RK.shape[-1])


def _check_rows(student_RC: Tensor, teacher_QC: Tensor) -> None:
    rows, targets = len(student_RC), len(teacher_QC)
    if (rows % targets if targets else rows) or rows < targets:
        raise ValueError(f"{rows} student rows cannot share {targets} targets evenly")


def _report(cross_entropy_R: Tensor, entropy_Q: Tensor, target_K: Tensor) -> PrototypeReport:
    targets = max(1, len(entropy_Q))
    return PrototypeReport(
        cross_entropy=cross_entropy_R.sum() / max(1, len(cross_entropy_R)),
        entropy=entropy_Q.sum() / targets,
        mean_target_K=target_K / targets,
    )
