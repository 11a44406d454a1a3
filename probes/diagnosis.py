"""Why a number is near chance: one readable sentence per suspicion, with its evidence and what to check.

Pure functions on tensors. Each looks for one known cause and returns its findings, an empty list where it sees nothing;
`diagnose_classification` and `diagnose_retrieval` run those that fit. Meant for a headline below three times chance
(`near_chance`): a healthy model gives no findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mtv.encoders.records import ImageRecord
from mtv.errors import UsageError
from mtv.probes.classification import ClassRanks
from mtv.probes.precision import fp32_matmul, l2_normalize

_COLLAPSED = 0.999
_MIN_SEPARATION = 0.2
_MAX_TRUNCATED = 0.05


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One suspicion."""

    code: str
    """Stable short name: constant_predictions, permuted_labels, permuted_pairs, unrelated_towers, pixel_range,
    pixel_statistics, scores_all_equal, scores_not_normalised, features_collapsed, text_truncated."""
    message: str
    """One sentence with the numbers, one that says what to check."""


def near_chance(value: float, chance: float, *, factor: float = 3.0) -> bool:
    """Whether a headline is below `factor` times the score of guessing (both in the same unit)."""
    return value < factor * chance


def constant_predictions(predicted_N: Tensor, labels_N: Tensor) -> list[Finding]:
    """Few distinct answers: below a tenth of the classes that occur, or one class for more than half of the images
    although it has far fewer."""
    present = len(torch.unique(labels_N))
    classes_P, counts_P = torch.unique(predicted_N, return_counts=True)
    top = int(counts_P.argmax())
    share = float(counts_P[top]) / len(predicted_N)
    true_share = float((labels_N == classes_P[top]).double().mean())
    if present < 2 or (len(classes_P) >= max(2, present / 10) and (share <= 0.5 or share <= 2 * true_share)):
        return []
    return [
        Finding(
            code="constant_predictions",
            message=f"Only {len(classes_P)} classes are predicted for images of {present} classes, class "
            f"{int(classes_P[top])} for {100 * share:.1f} % of them. "
            "Check that the encoder's weights were loaded and that its inputs differ.",
        )
    ]


def label_permutation(predicted_N: Tensor, labels_N: Tensor, *, n_classes: int) -> list[Finding]:
    """Predictions that fit after renumbering the classes.

    The best one-to-one assignment of predicted to true classes is compared with what the same predictions reach with
    shuffled labels, because the best assignment flatters small sets.
    """
    evidence = _renumbering(predicted_N, labels_N, n_classes)
    if not evidence:
        return []
    return [
        Finding(
            code="permuted_labels",
            message=f"The class order is permuted: accuracy is {evidence}. "
            "Check the label order against the class names: sorted wnids, not devkit ids.",
        )
    ]


def pair_permutation(nearest_T: Tensor, owner_T: Tensor, *, n_images: int) -> list[Finding]:
    """Captions whose nearest image is right after renumbering the images; compared as in `label_permutation`."""
    evidence = _renumbering(nearest_T, owner_T, n_images)
    if not evidence:
        return []
    return [
        Finding(
            code="permuted_pairs",
            message=f"Captions and images are out of step: recall at 1 is {evidence}. "
            "Check that image features and captions are joined by id, not by position.",
        )
    ]


def _renumbering(predicted_N: Tensor, labels_N: Tensor, n_classes: int) -> str:
    """The evidence in words, empty where renumbering helps no more than chance."""
    matched, mapping_C = _best_assignment(predicted_N, labels_N, n_classes)
    order = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(0))
    null, _ = _best_assignment(predicted_N, labels_N.cpu()[order], n_classes)
    plain = float((predicted_N.cpu() == labels_N.cpu()).double().mean())
    if matched < 2 * max(plain, null):
        return ""
    moved = [f"{true} as {found}" for true, found in enumerate(mapping_C) if true != found][:3]
    return (
        f"{100 * plain:.1f} %, but {100 * matched:.1f} % after renumbering ({100 * null:.1f} % with shuffled labels), "
        f"for example {', '.join(moved)}"
    )


