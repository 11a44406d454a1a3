"""Zero-shot classification: Z3, Z4, Z5, Z14 of the protocol page, and a naive loop."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import NumericalError, UsageError
from mtv.probes.classification import classification_summary, classifier, rank_classes
from mtv.probes.ties import target_ranks


def directions(cosines: list[float]) -> Tensor:
    """Unit rows whose first coordinate is the cosine with the first axis, elsewhere the same axis for equal cosines."""
    axis = {c: 1 + i for i, c in enumerate(dict.fromkeys(cosines))}
    rows = torch.zeros(len(cosines), 1 + len(axis))
    for i, c in enumerate(cosines):
        rows[i, 0], rows[i, axis[c]] = c, math.sqrt(1 - c * c)
    return rows


def exact_rows(seed: int, n: int) -> Tensor:
    """Rows with 1, 4 or 16 entries of +-1: norms 1, 2, 4, so that all cosines are exact and many are equal."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.zeros(n, 16)
    for row in rows:
        filled = 4 ** int(torch.randint(0, 3, (), generator=g))
        row[torch.randperm(16, generator=g)[:filled]] = torch.randint(0, 2, (filled,), generator=g) * 2.0 - 1
    return rows


def naive_ranks(images: Tensor, weights: Tensor, labels: list[int]) -> list[tuple[int, int, int, int, int]]:
    """rank, rank if ties are lost, if won, prediction, first best wrong class; in fp64 loops."""
    out = []
    for row, t in zip(images.double().tolist(), labels, strict=True):
        s = []
        for w in weights.double().tolist():
            dot = sum(a * b for a, b in zip(row, w, strict=True))
            s.append(dot / math.sqrt(sum(a * a for a in row)) / math.sqrt(sum(b * b for b in w)))
        order = sorted(range(len(s)), key=lambda c: (-s[c], c))
        wrong = next(c for c in order if c != t)
        above = sum(x > s[t] for x in s)
        out.append((order.index(t) + 1, sum(x >= s[t] for x in s), above + 1, order[0], wrong))
    return out


def test_z3_equal_columns() -> None:
    image = torch.eye(4)[:1]
    weights = directions([0.2, 0.5, 0.5, 0.1])
    for target, top1 in ((2, 0.0), (1, 100.0)):
        labels = torch.tensor([target])
        ranks = rank_classes(image, weights, labels)
        summary = classification_summary(ranks, labels)
        assert summary["top1"] == top1
        assert summary["ties"] == (1, 0.0, 100.0)
        assert ranks.n_tied_N.tolist() == [1]
        assert ranks.predicted_N.tolist() == [1]


def test_z4_score_gap_below_bf16_logit_spacing() -> None:
    image, weights, label = torch.eye(3)[:1], directions([0.2500, 0.2505]), torch.tensor([1])
    ranks = rank_classes(image, weights, label)
    assert (int(ranks.rank_N), int(ranks.n_tied_N)) == (1, 0)
    logits = torch.tensor([[25.00, 25.05]])
    assert int(target_ranks(logits.bfloat16(), label).rank_Q) == 2
    assert int(target_ranks(logits.half(), label).rank_Q) == 1


def test_z5_unbalanced_classes() -> None:
    images, labels = torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1])
    summary = classification_summary(rank_classes(images, torch.eye(2), labels), labels)
    assert (summary["top1"], summary["mean_class_acc"], summary["n_predicted"]) == (75.0, 50.0, 1)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), c=st.integers(2, 9), block=st.sampled_from([1, 5, 2048]))
@settings(max_examples=60, deadline=None)
def test_ranks_against_fp64_loops_with_ties(seed: int, n: int, c: int, block: int) -> None:
    images, weights = exact_rows(seed, n), exact_rows(seed + 1, c)
    labels = torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(seed))
    ranks = rank_classes(images, weights, labels, block=block)
    columns = (ranks.rank_N, ranks.rank_lo_N, ranks.rank_hi_N, ranks.predicted_N, ranks.rival_N)
    assert list(zip(*[x.tolist() for x in columns], strict=True)) == naive_ranks(images, weights, labels.tolist())
    assert torch.equal(ranks.predicted_N == labels, ranks.rank_N == 1)
    assert torch.equal(ranks.rank_lo_N - ranks.rank_hi_N, ranks.n_tied_N)


@pytest.fixture(scope="module")
def realistic() -> tuple[Tensor, Tensor, Tensor]:
    """3,001 images of 1,000 classes, D = 768; columns 657 = 744 and 836 = 837, as ImageNet's names have it."""
    g = torch.Generator().manual_seed(3)
    weights = torch.randn(1000, 768, generator=g)
    weights[744], weights[837] = weights[657], weights[836]
    labels = torch.randint(0, 1000, (3001,), generator=g)
    labels[:4] = torch.tensor([657, 744, 836, 837])
    images = 0.12 * weights[labels] + torch.randn(3001, 768, generator=g)
    return images, weights, labels


