"""Zero-shot classification: a classifier from prompt embeddings, and the rank of the true class of every image.

Images are scored in blocks against all classes, so N x C scores never exist at once. Identical class names ("missile"
twice in ImageNet) give identical columns; those are scored once and copied, and the lower class index wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes.precision import fp32_matmul, l2_normalize
from mtv.probes.ties import TieBounds, equal_rows, share_within, target_ranks, tie_bounds


@dataclass(frozen=True, kw_only=True)
class ClassRanks:
    """Per-image outcome of a classification, all on the CPU, in the order of the images."""

    rank_N: Tensor
    """int32: 1 + number of classes that score higher + equal ones at a lower index."""
    rank_lo_N: Tensor
    """int32: the rank if all ties are lost."""
    rank_hi_N: Tensor
    """int32: the rank if all ties are won."""
    n_tied_N: Tensor
    """int32: classes that score exactly as much as the true one."""
    predicted_N: Tensor
    """int64: the first of the best classes. Equals the label exactly where rank_N is 1."""
    score_N: Tensor
    """float32: score of the true class (a cosine)."""
    rival_N: Tensor
    """int64: the first of the best wrong classes."""
    rival_score_N: Tensor
    """float32: its score; score_N - rival_score_N is the margin."""


class ClassificationSummary(TypedDict):
    """Headline numbers, in percent unless said otherwise."""

    top1: float
    """Share of ranks <= 1."""
    top5: float
    """Share of ranks <= 5."""
    mean_class_acc: float
    """Mean over the classes that occur of their top-1."""
    n_predicted: int
    """Number of distinct predicted classes."""
    ties: TieBounds
    """Tied images, and top1 if all ties are lost or won."""


@torch.no_grad()
def classifier(prompt_embeddings_CTD: Tensor) -> Tensor:
    """Zero-shot weights: every prompt to unit length, mean over templates, unit length again, in float32.

    Args:
        prompt_embeddings_CTD: C classes, T templates, any floating dtype, not normalised.

    Returns:
        weights_CD, float32.

    Raises:
        NumericalError: NaN or infinity in the prompts of a class, named by its index.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021), section 3.1.4.
    """
    if prompt_embeddings_CTD.ndim != 3 or 0 in prompt_embeddings_CTD.shape:
        raise UsageError(f"classifier: need C,T,D prompt embeddings, got shape {tuple(prompt_embeddings_CTD.shape)}")
    unit_CTD = l2_normalize(prompt_embeddings_CTD, what="prompt embeddings (one row per class)")
    return l2_normalize(unit_CTD.mean(dim=1), what="classifier")


@torch.no_grad()
@fp32_matmul()
def rank_classes(
    images_ND: Tensor, classifier_CD: Tensor, labels_N: Tensor, *, ids: Sequence[str] | None = None, block: int = 2048
) -> ClassRanks:
    """Rank of the true class of every image, by cosine in float32.

    Args:
        images_ND: image features, not normalised, on any device and in any floating dtype.
        classifier_CD: class weights, moved to the device of the images; normalised here again, which changes nothing.
        labels_N: integers in 0..C-1.
        ids: sample ids for error messages.
        block: images per matmul. Ranks whose score gaps exceed 1e-6 do not depend on it.

    Raises:
        UsageError: shapes that do not fit, a label out of range, no image, fewer than two classes.
        NumericalError: NaN or infinity, naming the first sample.
    """
    _check(images_ND, classifier_CD, labels_N, block)
    images_ND = l2_normalize(images_ND, ids=ids, what="image features")
    weights_CD = l2_normalize(classifier_CD, what="classifier").to(images_ND.device)
    first_U, inverse_C = equal_rows(weights_CD)
    unique_UD = weights_CD[first_U]
    labels_N = labels_N.to(images_ND.device, torch.int64)
    parts = []
    for rows_BD, target_B in zip(images_ND.split(block), labels_N.split(block), strict=True):
        scores_BU = rows_BD @ unique_UD.T
        parts.append(_rank_block(scores_BU if len(first_U) == len(inverse_C) else scores_BU[:, inverse_C], target_B))
    columns = [torch.cat([part[i] for part in parts]).cpu() for i in range(len(parts[0]))]
    rank_N, lo_N, hi_N, predicted_N, score_N, rival_N, rival_score_N = columns
    return ClassRanks(
        rank_N=rank_N,
        rank_lo_N=lo_N,
        rank_hi_N=hi_N,
        n_tied_N=lo_N - hi_N,
        predicted_N=predicted_N,
        score_N=score_N,
        rival_N=rival_N,
        rival_score_N=rival_score_N,
    )


def _rank_block(scores_BC: Tensor, target_B: Tensor) -> tuple[Tensor, ...]:
    ranks = target_ranks(scores_BC, target_B)
    predicted_B = scores_BC.argmax(dim=1)
    score_B = scores_BC.gather(1, target_B[:, None])[:, 0]
    foreign_BC = scores_BC.scatter(1, target_B[:, None], float("-inf"))
    rival_score_B, rival_B = foreign_BC.max(dim=1)
    return (*ranks, predicted_B, score_B, rival_B, rival_score_B)


def _check(images_ND: Tensor, classifier_CD: Tensor, labels_N: Tensor, block: int) -> None:
    shapes = f"images {tuple(images_ND.shape)}, classifier {tuple(classifier_CD.shape)}, labels {tuple(labels_N.shape)}"
    if images_ND.ndim != 2 or classifier_CD.ndim != 2 or images_ND.shape[1] != classifier_CD.shape[1]:
        raise UsageError(f"rank_classes: need N,D images and C,D weights of one width, got {shapes}")
    n_classes = classifier_CD.shape[0]
    if labels_N.shape != images_ND.shape[:1] or labels_N.numel() == 0 or n_classes < 2:
        raise UsageError(f"rank_classes: need one label per image, at least one image and two classes, got {shapes}")
    if labels_N.is_floating_point() or labels_N.dtype == torch.bool:
        raise UsageError(f"rank_classes: labels must be integers, got {labels_N.dtype}")
    bad = ((labels_N < 0) | (labels_N >= n_classes)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise UsageError(f"rank_classes: label {int(labels_N[row])} of row {row} is outside 0..{n_classes - 1}")
    if block < 1:
        raise UsageError(f"rank_classes: block={block} must be at least 1")


def classification_summary(ranks: ClassRanks, labels_N: Tensor) -> ClassificationSummary:
    """Headline numbers of `rank_classes`, in percent.

    Args:
        ranks: the outcome of N images.
        labels_N: their true classes.
    """
    labels_N = labels_N.cpu().to(torch.int64)
    if labels_N.shape != ranks.rank_N.shape:
        raise UsageError(f"classification_summary: {labels_N.numel()} labels for {ranks.rank_N.numel()} ranks")
    size_C = torch.bincount(labels_N)
    hits_C = torch.bincount(labels_N[ranks.rank_N <= 1], minlength=len(size_C))
    present_C = size_C > 0
    return ClassificationSummary(
        top1=share_within(ranks.rank_N, 1),
        top5=share_within(ranks.rank_N, 5),
        mean_class_acc=100.0 * float((hits_C[present_C].double() / size_C[present_C]).mean()),
        n_predicted=len(torch.unique(ranks.predicted_N)),
        ties=tie_bounds(ranks.rank_lo_N, ranks.rank_hi_N),
    )
