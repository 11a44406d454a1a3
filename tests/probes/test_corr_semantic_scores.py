"""Pair selection and aggregates of the keypoint table (rows S6, S7, S9)."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.probes.resample import SquareGrid
from mtv.probes.semantic import KeypointImage, match_keypoints, select_pairs, unit_map
from mtv.probes.semantic_scores import (
    is_correct,
    pck_class,
    pck_image,
    pck_point,
    recall_table,
    select_jobs,
    viewpoint_recall,
)


def test_s6_shuffle_with_seed_20() -> None:
    assert select_pairs([str(i) for i in range(10)]) == [str(i) for i in (5, 3, 0, 7, 8, 9, 6, 1, 4, 2)]
    assert select_pairs([str(i) for i in reversed(range(10))], n=3) == ["5", "3", "0"]
    assert select_pairs(["b", "c", "a"], n=None) == ["a", "b", "c"]


def test_s6_the_global_generator_is_untouched() -> None:
    random.seed(5)
    expected = random.Random(5).random()
    select_pairs(["a", "b", "c"])
    assert random.random() == expected


def test_s7_three_averages() -> None:
    correct = np.array([True, False, False, False])
    pair = np.array([0, 1, 1, 1])
    assert pck_point(correct) == 25
    assert pck_image(correct, pair) == 50
    assert pck_class(correct, ["cat", "cat", "cat", "dog"]) == pytest.approx(100 / 6)
    with pytest.raises(UsageError, match="at least one keypoint"):
        pck_point(correct[:0])
    with pytest.raises(UsageError, match="at least one keypoint"):
        pck_image(correct[:0], pair[:0])


def test_s7_class_without_a_viewpoint_is_excluded_and_listed() -> None:
    stems = ["0:cat", "1:cat", "2:dog", "3:dog"]
    jobs = select_jobs(stems, ["cat", "cat", "dog", "dog"], [0, 2, 0, 0])
    assert jobs["dog", 2] == jobs["cat", 1] == []
    assert sorted(jobs["dog", None]) == [2, 3]
    # cat: pair 0 has 1/1, pair 1 has 0/3; dog: pair 2 has 1/2, pair 3 no shared keypoint at all.
    pair = np.array([0, 1, 1, 1, 2, 2])
    correct = np.array([1, 0, 0, 0, 1, 0], dtype=bool)
    recall, details = recall_table(correct, pair, jobs)
    assert recall == {
        "recall_vp0": 75.0,
        "recall_vp1": None,
        "recall_vp2": 0.0,
        "recall_all": (25 + 50) / 2,
        "avg_recall": 37.5,
        "avg_recall_4": pytest.approx((75 + 0 + 37.5) / 3),
    }
    assert details[2].excluded == ("dog",)
    assert details[2].per_class == {"cat": 0.0}
    assert details[1].excluded == ("cat", "dog")
    assert details[1].value is None


def test_is_correct_is_strict_unless_asked() -> None:
    error, scale = np.array([9.0, 10.0, 11.0]), np.array([100.0, 100.0, 100.0])
    assert is_correct(error, scale, 0.1).tolist() == [True, False, False]
    assert is_correct(error, scale, 0.1, inclusive=True).tolist() == [True, True, False]


def test_s9_at_most_200_pairs_per_job_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    stems = [f"{i:06d}-a-b:{c}" for i, c in enumerate(rng.choice(["bus", "cat"], size=1500))]
    classes = [s.split(":")[1] for s in stems]
    viewpoints = rng.integers(0, 3, size=1500).tolist()
    jobs = select_jobs(stems, classes, viewpoints)
    assert len(jobs) == 8
    assert all(len(v) == 200 for v in jobs.values())
    for (name, vp), members in jobs.items():
        assert all(classes[i] == name and vp in (None, viewpoints[i]) for i in members)
    order = rng.permutation(1500).tolist()
    shuffled = select_jobs([stems[i] for i in order], [classes[i] for i in order], [viewpoints[i] for i in order])
    assert {k: [stems[order[i]] for i in v] for k, v in shuffled.items()} == {
        k: [stems[i] for i in v] for k, v in jobs.items()
    }
    assert sum(len(select_jobs(stems, classes, viewpoints, n=None)[c, None]) for c in ("bus", "cat")) == 1500
    with pytest.raises(UsageError, match="unique"):
        select_jobs(["a", "a"], ["x", "x"], [0, 0])


def test_s9_cached_and_fresh_maps_give_the_same_table() -> None:
    """Maps made once per image or again for every pair, pairs in any order: identical rows."""
    grid = SquareGrid(size=64, patch=16)
    g = torch.Generator().manual_seed(0)
    raw = [torch.randn(4, 4, 8, generator=g) for _ in range(5)]
    points = np.random.default_rng(0).uniform(0, 60, size=(5, 6, 2))
    cached = [unit_map(m) for m in raw]

    def row(i: int, j: int, maps: list[torch.Tensor]) -> list[float]:
        images = [KeypointImage(tokens=maps[k], keypoints=points[k], size=(64, 50), box=(0, 0, 30, 30)) for k in (i, j)]
        return match_keypoints(images[0], images[1], grid, "centered").error.tolist()

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    first = {p: row(*p, cached) for p in pairs}
    second = {p: row(*p, [unit_map(m.clone()) for m in raw]) for p in reversed(pairs)}
    assert first == second


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 5))
def test_aggregates_match_naive_loops(seed: int, n_pairs: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    classes = [f"class{c}" for c in rng.integers(0, n_classes, size=n_pairs)]
    viewpoints = rng.integers(0, 3, size=n_pairs).tolist()
    stems = [f"{i:03d}" for i in range(n_pairs)]
    pair = np.repeat(np.arange(n_pairs), rng.integers(0, 5, size=n_pairs))
    correct = rng.random(len(pair)) < 0.5
    jobs = select_jobs(stems, classes, viewpoints, n=7)
    for vp in (0, 1, 2, None):
        got = viewpoint_recall(correct, pair, jobs, vp)
        per_class = {}
        for name in set(classes):
            rows = [bool(c) for c, p in zip(correct, pair, strict=True) if p in jobs[name, vp]]
            if rows:
                per_class[name] = 100 * sum(rows) / len(rows)
        assert got.per_class == pytest.approx(per_class)
        assert set(got.excluded) == set(classes) - set(per_class)
        assert got.value == (pytest.approx(sum(per_class.values()) / len(per_class)) if per_class else None)
    if len(pair):
        rates = [correct[pair == p].mean() for p in set(pair.tolist())]
        assert pck_image(correct, pair) == pytest.approx(100 * np.mean(rates))
        of_row = np.array(classes)[pair]
        assert pck_class(correct, of_row) == pytest.approx(
            100 * np.mean([correct[of_row == c].mean() for c in set(of_row.tolist())])
        )