def _best_assignment(predicted_N: Tensor, labels_N: Tensor, n_classes: int) -> tuple[float, Sequence[int]]:
    """Share of samples on the best one-to-one assignment, and the predicted class of each true one."""
    cells_N = labels_N.cpu().long() * n_classes + predicted_N.cpu().long()
    confusion_CC = torch.bincount(cells_N, minlength=n_classes**2).view(n_classes, n_classes).numpy()
    true_C, found_C = linear_sum_assignment(confusion_CC, maximize=True)
    mapping_C = np.empty(n_classes, dtype=np.int64)
    mapping_C[true_C] = found_C
    return float(confusion_CC[true_C, found_C].sum()) / len(cells_N), mapping_C.tolist()


def matched_cosines(matched_N: Tensor, mismatched_M: Tensor) -> list[Finding]:
    """Cosines of right image-text pairs that do not stand out from wrong ones: the towers do not belong together."""
    right, wrong = float(matched_N.double().mean()), float(mismatched_M.double().mean())
    spread = float(mismatched_M.double().std(correction=0))
    separation = (right - wrong) / max(spread, 1e-8)
    if separation >= _MIN_SEPARATION:
        return []
    return [
        Finding(
            code="unrelated_towers",
            message=f"Matched image-text pairs have a mean cosine of {right:.4f}, mismatched ones {wrong:.4f} "
            f"({separation:.2f} standard deviations apart). Check that image and text tower come from the same "
            "checkpoint, that both projections were loaded, and that images and texts are in the same order.",
        )
    ]


def pixel_statistics(pixels_B3HW: Tensor, record: ImageRecord | None = None) -> list[Finding]:
    """A batch that is not normalised as the model wants.

    With a record the test is exact: undoing its mean and std must give values in [0, 1]. Without one the batch must lie
    somewhere near mean 0 and std 1.
    """
    pixels = pixels_B3HW.detach().float()
    mean, std = float(pixels.mean()), float(pixels.std(correction=0))
    seen = f"The image batch has mean {mean:.3f} and std {std:.3f}"
    if record is not None:
        shape = (1, 3, 1, 1)
        raw = pixels * torch.tensor(record.std, device=pixels.device).view(shape)
        raw = raw + torch.tensor(record.mean, device=pixels.device).view(shape)
        low, high = float(raw.min()), float(raw.max())
        if low >= -0.01 and high <= 1.01:
            return []
        message = (
            f"{seen}; undoing mean {record.mean} and std {record.std} gives values from {low:.2f} to {high:.2f}, not "
            "0 to 1. Check that pixels are scaled to [0, 1] and normalised exactly once."
        )
        return [Finding(code="pixel_range", message=message)]
    if abs(mean) <= 1.0 and 0.4 <= std <= 2.0:
        return []
    message = f"{seen}, far from mean 0 and std 1. Check mean and std of the model's preprocessing."
    return [Finding(code="pixel_statistics", message=message)]


def score_health(scores_N: Tensor, rival_scores_N: Tensor) -> list[Finding]:
    """Scores that are no cosines, or that are all the same.

    Args:
        scores_N: score of the right item per query.
        rival_scores_N: score of the best wrong item per query.
    """
    both = torch.stack([scores_N, rival_scores_N]).double()
    largest = float(both.abs().max())
    if largest > 1.001:
        message = f"A score is {largest:.3f}, but cosines end at 1. Check that both features are normalised."
        return [Finding(code="scores_not_normalised", message=message)]
    equal = float((both[0] == both[1]).double().mean())
    if equal > 0.5 or float(both.max() - both.min()) < 1e-5:
        message = (
            f"Right and best wrong item score the same in {100 * equal:.1f} % of the queries; all scores lie between "
            f"{float(both.min()):.6f} and {float(both.max()):.6f}. Check that the features differ between inputs."
        )
        return [Finding(code="scores_all_equal", message=message)]
    return []


@torch.no_grad()
def feature_collapse(features_ND: Tensor, what: str) -> list[Finding]:
    """Features that all point the same way: mean cosine between different rows above 0.999."""
    n_rows = len(features_ND)
    if n_rows < 2:
        return []
    mean_D = l2_normalize(features_ND, what=what).double().mean(0)
    cosine = (n_rows * float(mean_D @ mean_D) - 1) / (n_rows - 1)
    if cosine <= _COLLAPSED:
        return []
    message = (
        f"The {what} are nearly identical: two of them have a mean cosine of {cosine:.5f}. "
        "Check that the weights were loaded and that the inputs differ."
    )
    return [Finding(code="features_collapsed", message=message)]


