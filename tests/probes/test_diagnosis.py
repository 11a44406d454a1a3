"""Diagnosis: every known fault is named, a healthy run is not accused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mtv.encoders.records import ImageRecord
from mtv.errors import UsageError
from mtv.probes import diagnosis
from mtv.probes.classification import classification_summary, rank_classes
from mtv.probes.diagnosis import Finding, diagnose_classification, diagnose_retrieval, near_chance

N_CLASSES, PER_CLASS, WIDTH = 100, 10, 64
CLIP = ImageRecord(size=32, mean=(0.4815, 0.4578, 0.4082), std=(0.2686, 0.2613, 0.2758), resize="crop")


def world(seed: int = 0, signal: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Images, class weights and labels of a model that works."""
    g = torch.Generator().manual_seed(seed)
    weights, labels = torch.randn(N_CLASSES, WIDTH, generator=g), torch.arange(N_CLASSES).repeat_interleave(PER_CLASS)
    return signal * weights[labels] + torch.randn(len(labels), WIDTH, generator=g), weights, labels


def classify(images: Tensor, weights: Tensor, labels: Tensor, **kwargs: object) -> list[Finding]:
    ranks = rank_classes(images, weights, labels)
    return diagnose_classification(ranks, labels, images_ND=images, classifier_CD=weights, **kwargs)  # type: ignore[arg-type]


def codes(findings: list[Finding]) -> list[str]:
    return [f.code for f in findings]


def pictures(n: int = 16) -> Tensor:
    """uint8-like values in [0, 1] with the spread of photographs, extremes included."""
    g = torch.Generator().manual_seed(0)
    return (0.45 + 0.27 * torch.randn(n, 3, 32, 32, generator=g)).clamp(0, 1)


def normalised(x: Tensor, record: ImageRecord = CLIP) -> Tensor:
    return (x - torch.tensor(record.mean).view(1, 3, 1, 1)) / torch.tensor(record.std).view(1, 3, 1, 1)


@pytest.mark.parametrize("signal", [0.3, 0.5, 2.0])
def test_healthy_classification_is_not_accused(signal: float) -> None:
    images, weights, labels = world(signal=signal)
    pixels = normalised(pictures())
    assert classify(images, weights, labels, pixels_B3HW=pixels, record=CLIP, n_truncated=1, n_texts=1000) == []


def test_permuted_class_order_is_found_and_named() -> None:
    images, weights, labels = world()
    shift = torch.roll(torch.arange(N_CLASSES), 7)
    accuracy = classification_summary(rank_classes(images, weights, labels), labels)["top1"]
    findings = classify(images, weights[shift], labels)
    assert codes(findings) == ["permuted_labels"]
    assert f"but {accuracy:.1f} % after renumbering" in findings[0].message
    assert "0 as 7, 1 as 8, 2 as 9" in findings[0].message
    assert near_chance(classification_summary(rank_classes(images, weights[shift], labels), labels)["top1"], 1.0)


@pytest.mark.parametrize("per_class", [1, 2, 10])
def test_guessing_is_no_permutation(per_class: int) -> None:
    # With one image per class the best assignment of pure guesses reaches 60 %.
    g = torch.Generator().manual_seed(per_class)
    labels = torch.arange(N_CLASSES).repeat_interleave(per_class)
    predicted = torch.randint(0, N_CLASSES, labels.shape, generator=g)
    assert diagnosis.label_permutation(predicted, labels, n_classes=N_CLASSES) == []


def test_text_tower_of_another_model() -> None:
    images, weights, labels = world()
    other = torch.randn(weights.shape, generator=torch.Generator().manual_seed(9))
    findings = classify(images, other, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))])
    assert codes(findings) == ["unrelated_towers"]
    assert "same checkpoint" in findings[0].message


