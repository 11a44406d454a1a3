"""`cache ls`, `cache verify`, `cache gc`."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from feature_world import request_for, save_noise, shards_in

from mtv.errors import CacheError
from mtv.eval.features.admin import collect_garbage, list_entries, verify_entries
from mtv.eval.features.lock import FileLock
from mtv.eval.features.options import GIB


@pytest.fixture
def filled(provider, files, cache):
    """Two picture entries and one of text, used ten, five and no days ago."""
    now = time.time()
    for i, mean in enumerate([(0.1, 0.1, 0.1), (0.2, 0.2, 0.2)]):
        before = set(cache.glob("*/used"))
        provider().get(request_for(files, mean=mean))
        (used,) = set(cache.glob("*/used")) - before
        for f in used.parent.iterdir():
            os.utime(f, (now - 86400 * 5 * (2 - i), now - 86400 * 5 * (2 - i)))
    provider().text(["a", "b"])
    return cache


def test_list_says_what_an_entry_is(filled, encoder):
    entries = list_entries(filled)
    assert [e.kind for e in entries] == ["text", "image", "image"]
    text, recent, old = entries
    assert (recent.model, recent.data, recent.rows, recent.superseded) == (encoder.info.spec, "noise", 10, 0)
    assert recent.outputs == ("global", "layer0", "layer2", "pooled")
    assert recent.complete
    assert not recent.damaged
    assert not recent.busy
    assert recent.key["mean"] == [0.2, 0.2, 0.2]
    assert recent.bytes == sum(f.stat().st_size for f in recent.path.iterdir())
    assert text.model == "python:tiny?seed=0"
    assert text.rows == 2
    assert 9.9 < (time.time() - old.last_use) / 86400 < 10.1


def test_use_is_noted(filled, provider, files):
    provider().get(request_for(files, mean=(0.1, 0.1, 0.1)))
    assert max(list_entries(filled), key=lambda e: e.last_use).key["mean"] == [0.1, 0.1, 0.1]


def test_list_shows_stale_interrupted_busy_and_damaged(filled, provider, files):
    save_noise(files["im0001"][0].path, seed=500)
    provider().get(request_for(files, mean=(0.1, 0.1, 0.1)))
    entry = next(e for e in list_entries(filled) if e.superseded)
    assert (entry.rows, entry.superseded) == (10, 1)
    (entry.path / "DONE").unlink()
    first = min(entry.path.glob("shard-*"))
    first.write_bytes(first.read_bytes()[:-1])
    with FileLock(entry.path / "writer.lock"):
        entry = next(e for e in list_entries(filled) if e.path == entry.path)
        assert entry.busy
        assert entry.damaged == 1
        assert not entry.complete
        assert entry.rows == 1


def test_verify_finds_what_listing_does_not(filled):
    assert all(not v.problems and v.shards == 1 and v.unlisted == 0 for v in verify_entries(filled))
    flipped, cut, gone = sorted(shards_in(filled))
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(bytes(data))
    cut.write_bytes(cut.read_bytes()[:100])
    gone.unlink()
    before = sorted(filled.rglob("*"))
    verdicts = {v.name: v for v in verify_entries(filled)}
    assert "differ from the hash" in verdicts[flipped.parent.name].problems[0]
    assert "is damaged" in verdicts[cut.parent.name].problems[0]
    assert "absent" in verdicts[gone.parent.name].problems[0]
    assert sorted(filled.rglob("*")) == before


def test_gc_by_age(filled):
    plan = collect_garbage(filled, older_than_days=7, dry_run=True)
    assert [r.reason for r in plan] == ["not used for 10 days"]
    assert len(list_entries(filled)) == 3
    assert collect_garbage(filled, older_than_days=7) == plan
    assert not plan[0].path.exists()
    assert len(list_entries(filled)) == 2
    assert not list(filled.glob(".trash*"))


def test_gc_by_size_takes_the_longest_unused(filled):
    text, recent, old = list_entries(filled)
    limit = (text.bytes + recent.bytes + 1) / GIB
    assert [r.path for r in collect_garbage(filled, max_size_gb=limit)] == [old.path]
    assert [r.path for r in collect_garbage(filled, max_size_gb=0)] == [recent.path, text.path]
    assert list_entries(filled) == []


def test_gc_without_limits_removes_debris_only(filled):
    entry = list_entries(filled)[0].path
    (entry / ".shard-00003.safetensors.xyz.tmp").write_bytes(b"1234")
    (entry / "shard-00002.safetensors.bad").write_bytes(b"12345")
    (filled / ".trash-0123456789abcdef-1").mkdir()
    names = {(r.path.name, r.bytes) for r in collect_garbage(filled)}
    assert names == {
        (".shard-00003.safetensors.xyz.tmp", 4), ("shard-00002.safetensors.bad", 5), (".trash-0123456789abcdef-1", 0),
    }  # fmt: skip
    assert len(list_entries(filled)) == 3
    assert collect_garbage(filled) == []


def test_gc_leaves_what_is_being_written(filled):
    busy = list_entries(filled)[-1]
    with FileLock(busy.path / "writer.lock"):
        assert collect_garbage(filled, older_than_days=7, dry_run=True) == []
        assert collect_garbage(filled, older_than_days=7) == []
    with FileLock(busy.path / "writer-s0of2.lock"):
        assert busy.path not in [r.path for r in collect_garbage(filled, max_size_gb=0)]
    assert busy.path.exists()


def test_rows_removed_by_gc_are_computed_again(filled, provider, encoder, files):
    before = encoder.images
    collect_garbage(filled, max_size_gb=0)
    provider().get(request_for(files))
    assert encoder.images == before + 10


def test_missing_directory_is_named(tmp_path):
    for act in (list_entries, verify_entries, collect_garbage):
        with pytest.raises(CacheError, match="nowhere"):
            act(tmp_path / "nowhere")


def test_admin_imports_no_torch():
    code = "import sys, mtv.eval.features.admin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