def truncation_share(n_truncated: int, n_texts: int) -> list[Finding]:
    """More than 5 % of the texts were cut at the tokenizer's length."""
    if n_texts == 0 or n_truncated / n_texts <= _MAX_TRUNCATED:
        return []
    message = (
        f"{n_truncated} of {n_texts} texts ({100 * n_truncated / n_texts:.1f} %) were cut to the tokenizer's length. "
        "Check the context length in the text record."
    )
    return [Finding(code="text_truncated", message=message)]


@torch.no_grad()
@fp32_matmul()
def diagnose_classification(
    ranks: ClassRanks,
    labels_N: Tensor,
    *,
    images_ND: Tensor,
    classifier_CD: Tensor,
    pixels_B3HW: Tensor | None = None,
    record: ImageRecord | None = None,
    n_truncated: int = 0,
    n_texts: int = 0,
) -> list[Finding]:
    """Every suspicion about a zero-shot classification, the most telling first.

    Args:
        ranks: outcome of `rank_classes`.
        labels_N: true classes.
        images_ND: image features.
        classifier_CD: class weights.
        pixels_B3HW: one batch as the encoder saw it.
        record: how that batch should have been normalised.
        n_truncated: prompts that the tokenizer cut.
        n_texts: all prompts.
    """
    labels_N = labels_N.cpu().long()
    n_classes = len(classifier_CD)
    findings = score_health(ranks.score_N, ranks.rival_score_N)
    findings += feature_collapse(images_ND, "image features") + feature_collapse(classifier_CD, "class weights")
    findings += constant_predictions(ranks.predicted_N, labels_N)
    if not findings:
        findings += label_permutation(ranks.predicted_N, labels_N, n_classes=n_classes)
    if not findings:
        images_ND, weights_CD = l2_normalize(images_ND.cpu()), l2_normalize(classifier_CD.cpu())
        wrong_N = (labels_N + 1 + torch.arange(len(labels_N)) % (n_classes - 1)) % n_classes
        mismatched_N = (images_ND * weights_CD[wrong_N]).sum(1)
        findings += matched_cosines(ranks.score_N, mismatched_N)
    return findings + _input_findings(pixels_B3HW, record, n_truncated, n_texts)


@torch.no_grad()
@fp32_matmul()
def diagnose_retrieval(
    images_ID: Tensor,
    captions_TD: Tensor,
    owner_T: Tensor,
    *,
    pixels_B3HW: Tensor | None = None,
    record: ImageRecord | None = None,
    n_truncated: int = 0,
    n_texts: int = 0,
    n_probe: int = 1000,
) -> list[Finding]:
    """Every suspicion about a retrieval task, the most telling first.

    Args:
        images_ID: image features.
        captions_TD: caption features, one row per caption.
        owner_T: image of each caption.
        pixels_B3HW: one batch as the encoder saw it.
        record: how that batch should have been normalised.
        n_truncated: captions that the tokenizer cut.
        n_texts: all captions.
        n_probe: the first images (and their captions) that are looked at.

    Raises:
        UsageError: fewer than two images.
    """
    if len(images_ID) < 2:
        raise UsageError(f"diagnose_retrieval: need at least two images, got {len(images_ID)}")
    images_ID = images_ID[:n_probe]
    owner_T = owner_T.to(images_ID.device).long()
    captions_TD, owner_T = captions_TD.to(images_ID.device)[owner_T < len(images_ID)], owner_T[owner_T < len(images_ID)]
    findings = feature_collapse(images_ID, "image features") + feature_collapse(captions_TD, "caption features")
    if not findings:
        scores_TI = l2_normalize(captions_TD) @ l2_normalize(images_ID).T
        findings += pair_permutation(scores_TI.argmax(1), owner_T, n_images=len(images_ID))
        own_TI = torch.zeros_like(scores_TI, dtype=torch.bool).scatter_(1, owner_T[:, None], True)
        if not findings:
            findings += matched_cosines(scores_TI[own_TI], scores_TI[~own_TI])
    return findings + _input_findings(pixels_B3HW, record, n_truncated, n_texts)


def _input_findings(pixels: Tensor | None, record: ImageRecord | None, n_truncated: int, n_texts: int) -> list[Finding]:
    findings = pixel_statistics(pixels, record) if pixels is not None else []
    return findings + truncation_share(n_truncated, n_texts)
