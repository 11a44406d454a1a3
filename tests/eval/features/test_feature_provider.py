"""Hits, misses, shapes, rounding and invariances of `FeatureProvider`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from feature_world import PngPreparation, TinyEncoder, naive, request_for, save_noise, shards_in, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import CacheError, UsageError
from mtv.eval.features import planning
from mtv.eval.features.api import FeatureProvider, Stats
from mtv.eval.features.options import Throttle
from mtv.hashing import sha256_file, sha256_json


def test_rows_equal_the_naive_loop(provider, encoder, files):
    request = request_for(files)
    got = provider().get(request)
    assert got.ids == list(files)
    assert got.outputs == ("layer0", "layer2", "pooled", "global")
    for i in files:
        want = naive(encoder, request, i)
        for name, row in got.get(i).items():
            assert row.dtype == torch.float32
            # The oracle rounds tokens to fp16 too, so a batch effect may flip one rounding: 1 ulp at magnitude < 8.
            torch.testing.assert_close(row, want[name], atol=4e-3 if name.startswith("layer") else 1e-6, rtol=0)


def test_second_provider_computes_nothing(provider, encoder, files):
    first = provider()
    a = first.get(request_for(files))
    assert (first.stats.hits, first.stats.misses, encoder.images) == (0, 10, 10)
    second = provider()
    b = second.get(request_for(files))
    assert (second.stats.hits, second.stats.misses, encoder.images) == (10, 0, 10)
    for i in files:
        assert all(torch.equal(a.get(i)[n], b.get(i)[n]) for n in a.outputs)


def test_subset_then_full_share_rows(provider, encoder, files, cache):
    subset = {k: files[k] for k in list(files)[3:7]}
    provider().get(request_for(subset))
    full = provider()
    assert full.plan(request_for(files)).missing == 6
    features = full.get(request_for(files))
    assert encoder.images == 10
    assert full.stats.hits == 4
    assert len(list(cache.glob("*/meta.json"))) == 1
    assert features.ids == list(files)
    assert torch.equal(features.stack(list(subset), "pooled")[1], features.get(list(subset)[1])["pooled"])


def test_layout_meta_and_done(provider, encoder, files, cache):
    request = request_for(files)
    provider().get(request)
    key = request.key(encoder.info)
    (entry,) = [d for d in cache.iterdir() if d.name != "content"]
    assert entry.name == sha256_json(key)[:16]
    assert json.loads((entry / "meta.json").read_text())["key"] == json.loads(json.dumps(key))
    done = json.loads((entry / "DONE").read_text())
    assert done["rows"] == 10
    assert {n: s["sha256"] for n, s in done["shards"].items()} == {p.name: sha256_file(p) for p in shards_in(cache)}
    assert not list(entry.glob(".*.tmp"))
    assert (entry / "writer.lock").read_bytes() == b""


def test_everything_in_the_key_misses(provider, encoder, files):
    base = {"layers": (0,), "pooled": True, "global_token": False}
    provider().get(request_for(files, **base))
    variants = [
        {"mean": (0.5, 0.4, 0.31)}, {"std": (0.2, 0.3, 0.41)}, {"layers": (1,)}, {"norm": "none"}, {"storage": "fp32"},
        {"pooled": False}, {"preparation": PngPreparation(16)}, {"data": "other"}, {"extra_key": {"crop": 3}},
    ]  # fmt: skip
    for change in variants:
        before = encoder.images
        provider().get(request_for(files, **{**base, **change}))
        assert encoder.images == before + 10, change
    other = TinyEncoder(seed=1)
    provider(other).get(request_for(files, **base))
    assert other.images == 10


def test_changed_file_is_stale_and_computed_again(provider, encoder, files, caplog):
    request = request_for(files)
    old = provider().get(request).get("im0003")["pooled"]
    save_noise(files["im0003"][0].path, seed=99)
    again = provider()
    with caplog.at_level(logging.WARNING):
        new = again.get(request)
    assert (again.stats.hits, again.stats.misses, again.stats.stale) == (9, 1, 1)
    assert "1 of 10 rows" in caplog.text
    assert "im0003" in caplog.text
    assert not torch.equal(new.get("im0003")["pooled"], old)
    torch.testing.assert_close(new.get("im0003")["pooled"], naive(encoder, request, "im0003")["pooled"])
    save_noise(files["im0003"][0].path, seed=3)  # the first bytes again: their row is still there
    back = provider()
    assert torch.equal(back.get(request).get("im0003")["pooled"], old)
    assert back.stats.misses == 0


def test_without_cache_nothing_is_written_and_rows_are_the_same(provider, files, cache):
    request = request_for(files)
    stored = provider().get(request)
    before = sorted(cache.rglob("*"))
    memory = provider(cache_dir=None).get(request)
    assert sorted(cache.rglob("*")) == before
    for i in files:
        assert all(torch.equal(stored.get(i)[n], memory.get(i)[n]) for n in stored.outputs)
    assert torch.equal(memory.stack(output="layer2"), stored.stack(output="layer2"))


def test_tokens_are_rounded_to_storage_everywhere(provider, encoder, files):
    half = provider(cache_dir=None).get(request_for(files)).stack(output="layer2")
    full = provider(cache_dir=None).get(request_for(files, storage="fp32")).stack(output="layer2")
    assert torch.equal(half, full.half().float())
    assert not torch.equal(half, full)
    assert torch.equal(provider().get(request_for(files, storage="fp32")).stack(output="layer2"), full)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 2), (7, 1), (64, 2)])
def test_batch_size_and_workers_change_nothing(provider, files, batch_size, workers):
    reference = provider(cache_dir=None).get(request_for(files, storage="fp32"))
    other = provider(cache_dir=None, batch_size=batch_size, workers=workers).get(request_for(files, storage="fp32"))
    for output in reference.outputs:
        torch.testing.assert_close(other.stack(output=output), reference.stack(output=output), atol=1e-6, rtol=0)


def test_workers_alone_are_bitwise(provider, files):
    one = provider(cache_dir=None, workers=0).get(request_for(files))
    two = provider(cache_dir=None, workers=2).get(request_for(files))
    assert all(torch.equal(one.stack(output=o), two.stack(output=o)) for o in one.outputs)


def test_padding_is_zero_after_normalisation_with_the_odd_pixel_last(provider, encoder, tmp_path):
    files = write_pictures(tmp_path / "odd", 2, side=27)
    seen = []
    encoder.before = lambda x: seen.append(x.clone())
    request = request_for(files, preparation=PngPreparation(27), pad_to_patch=True)
    features = provider().get(request)
    (x,) = seen
    assert x.shape[-2:] == (32, 32)
    assert (x[..., :2, :] == 0).all()
    assert (x[..., -3:, :] == 0).all()
    assert (x[..., :2] == 0).all()
    assert (x[..., -3:] == 0).all()
    assert x[..., 2:-3, 2:-3].abs().min() < x[..., 2:-3, 2:-3].abs().max()
    assert features.get("im0000")["layer0"].shape == (4, 4, 16)
    with pytest.raises(UsageError, match="27x27 is no multiple of patch 8"):
        provider().get(request_for(files, preparation=PngPreparation(27)))


def test_plan_counts_sizes_and_writes_no_rows(provider, encoder, files, cache):
    plan = provider().plan(request_for(files))
    assert (plan.total, plan.cached, plan.stale, plan.missing, plan.placement) == (10, 0, 0, 10, "disk")
    assert plan.output_shapes == {"layer0": (4, 4, 16), "layer2": (4, 4, 16), "pooled": (12,), "global": (16,)}
    assert encoder.images == 0
    assert not list(shards_in(cache))
    provider().get(request_for(files))
    actual = sum(p.stat().st_size for p in shards_in(cache))
    assert 0.8 * plan.bytes_to_store < actual < 1.2 * plan.bytes_to_store
    after = provider().plan(request_for(files))
    assert (after.cached, after.bytes_to_store, after.output_shapes) == (10, 0, plan.output_shapes)


def test_above_the_limit_rows_stay_in_memory_and_it_is_said(provider, files, cache, caplog):
    with caplog.at_level(logging.WARNING):
        features = provider(cache_limit_gb=1e-6).get(request_for(files))
    assert "--cache-limit-gb 1e-06" in caplog.text
    assert "kept in memory" in caplog.text
    assert len(features) == 10
    assert not list(shards_in(cache))
    assert torch.equal(features.stack(output="pooled"), provider().get(request_for(files)).stack(output="pooled"))


def test_above_the_limit_stored_rows_are_still_used(provider, encoder, files):
    provider().get(request_for({k: files[k] for k in list(files)[:4]}))
    features = provider(cache_limit_gb=1e-6).get(request_for(files))
    assert encoder.images == 10
    assert features.ids == list(files)
    assert features.stack(output="pooled").shape == (10, 12)


def test_too_large_for_memory_says_which_option_to_raise(provider, encoder, files, monkeypatch):
    monkeypatch.setattr(planning, "free_memory_bytes", lambda: 1000)
    with pytest.raises(UsageError, match="cache-limit-gb to 1 or more"):
        provider(cache_limit_gb=1e-6).get(request_for(files))
    with pytest.raises(UsageError, match="--cache DIR"):
        provider(cache_dir=None).get(request_for(files))
    assert encoder.images == 0


def test_free_memory_is_plausible():
    assert 1 << 20 < planning.free_memory_bytes() < 1 << 50


def test_requests_that_do_not_fit_the_encoder(provider, encoder, files):
    with pytest.raises(UsageError, match="layer 3 does not exist"):
        provider().get(request_for(files, layers=(3,)))
    with pytest.raises(UsageError, match=r"bf16.*loaded in fp32"):
        provider().get(request_for(files, tower_dtype="bf16"))
    with pytest.raises(UsageError, match="without samples"):
        provider().get(request_for({}))
    assert encoder.images == 0


def test_empty_share_of_a_small_set_is_no_error(provider, encoder):
    p = provider(shard=(2, 3))
    assert p.plan(request_for({})).total == 0
    assert p.get(request_for({})).ids == []


def test_bf16_tower_stores_fp32_and_fp16(provider, files):
    encoder = TinyEncoder()
    encoder.to(dtype=torch.bfloat16)
    features = provider(encoder).get(request_for(files, tower_dtype="bf16"))
    row = features.get("im0001")
    assert row["pooled"].dtype == row["layer0"].dtype == torch.float32
    assert torch.equal(row["pooled"], row["pooled"].bfloat16().float())


def test_unknown_ids_and_outputs_are_named(provider, files):
    features = provider().get(request_for(files))
    with pytest.raises(UsageError, match="'nope'"):
        features.get("nope")
    with pytest.raises(UsageError, match="not 'layer1'"):
        features.stack(output="layer1")
    assert "im0000" in features
    assert "nope" not in features


def test_returned_rows_are_the_callers_own(provider, files):
    for features in (provider().get(request_for(files)), provider(cache_dir=None).get(request_for(files))):
        row = features.get("im0000")["pooled"]
        kept = row.clone()
        row.zero_()
        assert torch.equal(features.get("im0000")["pooled"], kept)


@settings(max_examples=25, deadline=None)
@given(picks=st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_stack_is_get_in_any_order_with_repeats(picks):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = _shared_files(Path(folder))
        features = FeatureProvider(TinyEncoder(), _many_shards(Path(folder))).get(request_for(files))
        ids = [f"im{i:04d}" for i in picks]
        assert torch.equal(features.stack(ids, "layer0"), torch.stack([features.get(i)["layer0"] for i in ids]))


def _shared_files(folder: Path):
    return write_pictures(folder / "data", 10, side=8)


def _many_shards(folder: Path):
    from feature_world import options_for

    return options_for(folder / "cache", batch_size=3)


def test_stats_of_one_task_are_a_difference(provider, files):
    p = provider()
    p.get(request_for(files))
    before = p.stats
    p.get(request_for(files))
    assert p.stats - before == Stats(hits=10, batch_size=before.batch_size, seconds=(p.stats - before).seconds)
    assert before.images_per_s > 0
    assert 0 <= before.data_wait_share <= 1
    assert (p.stats - before).images_per_s == 0


def test_progress_ends_at_the_total(provider, files):
    calls = []
    provider(progress=lambda *a: calls.append(a)).get(request_for(files))
    assert [c for c in calls if c[0] == "extract"][-1][1:3] == (10, 10)
    assert [c for c in calls if c[0] == "hash"][-1][1:3] == (10, 10)
    assert "images/s" in calls[-1][3]
    assert "waiting for data" in calls[-1][3]


def test_throttle_drops_all_but_the_last():
    calls = []
    tick = Throttle(lambda *a: calls.append(a), interval_s=60)
    for i in range(1, 101):
        tick("x", i, 100, "")
    assert [c[1] for c in calls] == [1, 100]


def test_read_only_store_serves_hits(provider, encoder, files, cache, monkeypatch):
    request = request_for(files)
    provider().get(request)

    def refuse(*a, **k):
        raise AssertionError("a hit must not write")

    monkeypatch.setattr("mtv.eval.features.store.atomic_write_json", refuse)
    monkeypatch.setattr("mtv.eval.features.lock.FileLock.acquire", refuse)
    monkeypatch.setattr("mtv.eval.features.content.atomic_write_bytes", refuse)
    monkeypatch.setattr("mtv.eval.features.content._RACY_NS", 1 << 62)  # fresh test files would be remembered by now
    assert len(provider().get(request)) == 10
    assert encoder.images == 10


def test_meta_of_another_key_is_refused(provider, files, cache):
    provider().get(request_for(files))
    (meta,) = cache.glob("*/meta.json")
    content = json.loads(meta.read_text())
    content["key"]["model"] = "another"
    meta.write_text(json.dumps(content))
    with pytest.raises(CacheError, match="holds another key"):
        provider().get(request_for(files))
