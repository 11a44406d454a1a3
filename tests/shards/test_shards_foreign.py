"""Corpora that others made: img2dataset's tars are indexed where they are and unchanged."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_world import jpeg_bytes, members, plain_tar

from mtv.shards import RegionShardWriter, ShardDataset, build_dataset


def test_a_real_img2dataset_tar(real_data: Path, tmp_path: Path) -> None:
    """Every value against a naive reading with tarfile; labels written beside it join by key."""
    tar = real_data / "cc12m" / "cc12m-train-0000.tar"
    before = tar.stat()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / tar.name).symlink_to(tar)
    assert build_dataset(tmp_path).samples == 32
    data = ShardDataset.open(tmp_path)
    contents = members(tar)
    assert [data.key(i) for i in range(32)] == list(dict.fromkeys(n.split(".")[0] for n in contents))
    for i in range(32):
        s = data.sample(i)
        assert s.image == contents[f"{s.key}.jpg"]
        assert s.captions == (contents[f"{s.key}.txt"].decode(),)
        assert s.captions == (json.loads(contents[f"{s.key}.json"])["caption"],)
        assert (s.w, s.h) == Image.open(io.BytesIO(s.image)).size
        assert s.regions is None
        assert s.disparity is None
    assert list(data.verify(full=True)) == []
    with RegionShardWriter(tmp_path, tar.stem, labels="regions-x") as w:
        w.add(data.key(2), [])
    build_dataset(tmp_path)
    labelled = ShardDataset.open(tmp_path, labels=["regions-x"])
    assert [labelled.sample(i).regions for i in range(4)] == [None, None, (), None]
    assert (tar.stat().st_mtime_ns, tar.stat().st_size) == (before.st_mtime_ns, before.st_size)


def picture(kind: str, w: int, h: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((h, w, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def caption(value: object) -> bytes:
    return json.dumps({"caption": value, "width": 1, "height": 1, "sha256": "of the download"}).encode()


@pytest.mark.parametrize(
    ("files", "captions"),
    [
        ({"jpg": jpeg_bytes(np.random.default_rng(0), 33, 21), "txt": b" A cat. \n"}, (" A cat. \n",)),
        ({"JPEG": jpeg_bytes(np.random.default_rng(0), 33, 21), "json": caption("a dog")}, ("a dog",)),
        ({"png": picture("png", 33, 21), "json": caption("not this"), "txt": b"this"}, ("this",)),
        ({"webp": picture("webp", 33, 21), "json": caption(["a", "", "b"])}, ("a", "b")),
        ({"webp": picture("webp", 33, 21), "json": caption(None), "txt": b""}, ()),
        ({"png": picture("png", 33, 21), "cls": b"7"}, ()),
        ({"jpg": jpeg_bytes(np.random.default_rng(0), 33, 21), "json": b'{"caption": "x", "score": NaN}'}, ("x",)),
    ],
)
def test_every_form_of_sample(tmp_path: Path, files: dict[str, bytes], captions: tuple[str, ...]) -> None:
    plain_tar(tmp_path / "images/7.tar", [(f"./part/a.{e}", d) for e, d in files.items()])
    build_dataset(tmp_path)
    data = ShardDataset.open(tmp_path)
    s = data.sample(0)
    assert (s.key, s.captions, s.w, s.h) == ("part/a", captions, 33, 21)
    assert s.image == next(iter(files.values()))
    assert list(data.verify(full=True)) == []


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "v7"])
def test_tars_made_by_the_tar_command(tmp_path: Path, form: str) -> None:
    """With folder entries, a link and long names, as `tar cf` packs a directory."""
    folder = tmp_path / "in" / ("long" * 20)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = {f"key{i}": jpeg_bytes(rng) for i in range(12)}
    for key, image in images.items():
        (folder / f"{key}.jpg").write_bytes(image)
        (folder / f"{key}.txt").write_text(key)
    (folder / "link.jpg").symlink_to("key0.jpg")
    (folder / "LICENSE").touch()
    (tmp_path / "out" / "images").mkdir(parents=True)
    tar = tmp_path / "out/images/00000.tar"
    subprocess.run(["tar", f"--format={form}", "-cf", tar, "-C", tmp_path / "in", "."], check=True)
    build_dataset(tmp_path / "out")
    data = ShardDataset.open(tmp_path / "out")
    found = {s.key: (s.image, s.captions) for s in map(data.sample, range(len(data)))}
    assert found == {f"{folder.name}/{key}": (image, (key,)) for key, image in images.items()}
