"""Retrieval: R1 to R5 and R7 of the protocol page, by hand-made answers and invariances."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import DataError, NumericalError, UsageError
from mtv.probes.retrieval import RetrievalRanks, rank_retrieval, recall_summary
from mtv.probes.score_blocks import Block, ScoreBlocks


def captions_with(scores: list[tuple[float, float]]) -> Tensor:
    """Unit captions with the given cosines to the first two axes."""
    return torch.tensor([[a, b, math.sqrt(1 - a * a - b * b)] for a, b in scores])


TWO_IMAGES = torch.eye(3)[:2]


def fields(ranks: RetrievalRanks, *names: str) -> list[list[float]]:
    return [getattr(ranks, name).tolist() for name in names]


def related(n_images: int, per_image: list[int], width: int, seed: int, signal: float) -> tuple[Tensor, Tensor, Tensor]:
    """Random images and captions that lean towards their image."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n_images, width, generator=g)
    owner = torch.tensor([i for i in range(n_images) for _ in range(per_image[i % len(per_image)])])
    return images, signal * images[owner] + torch.randn(len(owner), width, generator=g), owner


def test_r1_any_own_caption_counts_for_image_queries() -> None:
    captions = captions_with([(0.9, 0.1), (0.3, 0.4), (0.2, 0.8), (0.6, 0.5)])
    summary = recall_summary(rank_retrieval(TWO_IMAGES, captions, torch.tensor([0, 0, 1, 1])))
    assert (summary["t2i_r1"], summary["i2t_r1"]) == (50.0, 100.0)
    assert (summary["t2i_medr"], summary["i2t_medr"]) == (1.5, 1.0)
    assert summary["rsum"] == 50 + 100 + 100 + 300


def test_r2_tied_images() -> None:
    ranks = rank_retrieval(TWO_IMAGES, captions_with([(0.5, 0.5), (0.5, 0.5)]), torch.tensor([1, 0]))
    assert ranks.t2i_rank_T.tolist() == [2, 1]
    assert recall_summary(ranks)["ties"]["t2i_r1"] == (2, 0.0, 100.0)
    assert ranks.t2i_foreign_T.tolist() == [0, 1]


@pytest.mark.parametrize("block", [1, 2, 2048])
@pytest.mark.parametrize("unique", [False, True])
def test_r3_identical_caption_on_two_images(unique: bool, block: int) -> None:
    rows, text = captions_with([(0.6, 0.6), (0.1, 0.2), (0.2, 0.1)]), torch.tensor([0, 1, 0, 2])
    owner = torch.tensor([0, 0, 1, 1])
    captions, kwargs = (rows, {"unique_texts": text}) if unique else (rows[text], {})
    ranks = rank_retrieval(TWO_IMAGES, captions, owner, block=block, **kwargs)
    assert ranks.i2t_rank_I.tolist() == [1, 2]
    assert recall_summary(ranks)["ties"]["i2t_r1"] == (2, 0.0, 100.0)
    assert ranks.i2t_foreign_I.tolist() == [2, 0]
    same = rank_retrieval(TWO_IMAGES, rows, owner, unique_texts=text, positives="same_text", block=block)
    assert same.i2t_rank_I.tolist() == [1, 1]
    assert same.t2i_rank_T.tolist()[0::2] == [1, 1]
    assert same.t2i_foreign_T.tolist()[0::2] == [-1, -1]
    assert recall_summary(same)["ties"]["i2t_r1"] == (0, 100.0, 100.0)


def test_r4_uneven_captions_any_block_any_order() -> None:
    images, captions, owner = related(3, [5, 6, 7], 24, seed=0, signal=0.3)
    names = ("t2i_rank_T", "i2t_rank_I", "t2i_foreign_T", "i2t_rank_lo_I", "i2t_rank_hi_I", "t2i_rank_lo_T")
    expected = fields(rank_retrieval(images, captions, owner), *names)
    assert [len(column) for column in expected[:2]] == [18, 3]
    for block in (1, 7, 2048):
        assert fields(rank_retrieval(images, captions, owner, block=block), *names) == expected
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    shuffled = rank_retrieval(images, captions[order], owner[order], block=7)
    assert torch.equal(shuffled.t2i_rank_T, torch.tensor(expected[0], dtype=torch.int32)[order])
    assert shuffled.i2t_rank_I.tolist() == expected[1]


