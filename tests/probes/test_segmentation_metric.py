"""Counts and scores of segmentation: fixtures by hand, pixel loops, wrong definitions, torchmetrics, real labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.probes.segmentation_metric import (
    AreaCounts,
    area_rows,
    areas_of_rows,
    chance_miou,
    count_areas,
    no_areas,
    score_areas,
    sum_areas,
)
from mtv.recipes import Recipe
from mtv.stats import evaluate, resample_counts

IGN = 255
FIXTURE_A = [
    (np.array([[0, 0, 1, IGN]]), np.array([[0, 1, 1, 2]])),
    (np.array([[1, 1, 2, 2, 2]]), np.array([[1, 2, 2, 0, 2]])),
]
"""(label, prediction) of two pictures, 4 classes."""


def fixture_b() -> list[tuple[np.ndarray, np.ndarray]]:
    """Section 8: five pictures of (label, prediction)."""
    rng = np.random.default_rng(7)
    pairs = []
    for _ in range(5):
        y, u = rng.integers(0, 30, (160, 240)), rng.random((160, 240))
        q, v = rng.integers(0, 40, (160, 240)), rng.random((160, 240))
        pairs.append((np.where(v < 0.1, IGN, y), np.where(u < 0.7, y, q)))
    return pairs


def counts(pairs: list[tuple[np.ndarray, np.ndarray]], n_classes: int) -> list[AreaCounts]:
    return [count_areas(p, y, n_classes) for y, p in pairs]


def naive_areas(y: np.ndarray, p: np.ndarray, n_classes: int) -> tuple[list[int], list[int], list[int]]:
    """Pixel by pixel."""
    i, pr, g = ([0] * n_classes for _ in range(3))
    for label, predicted in zip(y.ravel().tolist(), p.ravel().tolist(), strict=True):
        if label == IGN:
            continue
        pr[predicted] += 1
        g[label] += 1
        i[label] += label == predicted
    return i, pr, g


def mean_iou(i: np.ndarray, u: np.ndarray, keep: np.ndarray) -> float:
    return 100 * float((i[keep] / u[keep]).mean())


def wrong_scores(pairs: list[tuple[np.ndarray, np.ndarray]], n_classes: int) -> dict[str, float]:
    """What other definitions give: the traps that a fixture must tell from ours."""
    a = sum_areas(counts(pairs, n_classes), n_classes)
    i, u, present = a.intersection_C, a.union_C, a.union_C > 0
    everywhere = sum(np.bincount(p.ravel(), minlength=n_classes) for _, p in pairs)
    u_ignored = everywhere + a.labelled_C - i
    return {
        "absent as 0": 100 * float((i[present] / u[present]).sum() / n_classes),
        "labelled only": mean_iou(i, u, a.labelled_C > 0),
        "ignored in P": mean_iou(i, u_ignored, u_ignored > 0),
        "dice": 100 * float((2 * i[present] / (a.predicted_C + a.labelled_C)[present]).mean()),
        "per image": float(np.mean([score_areas(c).miou for c in counts(pairs, n_classes)])),
    }


def test_fixture_a_by_hand() -> None:
    a = sum_areas(counts(FIXTURE_A, 4), 4)
    assert a.intersection_C.tolist() == [1, 2, 2, 0]
    assert a.predicted_C.tolist() == a.labelled_C.tolist() == [2, 3, 3, 0]
    assert a.union_C.tolist() == [3, 4, 4, 0]
    assert a.intersection_C.dtype == a.predicted_C.dtype == a.labelled_C.dtype == np.int64
    score = score_areas(a)
    assert score.miou == pytest.approx(100 * (1 / 3 + 1 / 2 + 1 / 2) / 3, abs=1e-12)
    assert (round(score.miou, 3), round(score.macc, 3), score.aacc) == (44.444, 61.111, 62.5)
    assert score.classes_present == 3
    assert np.isnan(score.iou_C[3])
    wrong = wrong_scores(FIXTURE_A, 4)
    assert {k: round(wrong[k], 3) for k in ("absent as 0", "per image", "ignored in P")} == {
        "absent as 0": 33.333,
        "per image": 41.667,
        "ignored in P": 41.111,
    }


def test_fixture_b_to_the_printed_digits() -> None:
    pairs = fixture_b()
    a = sum_areas(counts(pairs, 150), 150)
    score = score_areas(a)
    assert score.miou == pytest.approx(43.62647457108667, abs=1e-13)
    assert (int(a.intersection_C.sum()), int(a.labelled_C.sum())) == (122_376, 172_885)
    assert (a.intersection_C[0], a.predicted_C[0], a.labelled_C[0]) == (4_003, 5_300, 5_670)
    assert (score.classes_present, int((a.labelled_C > 0).sum())) == (40, 30)
    assert (round(score.aacc, 4), round(score.macc, 4)) == (70.7846, 70.7833)
    assert {k: round(v, 4) for k, v in wrong_scores(pairs, 150).items()} == {
        "absent as 0": 11.6337,
        "labelled only": 58.1686,
        "ignored in P": 40.2510,
        "dice": 55.1634,
        "per image": 43.6279,
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.integers(0, 2**31))
def test_counts_equal_a_pixel_loop(n_classes: int, height: int, width: int, ignored: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, (height, width)).astype(np.uint8)
    p = rng.integers(0, n_classes, (height, width)).astype(np.uint8)
    y[rng.random(y.shape) < ignored] = IGN
    p[(y == IGN) & (rng.random(y.shape) < 0.5)] = 200  # whatever is predicted there counts nowhere
    expected = naive_areas(y, p, n_classes)
    for predicted, label in (
        (p, y),
        (torch.from_numpy(p), torch.from_numpy(y)),
        (p.astype(np.int64), torch.from_numpy(y).long()),
    ):
        a = count_areas(predicted, label, n_classes)
        assert (a.intersection_C.tolist(), a.predicted_C.tolist(), a.labelled_C.tolist()) == expected
    if not a.labelled_C.any():
        with pytest.raises(DataError, match="not a single labelled pixel"):
            score_areas(a)
        return
    ious = [i / (q + g - i) for i, q, g in zip(*expected, strict=True) if q + g]
    accs = [i / g for i, g in zip(expected[0], expected[2], strict=True) if g]
    score = score_areas(a)
    assert score.miou == pytest.approx(100 * sum(ious) / len(ious), abs=1e-10)
    assert score.macc == pytest.approx(100 * sum(accs) / len(accs), abs=1e-10)
    assert score.aacc == pytest.approx(100 * sum(expected[0]) / sum(expected[2]), abs=1e-10)
    assert score.classes_present == len(ious)


def test_counts_above_float32_stay_exact() -> None:
    """2,000 areas: float32 running sums lose counts above 2^24, ours do not."""
    areas = np.random.default_rng(0).integers(150_000, 240_000, 2000)
    parts = [
        AreaCounts(intersection_C=np.array([n]), predicted_C=np.array([n]), labelled_C=np.array([n])) for n in areas
    ]
    assert int(sum_areas(parts, 1).intersection_C[0]) == sum(areas.tolist())
    running = np.float32(0)
    for n in areas:
        running += np.float32(n)
    assert int(running) != sum(areas.tolist()), "the test must be able to fail"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**31))
def test_rows_add_up_to_the_counts(n_images: int, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = [rng.choice([*range(n_classes), IGN], (4, 5)) for _ in range(n_images)]
    per_image = [count_areas(rng.integers(0, n_classes, (4, 5)), y, n_classes) for y in label]
    total = sum_areas(per_image, n_classes)
    for every_class in (False, True):
        rows = area_rows(per_image, every_class=every_class)
        again = areas_of_rows(rows, n_classes)
        for name in ("intersection_C", "predicted_C", "labelled_C"):
            np.testing.assert_array_equal(getattr(again, name), getattr(total, name))
        places = list(zip(rows.image_R.tolist(), rows.class_R.tolist(), strict=True))
        assert places == sorted(set(places))
        occurs = [(i, c) for i, a in enumerate(per_image) for c in range(n_classes) if every_class or a.union_C[c]]
        assert places == occurs


def test_intervals_resample_images_and_add_integers() -> None:
    """The rows under the recipe of `mtv.stats`: each resample is the score of the pictures drawn, added up again."""
    per_image = counts(fixture_b(), 150)
    rows = area_rows(per_image)
    table = {
        "cluster_id": rows.image_R.astype(str),
        "class": rows.class_R,
        "intersection": rows.intersection_R,
        "union": rows.predicted_R + rows.labelled_R - rows.intersection_R,
    }
    recipe = Recipe(kind="ratio", column="intersection", weight="union", group="class")
    metric = evaluate({"miou": recipe}, table, n_resamples=200)["miou"]
    assert metric.value == pytest.approx(score_areas(sum_areas(per_image, 150)).miou, abs=1e-12)
    drawn = np.concatenate(list(resample_counts(5, n_resamples=200)))
    scores = [score_areas(sum_areas((a for a, k in zip(per_image, row, strict=True) for _ in range(int(k))), 150)).miou
              for row in drawn]  # fmt: skip
    assert metric.ci95 == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=1e-10)
    assert metric.ci95 is not None
    assert metric.ci95[0] < metric.ci95[1]


def test_chance_is_the_constant_prediction() -> None:
    pairs = fixture_b()
    a = sum_areas(counts(pairs, 150), 150)
    top = int(a.labelled_C.argmax())
    constant = [(y, np.full_like(y, top)) for y, _ in pairs]
    assert chance_miou(a) == score_areas(sum_areas(counts(constant, 150), 150)).miou
    assert 0 < chance_miou(a) < 1
    single = count_areas(np.array([[1, 1]]), np.array([[1, 1]]), 3)
    assert chance_miou(single) == 100


def test_inputs_are_checked() -> None:
    y, p = np.array([[0, 1], [2, IGN]]), np.array([[0, 1], [1, 9]])
    with pytest.raises(DataError, match=r"ADE_1: prediction \(4, 4\) and label map \(2, 2\) differ in size"):
        count_areas(np.zeros((4, 4), int), y, 3, name="ADE_1")  # T3
    with pytest.raises(DataError, match="label 2 is no class 0 to 1"):
        count_areas(p, y, 2)
    with pytest.raises(DataError, match="label 254 is no class 0 to 149"):  # T2: minus one in uint8
        count_areas(np.zeros(4, int), np.array([0, 1, 150, 255], np.uint8) - np.uint8(1), 150)
    with pytest.raises(DataError, match="label -1 is no class"):  # T2 in int64
        count_areas(np.zeros(4, int), np.array([0, 1, 150, 255]) - 1, 150)
    with pytest.raises(DataError, match="predicted class 5 is no class 0 to 2"):
        count_areas(np.array([[0, 5], [0, 0]]), y, 3)
    with pytest.raises(UsageError, match="float32"):
        count_areas(torch.zeros(2, 2), y, 3)
    with pytest.raises(UsageError, match="n_classes"):
        count_areas(p, y, 0)
    with pytest.raises(UsageError, match="3 and of 4 classes"):
        no_areas(3) + no_areas(4)
    with pytest.raises(DataError, match="not a single labelled pixel"):
        chance_miou(no_areas(3))
    assert count_areas(p, y, 3).predicted_C.tolist() == [1, 2, 0]


def test_torchmetrics_agrees() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    metric = classification.MulticlassJaccardIndex(150, ignore_index=IGN, average="macro")
    for y, p in fixture_b():
        metric.update(torch.from_numpy(p)[None], torch.from_numpy(y)[None])
    assert float(metric.compute()) * 100 == pytest.approx(43.62647457, abs=1e-4)


def test_three_real_label_maps(real_data: Path) -> None:
    """Prediction = label: 15 classes, 100 where absent classes are left out, 10 where they count as 0."""
    paths = sorted((real_data / "ade20k/ADEChallengeData2016/annotations/validation").glob("*.png"))
    assert len(paths) == 3
    table = np.array([IGN, *range(150)], np.uint8)
    label = [table[np.asarray(Image.open(path))] for path in paths]
    a = sum_areas([count_areas(y, y, 150) for y in label], 150)
    score = score_areas(a)
    assert (score.miou, score.macc, score.aacc, score.classes_present) == (100, 100, 100, 15)
    assert np.nan_to_num(score.iou_C).sum() / 150 * 100 == pytest.approx(10.0)


def test_scoring_imports_no_torch() -> None:
    code = "import sys, mtv.probes.segmentation_metric, mtv.probes.segmentation_windows; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
