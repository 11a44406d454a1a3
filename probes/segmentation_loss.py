"""Losses of the segmentation head: cross entropy per pixel, and the same per patch on class counts.

Notable: both sum over valid pixels and divide by the number of **all** pixels by default, as mmsegmentation does;
`pixel_loss` works image by image and keeps only the gradient at patch resolution, so that memory does not grow with the
batch while the gradients are those of the batch form to the last bit; `patch_loss` on counts of each patch's label
block equals pixel cross entropy on nearest-upsampled logits at a small part of its cost. Protocol `segmentation`,
sections 4, 9 and 11.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import DataError, UsageError, unknown
from mtv.probes.segmentation_metric import IGNORE_INDEX

LossMean = Literal["all", "valid"]
LOSS_MEANS: tuple[LossMean, ...] = ("all", "valid")


def pixel_loss(logits_BChw: Tensor, labels_BHW: Tensor, *, mean: LossMean = "all") -> Tensor:
    """Cross entropy of bilinearly upsampled logits (`align_corners=False`).

    Full-size logits of one image at a time exist, in the forward pass only. The loss of images is added in float64.

    Args:
        logits_BChw: float32 or float64.
        labels_BHW: integers, 0 .. C-1 or 255.
        mean: what the sum over valid pixels is divided by: `all` pixels or the `valid` ones.

    Returns:
        Scalar of the logits' dtype; 0 where no pixel is valid.

    Raises:
        DataError: a label outside the classes.
        UsageError: shapes or `mean` that do not fit.
    """
    divisor = loss_divisor(labels_BHW, mean)
    if logits_BChw.ndim != 4 or labels_BHW.ndim != 3 or len(logits_BChw) != len(labels_BHW):
        raise UsageError(f"pixel_loss needs B,C,h,w and B,H,W, got {_shapes(logits_BChw, labels_BHW)}")
    check_labels(labels_BHW, logits_BChw.shape[1])
    loss: Tensor = _PixelLoss.apply(logits_BChw, labels_BHW, divisor)
    return loss


class _PixelLoss(torch.autograd.Function):
    """Takes the gradient of each image during the forward pass, so that its full-size tensors live only then."""

    @staticmethod
    def forward(ctx: Any, logits_BChw: Tensor, labels_BHW: Tensor, divisor: int) -> Tensor:
        gradient_BChw = torch.empty_like(logits_BChw) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float64, device=logits_BChw.device)
        for b, label_HW in enumerate(labels_BHW):
            with torch.set_grad_enabled(gradient_BChw is not None):
                logits_1Chw = logits_BChw[b : b + 1].detach().requires_grad_(gradient_BChw is not None)
                loss = _sum_of_pixels(logits_1Chw, label_HW[None]) / divisor
            total += loss.detach()
            if gradient_BChw is not None:
                gradient_BChw[b : b + 1] = torch.autograd.grad(loss, logits_1Chw)[0]
        ctx.gradient_BChw = gradient_BChw
        return total.to(logits_BChw.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.gradient_BChw * upstream[0], None, None


def _sum_of_pixels(logits_1Chw: Tensor, label_1HW: Tensor) -> Tensor:
    size, target_1HW = label_1HW.shape[1:], label_1HW.to(logits_1Chw.device, torch.int64)
    # The full-size logits get no name: they may go before the backward pass, which does not need them.
    return F.cross_entropy(
        F.interpolate(logits_1Chw, size=size, mode="bilinear", align_corners=False),
        target_1HW,
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )


def block_counts(labels_BHW: Tensor, grid: tuple[int, int], n_classes: int) -> Tensor:
    """Pixels of each class in the label block of each patch.

    Args:
        labels_BHW: integers, 0 .. C-1 or 255; sides are multiples of the grid's.
        grid: patches (rows, columns).

    Returns:
        float32 B,h,w,C (the counts are exact), on the device of the labels.

    Raises:
        DataError: a label outside the classes.
        UsageError: labels that the grid does not divide.
    """
    rows, cols = grid
    if labels_BHW.ndim != 3 or min(grid) < 1 or labels_BHW.shape[1] % rows or labels_BHW.shape[2] % cols:
        raise UsageError(f"a {rows}x{cols} grid of patches does not divide labels {tuple(labels_BHW.shape)}")
    check_labels(labels_BHW, n_classes)
    batch, height, width = labels_BHW.shape
    bins = n_classes + 1  # the last one takes the ignored pixels
    dtype = torch.int32 if batch * rows * cols * bins < 2**31 else torch.int64  # int32 is a third faster
    cell = labels_BHW.reshape(batch, rows, height // rows, cols, width // cols).to(dtype).clamp_(max=n_classes)
    patch = torch.arange(batch * rows * cols, dtype=dtype, device=cell.device).view(batch, rows, 1, cols, 1)
    counts = torch.bincount(cell.add_(patch * bins).flatten(), minlength=batch * rows * cols * bins)
    return counts.view(batch, rows, cols, bins)[..., :n_classes].float()


def patch_loss(logits_BhwC: Tensor, counts_BhwC: Tensor, divisor: int) -> Tensor:
    """Cross entropy of one prediction per patch against all labels of its block.

    Args:
        logits_BhwC: float32 or float64, classes last.
        counts_BhwC: from `block_counts`.
        divisor: from `loss_divisor`.

    Returns:
        Scalar: the pixel cross entropy of nearest-upsampled logits.

    Raises:
        UsageError: shapes that differ.
    """
    if logits_BhwC.shape != counts_BhwC.shape:
        raise UsageError(f"patch_loss needs equal shapes, got {_shapes(logits_BhwC, counts_BhwC)}")
    return -(counts_BhwC * F.log_softmax(logits_BhwC, dim=-1)).sum() / divisor


def loss_divisor(labels_BHW: Tensor, mean: LossMean) -> int:
    """Number of `all` pixels or of the `valid` ones; at least 1.

    Raises:
        UsageError: another `mean`.
    """
    if mean not in LOSS_MEANS:
        raise unknown("loss_mean", mean, LOSS_MEANS)
    n = labels_BHW.numel() if mean == "all" else int((labels_BHW != IGNORE_INDEX).sum())
    return max(n, 1)


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Refuse labels that are neither a class nor 255; on a GPU the loss itself would abort the process.

    Raises:
        DataError: names the first one.
        UsageError: labels that are not integers.
    """
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise UsageError(f"labels must be integers, got {labels.dtype}")
    bad = ((labels >= n_classes) & (labels != IGNORE_INDEX)) | (labels < 0)
    if bool(bad.any()):
        raise DataError(
            f"label {int(labels[bad][0])} is neither a class 0 to {n_classes - 1} nor {IGNORE_INDEX} "
            f"({int(bad.sum())} pixels hold such values)",
            "Check the mapping from values on disk to classes: it must be applied exactly once, by table.",
        )


def _shapes(a: Tensor, b: Tensor) -> str:
    return f"{tuple(a.shape)} and {tuple(b.shape)}"
