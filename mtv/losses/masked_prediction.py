"""iBOT: the student predicts, at masked patches, the teacher's prototypes of the unmasked view (pretraining.md 5.3).

Notable choices: masked tokens are picked **before** the head, with one index for teacher and student, so that rows pair
up and no head runs on tokens that the loss never sees.
"""

from __future__ import annotations

from torch import Tensor

from mtv.losses.prototypes import PrototypeReport, prototype_cross_entropy


def masked_index(mask_BN: Tensor) -> Tensor:
    """Positions of the masked patches in the flattened [B * N] batch, ascending, [P] int64.

    On a CUDA mask this waits for the device: make it where the mask is drawn and move it along.
    """
    return mask_BN.flatten().nonzero().squeeze(1)


def masked_rows(tokens_BND: Tensor, index_P: Tensor) -> Tensor:
    """[P, D] tokens at `index_P` (from `masked_index`)."""
    return tokens_BND.flatten(0, 1).index_select(0, index_P)


def masked_prediction_loss(
    student_PC: Tensor,
    student_W_KC: Tensor,
    teacher_PC: Tensor,
    teacher_W_KC: Tensor,
    centre_K: Tensor,
    mask_BN: Tensor,
    index_P: Tensor,
    *,
    tau_t: float,
    tau_s: float = 0.1,
    chunk_rows: int = 2048,
) -> tuple[Tensor, PrototypeReport]:
    """Cross-entropy at masked patches: mean over the patches of an image, then over images.

    Args:
        student_PC: bottleneck rows (unit, C wide) of the iBOT head on `masked_rows` of the masked view.
        student_W_KC: prototypes of the student's iBOT head.
        teacher_PC: bottleneck rows of the teacher on `masked_rows` of the unmasked view, the same index.
        teacher_W_KC: prototypes of the teacher's iBOT head.
        centre_K: centre of the iBOT head before this step, [K] or [1, K].
        mask_BN: True at masked patches.
        index_P: `masked_index(mask_BN)`.
        tau_t: teacher temperature of this step.
        tau_s: student temperature.
        chunk_rows: `ssl.chunk_rows`, see `prototype_cross_entropy`.

    Returns:
        Scalar mean over this rank's images, whose plain average over ranks is the global loss; and the report.
    """
    weights_B1 = 1 / (len(mask_BN) * mask_BN.sum(1, keepdim=True).clamp(min=1).to(centre_K))
    return prototype_cross_entropy(
        student_PC,
        student_W_KC,
        teacher_PC,
        teacher_W_KC,
        centre_K,
        weights_B1.expand_as(mask_BN).flatten().index_select(0, index_P),
        tau_s=tau_s,
        tau_t=tau_t,
        chunk_rows=chunk_rows,
    )
