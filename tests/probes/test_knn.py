"""kNN classification against naive loops, ties included."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import DataError, NumericalError, UsageError
from mtv.probes.knn import knn_classify, knn_leave_one_out


def exact_rows(seed: int, n: int) -> Tensor:
    """Rows whose cosines are exact multiples of 1/16, many of them equal."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.zeros(n, 16)
    for row in rows:
        filled = 4 ** int(torch.randint(0, 3, (), generator=g))
        row[torch.randperm(16, generator=g)[:filled]] = torch.randint(0, 2, (filled,), generator=g) * 2.0 - 1
    return rows


def naive(train: list[list[float]], labels: list[int], query: list[float], k: int, t: float) -> tuple[int, list[int]]:
    """Predicted class and the neighbours, nearest first."""

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    s = [cosine(row, query) for row in train]
    near = sorted(range(len(s)), key=lambda j: (-s[j], j))[:k]
    votes: dict[int, float] = {}
    for j in near:
        votes[labels[j]] = votes.get(labels[j], 0.0) + math.exp((s[j] - s[near[0]]) / t)
    return min(votes, key=lambda c: (-votes[c], c)), near


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 25),
    k=st.integers(1, 30),
    t=st.sampled_from([0.001, 0.07, 1.0]),
    block=st.sampled_from([1, 4, 2048]),
)
@settings(max_examples=100, deadline=None)
def test_classify_against_loops(seed: int, n: int, k: int, t: float, block: int) -> None:
    train, test = exact_rows(seed, n), exact_rows(seed + 1, 6)
    g = torch.Generator().manual_seed(seed)
    labels, truth = torch.randint(0, 4, (n,), generator=g), torch.randint(0, 5, (6,), generator=g)
    out = knn_classify(train, labels, test, truth, k=k, temperature=t, block=block)
    for m, query in enumerate(test.double().tolist()):
        predicted, near = naive(train.double().tolist(), labels.tolist(), query, k, t)
        assert int(out.predicted_M[m]) == predicted
        assert int(out.nearest_M[m]) == near[0]
        assert bool(out.correct_M[m]) == (predicted == int(truth[m])) == (int(out.rank_M[m]) == 1)
    assert out.n_neighbours == min(k, n)
    assert (out.n_left_out, bool(out.kept_M.all())) == (0, True)
    assert out.accuracy == pytest.approx(100 * sum(out.correct_M.tolist()) / 6)


@given(seed=st.integers(0, 10**6), n=st.integers(3, 25), k=st.integers(1, 30), block=st.sampled_from([1, 4, 2048]))
@settings(max_examples=100, deadline=None)
def test_leave_one_out_against_loops(seed: int, n: int, k: int, block: int) -> None:
    rows = exact_rows(seed, n)
    labels = torch.randint(0, 5, (n,), generator=torch.Generator().manual_seed(seed))
    labels[:2] = 0
    y = labels.tolist()
    kept = [i for i in range(n) if y.count(y[i]) > 1]
    out = knn_leave_one_out(rows, labels, k=k, block=block)
    assert out.kept_M.nonzero()[:, 0].tolist() == kept
    assert out.n_left_out == n - len(kept)
    for i in range(n):
        if i not in kept:
            assert (int(out.predicted_M[i]), int(out.nearest_M[i]), bool(out.correct_M[i])) == (-1, -1, False)
            continue
        others = [j for j in kept if j != i]
        train = [rows[j].double().tolist() for j in others]
        predicted, near = naive(train, [y[j] for j in others], rows[i].double().tolist(), k, 0.07)
        assert int(out.predicted_M[i]) == predicted
        assert int(out.nearest_M[i]) == others[near[0]]
    assert out.accuracy == pytest.approx(100 * sum(out.correct_M.tolist()) / len(kept))


def test_votes_are_weighted_by_similarity() -> None:
    # One neighbour at cosine 1 against three at cosine 0.9: exp(0.1 / 0.07) = 4.17 beats 3, but not at temperature 1.
    angle = math.acos(0.9)
    train = torch.tensor([[1.0, 0.0], *[[math.cos(angle), math.sin(angle)]] * 3])
    labels, query = torch.tensor([1, 0, 0, 0]), torch.tensor([[1.0, 0.0]])
    sharp = knn_classify(train, labels, query, torch.tensor([1]))
    assert int(sharp.predicted_M) == 1
    weight = math.exp(0.1 / 0.07)
    assert float(sharp.vote_share_M) == pytest.approx(weight / (weight + 3), rel=1e-4)
    assert int(knn_classify(train, labels, query, torch.tensor([1]), temperature=1.0).predicted_M) == 0
    assert int(knn_classify(train, labels, query, torch.tensor([1]), temperature=1.0, k=1).predicted_M) == 1


def test_equal_neighbours_the_lower_index_is_taken_at_size() -> None:
    # 1,000 equal training rows, a library's top-k may return any 20 of them.
    train = torch.ones(1000, 67)
    labels = torch.arange(1000)
    out = knn_classify(train, labels, torch.ones(3, 67), torch.tensor([0, 1, 999]), k=20)
    assert out.predicted_M.tolist() == [0, 0, 0]
    assert out.rank_M.tolist() == [1, 2, 1000]
    assert out.vote_share_M.tolist() == pytest.approx([0.05] * 3)


def test_clusters_are_found_in_any_order_and_block() -> None:
    g = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(50, 96, generator=g), torch.arange(50).repeat_interleave(20)
    rows = centres[labels] + 1.8 * torch.randn(1000, 96, generator=g)
    out = knn_leave_one_out(rows, labels)
    assert 50 < out.accuracy < 100
    for block in (1, 333):
        assert torch.equal(knn_leave_one_out(rows, labels, block=block).predicted_M, out.predicted_M)
    order = torch.randperm(1000, generator=g)
    assert torch.equal(knn_leave_one_out(rows[order], labels[order]).predicted_M, out.predicted_M[order])
    shuffled = knn_leave_one_out(rows, labels[order])
    assert shuffled.accuracy < 10  # chance is 2


def test_bad_input_is_named() -> None:
    rows, labels = torch.eye(3), torch.tensor([0, 1, 2])
    with pytest.raises(DataError, match="every class has a single image"):
        knn_leave_one_out(rows, labels)
    with pytest.raises(UsageError, match="k=0"):
        knn_classify(rows, labels, rows, labels, k=0)
    with pytest.raises(UsageError, match="temperature=0"):
        knn_classify(rows, labels, rows, labels, temperature=0)
    with pytest.raises(UsageError, match="3 channels, test features 4"):
        knn_classify(rows, labels, torch.eye(4)[:3], labels)
    with pytest.raises(UsageError, match="one label each"):
        knn_classify(rows, labels[:2], rows, labels)
    with pytest.raises(UsageError, match="train labels must be integers >= 0"):
        knn_classify(rows, labels - 1, rows, labels)
    rows[1] = float("nan")
    with pytest.raises(NumericalError, match="features of sample 'b'"):
        knn_leave_one_out(rows, torch.zeros(3, dtype=torch.int64), ids=list("abc"))
