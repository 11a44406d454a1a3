"""Retrieval against a naive double loop in fp64, ties included, over random sizes, owners, repeats and options."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.probes.retrieval import rank_retrieval

WIDTH = 16


def exact_rows(n: int, g: torch.Generator) -> Tensor:
    """Rows with 1, 4 or 16 entries of +-1: all cosines are multiples of 1/16, exact in float32, and often equal."""
    rows = torch.zeros(n, WIDTH)
    for row in rows:
        filled = 4 ** int(torch.randint(0, 3, (), generator=g))
        row[torch.randperm(WIDTH, generator=g)[:filled]] = torch.randint(0, 2, (filled,), generator=g) * 2.0 - 1
    return rows


def cosines(captions: Tensor, images: Tensor) -> list[list[float]]:
    def unit(row: list[float]) -> list[float]:
        norm = math.sqrt(sum(x * x for x in row))
        return [x / norm for x in row]

    units = [unit(row) for row in images.double().tolist()]
    return [[sum(a * b for a, b in zip(unit(c), i, strict=True)) for i in units] for c in captions.double().tolist()]


def rank_one(scores: list[float], positive: list[bool]) -> tuple[int, int, int, int]:
    """rank, rank if ties are lost, if won, first best foreign item, by a loop over all items."""
    best = max(s for s, p in zip(scores, positive, strict=True) if p)
    first = next(j for j, s in enumerate(scores) if positive[j] and s == best)
    foreign = [j for j, p in enumerate(positive) if not p]
    above = sum(scores[j] > best for j in foreign)
    equal = [j for j in foreign if scores[j] == best]
    top = min(foreign, key=lambda j: (-scores[j], j)) if foreign else -1
    return 1 + above + sum(j < first for j in equal), 1 + above + len(equal), 1 + above, top


@given(
    seed=st.integers(0, 10**6),
    n_images=st.integers(1, 7),
    extra=st.integers(0, 12),
    n_texts=st.integers(1, 12),
    positives=st.sampled_from(["own", "same_text"]),
    block=st.sampled_from([1, 3, 2048]),
)
@settings(max_examples=150, deadline=None)
def test_cosine_ranks(seed: int, n_images: int, extra: int, n_texts: int, positives: str, block: int) -> None:
    g = torch.Generator().manual_seed(seed)
    n = n_images + extra
    owner = torch.cat([torch.arange(n_images), torch.randint(0, n_images, (extra,), generator=g)])
    owner = owner[torch.randperm(n, generator=g)]  # owners need not ascend
    text = torch.randint(0, n_texts, (n,), generator=g)
    images, texts = exact_rows(n_images, g), exact_rows(n_texts, g)
    ranks = rank_retrieval(images, texts, owner, unique_texts=text, positives=positives, block=block)  # type: ignore[arg-type]

    s = cosines(texts[text], images)
    own, string = owner.tolist(), text.tolist()
    images_of = [{own[c] for c in range(n) if string[c] == u} for u in range(n_texts)]
    right = [
        [i in images_of[string[c]] if positives == "same_text" else i == own[c] for i in range(n_images)]
        for c in range(n)
    ]
    t2i = [ranks.t2i_rank_T, ranks.t2i_rank_lo_T, ranks.t2i_rank_hi_T, ranks.t2i_foreign_T]
    i2t = [ranks.i2t_rank_I, ranks.i2t_rank_lo_I, ranks.i2t_rank_hi_I, ranks.i2t_foreign_I]
    for c in range(n):
        assert tuple(int(x[c]) for x in t2i) == rank_one(s[c], right[c])
    for i in range(n_images):
        column, mask = [row[i] for row in s], [row[i] for row in right]
        assert tuple(int(x[i]) for x in i2t) == rank_one(column, mask)
        assert float(ranks.i2t_score_I[i]) == max(x for x, m in zip(column, mask, strict=True) if m)
        top = int(ranks.i2t_foreign_I[i])
        assert float(ranks.i2t_foreign_score_I[i]) == (column[top] if top >= 0 else -math.inf)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("block", [1, 13, 2048])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_dual_softmax_ranks(scale: float, block: int, repeats: bool) -> None:
    g = torch.Generator().manual_seed(7)
    images, owner = torch.randn(12, WIDTH, generator=g), torch.arange(12).repeat_interleave(4)
    captions = 0.4 * images[owner] + torch.randn(48, WIDTH, generator=g)
    if repeats:
        captions[[5, 30, 47]], images[11] = captions[2].clone(), images[4].clone()
    ranks = rank_retrieval(images, captions, owner, score="dual_softmax", scale=scale, block=block)

    s = cosines(captions, images)
    over_captions = [sum(math.exp(scale * s[c][i]) for c in range(48)) for i in range(12)]
    over_images = [sum(math.exp(scale * s[c][i]) for i in range(12)) for c in range(48)]
    for c in range(48):
        row = [s[c][i] * math.exp(scale * s[c][i]) / over_captions[i] for i in range(12)]
        assert float(ranks.t2i_score_T[c]) == pytest.approx(row[owner[c]], rel=1e-4, abs=1e-7)
        assert int(ranks.t2i_rank_T[c]) == rank_one(row, [i == owner[c] for i in range(12)])[0]
    for i in range(12):
        column = [s[c][i] * math.exp(scale * s[c][i]) / over_images[c] for c in range(48)]
        assert int(ranks.i2t_rank_I[i]) == rank_one(column, [own == i for own in owner.tolist()])[0]
    plain = rank_retrieval(images, captions, owner, block=block)
    assert not torch.equal(plain.t2i_rank_T, ranks.t2i_rank_T)
