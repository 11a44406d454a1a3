"""Building an index: only what changed is read, an interruption costs nothing, contents alone decide the hash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from shard_world import DEPTH, REGIONS, World, known, plain_tar, triple, write_shard, write_world

from mtv.errors import DataError
from mtv.shards import DepthShardWriter, RegionShardWriter, ShardDataset, build_dataset, read_dataset
from mtv.shards import index as index_module
from mtv.shards.dataset import read_index


def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tars that are scanned from now on."""
    seen: list[str] = []
    scan = index_module.scan_tar

    def counted(path: Path) -> object:
        seen.append(f"{path.parent.name}/{path.stem}")
        return scan(path)

    monkeypatch.setattr(index_module, "scan_tar", counted)
    return seen


def test_only_what_changed_is_read_again(corpus: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (corpus.root / "dataset.json").read_bytes()
    hash_before = read_dataset(corpus.root).index_hash
    seen = scans(monkeypatch)
    build_dataset(corpus.root)
    assert seen == []
    assert (corpus.root / "dataset.json").read_bytes() == before

    with RegionShardWriter(corpus.root, "00002", labels=REGIONS) as w:
        w.add(corpus.shards["00002"][4].key, [])
    assert (
        build_dataset(corpus.root).labels[REGIONS].samples
        == sum(s.regions is not None for n, shard in corpus.shards.items() if n != "00002" for s in shard) + 1
    )
    assert seen == [f"{REGIONS}/00002"]
    assert read_dataset(corpus.root).index_hash != hash_before

    seen.clear()
    write_shard(corpus.root, "00002", corpus.shards["00002"])
    build_dataset(corpus.root)
    assert seen == ["images/00002", f"{DEPTH}/00002", f"{REGIONS}/00002"]
    assert read_dataset(corpus.root).index_hash == hash_before

    seen.clear()
    for n in corpus.shards:
        with DepthShardWriter(corpus.root, n, labels="depth-new-v2"):
            pass
    assert build_dataset(corpus.root).labels["depth-new-v2"].samples == 0
    assert seen == [f"depth-new-v2/{n}" for n in corpus.shards]

    seen.clear()
    shutil.rmtree(corpus.root / "labels/depth-new-v2")
    assert sorted(build_dataset(corpus.root).labels) == [DEPTH, REGIONS]
    assert seen == []
    assert read_dataset(corpus.root).index_hash == hash_before


def test_a_changed_range_alone_is_noticed(corpus: World, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = corpus.root / "labels" / DEPTH / "00000.meta.jsonl"
    lines = [json.loads(line) for line in meta.read_text().splitlines()]
    lines[0].update(min=-5.0, max=5.0)
    meta.write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen = scans(monkeypatch)
    build_dataset(corpus.root)
    assert seen == [f"{DEPTH}/00000"]
    index = read_index(corpus.root, read_dataset(corpus.root).shards[0])
    assert index.sources[f"labels/{DEPTH}"].range(0) == (-5, 5)


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = write_world(tmp_path, shards=(2, 2, 2))
    whole = (tmp_path / "dataset.json").read_bytes()
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "dataset.json").unlink()

    def stop(done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_dataset(tmp_path, on_shard=stop)
    assert not (tmp_path / "dataset.json").exists()
    assert len(list((tmp_path / "index").iterdir())) == 2
    (tmp_path / "index/00001.idx").write_bytes(b"damaged")
    seen = scans(monkeypatch)
    build_dataset(tmp_path)
    assert {s.split("/")[1] for s in seen} == {"00001", "00002"}
    assert (tmp_path / "dataset.json").read_bytes() == whole
    assert len(world.samples) == read_dataset(tmp_path).samples == 6


def test_content_decides_the_hash_not_time_or_place(tmp_path: Path, corpus: World) -> None:
    again = write_world(tmp_path / "elsewhere", shards=(7, 1, 12))
    other = write_world(tmp_path / "other", shards=(7, 1, 12), seed=1)
    first = read_dataset(corpus.root).index_hash
    assert read_dataset(again.root).index_hash == first
    assert read_dataset(other.root).index_hash != first


def test_shards_come_in_numerical_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in (10, 9, 100):
        plain_tar(tmp_path / f"images/{n}.tar", triple(rng, f"k{n}"))
    (tmp_path / "images/.9.tar.x.part").touch()
    (tmp_path / "images/.hidden.tar").touch()
    (tmp_path / "images/9_stats.json").touch()
    assert [s.name for s in build_dataset(tmp_path).shards] == ["9", "10", "100"]


def test_a_shard_renamed_with_its_index_is_indexed_anew(corpus: World) -> None:
    for path in list(corpus.root.rglob("00002.*")):
        path.rename(path.with_name(path.name.replace("00002", "00005")))
    assert [s.name for s in build_dataset(corpus.root).shards] == ["00000", "00001", "00005"]
    assert ShardDataset.open(corpus.root, labels=[DEPTH]).sample(19).image == corpus.samples[19].jpeg


def test_a_key_in_two_shards_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        write_shard(tmp_path, f"{n}", [known(rng, f"{n}{i}", 0) for i in range(20)])
    build_dataset(tmp_path)
    (tmp_path / "dataset.json").unlink()
    write_shard(tmp_path, "2", [known(rng, key, 0) for key in ("a", "017", "b")])
    with pytest.raises(DataError, match=r"images/2\.tar: key '017' is also in .*images/0\.tar"):
        build_dataset(tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_no_images_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images: holds no \.tar"):
        build_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "mtv-shards-2"},
        {"index_hash": "0"},
        {"shards": []},
        {"shards": None},
        {"labels": {"depth-x": {}}},
    ],
)
def test_a_damaged_dataset_file_is_refused(corpus: World, change: dict[str, object]) -> None:
    path = corpus.root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"dataset\.json: damaged"):
        read_dataset(corpus.root)
