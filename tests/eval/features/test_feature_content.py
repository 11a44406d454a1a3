"""The content index: when bytes are read again, tar members, concurrent writers, speed."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import tarfile
import time
from pathlib import Path

import pytest

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef
from mtv.eval.features import content
from mtv.eval.features.content import ContentIndex, content_sha256
from mtv.hashing import sha256_lines

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh files count as old enough to be remembered."""
    monkeypatch.setattr(content, "_RACY_NS", -(1 << 62))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    read = FileRef.read
    monkeypatch.setattr(FileRef, "read", lambda self: (names.append(self.name), read(self))[1])
    return names


def _files(root: Path, n: int) -> dict[str, tuple[FileRef, ...]]:
    (root / "a").mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (root / "a" / f"{i}.bin").write_bytes(f"content {i}".encode())
    return {f"s{i}": (FileRef(path=root / "a" / f"{i}.bin", name=f"a/{i}.bin"),) for i in range(n)}


def _expected(*contents: bytes) -> str:
    return sha256_lines([hashlib.sha256(c).hexdigest() for c in contents])


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_read_once(tmp_path, cache, reads):
    files = _files(tmp_path / "data", 5)
    first = ContentIndex(cache).digests(files)
    assert list(first) == list(files)
    assert first["s3"] == _expected(b"content 3")
    assert len(reads) == 5
    assert ContentIndex(cache).digests(files) == first
    assert len(reads) == 5
    assert ContentIndex(cache).digests(files, verify=True) == first
    assert len(reads) == 10


@pytest.mark.usefixtures("settled")
def test_touched_or_rewritten_files_are_read_again(tmp_path, cache, reads):
    files = _files(tmp_path / "data", 3)
    index = ContentIndex(cache)
    before = index.digests(files)
    files["s1"][0].path.write_bytes(b"CONTENT 1")  # as long as before
    reads.clear()
    after = index.digests(files)
    assert reads == ["a/1.bin"]
    assert after["s1"] == _expected(b"CONTENT 1")
    assert after["s0"] == before["s0"]


def test_files_just_written_are_not_trusted_yet(tmp_path, cache, reads):
    files = _files(tmp_path / "data", 2)
    ContentIndex(cache).digests(files)
    ContentIndex(cache).digests(files)
    assert len(reads) == 4


@pytest.mark.usefixtures("settled")
def test_verify_logs_a_change_that_time_stamps_hid(tmp_path, cache, monkeypatch, caplog):
    files = _files(tmp_path / "data", 2)
    real = content._states
    monkeypatch.setattr(content, "_states", lambda refs: ((n, (9, 1, 1, -1, -1)) for n, _ in real(refs)))
    index = ContentIndex(cache)
    index.digests(files)
    files["s0"][0].path.write_bytes(b"CONTENT 0")
    assert index.digests(files)["s0"] == _expected(b"content 0")
    with caplog.at_level(logging.WARNING):
        assert index.digests(files, verify=True)["s0"] == _expected(b"CONTENT 0")
    assert "a/0.bin: the bytes changed although" in caplog.text
    assert ContentIndex(cache).digests(files)["s0"] == _expected(b"CONTENT 0")


@pytest.mark.usefixtures("settled")
def test_tar_members_have_their_own_digests(tmp_path, cache, reads):
    archive = tmp_path / "data" / "sub" / "val.tar"
    archive.parent.mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"{i}").write_bytes(b"member %d" % i)
    with tarfile.open(archive, "w") as tar:
        for i in range(3):
            tar.add(tmp_path / f"{i}", arcname=f"val/{i}.bin")
    with tarfile.open(archive) as tar:
        files = {
            m.name: (FileRef(path=archive, name=f"sub/val.tar/{m.name}", offset=m.offset_data, size=m.size),)
            for m in tar
        }
    digests = ContentIndex(cache).digests(files)
    assert digests == {f"val/{i}.bin": _expected(b"member %d" % i) for i in range(3)}
    assert ContentIndex(cache).digests(files) == digests
    assert len(reads) == 3
    assert len(list((cache / "content").glob("*.json"))) == 1


