"""The index: where `tarfile` says every member is, joined by key; what would pair wrong things is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_world import DEPTH, REGIONS, World, members, plain_tar, triple, write_shard, write_world

from mtv.errors import DataError
from mtv.shards import DepthShardWriter, build_dataset, encode_disparity, read_dataset
from mtv.shards import index as index_module
from mtv.shards.dataset import read_index
from mtv.shards.index import build_index
from mtv.shards.index_file import decode_index, encode_index

IDX = Path("00000.idx")


def test_every_member_lies_where_tarfile_says(corpus: World) -> None:
    for entry in read_dataset(corpus.root).shards:
        index = read_index(corpus.root, entry)
        assert list(index.keys) == [s.key for s in corpus.shards[entry.name]]
        assert [index.keys[i] for i in range(len(index.keys))] == list(index.keys)
        assert list(index.sources) == ["images", f"labels/{DEPTH}", f"labels/{REGIONS}"]
        for name, source in index.sources.items():
            tar = corpus.root / name / f"{entry.name}.tar"
            data, contents = tar.read_bytes(), members(tar)
            found = {}
            for ext in source.members:
                for row, key in enumerate(index.keys):
                    if (place := source.place(ext, row)) is not None:
                        found[f"{key}.{ext}"] = data[place[0] : place[0] + place[1]]
            assert found == contents
            assert source.samples == len({n.split(".")[0] for n in contents})


names = st.text(
    st.characters(codec="utf-8", exclude_characters="./", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=120
)
parts = st.dictionaries(st.sampled_from(["txt", "json", "seg.png", "cls"]), st.binary(max_size=1200), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.dictionaries(names, parts, min_size=1, max_size=8),
    folder=st.sampled_from(["", "./", "a/b/"]),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_tar_makes_the_round_trip(
    samples: dict[str, dict[str, bytes]], folder: str, form: int, shuffle: random.Random
) -> None:
    """Members in any order, any name, both forms of long names: read back through the index equals what went in."""
    files = [(f"{folder}{key}.{e}", d) for key, members in samples.items() for e, d in {**members, "jpg": b"J"}.items()]
    shuffle.shuffle(files)
    with tempfile.TemporaryDirectory() as name:
        whole = plain_tar(Path(name) / "images/00000.tar", files, form).read_bytes()
        data = encode_index(build_index(Path(name), "00000", labels=[]))
    index = decode_index(data, path=IDX)
    assert encode_index(index) == data
    contents = {n.removeprefix("./"): d for n, d in files}
    assert list(index.keys) == list(dict.fromkeys(n.split(".")[0] for n in contents))
    images = index.sources["images"]
    places = {f"{k}.{e}": images.place(e, row) for row, k in enumerate(index.keys) for e in images.members}
    assert {n: whole[p[0] : sum(p)] for n, p in places.items() if p is not None} == contents


def test_the_index_is_a_plain_npz(corpus: World) -> None:
    with np.load(corpus.root / "index/00000.idx", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["header", "key_bytes", "key_ends", "members", "ranges"]
        assert arrays["members"].shape == (3 + 1 + 1, 7, 2)
        assert json.loads(arrays["header"].tobytes())["shard"] == "00000"


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    file = io.BytesIO()
    np.savez(file, header=np.array([Evil()], dtype=object))
    for data in (file.getvalue(), pickle.dumps(Evil())):
        with pytest.raises(DataError, match=r"00000\.idx: not a whole shard index"):
            decode_index(data, path=IDX)
    assert not (tmp_path / "pwned").exists()


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 5000), position=st.integers(0, 5000), value=st.integers(0, 255))
def test_a_damaged_index_is_refused_or_equal(cut: int, position: int, value: int) -> None:
    data = small_index()
    broken = bytearray(data)
    broken[position % len(data)] = value
    for candidate in (bytes(broken), data[: cut % len(data)]):
        try:
            index = decode_index(candidate, path=IDX)
        except DataError:
            continue
        assert encode_index(index) == data


_SMALL: list[bytes] = []


def small_index() -> bytes:
    if not _SMALL:
        with tempfile.TemporaryDirectory() as name:
            world = write_world(Path(name), shards=(5,))
            _SMALL.append((world.root / "index/00000.idx").read_bytes())
    return _SMALL[0]


def put_label(root: Path, keys: list[str], labels: str = "regions-x-v1") -> Path:
    return plain_tar(root / f"labels/{labels}/00000.tar", [(f"{k}.json", b"[]") for k in keys])


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (["000000000", "nobody"], "key 'nobody' is not in the image tar"),
        (["000000000", "000000000"], r"key '000000000' has two \.json"),
        (["000000001", "000000000"], "key '000000000' is out of order"),
    ],
)
def test_labels_that_do_not_fit_are_refused(corpus: World, keys: list[str], why: str) -> None:
    put_label(corpus.root, keys)
    with pytest.raises(DataError, match=rf"labels/regions-x-v1/00000\.tar: {why}"):
        build_dataset(corpus.root)


def test_label_tars_hold_one_extension(corpus: World) -> None:
    plain_tar(corpus.root / "labels/depth-x/00000.tar", [("000000000.json", b"[]")])
    (corpus.root / "labels/depth-x/00000.meta.jsonl").touch()
    with pytest.raises(DataError, match=r"depth-x/00000\.tar: key '000000000' has a \.json member"):
        build_dataset(corpus.root)


def test_a_label_shard_without_images_is_refused(corpus: World) -> None:
    (corpus.root / f"labels/{REGIONS}/00001.tar").rename(corpus.root / f"labels/{REGIONS}/00009.tar")
    with pytest.raises(DataError, match=r"00009\.tar: there is no image shard"):
        build_dataset(corpus.root)


def test_other_label_folders_are_left_alone(corpus: World, caplog: pytest.LogCaptureFixture) -> None:
    (corpus.root / "labels/tags-ram-v1").mkdir()
    (corpus.root / "labels/notes.txt").touch()
    assert sorted(build_dataset(corpus.root).labels) == [DEPTH, REGIONS]
    assert "tags-ram-v1 is not indexed" in caplog.text


good = {"key": "000000000", "min": 0.0, "max": 1.0, "valid": True}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (None, "cannot be read"),
        ([], "no range for key '000000000'"),
        ([good, good], "'000000000' occurs twice"),
        ([good, good | {"key": "other"}], "'other' occurs twice or has no map"),
        ([good | {"max": 0.0}], "marked valid"),
        ([good | {"min": float("nan")}], "marked valid"),
        ([{"key": "000000000"}], "expected one JSON object"),
        (["x"], "expected one JSON object"),
        ([good | {"min": "0"}], "expected one JSON object"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(corpus: World, lines: list[object] | None, why: str) -> None:
    with DepthShardWriter(corpus.root, "00000", labels="depth-x") as w:
        w.add("000000000", encode_disparity(np.eye(3)))
    meta = corpus.root / "labels/depth-x/00000.meta.jsonl"
    meta.unlink()
    if lines is not None:
        meta.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=rf"00000\.meta\.jsonl: .*{why}"):
        build_dataset(corpus.root)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([("a.jpg", b"J"), ("b.txt", b"x")], "key 'b' has the members txt"),
        ([("a.jpg", b"J"), ("a.png", b"P")], "key 'a' has the members jpg, png"),
        ([("a.txt", b"J"), ("b.txt", b"x")], r"key 'a' has the members txt \(2 such keys\)"),
        ([("a.jpg", b"J"), ("b.jpg", b"J"), ("a.jpg", b"J")], r"key 'a' has two \.jpg"),
        ([("README", b"no key")], "holds no sample"),
        ([], "holds no sample"),
        ([(f"a.{i}.jpg", b"J") for i in range(40)], "more than 32 different extensions"),
    ],
)
def test_image_tars_that_hold_no_samples_are_refused(tmp_path: Path, files: list[tuple[str, bytes]], why: str) -> None:
    plain_tar(tmp_path / "images/00000.tar", files)
    with pytest.raises(DataError, match=rf"images/00000\.tar: {why}"):
        build_dataset(tmp_path)


def test_broken_tars_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tar = plain_tar(tmp_path / "images/00000.tar", [f for i in range(4) for f in triple(rng, f"k{i}")])
    data = tar.read_bytes()
    with tarfile.open(tar) as t:
        third = t.getmembers()[3]
    damaged = bytearray(data)
    damaged[third.offset + 100] ^= 0xFF
    for broken in (
        data[: third.offset],  # between two members: tarfile sees a complete archive
        data[: third.offset + 300],
        data[: third.offset_data + 5],
        bytes(damaged),
        b"",
        b"\x1f\x8b" + data,
    ):
        tar.write_bytes(broken)
        with pytest.raises(DataError, match=r"images/00000\.tar: .*(truncated|cannot be read|lost)"):
            build_dataset(tmp_path)
    tar.write_bytes(data)
    assert build_dataset(tmp_path).samples == 4


def test_a_tar_that_grows_while_it_is_indexed_is_refused(corpus: World, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = index_module.scan_tar

    def scan_and_grow(path: Path) -> object:
        members = scan(path)
        with path.open("ab") as f:
            f.write(b"more")
        return members

    write_shard(corpus.root, "00001", corpus.shards["00001"])
    monkeypatch.setattr(index_module, "scan_tar", scan_and_grow)
    with pytest.raises(DataError, match=r"images/00001\.tar: changed while it was indexed"):
        build_dataset(corpus.root)
