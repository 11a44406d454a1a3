"""mIoU as a recipe over counts per picture and class: naive sums, a naive bootstrap, and paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.eval.heads.segmentation_scoring import class_table, recipes_of, sample_table, total_of
from mtv.probes.segmentation_metric import AreaCounts, constant_areas, score_areas
from mtv.recipes import Recipe
from mtv.stats import evaluate, paired_difference, resample_counts

CLASSES = 7


def counts(seed: int, pictures: int, *, rare: bool = True) -> list[AreaCounts]:
    """Confusion of random label maps; the last class is never labelled, the one before it neither predicted nor
    labelled, and class 4 is in the first picture only."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(pictures):
        labels = rng.integers(0, 4, 200)
        if rare and number == 0:
            labels[:9] = 4
        predicted = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 4, 200))
        predicted[rng.random(200) < 0.01] = 6
        i, p, g = (np.bincount(x, minlength=CLASSES) for x in (labels[labels == predicted], predicted, labels))
        out.append(AreaCounts(intersection_C=i, predicted_C=p, labelled_C=g))
    return out


def naive(areas: list[AreaCounts], times: np.ndarray) -> tuple[float, float, float, int]:
    """mIoU, mAcc, aAcc in percent and classes present, with every picture repeated `times`, by loops."""
    iou, acc, hits, pixels, present = [], [], 0, 0, 0
    for c in range(CLASSES):
        i, p, g = (
            sum(int(t) * int(getattr(a, name)[c]) for t, a in zip(times, areas, strict=True))
            for name in ("intersection_C", "predicted_C", "labelled_C")
        )
        if p + g - i > 0:
            iou.append(i / (p + g - i))
            present += 1
        if g > 0:
            acc.append(i / g)
        hits, pixels = hits + i, pixels + g
    return 100 * sum(iou) / len(iou), 100 * sum(acc) / len(acc), 100 * hits / pixels, present


def test_values_and_intervals_are_those_of_naive_loops() -> None:
    areas = counts(0, 9)
    pictures = [f"p{k}" for k in range(9)]
    recipes = recipes_of(score_areas(constant_areas(total_of(areas), 0)))
    found = evaluate(recipes, sample_table(pictures, areas), n_resamples=300, seed=5)
    names = ("miou", "macc", "aacc", "classes_present")
    for name, value in zip(names, naive(areas, np.ones(9)), strict=True):
        assert found[name].value == pytest.approx(value, abs=1e-9), name
        assert found[name].n_clusters == 9
    drawn = np.concatenate(list(resample_counts(9, n_resamples=300, seed=5)))
    values = np.array([naive(areas, times) for times in drawn])
    for k, name in enumerate(names):
        np.testing.assert_allclose(found[name].ci95, np.percentile(values[:, k], [2.5, 97.5]), atol=1e-9)
    assert len(set(values[:, 3])) > 1, "a resample without the first picture has a class less"
    assert found["miou"].headline
    assert found["miou"].chance == pytest.approx(score_areas(constant_areas(total_of(areas), 0)).miou)
    table = class_table(total_of(areas), [f"c{k}" for k in range(CLASSES)])
    assert table["c5"] is None
    assert table["c6"] == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), pictures=st.integers(1, 5))
def test_rows_of_zeros_change_nothing(seed: int, pictures: int) -> None:
    areas, recipes = counts(seed, pictures), recipes_of(score_areas(total_of(counts(seed, pictures))))
    dense = sample_table([str(k) for k in range(pictures)], areas)
    kept = (dense["union"] > 0) | (dense["labelled"] > 0)
    sparse = {name: column[kept] for name, column in dense.items()}
    a, b = (evaluate(recipes, t, n_resamples=20) for t in (dense, sparse))
    for name in recipes:
        assert (a[name].value, a[name].ci95) == (b[name].value, b[name].ci95)


def test_paired_difference_resamples_both_alike() -> None:
    first, second = counts(1, 8), counts(2, 8)
    # Another model on the same labels.
    better = [
        AreaCounts(
            intersection_C=np.minimum(a.intersection_C + 10, a.labelled_C),
            predicted_C=np.maximum(a.predicted_C, np.minimum(a.intersection_C + 10, a.labelled_C)),
            labelled_C=a.labelled_C,
        )
        for a in first
    ]
    pictures = [f"p{k}" for k in range(8)]
    recipes = recipes_of(score_areas(total_of(second)))
    found = paired_difference(
        recipes, "miou", sample_table(pictures, first), sample_table(pictures, better), n_resamples=200, seed=1
    )
    drawn = np.concatenate(list(resample_counts(8, n_resamples=200, seed=1)))
    differences = [naive(better, t)[0] - naive(first, t)[0] for t in drawn]
    np.testing.assert_allclose(found.ci95, np.percentile(differences, [2.5, 97.5]), atol=1e-9)
    assert found.delta == pytest.approx(naive(better, np.ones(8))[0] - naive(first, np.ones(8))[0])
    assert found.method == "bootstrap"
    assert found.p == pytest.approx(2 / 201)


@pytest.mark.parametrize(
    "fields", [{}, {"group": "g", "weight": "w"}, {"group": "g", "within": "w"}, {"group": "g", "of": ("a",)}]
)
def test_present_takes_a_column_and_groups(fields: dict) -> None:
    with pytest.raises(UsageError, match=r"Recipe\.(group|of)"):
        Recipe(kind="present", column="x", **fields)


def test_present_counts_groups_with_a_positive_sum() -> None:
    table = {
        "sample_id": np.array(list("abcd")),
        "cluster_id": np.array(list("aabb")),
        "g": np.array([0, 1, 0, 2]),
        "x": np.array([0, 3, 2, 0]),
        "used": np.array([True, True, True, False]),
    }
    recipe = Recipe(kind="present", column="x", group="g", scale=1.0, unit="groups")
    again = Recipe.from_dict(recipe.to_dict())
    found = evaluate({"n": again}, table, n_resamples=200)["n"]
    assert (found.value, found.n, found.n_clusters) == (2.0, 4, 2)
    assert found.ci95 == (1.0, 2.0)
    only = evaluate({"n": Recipe(kind="present", column="x", group="g", scale=1.0, where={"used": True})}, table)["n"]
    assert (only.value, only.n) == (2.0, 3)