@pytest.mark.usefixtures("settled")
def test_samples_of_several_files_and_files_of_several_samples(tmp_path, cache, reads):
    files = _files(tmp_path / "data", 3)
    (a,), (b,), (c,) = files.values()
    digests = ContentIndex(cache).digests({"ab": (a, b), "ba": (b, a), "b": (b,), "cb": (c, b)})
    assert digests["ab"] == _expected(b"content 0", b"content 1") != digests["ba"]
    assert sorted(reads) == ["a/0.bin", "a/1.bin", "a/2.bin"]


@pytest.mark.usefixtures("settled")
def test_two_roots_with_the_same_names_do_not_mix(tmp_path, cache):
    one, two = _files(tmp_path / "one", 2), _files(tmp_path / "two", 2)
    two["s0"][0].path.write_bytes(b"other")
    index = ContentIndex(cache)
    assert index.digests(one)["s0"] != index.digests(two)["s0"]
    assert index.digests({"x": one["s0"], "y": two["s0"]}).keys() == {"x", "y"}
    assert len(list((cache / "content").glob("*.json"))) == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a/0.bin": [1]}'])
def test_damaged_index_is_dropped(tmp_path, cache, caplog, damage):
    files = _files(tmp_path / "data", 2)
    digests = ContentIndex(cache).digests(files)
    (path,) = (cache / "content").glob("*.json")
    path.write_text(damage)
    assert ContentIndex(cache).digests(files) == digests
    assert "is damaged" in caplog.text
    assert len(json.loads(path.read_text())) == 2


def test_missing_file_is_named(tmp_path, cache):
    files = _files(tmp_path / "data", 2)
    files["s1"][0].path.unlink()
    with pytest.raises(DataError, match=r"1\.bin: cannot be read"):
        ContentIndex(cache).digests(files)


@pytest.mark.usefixtures("settled")
def test_two_processes_keep_each_others_rows(tmp_path, cache):
    files = _files(tmp_path / "data", 40)
    names = list(files)

    def work(part: int) -> None:
        for i in range(part, 40, 4):
            ContentIndex(cache).digests({names[i]: files[names[i]]})

    children = [FORK.Process(target=work, args=(p,)) for p in range(4)]
    for c in children:
        c.start()
    for c in children:
        c.join(60)
        assert c.exitcode == 0
    (path,) = (cache / "content").glob("*.json")
    assert set(json.loads(path.read_text())) == {f"a/{i}.bin" for i in range(40)}


def test_content_hash_ignores_the_order(tmp_path, cache):
    digests = ContentIndex(cache).digests(_files(tmp_path / "data", 4))
    assert content_sha256(digests) == content_sha256(dict(reversed(digests.items())))
    assert content_sha256(digests) == sha256_lines(sorted(f"{k}\t{v}" for k, v in digests.items()))
    assert content_sha256({**digests, "s0": "x"}) != content_sha256(digests)


def test_ten_thousand_remembered_files_take_a_second_at_most(tmp_path, cache, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    (root / "x").write_bytes(b"x")
    files = {f"{i}": (FileRef(path=root / "x", name="x", offset=i, size=1),) for i in range(10_000)}
    files = {k: (FileRef(path=root / "x", name=f"x/{k}", offset=int(k), size=1),) for k in files}
    state = (root / "x").stat()
    digest = hashlib.sha256(b"x").hexdigest()
    rows = {f"x/{k}": ((1, state.st_mtime_ns, state.st_ctime_ns, int(k), 1), digest) for k in files}
    index = ContentIndex(cache)
    index._save(f"{root}/", rows)
    started = time.process_time()
    assert len(ContentIndex(cache).digests(files)) == 10_000
    assert time.process_time() - started < 1.5
