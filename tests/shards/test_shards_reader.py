"""The reader: every sample as written, from threads and processes, and clear errors for files that changed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from shard_world import DEPTH, REGIONS, Known, World, known, plain_tar, triple, write_shard, write_world

from mtv.errors import DataError, UsageError
from mtv.shards import RegionShardWriter, ShardDataset, ShardSample, build_dataset, decode_disparity, verify_dataset

BOTH = (DEPTH, REGIONS)


def check(sample: ShardSample, s: Known) -> None:
    assert (sample.key, sample.image, sample.captions) == (s.key, s.jpeg, tuple(s.captions))
    assert (sample.w, sample.h) == s.size
    assert sample.regions == (None if s.regions is None else tuple(s.regions))
    if s.disparity_HW is None or np.ptp(s.disparity_HW) == 0:
        assert sample.disparity is None
    else:
        d = sample.disparity
        assert d is not None
        assert d.valid
        np.testing.assert_allclose(
            decode_disparity(d.png, d.min, d.max), s.disparity_HW, atol=(d.max - d.min) / 8190 + 1e-6
        )


def test_samples_come_back_as_written_in_any_order(corpus: World) -> None:
    data = ShardDataset.open(corpus.root, labels=BOTH)
    assert len(data) == len(corpus.samples) == 20
    for i in np.random.default_rng(0).permutation(20).tolist():
        assert data.key(i) == corpus.samples[i].key
        check(data.sample(i), corpus.samples[i])
    assert [(s.name, s.start, s.stop) for s in data.shards] == [("00000", 0, 7), ("00001", 7, 8), ("00002", 8, 20)]
    kinds = [(s.regions is None, s.regions == (), s.disparity is None) for s in map(data.sample, range(20))]
    assert len(set(kinds)) >= 4  # labelled, unlabelled, and labelled as empty all occur


@pytest.mark.parametrize("i", [-1, 20, 10**9])
def test_indices_outside_are_refused(corpus: World, i: int) -> None:
    data = ShardDataset.open(corpus.root)
    for read in (data.key, data.sample):
        with pytest.raises(IndexError, match=f"sample {i} of 20"):
            read(i)


def test_labels_that_are_not_opened_are_none(corpus: World) -> None:
    data = ShardDataset.open(str(corpus.root))
    assert all(s.regions is None and s.disparity is None for s in map(data.sample, range(20)))
    assert [s.disparity is None for s in map(ShardDataset.open(corpus.root, labels=[DEPTH]).sample, range(4))] == [
        False, False, True, True,
    ]  # fmt: skip


def test_content_hash_depends_on_the_opened_sources(corpus: World) -> None:
    hashes = [ShardDataset.open(corpus.root, labels=x).content_hash for x in ((), BOTH, [DEPTH], [REGIONS])]
    assert len(set(hashes)) == 4
    with RegionShardWriter(corpus.root, "00001", labels=REGIONS) as w:
        w.add(corpus.shards["00001"][0].key, [])
    build_dataset(corpus.root)
    again = [ShardDataset.open(corpus.root, labels=x).content_hash for x in ((), BOTH, [DEPTH], [REGIONS])]
    assert [a == b for a, b in zip(hashes, again, strict=True)] == [True, False, True, False]


def test_wrong_label_sets_are_refused(corpus: World) -> None:
    with pytest.raises(UsageError, match="did you mean depth-truth-v1"):
        ShardDataset.open(corpus.root, labels=["depth-truth"])
    with pytest.raises(UsageError, match="at most one depth"):
        ShardDataset.open(corpus.root, labels=[DEPTH, DEPTH])
    with pytest.raises(UsageError, match="neither depth-NAME"):
        ShardDataset.open(corpus.root, labels=["masks-x"])
    with pytest.raises(DataError, match=r"dataset\.json does not exist"):
        ShardDataset.open(corpus.root / "images")


def test_a_shard_that_was_never_labelled_is_an_error(corpus: World) -> None:
    (corpus.root / f"labels/{REGIONS}/00001.tar").unlink()
    build_dataset(corpus.root)
    ShardDataset.open(corpus.root, labels=[DEPTH])
    with pytest.raises(DataError, match=rf"{REGIONS}/00001\.tar is missing from the index \(1 of 3 shards\)"):
        ShardDataset.open(corpus.root, labels=BOTH)
    with RegionShardWriter(corpus.root, "00001", labels=REGIONS):
        pass
    build_dataset(corpus.root)
    assert ShardDataset.open(corpus.root, labels=BOTH).sample(7).regions is None


def test_threads_agree(corpus: World) -> None:
    data = ShardDataset.open(corpus.root, labels=BOTH)
    order = np.random.default_rng(0).integers(0, 20, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        for i, sample in zip(order, pool.map(data.sample, order), strict=True):
            assert sample.key == corpus.samples[i].key
            assert sample.image == corpus.samples[i].jpeg


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_processes_agree(corpus: World, method: str) -> None:
    data = ShardDataset.open(corpus.root, labels=BOTH)
    data.sample(3)  # the parent has open files
    with multiprocessing.get_context(method).Pool(2) as pool:
        for sample, s in zip(pool.map(data.sample, range(20), chunksize=1), corpus.samples, strict=True):
            check(sample, s)
    check(data.sample(3), corpus.samples[3])


def test_a_fork_while_a_thread_holds_the_lock_does_not_hang(corpus: World) -> None:
    data = ShardDataset.open(corpus.root, labels=BOTH)
    data.sample(0)
    with data._tars._lock, data._indexes._lock:
        child = multiprocessing.get_context("fork").Process(target=data.sample, args=(0,))
        child.start()
        child.join(20)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0


def test_pickles_are_small_and_work(corpus: World) -> None:
    data = ShardDataset.open(corpus.root, labels=BOTH)
    data.sample(0)
    again = pickle.loads(pickle.dumps(data))
    check(again.sample(12), corpus.samples[12])
    assert again.content_hash == data.content_hash


def test_open_files_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtv.shards.reader.MAX_OPEN_TARS", 4)
    monkeypatch.setattr("mtv.shards.reader.MAX_OPEN_INDEXES", 2)
    world = write_world(tmp_path, shards=[1] * 15)
    data = ShardDataset.open(tmp_path, labels=BOTH)
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(4) as pool:
        for i in range(5):
            order = np.random.default_rng(i).permutation(15).tolist()
            for j, sample in zip(order, pool.map(data.sample, order), strict=True):
                check(sample, world.samples[j])
    assert len(os.listdir("/proc/self/fd")) - before == 4
    del data
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_truncated_tar_is_named(corpus: World) -> None:
    tar = corpus.root / "images/00002.tar"
    tar.write_bytes(tar.read_bytes()[:-10240])
    data = ShardDataset.open(corpus.root)
    check_images = data.sample(0)
    assert check_images.key == corpus.samples[0].key
    with pytest.raises(DataError, match=r"images/00002\.tar is truncated"):
        data.sample(8)


def test_a_truncation_under_an_open_reader_is_named(corpus: World) -> None:
    data = ShardDataset.open(corpus.root)
    data.sample(8)
    os.truncate(corpus.root / "images/00002.tar", 2000)
    with pytest.raises(DataError, match=rf"images/00002\.tar: key '{corpus.samples[19].key}': cannot be read"):
        data.sample(19)


def test_a_missing_tar_is_named(corpus: World) -> None:
    (corpus.root / f"labels/{DEPTH}/00000.tar").unlink()
    with pytest.raises(DataError, match=rf"labels/{DEPTH}/00000\.tar: cannot be read \(No such file"):
        ShardDataset.open(corpus.root, labels=BOTH).sample(0)


def test_a_tar_that_is_newer_than_its_index_is_refused(corpus: World) -> None:
    """Another score of as many digits: names, sizes and offsets stay equal, only the time tells."""
    tar = corpus.root / f"labels/{REGIONS}/00000.tar"
    data = tar.read_bytes()
    assert data.count(b'"score":0.5') > 0
    tar.write_bytes(data.replace(b'"score":0.5', b'"score":0.9'))
    with pytest.raises(DataError, match=rf"{REGIONS}/00000\.tar was changed .*its index is older"):
        ShardDataset.open(corpus.root, labels=BOTH).sample(0)
    ShardDataset.open(corpus.root, labels=[DEPTH]).sample(0)
    build_dataset(corpus.root)
    regions = ShardDataset.open(corpus.root, labels=BOTH).sample(0).regions
    assert regions is not None
    assert regions[0].score == 0.9


def test_times_cut_to_seconds_by_a_copy_are_accepted(corpus: World) -> None:
    for tar in corpus.root.rglob("*.tar"):
        seconds = int(tar.stat().st_mtime)
        os.utime(tar, (seconds, seconds))
    check(ShardDataset.open(corpus.root, labels=BOTH).sample(0), corpus.samples[0])
    assert list(verify_dataset(corpus.root)) == []
    os.utime(corpus.root / "images/00000.tar", (0, 0))  # whole seconds, but others
    with pytest.raises(DataError, match="older than the file"):
        ShardDataset.open(corpus.root).sample(0)


def test_an_index_that_dataset_json_does_not_know_is_refused(corpus: World) -> None:
    for index in (corpus.root / "index").iterdir():
        index.write_bytes(index.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"00000\.idx: is not the index that dataset\.json was written with"):
        ShardDataset.open(corpus.root).sample(0)


def test_bad_members_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [*triple(rng, "good"), ("image.jpg", b"no jpeg"), ("text.jpg", b"J"), ("text.txt", b"\xff\xfe")]
    files += [("record.jpg", b"J"), ("record.json", b"[1]"), ("caption.jpg", b"J"), ("caption.json", b'{"caption": 5}')]
    plain_tar(tmp_path / "images/00000.tar", files)
    regions = [("good.json", b'[{"box": [0, 0, 2, 1], "name": "a", "score": 1}]'), ("image.json", b"{}")]
    plain_tar(tmp_path / "labels/regions-x/00000.tar", regions)
    build_dataset(tmp_path)
    data = ShardDataset.open(tmp_path)
    for i, why in ((1, "image cannot be read"), (2, "UnicodeDecodeError"), (3, "JSON is a list"), (4, "TypeError")):
        with pytest.raises(DataError, match=rf"images/00000\.tar: key '{data.key(i)}': .*{why}"):
            data.sample(i)
    with pytest.raises(DataError, match=r"labels/regions-x/00000\.tar: key 'good': box .* is not 0 <= x0"):
        ShardDataset.open(tmp_path, labels=["regions-x"]).sample(0)
    problems = {(p.file.parent.name, p.key) for p in verify_dataset(tmp_path, full=True)}
    assert problems == {("images", k) for k in ("image", "text", "record", "caption")} | {
        ("regions-x", "good"),
        ("regions-x", "image"),
    }


def test_a_sound_corpus_has_no_problems(corpus: World) -> None:
    data = ShardDataset.open(corpus.root, labels=BOTH)
    assert list(data.verify()) == []
    assert list(data.verify(full=True)) == []


def test_verify_names_what_is_wrong(corpus: World) -> None:
    root = corpus.root
    data = ShardDataset.open(root, labels=BOTH)
    victim = corpus.shards["00002"][5]
    tar = root / "images/00002.tar"
    time = tar.stat().st_mtime_ns
    with tar.open("r+b") as f:
        f.seek(tar.read_bytes().index(victim.jpeg) + len(victim.jpeg) // 2)
        f.write(b"!")
    os.utime(tar, ns=(time, time))
    assert list(data.verify()) == []  # a flipped byte under the old time needs the full check
    [whole, sample] = data.verify(full=True)
    assert (whole.file, whole.key) == (tar, None)
    assert "SHA-256 differs" in whole.message
    assert (sample.file, sample.key) == (tar, victim.key)
    assert str(sample) == f"{tar}: key {victim.key!r}: the image is not the one whose SHA-256 stands in its .json"


def test_quick_verify_finds_every_kind_of_change(corpus: World) -> None:
    root = corpus.root
    (root / f"labels/{DEPTH}/00000.tar").unlink()
    os.utime(root / f"labels/{DEPTH}/00001.meta.jsonl")
    os.truncate(root / "images/00001.tar", 512)
    (root / "index/00002.idx").write_bytes(b"")
    (root / f"labels/{REGIONS}/manifest.json").unlink()
    write_shard(root, "00003", [known(np.random.default_rng(5), "new", 0)])
    found = {str(p.file.relative_to(root)): p.message for p in verify_dataset(root)}
    assert "No such file" in found.pop(f"labels/{DEPTH}/00000.tar")
    assert "older than the file" in found.pop(f"labels/{DEPTH}/00001.meta.jsonl")
    assert "truncated" in found.pop("images/00001.tar")
    assert "not the index" in found.pop("index/00002.idx")
    assert "not the manifest" in found.pop(f"labels/{REGIONS}/manifest.json")
    for folder in ("images", f"labels/{DEPTH}", f"labels/{REGIONS}"):
        assert "not in the index" in found.pop(f"{folder}/00003.tar")
    assert found == {}
    (root / "dataset.json").write_text("{")
    assert [p.file.name for p in verify_dataset(root)] == ["dataset.json"]


def test_our_json_is_checked_against_the_image(tmp_path: Path) -> None:
    [(name, image), *_] = triple(np.random.default_rng(0), "a")
    digest = hashlib.sha256(image).hexdigest()
    record = f'{{"captions":["x"],"h":99,"sha256":"{digest}","w":20}}'.encode()
    plain_tar(tmp_path / "images/00000.tar", [(name, image), ("a.json", record)])
    build_dataset(tmp_path)
    [problem] = verify_dataset(tmp_path, full=True)
    assert problem.message == "the image is (20, 14), its .json says (20, 99)"


def test_the_package_is_light() -> None:
    code = "import mtv.shards, sys; assert not {'torch', 'pandas', 'scipy', 'pyarrow'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
