"""Tar index from headers: equal to what tarfile extracts, and loud about archives that end early."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtv.errors import DataError
from mtv.eval.datasets.webdataset import read_samples, shard_paths
from mtv.shards.tar import scan_tar


def write_tar(path: Path, members: list[tuple[str, bytes]], fmt: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=fmt) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


LONG = "deep/" * 40 + "k.jpg"
MEMBERS = [
    ("./a.jpg", b"1" * 700),
    ("a.cls", b"7"),
    ("b.c.d.JPG", b""),
    ("dir.with.dot/x.y.txt", "ü\n".encode()),
    (LONG, b"2" * 512),
    ("._a.jpg", b"resource fork"),
    ("noext", b"no extension"),
]


@pytest.mark.parametrize("fmt", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_index_equals_extraction(tmp_path: Path, fmt: int) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, MEMBERS, fmt)
    found = scan_tar(path)
    assert [(m.key, m.ext) for m in found] == [
        ("a", "jpg"),
        ("a", "cls"),
        ("b", "c.d.jpg"),
        ("dir.with.dot/x", "y.txt"),
        (LONG.removesuffix(".jpg"), "jpg"),
    ]
    content = path.read_bytes()
    assert [content[m.offset : m.offset + m.size] for m in found] == [c for _, c in MEMBERS[:5]]


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar"
    write_tar(whole, [("a.jpg", b"x" * 700), ("a.cls", b"1"), ("b.jpg", b"y" * 512), ("b.cls", b"2")])
    content = whole.read_bytes()
    end = 512 + (512 + 1024) + (512 + 512) + (512 + 512) + (512 + 512)
    assert content[end : end + 1024] == b"\0" * 1024
    cut = tmp_path / "cut.tar"
    for size in [*range(1, end, 97), *range(512, end, 512), end, end + 511]:
        cut.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"cut\.tar"):
            scan_tar(cut)
    cut.write_bytes(content[: end + 512])
    assert len(scan_tar(cut)) == 4


def test_garbage_between_members_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, [("a.jpg", b"x"), ("b.jpg", b"y")])
    content = bytearray(path.read_bytes())
    content[512 + 1024 : 512 + 1024 + 512] = b"\xff" * 512  # the header of b.jpg
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="no end-of-archive block at byte 1536"):
        scan_tar(path)


def test_compressed_empty_and_absent_archives(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a.jpg", b"x")])
    packed = tmp_path / "b.tar"
    packed.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(DataError, match="uncompressed"):
        scan_tar(packed)
    packed.write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.tar"):
        scan_tar(packed)
    with pytest.raises(DataError, match=r"c\.tar"):
        scan_tar(tmp_path / "c.tar")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 1500), max_size=8))
def test_offsets_of_any_sizes(tmp_path: Path, sizes: list[int]) -> None:
    path = tmp_path / "0.tar"
    members = [(f"{i}.jpg", bytes([i]) * size) for i, size in enumerate(sizes)]
    write_tar(path, members)
    samples = read_samples([path], tmp_path)
    assert [s.image().read() for s in samples] == [c for _, c in members]


def test_samples_over_shards_are_ordered_by_key_and_unique(tmp_path: Path) -> None:
    for i in range(12):
        write_tar(tmp_path / f"{i}.tar", [(f"k{99 - i}.png", b"x"), (f"k{99 - i}.txt", b"caption")])
    assert [p.name for p in shard_paths(tmp_path)] == [f"{i}.tar" for i in range(12)]
    assert [s.key for s in read_samples(shard_paths(tmp_path), tmp_path)] == [f"k{k}" for k in range(88, 100)]
    write_tar(tmp_path / "12.tar", [("k99.png", b"again")])
    with pytest.raises(DataError, match=r"12\.tar/k99\.png occurs twice; first as 0\.tar/k99\.png"):
        read_samples(shard_paths(tmp_path), tmp_path)


def test_sample_needs_exactly_one_picture_and_utf8(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.png", b"x"), ("a.jpg", b"x"), ("b.txt", b"\xff")])
    a, b = read_samples([tmp_path / "0.tar"], tmp_path)
    with pytest.raises(DataError, match="2 pictures"):
        a.image()
    with pytest.raises(DataError, match="0 pictures"):
        b.image()
    with pytest.raises(DataError, match="not UTF-8"):
        b.text("txt")


def test_member_cut_after_indexing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, [("a.png", b"x" * 600)])
    ref = read_samples([path], tmp_path)[0].image()
    path.write_bytes(path.read_bytes()[: 512 + 512 + 100])
    with pytest.raises(DataError, match="ends inside member"):
        ref.read()
