"""From logits of windows to a label map at the original size: mean of logits, cut the padding, upsample, argmax.

Every step works on each class alone, so `label_map` runs all of them for a few classes at a time and keeps a running
strict maximum: the labels of the full argmax (the lowest class wins a tie) at a small part of the memory. Bilinear
throughout, `align_corners=False`. Protocol `segmentation`, sections 4 (test) and 11.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes.precision import check_finite
from mtv.probes.segmentation_metric import IGNORE_INDEX
from mtv.probes.segmentation_windows import Window

CHUNK = 10
"""Classes at a time."""


@torch.no_grad()
def label_map(
    windows: Sequence[Window],
    logits_nChw: Sequence[Tensor],
    *,
    content: tuple[int, int],
    size: tuple[int, int],
    chunk: int = CHUNK,
) -> Tensor:
    """The predicted class of every pixel of the original picture.

    Args:
        windows: of the padded picture (`tile`); they must cover `content`.
        logits_nChw: per window the C,h,w logits at patch resolution (or any other), of the same C.
        content: (height, width) of the resized picture before padding.
        size: (height, width) of the result: those of the original label map.
        chunk: classes at a time; changes memory only.

    Returns:
        uint8 H,W on the device of the logits.

    Raises:
        UsageError: window counts, classes or sizes that do not fit.
        NumericalError: NaN or infinite logits; names the window.
    """
    n_classes = _check(windows, logits_nChw, content, chunk)
    count_HW = _coverage(windows)
    best_HW, label_HW = None, None
    for first in range(0, n_classes, chunk):
        part = [logits_Chw[first : first + chunk] for logits_Chw in logits_nChw]
        full_cHW = resize_logits(_mean(windows, part, count_HW)[:, : content[0], : content[1]], size)
        value_HW, index_HW = full_cHW.max(dim=0)
        index_HW = (index_HW + first).to(torch.uint8)
        if best_HW is None or label_HW is None:
            best_HW, label_HW = value_HW, index_HW
            continue
        label_HW = torch.where(value_HW > best_HW, index_HW, label_HW)
        best_HW = torch.maximum(value_HW, best_HW)
    assert label_HW is not None, "there is at least one class"
    return label_HW


def mean_logits(windows: Sequence[Window], logits_nChw: Sequence[Tensor]) -> Tensor:
    """Logits of the padded picture: each window's upsampled to its pixels, the mean where windows overlap.

    Returns:
        float32 (float64 for float64 logits) C,H,W over the rectangle from (0, 0) that the windows span.

    Raises:
        UsageError: windows that leave a pixel of that rectangle out.
    """
    return _mean(windows, logits_nChw, _coverage(windows))


def _coverage(windows: Sequence[Window]) -> Tensor:
    """How many windows hold each pixel, float32 H,W on the CPU."""
    count_HW = torch.zeros(max(w.top + w.height for w in windows), max(w.left + w.width for w in windows))
    for w in windows:
        count_HW[w.top : w.top + w.height, w.left : w.left + w.width] += 1
    if not bool(count_HW.all()):
        raise UsageError(f"{int((count_HW == 0).sum())} pixels lie in no window", "Take the windows from tile.")
    return count_HW


def _mean(windows: Sequence[Window], logits_nChw: Sequence[Tensor], count_HW: Tensor) -> Tensor:
    dtype = torch.promote_types(logits_nChw[0].dtype, torch.float32)
    sum_CHW = torch.zeros(len(logits_nChw[0]), *count_HW.shape, dtype=dtype, device=logits_nChw[0].device)
    for w, logits_Chw in zip(windows, logits_nChw, strict=True):
        inside = sum_CHW[:, w.top : w.top + w.height, w.left : w.left + w.width]
        inside += resize_logits(logits_Chw.to(dtype), (w.height, w.width))
    return sum_CHW.div_(count_HW.to(sum_CHW.device))


def resize_logits(logits_Chw: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear C,h,w to C,H,W."""
    return F.interpolate(logits_Chw[None], size=size, mode="bilinear", align_corners=False)[0]


def _check(windows: Sequence[Window], logits: Sequence[Tensor], content: tuple[int, int], chunk: int) -> int:
    """The number of classes."""
    if not windows or len(windows) != len(logits):
        raise UsageError(f"need one C,h,w map of logits per window, got {len(logits)} for {len(windows)} windows")
    n_classes = len(logits[0])
    if any(x.ndim != 3 or len(x) != n_classes for x in logits) or not 1 <= n_classes <= IGNORE_INDEX:
        raise UsageError(
            f"logits must be C,h,w with one C of 1 to {IGNORE_INDEX}, got {[tuple(x.shape) for x in logits]}"
        )
    spanned = max(w.top + w.height for w in windows), max(w.left + w.width for w in windows)
    if spanned[0] < content[0] or spanned[1] < content[1] or chunk < 1:
        raise UsageError(f"windows span {spanned}, the picture {content} (chunk {chunk})", "Tile the padded picture.")
    for k, x in enumerate(logits):
        check_finite(x[None], [f"window {k}"], "segmentation logits")
    return n_classes
