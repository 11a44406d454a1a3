"""Writers: what they write, equal bytes for equal content, and nothing half-written under a final name."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from shard_world import DEPTH, REGIONS, World, jpeg_bytes, members, write_shard, write_world

from mtv.errors import CacheError, DataError, UsageError
from mtv.shards import (
    DepthShardWriter,
    ImageShardWriter,
    Region,
    RegionShardWriter,
    decode_disparity,
    encode_disparity,
    write_manifest,
)


@pytest.fixture
def jpeg() -> bytes:
    return jpeg_bytes(np.random.default_rng(0))


def test_tarfile_sees_the_documented_members(corpus: World) -> None:
    for shard, samples in corpus.shards.items():
        images = members(corpus.root / "images" / f"{shard}.tar")
        assert list(images) == [f"{s.key}.{e}" for s in samples for e in ("jpg", "txt", "json")]
        depth = members(corpus.root / "labels" / DEPTH / f"{shard}.tar")
        assert list(depth) == [f"{s.key}.png" for s in samples if s.disparity_HW is not None]
        regions = members(corpus.root / "labels" / REGIONS / f"{shard}.tar")
        assert list(regions) == [f"{s.key}.json" for s in samples if s.regions is not None]
        lines = (corpus.root / "labels" / DEPTH / f"{shard}.meta.jsonl").read_text().splitlines()
        metas = {m["key"]: m for m in map(json.loads, lines)}
        assert [f"{k}.png" for k in metas] == list(depth)
        for s in samples:
            assert images[f"{s.key}.jpg"] == s.jpeg
            assert images[f"{s.key}.txt"].decode() == s.captions[0]
            digest = hashlib.sha256(s.jpeg).hexdigest()
            expected = {"w": s.size[0], "h": s.size[1], "sha256": digest, "captions": s.captions}
            assert json.loads(images[f"{s.key}.json"]) == expected
            if s.disparity_HW is not None:
                meta = metas[s.key]
                assert meta["valid"] == (np.ptp(s.disparity_HW) > 0)
                back_HW = decode_disparity(depth[f"{s.key}.png"], meta["min"], meta["max"])
                np.testing.assert_allclose(back_HW, s.disparity_HW, atol=(meta["max"] - meta["min"]) / 8190 + 1e-6)
            if s.regions is not None:
                plain = [{"box": list(r.box), "name": r.name, "score": r.score} for r in s.regions]
                assert json.loads(regions[f"{s.key}.json"]) == plain


def test_bytes_depend_on_content_alone(tmp_path: Path, corpus: World) -> None:
    again = write_world(tmp_path / "again", shards=(7, 1, 12))
    files = sorted(p.relative_to(corpus.root) for p in corpus.root.rglob("*") if p.is_file())
    assert len(files) == 3 + 2 * 3 + 3 + 2 + 3 + 1  # images, label tars, ranges, manifests, indexes, dataset.json
    for f in files:
        if f.suffix not in (".idx", ".json") or f.name == "manifest.json":  # indexes carry times
            assert (corpus.root / f).read_bytes() == (again.root / f).read_bytes(), f
    with tarfile.open(corpus.root / "images/00000.tar") as t:
        assert {(m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname) for m in t} == {(0o644, 0, 0, 0, "", "")}


def test_gnu_tar_extracts_it(corpus: World, tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", corpus.root / "images/00002.tar", "-C", tmp_path], check=True)
    for s in corpus.shards["00002"]:
        assert (tmp_path / f"{s.key}.jpg").read_bytes() == s.jpeg
    assert (corpus.root / "images/00002.tar").stat().st_size % 10240 == 0


@pytest.mark.parametrize("key", ["k" * 101, "sub/" + "k" * 200, "größe", "a b"])
def test_unusual_keys(tmp_path: Path, jpeg: bytes, key: str) -> None:
    with ImageShardWriter(tmp_path, "00000") as w:
        w.add(key, jpeg, captions=[])
    assert members(tmp_path / "images/00000.tar")[f"{key}.jpg"] == jpeg
    assert members(tmp_path / "images/00000.tar")[f"{key}.txt"] == b""


@pytest.mark.parametrize("key", ["", "a.b", "a/", "/a", "./a", "a\nb", "a\0", "\ud800"])
def test_impossible_keys(tmp_path: Path, jpeg: bytes, key: str) -> None:
    with pytest.raises(UsageError, match="cannot be a key"), ImageShardWriter(tmp_path, "00000") as w:
        w.add(key, jpeg, captions=["x"])


def files_below(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_an_exception_leaves_no_file_and_the_old_shard(tmp_path: Path, jpeg: bytes) -> None:
    def attempt(fail: bool) -> None:
        with ImageShardWriter(tmp_path, "00000") as images, DepthShardWriter(tmp_path, "00000", labels=DEPTH) as depth:
            for i in range(30):
                images.add(f"{i}{fail}", jpeg, captions=["x"])
                depth.add(f"{i}{fail}", encode_disparity(np.eye(9)))
                if fail and i == 20:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(fail=True)
    assert files_below(tmp_path) == []
    attempt(fail=False)
    names = files_below(tmp_path)
    before = [(tmp_path / n).read_bytes() for n in names]
    assert names == ["images/00000.tar", f"labels/{DEPTH}/00000.meta.jsonl", f"labels/{DEPTH}/00000.tar"]
    with pytest.raises(KeyboardInterrupt):
        attempt(fail=True)
    assert files_below(tmp_path) == names
    assert [(tmp_path / n).read_bytes() for n in names] == before


def test_a_killed_writer_leaves_no_final_file(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from mtv.shards import RegionShardWriter
        with RegionShardWriter(Path({str(tmp_path)!r}), "00000", labels="regions-x") as w:
            for i in range(5000):
                w.add(str(i), [])
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "labels/regions-x").glob("*.tar")) == []
    with RegionShardWriter(tmp_path, "00000", labels="regions-x") as w:
        w.add("0", [])
    assert members(tmp_path / "labels/regions-x/00000.tar") == {"0.json": b"[]"}


def test_a_failed_commit_of_ranges_leaves_no_tar_with_other_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(value: float) -> None:
        with DepthShardWriter(tmp_path, "00000", labels=DEPTH) as w:
            w.add("a", encode_disparity(np.array([[0, value]])))

    write(1)
    meta = tmp_path / "labels" / DEPTH / "00000.meta.jsonl"
    tar = meta.with_name("00000.tar")
    old = tar.read_bytes(), meta.read_bytes()

    def fail(*_: object) -> None:
        raise CacheError("disk full")

    monkeypatch.setattr("mtv.shards.writer.atomic_write", fail)
    with pytest.raises(CacheError, match="disk full"):
        write(2)
    assert meta.read_bytes() != old[1]
    assert not tar.exists()
    monkeypatch.undo()
    write(1)
    assert (tar.read_bytes(), meta.read_bytes()) == old


@pytest.mark.parametrize("buffering", [0, 1 << 20])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, jpeg: bytes, buffering: int) -> None:
    """With a buffer the disk is found full at the end only, and again when the file is closed."""

    def write() -> None:
        with ImageShardWriter(tmp_path, "00000") as w:
            w._file.close()
            w._file = open("/dev/full", "wb", buffering=buffering)  # type: ignore[assignment] # noqa: SIM115
            w.add("a", jpeg, captions=["x"])

    with pytest.raises(CacheError, match=r"cannot write .*00000\.tar: No space left"):
        write()
    assert files_below(tmp_path) == []


def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot write"), ImageShardWriter(tmp_path / "file", "00000"):
        pass


def test_bad_samples_are_refused_by_name(tmp_path: Path, jpeg: bytes) -> None:
    rng = np.random.default_rng(0)
    turned = jpeg_bytes(rng, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    with ImageShardWriter(tmp_path, "00000") as w:
        w.add("good", jpeg, captions=["x"])
        for key, image, captions, why in [
            ("good", jpeg, ["x"], "'good' is added twice"),
            ("png", b"\x89PNG\r\n\x1a\n", ["x"], "'png' is no JPEG"),
            ("empty", b"", ["x"], "'empty' is no JPEG"),
            ("turned", turned, ["x"], "'turned' has the EXIF orientation 6"),
            ("blank", jpeg, ["x", " \n"], "captions of 'blank'"),
            ("string", jpeg, "abc", "captions of 'string'"),
        ]:
            with pytest.raises(DataError, match=why):
                w.add(key, image, captions=captions)
    assert list(members(tmp_path / "images/00000.tar")) == ["good.jpg", "good.txt", "good.json"]


@pytest.mark.parametrize(
    ("box", "name", "score"),
    [
        ((0, 0, 1.0001, 1), "mug", 1),
        ((-0.1, 0, 1, 1), "mug", 1),
        ((0.5, 0, 0.5, 1), "mug", 1),
        ((0, 0.6, 1, 0.5), "mug", 1),
        ((0, 0, float("nan"), 1), "mug", 1),
        ((0, 0, 1), "mug", 1),
        ((0, 0, 1, 1), "", 1),
        ((0, 0, 1, 1), "  ", 1),
        ((0, 0, 1, 1), "mug", float("nan")),
        ((0, 0, 1, 1), "mug", 1.5),
    ],
)
def test_impossible_regions(box: tuple[float, ...], name: str, score: float) -> None:
    with pytest.raises(DataError):
        Region(box=box, name=name, score=score)  # type: ignore[arg-type]


def test_regions_take_numpy_numbers() -> None:
    region = Region(box=tuple(np.array([0, 0.25, 0.5, 1], np.float32)), name="a", score=np.float32(0.5))  # type: ignore[arg-type]
    assert region == Region(box=(0.0, 0.25, 0.5, 1.0), name="a", score=0.5)
    assert all(type(v) is float for v in (*region.box, region.score))


@pytest.mark.parametrize("labels", ["depth", "depth-", "regions-x", "tags-x", "depth-a/b", "../depth-x"])
def test_label_sets_are_named_by_kind(tmp_path: Path, labels: str) -> None:
    with pytest.raises(UsageError, match="label set"):
        DepthShardWriter(tmp_path, "00000", labels=labels)
    if labels != "regions-x":
        with pytest.raises(UsageError, match="label set"):
            write_manifest(tmp_path, labels, {})


def test_memory_stays_bounded(tmp_path: Path) -> None:
    script = f"""
        import io, resource, sys
        from pathlib import Path
        import numpy as np
        from PIL import Image
        from mtv.shards import ImageShardWriter
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)).save(file, "jpeg")
        jpeg = file.getvalue()
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with ImageShardWriter(Path({str(tmp_path)!r}), "00000") as w:
            w.add("first", jpeg, captions=["x"])
            before = peak()
            for i in range(400):
                w.add(str(i), jpeg, captions=["x"])
        print(len(jpeg) * 400 // 1024, peak() - before)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    written_kb, grown_kb = map(int, out.stdout.split())
    assert written_kb > 60_000
    assert grown_kb < 5_000


def test_rewriting_replaces_the_shard(corpus: World) -> None:
    write_shard(corpus.root, "00000", corpus.shards["00001"])
    assert len(members(corpus.root / "images/00000.tar")) == 3
    assert not list(corpus.root.rglob(".*"))