def test_constant_predictions() -> None:
    images, weights, labels = world()
    weights[3] = images.mean(0) + 10
    images = images + 3
    assert "constant_predictions" in codes(classify(images, weights, labels))
    predicted = torch.zeros(1000, dtype=torch.int64)
    found = diagnosis.constant_predictions(predicted, labels)
    assert found[0].message.startswith("Only 1 classes are predicted for images of 100 classes, class 0 for 100.0 %")
    assert diagnosis.constant_predictions(labels, labels) == []
    assert diagnosis.constant_predictions(torch.zeros(9), torch.zeros(9)) == []


def test_collapsed_and_all_equal_features() -> None:
    images, weights, labels = world()
    collapsed = torch.ones_like(images) + 1e-3 * images
    assert "features_collapsed" in codes(classify(collapsed, weights, labels))
    findings = classify(images, torch.ones_like(weights), labels)
    assert codes(findings)[0] == "scores_all_equal"
    assert "100.0 % of the queries" in findings[0].message


def test_scores_that_are_no_cosines() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(100, generator=g) * 20
    assert codes(diagnosis.score_health(logits, logits - 1)) == ["scores_not_normalised"]
    assert diagnosis.score_health(logits / 100, logits / 100 - 0.1) == []


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("0 to 255", pictures() * 255),
        ("normalised from 0 to 255", normalised(pictures() * 255)),
        ("normalised twice", normalised(normalised(pictures()))),
        ("other statistics", (pictures() - 0.5) / 0.2),
    ],
)
def test_pixels_that_the_record_cannot_explain(name: str, pixels: Tensor) -> None:
    findings = diagnosis.pixel_statistics(pixels, CLIP)
    assert codes(findings) == ["pixel_range"], name
    assert "not 0 to 1" in findings[0].message


def test_pixels_without_a_record() -> None:
    siglip = (pictures() - 0.5) / 0.5
    assert diagnosis.pixel_statistics(normalised(pictures())) == []
    assert diagnosis.pixel_statistics(siglip) == []
    for wrong in (pictures(), pictures() * 255, normalised(normalised(pictures()))):
        assert codes(diagnosis.pixel_statistics(wrong)) == ["pixel_statistics"]


def test_truncated_texts() -> None:
    assert diagnosis.truncation_share(50, 1000) == []
    assert diagnosis.truncation_share(0, 0) == []
    found = diagnosis.truncation_share(51, 1000)
    assert codes(found) == ["text_truncated"]
    assert "51 of 1000 texts (5.1 %)" in found[0].message


def pairs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    images, owner = torch.randn(120, WIDTH, generator=g), torch.arange(120).repeat_interleave(5)
    return images, 0.5 * images[owner] + torch.randn(600, WIDTH, generator=g), owner


def test_healthy_retrieval_is_not_accused() -> None:
    assert diagnose_retrieval(*pairs(), pixels_B3HW=normalised(pictures()), record=CLIP) == []


def test_images_out_of_step_with_captions() -> None:
    images, captions, owner = pairs()
    findings = diagnose_retrieval(torch.roll(images, 1, 0), captions, owner)
    assert codes(findings) == ["permuted_pairs"]
    assert "0 as 1, 1 as 2" in findings[0].message


def test_retrieval_with_unrelated_or_dead_towers() -> None:
    images, captions, owner = pairs()
    noise = torch.randn(captions.shape, generator=torch.Generator().manual_seed(5))
    assert codes(diagnose_retrieval(images, noise, owner)) == ["unrelated_towers"]
    assert codes(diagnose_retrieval(images, torch.ones_like(captions), owner)) == ["features_collapsed"]
    assert codes(diagnose_retrieval(images, captions, owner, n_truncated=300, n_texts=600)) == ["text_truncated"]
    with pytest.raises(UsageError, match="two images"):
        diagnose_retrieval(images[:1], captions[:5], owner[:5])


def test_only_the_first_images_are_probed() -> None:
    images, captions, owner = pairs()
    captions[owner >= 60] = 0  # beyond the probe, everything is broken
    assert diagnose_retrieval(images, captions, owner, n_probe=60) == []
    assert near_chance(0.2, 0.1)
    assert not near_chance(0.31, 0.1)
