"""Damaged samples of every kind: named, counted, replaced by the same substitute everywhere, and in the end refused."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_world import ByteTokenizer, Sample, encode, write_corpus

from mtv.errors import DataError
from mtv.shards import ShardDataset, StaleIndexError
from mtv.train.data.batch import Needs
from mtv.train.data.loader import Loader
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.data.survey import bad_samples

VIEWS = ViewOptions(min_side_px=1)
NEEDS = Needs(regions=True, depth=True)


def loader(dataset: ShardDataset, *, max_bad: int = 5, workers: int = 0, **more: Any) -> Loader:
    data = DataOptions(canvas=48, depth_canvas=48, workers=workers, block_shards=4, max_bad=max_bad)
    fields = {"image_size": 32, "patch_size": 8, "seed": 0, "tokenizer": ByteTokenizer(), "global_batch": 8} | more
    return Loader(dataset, data=data, views=VIEWS, needs=NEEDS, **fields)


def keys(made: Loader, samples: int = 32) -> list[str]:
    return [key for batch, _ in made.batches(stop=samples) for key in batch.keys]


def truncated(s: Sample) -> None:
    s.image = s.image[: len(s.image) // 2]


def one_pixel(s: Sample) -> None:
    s.image = encode(np.zeros((1, 1, 3), np.uint8))


def no_caption(s: Sample) -> None:
    s.captions = []


def wrong_depth(s: Sample) -> None:
    assert s.disparity_HW is not None
    s.disparity_HW = np.tile(s.disparity_HW, (1, 2))


KINDS: dict[str, tuple[Callable[[Sample], None], str]] = {
    "truncated": (truncated, "the image cannot be decoded .*truncated"),
    "one pixel": (one_pixel, "the image is 1 x 1 pixels; at least 8 are needed"),
    "no caption": (no_caption, "there is no caption"),
    "depth": (wrong_depth, "the depth label is .* other aspect"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_sample_is_named_once_and_replaced(
    data_corpus: ShardDataset, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, message = KINDS[kind]
    sound = keys(loader(data_corpus), samples=96)
    corpus = write_corpus(tmp_path, change=lambda n, s: damage(s) if n == 9 else None)
    made = loader(corpus)
    with caplog.at_level(logging.WARNING):
        found = keys(made, samples=96)
    assert list(made.bad) == [9]
    assert re.search(rf"shard 00001: key 's00009': {message}", made.bad[9])
    assert len([r for r in caplog.records if "s00009" in r.getMessage()]) == 1
    # Every other place is as before; the three of the bad sample hold sound ones that are not in their batch already.
    changed = [i for i, (a, b) in enumerate(zip(sound, found, strict=True)) if a != b]
    assert [sound[i] for i in changed] == ["s00009"] * 3
    assert "s00009" not in found
    for i in changed:
        assert found[i // 8 * 8 : i // 8 * 8 + 8].count(found[i]) == 1
    assert [p.key for p in bad_samples(corpus, DataOptions())] == ["s00009"]


def test_substitutes_are_the_same_for_every_split_and_worker(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, change=lambda n, s: truncated(s) if n in (3, 17) else None)
    one = keys(loader(corpus))
    assert one == keys(loader(corpus, workers=2))
    ranks = [list(loader(corpus, rank=r, world=2).batches(stop=32)) for r in range(2)]
    assert one == [k for step in range(4) for r in range(2) for k in ranks[r][step][0].keys]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_end_the_run_with_one_error(tmp_path: Path, workers: int) -> None:
    corpus = write_corpus(tmp_path, change=lambda n, s: no_caption(s) if n % 4 == 1 else None)
    with pytest.raises(DataError, match=r"4 samples cannot be used, data.max_bad allows 3; the last: .*no caption"):
        keys(loader(corpus, max_bad=3, workers=workers))
    made = loader(corpus, max_bad=8, workers=workers)
    assert len(keys(made)) == 32
    assert sorted(made.bad) == [1, 5, 9, 13, 17, 21, 25, 29]


def test_a_corpus_without_any_sound_sample_is_an_error_at_once(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, shards=(4,), change=lambda n, s: one_pixel(s))
    with pytest.raises(DataError, match="no sample of block 0 can be used"):
        keys(loader(corpus, max_bad=100))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_copied_corpus_is_to_be_indexed_again_and_not_skipped(tmp_path: Path, workers: int) -> None:
    """`cp -r` gives files new times: every sample is sound, so none may count as bad."""
    corpus = write_corpus(tmp_path)
    for tar in corpus.root.rglob("*.tar"):
        os.utime(tar, ns=(1, 1_700_000_000_123_456_789))
    with pytest.raises(StaleIndexError, match=r"its index is older than the file\n.*mtv-train data index"):
        keys(loader(corpus, max_bad=100, workers=workers))


def test_a_damaged_tar_counts_its_samples(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path)
    tar = corpus.root / "images" / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:4096])
    made = loader(corpus)
    assert len(keys(made)) == 32
    assert sorted(made.bad) == [7, 8, 9, 10, 11]
    assert all("00001.tar" in message for message in made.bad.values())


def test_missing_labels_are_masked_and_no_regions_are_legal(tmp_path: Path) -> None:
    def change(n: int, s: Sample) -> None:
        if n % 4 == 0:
            s.disparity_HW = None
        if n % 4 == 1:
            s.disparity_HW = np.full((30, 30), 2.0, np.float32)  # constant: no depth, whatever its shape
        if n % 4 == 2:
            s.regions = None
        if n % 4 == 3:
            s.regions = []

    made = loader(write_corpus(tmp_path, change=change))
    seen = []
    for batch, _ in made.batches(stop=32):
        assert batch.depth_valid_B is not None
        assert batch.depth_BHW is not None
        assert batch.region_valid_BR is not None
        number = torch.tensor([int(k[1:]) for k in batch.keys])
        assert torch.equal(batch.depth_valid_B, number % 4 >= 2)
        assert torch.equal(batch.depth_BHW.abs().amax(dim=(1, 2)) > 0, batch.depth_valid_B)
        assert torch.equal(batch.region_valid_BR.any(dim=1), number % 4 < 2)
        seen += number.tolist()
    assert sorted(seen) == list(range(32))
    assert not made.bad


def test_a_batch_without_any_region_has_empty_slots(tmp_path: Path) -> None:
    def change(n: int, s: Sample) -> None:
        s.regions = []

    batch, _ = next(iter(loader(write_corpus(tmp_path, change=change)).batches()))
    assert batch.region_valid_BR is not None
    assert batch.region_text_BRT is not None
    assert batch.region_name_BR is not None
    assert not batch.region_valid_BR.any()
    assert batch.region_text_BRT.shape == (8, 4, 24)
    assert (batch.region_name_BR == 0).all()