def test_r5_against_fp64_loop_200_by_1000() -> None:
    images, captions, owner = related(200, [5], 64, seed=0, signal=0.3)
    unit_images = F.normalize(images.double(), dim=1)
    scores = (F.normalize(captions.double(), dim=1) @ unit_images.T).tolist()
    own = owner.tolist()
    ranks = rank_retrieval(images, captions, owner, block=300)
    compared = 0
    for c in range(1000):
        gaps = [scores[c][i] - scores[c][own[c]] for i in range(200) if i != own[c]]
        if min(abs(x) for x in gaps) > 1e-6:
            assert int(ranks.t2i_rank_T[c]) == 1 + sum(x > 0 for x in gaps)
            compared += 1
    for i in range(200):
        best = max(scores[c][i] for c in range(1000) if own[c] == i)
        gaps = [scores[c][i] - best for c in range(1000) if own[c] != i]
        if min(abs(x) for x in gaps) > 1e-6:
            assert int(ranks.i2t_rank_I[i]) == 1 + sum(x > 0 for x in gaps)
            compared += 1
    assert compared > 1150
    assert 20 < recall_summary(ranks)["t2i_r1"] < 90


def test_r5_no_positive_falls_behind_itself() -> None:
    # Recomputed outside the product, two of five such positives would lose to themselves.
    images, captions, owner = related(1000, [5, 6], 512, seed=1, signal=1.0)
    ranks = rank_retrieval(images, captions, owner)
    assert ranks.t2i_rank_T.tolist() == [1] * len(owner)
    assert ranks.i2t_rank_I.tolist() == [1] * 1000
    assert int((ranks.t2i_rank_lo_T != ranks.t2i_rank_hi_T).sum()) == 0
    assert int((ranks.i2t_rank_lo_I != ranks.i2t_rank_hi_I).sum()) == 0
    assert bool((ranks.t2i_foreign_T != owner).all())
    assert bool((owner[ranks.i2t_foreign_I] != torch.arange(1000)).all())


def test_r7_unique_strings_expanded_score_as_if_encoded_each_time() -> None:
    rows, owner = ["A dog.\n", "A cat.", "A dog.", "Two birds."], torch.tensor([0, 0, 1, 2])
    cleaned = [" ".join(row.split()) for row in rows]
    strings = list(dict.fromkeys(cleaned))
    assert strings == ["A dog.", "A cat.", "Two birds."]
    text = torch.tensor([strings.index(s) for s in cleaned])
    g = torch.Generator().manual_seed(0)
    images, unique = torch.randn(3, 33, generator=g), torch.randn(3, 33, generator=g)
    from_unique = rank_retrieval(images, unique, owner, unique_texts=text)
    from_all = rank_retrieval(images, unique[text], owner)
    names = tuple(from_all.__dataclass_fields__)
    assert fields(from_unique, *names) == fields(from_all, *names)


@pytest.mark.parametrize("block", [1, 37, 2048])
def test_repeated_texts_and_pictures_tie_exactly_wherever_they_stand(block: int) -> None:
    images, captions, owner = related(301, [5], 67, seed=5, signal=0.2)
    images[300], captions[1500] = images[3], captions[11]  # the last rows fall into the remainder of every tiling
    ranks = rank_retrieval(images, captions, owner, block=block)
    assert bool((ranks.t2i_rank_lo_T[owner == 300] == ranks.t2i_rank_hi_T[owner == 300] + 1).all())
    assert bool((ranks.t2i_rank_T[owner == 3] == ranks.t2i_rank_hi_T[owner == 3]).all())
    assert bool((ranks.t2i_rank_T[owner == 300] == ranks.t2i_rank_lo_T[owner == 300]).all())
    assert (
        int(
            (
                ranks.t2i_rank_lo_T[(owner != 300) & (owner != 3)] != ranks.t2i_rank_hi_T[(owner != 300) & (owner != 3)]
            ).sum()
        )
        == 0
    )