def test_realistic_size_against_fp64(realistic: tuple[Tensor, Tensor, Tensor]) -> None:
    images, weights, labels = realistic
    scores = F.normalize(images.double(), dim=1) @ F.normalize(weights.double(), dim=1).T
    own = scores.gather(1, labels[:, None])
    twins = {657: 744, 744: 657, 836: 837, 837: 836}
    near = (scores - own).abs() < 1e-6
    near[torch.arange(len(labels)), labels] = False
    for i in range(4):
        near[i, twins[int(labels[i])]] = False
    clear = ~near.any(1)
    assert clear.float().mean() > 0.9
    ranks = rank_classes(images, weights, labels)
    higher = (scores > own + 1e-6).sum(1) + 1
    assert torch.equal(ranks.rank_hi_N[clear].long(), higher[clear])
    assert 20 < classification_summary(ranks, labels)["top1"] < 95  # neither trivial nor hopeless
    for block in (1000, 1024):
        again = rank_classes(images, weights, labels, block=block)
        assert torch.equal(again.rank_N[clear], ranks.rank_N[clear])
        torch.testing.assert_close(again.score_N, ranks.score_N, rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_twin_columns_at_the_edge_of_a_tiling_tie_exactly(block: int) -> None:
    g = torch.Generator().manual_seed(5)
    weights, images = torch.randn(301, 67, generator=g), torch.randn(400, 67, generator=g)
    weights[300] = weights[3]
    labels = torch.tensor([3, 300]).repeat(200)
    ranks = rank_classes(images, weights, labels, block=block)
    assert ranks.n_tied_N.tolist() == [1] * 400
    assert torch.equal(ranks.rank_N, torch.where(labels == 3, ranks.rank_hi_N, ranks.rank_lo_N))


def test_duplicate_class_names_of_imagenet(realistic: tuple[Tensor, Tensor, Tensor]) -> None:
    images, weights, labels = realistic
    ranks = rank_classes(images, weights, labels)
    twin = (labels == 657) | (labels == 744) | (labels == 836) | (labels == 837)
    assert bool((ranks.n_tied_N[twin] >= 1).all())
    assert int(ranks.n_tied_N[~twin].sum()) == 0
    assert set(ranks.predicted_N.tolist()).isdisjoint({744, 837})
    assert (ranks.rank_N[0] == ranks.rank_hi_N[0], ranks.rank_N[1] == ranks.rank_hi_N[1] + 1) == (True, True)


def test_z14_row_factors_and_precision_flags_change_nothing(realistic: tuple[Tensor, Tensor, Tensor]) -> None:
    images, weights, labels = realistic
    images, labels = images[:500], labels[:500]
    ranks = rank_classes(images, weights, labels)
    factors = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)) * 100 + 0.01
    assert torch.equal(rank_classes(images * factors, weights, labels).rank_N, ranks.rank_N)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = rank_classes(images, weights, labels)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(reduced.score_N, ranks.score_N)
    assert torch.equal(reduced.rank_N, ranks.rank_N)


def test_classifier_normalises_prompts_then_means() -> None:
    g = torch.Generator().manual_seed(0)
    prompts = torch.randn(3, 5, 7, generator=g) * torch.rand(3, 5, 1, generator=g) * 9
    expected = []
    for c in range(3):
        mean = sum(p / p.norm() for p in prompts[c].double()) / 5
        expected.append(mean / mean.norm())
    out = classifier(prompts.half().double())
    torch.testing.assert_close(out.double(), torch.stack(expected), rtol=0, atol=2e-3)
    torch.testing.assert_close(classifier(prompts).double(), torch.stack(expected), rtol=0, atol=1e-6)
    assert not torch.allclose(out, F.normalize(prompts.mean(1), dim=1), atol=1e-2)  # long prompts do not dominate


def test_classifier_of_equal_prompts_is_bitwise_equal() -> None:
    prompts = torch.randn(1000, 8, 65, generator=torch.Generator().manual_seed(0))
    prompts[744] = prompts[657]
    weights = classifier(prompts)
    assert torch.equal(weights[744], weights[657])


def test_summary_against_counts() -> None:
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 7, (300,), generator=g) * 2  # odd classes never occur
    weights = torch.randn(14, 5, generator=g)
    ranks = rank_classes(weights[labels] + torch.randn(300, 5, generator=g), weights, labels)
    summary = classification_summary(ranks, labels)
    r, y = ranks.rank_N.tolist(), labels.tolist()
    assert summary["top1"] == pytest.approx(100 * sum(x == 1 for x in r) / 300)
    assert summary["top5"] == pytest.approx(100 * sum(x <= 5 for x in r) / 300)
    per_class = [[x == 1 for x, t in zip(r, y, strict=True) if t == c] for c in sorted(set(y))]
    assert summary["mean_class_acc"] == pytest.approx(100 * sum(sum(h) / len(h) for h in per_class) / 7)
    assert summary["n_predicted"] == len(set(ranks.predicted_N.tolist()))


def test_balanced_data_gives_equal_top1_and_mean_class_acc() -> None:
    g = torch.Generator().manual_seed(2)
    labels, weights = torch.arange(20).repeat_interleave(50), torch.randn(20, 8, generator=g)
    ranks = rank_classes(weights[labels] + 2 * torch.randn(1000, 8, generator=g), weights, labels)
    summary = classification_summary(ranks, labels)
    assert summary["mean_class_acc"] == pytest.approx(summary["top1"], abs=1e-9)
    assert 0 < summary["top1"] < 100


def test_bad_input_is_named() -> None:
    images, weights, labels = torch.ones(3, 4), torch.eye(4), torch.tensor([0, 1, 4])
    with pytest.raises(UsageError, match=r"label 4 of row 2 is outside 0\.\.3"):
        rank_classes(images, weights, labels)
    with pytest.raises(UsageError, match="one width"):
        rank_classes(images, torch.eye(5), labels)
    with pytest.raises(UsageError, match="at least one image"):
        rank_classes(images[:0], weights, labels[:0])
    with pytest.raises(UsageError, match="integers"):
        rank_classes(images, weights, labels.float())
    images[1, 2] = float("nan")
    with pytest.raises(NumericalError, match="image features of sample 'val_2'"):
        rank_classes(images, weights, torch.tensor([0, 1, 2]), ids=["val_1", "val_2", "val_3"])
    with pytest.raises(UsageError, match="C,T,D"):
        classifier(torch.ones(3, 4))
