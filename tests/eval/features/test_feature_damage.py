"""Shards that were truncated, flipped or lost: reported, set aside, computed again, never served."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from feature_world import request_for, shards_in

from mtv.errors import CacheError
from mtv.eval.features.shard import read_shard, shard_number


def _filled(provider, files, cache: Path) -> tuple[torch.Tensor, list[Path]]:
    """A store of several shards and the pooled rows that belong in it."""
    first = provider().get(request_for({k: files[k] for k in list(files)[:6]}))
    assert len(first) == 6
    rows = provider().get(request_for(files)).stack(output="pooled")
    shards = list(shards_in(cache))
    assert [p.name for p in shards] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    return rows, shards


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        lambda p: p.write_bytes(p.read_bytes()[:20]),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes() + b"x"),
        lambda p: _flip(p, 3),
        lambda p: _flip(p, 8),
        lambda p: _flip(p, 40),
    ],
    ids=["last byte", "header only", "empty", "grown", "length", "brace", "inside the header"],
)
def test_unreadable_shard_is_set_aside_and_computed_again(provider, encoder, files, cache, caplog, damage):
    rows, shards = _filled(provider, files, cache)
    damage(shards[0])
    again = provider()
    with caplog.at_level(logging.WARNING):
        repaired = again.get(request_for(files)).stack(output="pooled")
    assert "is damaged" in caplog.text
    assert "set aside" in caplog.text
    torch.testing.assert_close(repaired, rows, atol=1e-6, rtol=0)
    assert (again.stats.hits, again.stats.misses, encoder.images) == (4, 6, 16)
    assert shards[0].with_name(shards[0].name + ".bad").exists()
    assert not shards[0].exists()
    done = json.loads((shards[0].parent / "DONE").read_text())
    assert set(done["shards"]) == {"shard-00001.safetensors", "shard-00002.safetensors"}
    assert done["rows"] == 10
    provider().get(request_for(files))
    assert encoder.images == 16


def test_flipped_feature_bytes_are_found_with_verify(provider, encoder, files, cache, caplog):
    rows, shards = _filled(provider, files, cache)
    _flip(shards[1], shards[1].stat().st_size - 2)
    with caplog.at_level(logging.ERROR):
        repaired = provider(verify=True).get(request_for(files)).stack(output="pooled")
    assert "differ from the hash in DONE" in caplog.text
    torch.testing.assert_close(repaired, rows, atol=1e-6, rtol=0)
    assert encoder.images == 14


def test_verify_of_an_intact_store_computes_nothing(provider, encoder, files, cache, caplog):
    _filled(provider, files, cache)
    with caplog.at_level(logging.WARNING):
        provider(verify=True).get(request_for(files))
    assert encoder.images == 10
    assert not caplog.records


def test_shard_of_another_entry_is_not_served(provider, encoder, files, cache):
    rows, shards = _filled(provider, files, cache)
    provider().get(request_for(files, mean=(0.0, 0.0, 0.0)))
    (foreign,) = [p for p in shards_in(cache) if p.parent != shards[0].parent]
    shards[0].write_bytes(foreign.read_bytes())
    repaired = provider().get(request_for(files)).stack(output="pooled")
    torch.testing.assert_close(repaired, rows, atol=1e-6, rtol=0)


@pytest.mark.parametrize("content", ["", "{", '{"shards": 3}', None], ids=["empty", "cut", "nonsense", "absent"])
def test_done_that_is_lost_is_written_anew(provider, encoder, files, cache, content):
    _, shards = _filled(provider, files, cache)
    done = shards[0].parent / "DONE"
    before = done.read_text()
    done.unlink() if content is None else done.write_text(content)
    provider().get(request_for(files))
    assert done.read_text() == before
    assert encoder.images == 10


def test_lost_shard_is_computed_again(provider, encoder, files, cache):
    _, shards = _filled(provider, files, cache)
    shards[0].unlink()
    provider().get(request_for(files))
    assert encoder.images == 16


def test_broken_meta_says_what_to_delete(provider, files, cache):
    _, shards = _filled(provider, files, cache)
    (shards[0].parent / "meta.json").write_text("{")
    with pytest.raises(CacheError, match=r"cannot be read.*\n.*Delete"):
        provider().get(request_for(files))


def test_shard_deleted_during_scoring_is_named(provider, files, cache):
    features = provider().get(request_for(files))
    (shard,) = shards_in(cache)
    shard.unlink()
    with pytest.raises(CacheError, match="shard-00000"):
        features.get("im0000")


def test_temporary_files_of_a_killed_writer_are_swept(provider, files, cache):
    _, shards = _filled(provider, files, cache)
    debris = shards[0].parent / ".shard-00002.safetensors.abc.tmp"
    debris.write_bytes(b"half a shard")
    other = shards[0].parent / ".shard-s1of2-00002.safetensors.abc.tmp"
    other.write_bytes(b"of a writer that may be alive")
    shards[1].unlink()
    provider().get(request_for(files))
    assert not debris.exists()
    assert other.exists()


def test_header_lists_ids_digests_and_shapes(provider, files, cache):
    _, shards = _filled(provider, files, cache)
    shard = read_shard(shards[0])
    assert shard.ids == tuple(list(files)[:6])
    assert all(len(d) == 64 for d in shard.digests)
    assert shard.outputs == {"global": (16,), "layer0": (4, 4, 16), "layer2": (4, 4, 16), "pooled": (12,)}
    assert shard.dtypes == {"global": "F32", "layer0": "F16", "layer2": "F16", "pooled": "F32"}
    assert shard.row_bytes == 4 * (16 + 12) + 2 * 2 * 256


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("shard-00012.safetensors", 12), ("shard-r3-00007.safetensors", 7), ("shard-s0of4-r1-00001.safetensors.bad", 1),
        ("shard-x.safetensors", None), ("shard-00001.safetensors.tmp", None), ("DONE", None), ("shard-00001", None),
    ],
)  # fmt: skip
def test_shard_numbers(name, number):
    assert shard_number(name) == number
