"""`data check` on pretraining shards: sound ones are labelled, damaged ones are named."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mtv.errors import DataError
from mtv.eval.datasets.registry import check_dataset, open_dataset
from mtv.shards import ShardDataset


@pytest.fixture
def corpus(mini_world: Path, tmp_path: Path) -> Path:
    """A copy with the same times, so that its index still fits."""
    shutil.copytree(mini_world / "pretrain", tmp_path / "data" / "pretrain", copy_function=shutil.copy2)
    return tmp_path / "data"


def test_a_sound_corpus_is_usable_and_its_pictures_are_the_samples(corpus: Path) -> None:
    dataset = open_dataset("pretrain", corpus)
    shards = ShardDataset.open(corpus / "pretrain")
    assert dataset.report.verdict == "ok-but"
    assert dataset.report.label == f"{len(shards)} samples"
    assert list(dataset.images) == [shards.key(i) for i in range(len(shards))]
    for i, ref in enumerate(dataset.images.values()):
        assert ref.read() == shards.sample(i).image
        assert Image.open(io.BytesIO(ref.read())).size == (shards.sample(i).w, shards.sample(i).h)


@pytest.mark.parametrize("name", ["images/00000.tar", "labels/regions-mini-v1/00000.tar", "index/00000.idx"])
def test_a_deleted_or_cut_file_is_named(corpus: Path, name: str) -> None:
    path = corpus / "pretrain" / name
    path.write_bytes(path.read_bytes()[:-2000])
    report = check_dataset("pretrain", corpus)
    assert report.verdict == "wrong"
    assert any(Path(name).name in p for p in report.problems)
    path.unlink()
    report = check_dataset("pretrain", corpus)
    assert report.verdict == "wrong"
    assert any(Path(name).name in p for p in report.problems)
    with pytest.raises(DataError, match="pretrain"):
        open_dataset("pretrain", corpus)


def test_changed_bytes_are_found_by_the_full_check(corpus: Path, tmp_path: Path) -> None:
    """Same size, same time: only the hashes of the world's manifest tell."""
    tar = corpus / "pretrain" / "images" / "00000.tar"
    stamp = tar.stat()
    data = bytearray(tar.read_bytes())
    data[len(data) // 3] ^= 0xFF
    tar.write_bytes(bytes(data))
    os.utime(tar, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    report = check_dataset("pretrain", corpus, full=True, cache=tmp_path / "cache", workers=1)
    assert report.verdict == "wrong"
    assert any("00000.tar" in p for p in report.problems)


def test_nothing_there(tmp_path: Path) -> None:
    report = check_dataset("pretrain", tmp_path)
    assert report.verdict == "missing"
    assert "dataset.json" in report.repair
