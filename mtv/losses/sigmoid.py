"""Sigmoid image-text loss (SigLIP, arXiv 2303.15343; objective VL of pretraining.md 5.1).

Notable choices:
- Only the text is gathered; each rank owns its image rows and divides by its **local** batch, so that the plain
  average over ranks is the loss of the global batch. Dividing by G would shrink every gradient by 1/W.
- The bias is **added** (Eq. 1 of arXiv 2601.13886 as printed subtracts it and would start at 81,910 for G = 8,192).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.collectives import gather_rows, rank
from mtv.losses.precision import in_full_precision, unit


@in_full_precision
def contrastive_logits(v_BD: Tensor, t_CD: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Logits `exp(log_scale) <v, t> + bias` of unit rows, [B, C], never below FP32.

    Args:
        v_BD: unit rows.
        t_CD: unit rows, the columns of the result.
        log_scale: logarithm of the scale, shape [1].
        bias: shape [1].
    """
    # The scale goes onto the small factor: one [B, C] tensor less than scaling the product.
    return torch.addmm(bias, v_BD * log_scale.exp(), t_CD.T)


@in_full_precision
def sigmoid_loss(v_BD: Tensor, t_BD: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Mean over this rank's images of the summed softplus over all texts of the world.

    Args:
        v_BD: pooled image features of this rank, any length (normalised here).
        t_BD: text features of the same samples, any length; B is equal on all ranks.
        log_scale: shape [1], starts at ln 10.
        bias: shape [1], starts at -10.

    Returns:
        Scalar; its plain average over ranks is the loss of the global batch.
    """
    logits_BG = contrastive_logits(unit(v_BD), gather_rows(unit(t_BD)), log_scale, bias)
    # Negated in place: softplus(a) - a would lose the small gradients of well-matched pairs.
    logits_BG.diagonal(rank() * len(v_BD)).neg_()
    return F.softplus(logits_BG).sum() / len(v_BD)
