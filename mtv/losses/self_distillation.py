"""DINO: local crops of the student predict the teacher's prototypes of the global view (pretraining.md 5.2).

Notable choices: one teacher view and M local crops, hence exactly M terms per image, each against the same target,
which is formed once. Mean over crops as in DINOv2; `sum_crops` is the paper's literal sum (M times as large).
"""

from __future__ import annotations

from torch import Tensor

from mtv.errors import unknown
from mtv.losses.prototypes import PrototypeReport, prototype_cross_entropy

REDUCTIONS = ("mean", "sum_crops")


def self_distillation_loss(
    student_BMC: Tensor,
    student_W_KC: Tensor,
    teacher_BC: Tensor,
    teacher_W_KC: Tensor,
    centre_K: Tensor,
    *,
    tau_t: float,
    tau_s: float = 0.1,
    reduction: str = "mean",
    chunk_rows: int = 2048,
) -> tuple[Tensor, PrototypeReport]:
    """Cross-entropy of the M local crops of each image with the teacher's view of it.

    Args:
        student_BMC: bottleneck rows (unit, C wide) of the DINO head on the pooled local crops.
        student_W_KC: prototypes of the student's DINO head.
        teacher_BC: bottleneck rows of the teacher on the pooled global view.
        teacher_W_KC: prototypes of the teacher's DINO head.
        centre_K: centre of the DINO head before this step, [K] or [1, K].
        tau_t: teacher temperature of this step.
        tau_s: student temperature.
        reduction: `ssl.reduction`: "mean" over crops or "sum_crops".
        chunk_rows: `ssl.chunk_rows`, see `prototype_cross_entropy`.

    Returns:
        Scalar mean over this rank's images, whose plain average over ranks is the global loss; and the report.

    Raises:
        UsageError: unknown reduction.
    """
    if reduction not in REDUCTIONS:
        raise unknown("ssl.reduction", reduction, REDUCTIONS)
    images, crops = student_BMC.shape[:2]
    terms = images * crops if reduction == "mean" else images
    return prototype_cross_entropy(
        student_BMC.flatten(0, 1),
        student_W_KC,
        teacher_BC,
        teacher_W_KC,
        centre_K,
        centre_K.new_full((images * crops,), 1 / terms),
        tau_s=tau_s,
        tau_t=tau_t,
        chunk_rows=chunk_rows,
    )