def test_constant_features_tie_everywhere() -> None:
    ranks = rank_retrieval(torch.ones(50, 19), torch.ones(150, 19), torch.arange(50).repeat_interleave(3), block=64)
    assert ranks.t2i_rank_T.tolist() == [1 + i for i in range(50) for _ in range(3)]
    assert ranks.i2t_rank_I.tolist() == [1 + 3 * i for i in range(50)]
    assert set(ranks.t2i_rank_lo_T.tolist()) == {50}
    assert set(ranks.i2t_rank_lo_I.tolist()) == {148}
    assert set(ranks.t2i_rank_hi_T.tolist() + ranks.i2t_rank_hi_I.tolist()) == {1}
    assert recall_summary(ranks)["ties"]["i2t_r1"] == (50, 0.0, 100.0)


def test_row_factors_dtype_and_flags_change_nothing() -> None:
    images, captions, owner = related(100, [5], 32, seed=2, signal=0.5)
    ranks = rank_retrieval(images, captions, owner)
    factors = torch.tensor([0.25, 8.0]).repeat(50)[:, None]  # powers of two: the same bits
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = rank_retrieval((images * factors).double(), captions * factors.repeat(5, 1), owner)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    names = tuple(ranks.__dataclass_fields__)
    assert fields(again, *names) == fields(ranks, *names)


def test_a_second_pass_with_other_bits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original, passes = ScoreBlocks.__iter__, []

    def unstable(self: ScoreBlocks) -> Iterator[Block]:
        passes.append(None)
        for block in original(self):
            if len(passes) == 2:
                block.t2i_PI.mul_(1 + 2**-23)
            yield block

    monkeypatch.setattr(ScoreBlocks, "__iter__", unstable)
    with pytest.raises(NumericalError, match="came out differently twice"):
        rank_retrieval(*related(4, [2], 8, seed=0, signal=1.0))


def test_bad_input_is_named() -> None:
    images, captions = torch.eye(3), torch.eye(3)[[0, 1, 2, 2]]
    owner = torch.tensor([0, 1, 2, 2])
    with pytest.raises(DataError, match="image 'b' has no caption"):
        rank_retrieval(images, captions, torch.tensor([0, 0, 2, 2]), image_ids=list("abc"))
    with pytest.raises(DataError, match="caption 3 belongs to image 3, but there are 3"):
        rank_retrieval(images, captions, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(UsageError, match="one owner per caption"):
        rank_retrieval(images, captions, owner[:3])
    with pytest.raises(UsageError, match="one width"):
        rank_retrieval(images, torch.ones(4, 2), owner)
    with pytest.raises(UsageError, match="needs unique_texts"):
        rank_retrieval(images, captions, owner, positives="same_text")
    with pytest.raises(UsageError, match="run from 0 to 4"):
        rank_retrieval(images, captions, owner, unique_texts=torch.tensor([0, 1, 2, 4]))
    with pytest.raises(UsageError, match="dual_softmax needs a scale"):
        rank_retrieval(images, captions, owner, score="dual_softmax")
    with pytest.raises(UsageError, match="cosine none"):
        rank_retrieval(images, captions, owner, scale=1.0)
    with pytest.raises(UsageError, match="block=0"):
        rank_retrieval(images, captions, owner, block=0)
    captions[2, 0] = float("inf")
    with pytest.raises(NumericalError, match="caption features of sample 'c2'"):
        rank_retrieval(images, captions, owner, caption_ids=["c0", "c1", "c2", "c3"])
