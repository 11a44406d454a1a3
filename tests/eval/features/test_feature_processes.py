"""Several processes on one cache: killed, waiting, torchrun ranks, `--shard i/n`.

Children are forked, not started afresh: importing torch takes seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from feature_world import PngPreparation, TinyEncoder, options_for, request_for, shards_in, write_pictures

from mtv.errors import MtvError
from mtv.eval.features import distributed
from mtv.eval.features.api import FeatureProvider, shard_filter
from mtv.eval.features.store import shard_paths

FORK = multiprocessing.get_context("fork")


def _start(work: Callable[..., Any], *args: Any) -> tuple[multiprocessing.Process, Any]:
    """Run `work(*args)` in a child; its JSON answer or traceback arrives in the pipe."""
    receive, send = FORK.Pipe(duplex=False)

    def body() -> None:
        torch.set_num_threads(1)
        try:
            send.send((True, work(*args)))
        except BaseException:
            send.send((False, traceback.format_exc()))

    process = FORK.Process(target=body)
    process.start()
    send.close()
    return process, receive


def _answer(process: multiprocessing.Process, receive: Any, *, ok: bool = True) -> Any:
    assert receive.poll(60), "child did not answer"
    good, value = receive.recv()
    process.join(60)
    assert good is ok, value
    return value


def _wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def _extract(cache: Path, files: dict, delay_s: float, flush_rows: int, **options: Any) -> dict[str, Any]:
    """One process's run; returns its counters and the pooled rows."""
    from mtv.eval.features import writer

    writer.FLUSH_ROWS = flush_rows
    provider = FeatureProvider(TinyEncoder(), options_for(cache, **options))
    rows = provider.get(request_for(files, preparation=PngPreparation(delay_s=delay_s)))
    stats = provider.stats
    return {"hits": stats.hits, "misses": stats.misses, "rows": rows.stack(output="pooled").tolist(), "ids": rows.ids}


def test_killed_run_continues_at_the_first_missing_rows(tmp_path, cache):
    files = write_pictures(tmp_path / "data", 24)
    # Two loader processes, so that the kill also leaves orphans behind that must not keep the lock.
    process, _ = _start(lambda: _extract(cache, files, 0.05, 4, workers=2))
    _wait_for(lambda: len(list(shards_in(cache))) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = 4 * len(list(shards_in(cache)))
    assert 8 <= kept < 24
    assert not list(cache.glob("*/DONE"))
    started = time.monotonic()
    encoder = TinyEncoder()
    provider = FeatureProvider(encoder, options_for(cache))
    got = provider.get(request_for(files)).stack(output="pooled")
    assert (provider.stats.hits, provider.stats.misses, encoder.images) == (kept, 24 - kept, 24 - kept)
    assert time.monotonic() - started < 4, "waited for the orphans of the killed run"
    whole = FeatureProvider(TinyEncoder(), options_for(None)).get(request_for(files)).stack(output="pooled")
    assert torch.equal(got, whole)
    (done,) = cache.glob("*/DONE")
    assert set(json.loads(done.read_text())["shards"]) == {p.name for p in shards_in(cache)}


def test_second_process_waits_and_reuses(tmp_path, cache):
    files = write_pictures(tmp_path / "data", 8)
    first = _start(lambda: _extract(cache, files, 0.05, 4096))
    _wait_for(lambda: any(p.stat().st_size for p in cache.glob("*/writer.lock")))
    second = _start(lambda: _extract(cache, files, 0.05, 4096))
    a, b = _answer(*first), _answer(*second)
    assert (a["misses"], b["misses"], b["hits"]) == (8, 0, 8)
    assert a["rows"] == b["rows"]
    assert len(list(shards_in(cache))) == 1


def test_waiting_names_the_holder(tmp_path, cache, caplog):
    files = write_pictures(tmp_path / "data", 6)
    process, receive = _start(lambda: _extract(cache, files, 0.5, 4096))
    _wait_for(lambda: any(p.stat().st_size for p in cache.glob("*/writer.lock")))
    with caplog.at_level("INFO"):
        FeatureProvider(TinyEncoder(), options_for(cache)).get(request_for(files))
    assert f"held by pid {process.pid} on {socket.gethostname()}" in caplog.text
    _answer(process, receive)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _ranks(world: int, work: Callable[[int], Any], *, ok: bool = True) -> list[Any]:
    """Run `work(rank)` in `world` processes with the environment of torchrun."""
    port = _free_port()

    def as_rank(rank: int) -> Any:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
        )  # fmt: skip
        distributed.dist_context.cache_clear()
        return work(rank)

    children = [_start(as_rank, rank) for rank in range(world)]
    return [_answer(*child, ok=ok) for child in children]


@pytest.mark.parametrize("stored", [True, False], ids=["disk", "memory"])
def test_two_ranks_equal_one_process(tmp_path, cache, stored):
    files = write_pictures(tmp_path / "data", 11)
    a, b = _ranks(2, lambda rank: _extract(cache if stored else None, files, 0.0, 2, batch_size=1))
    one = FeatureProvider(TinyEncoder(), options_for(None, batch_size=1)).get(request_for(files))
    assert a["ids"] == b["ids"] == one.ids
    assert a["rows"] == b["rows"] == one.stack(output="pooled").tolist()
    assert a["misses"] == 11
    if stored:
        names = {p.name for p in shards_in(cache)}
        assert any("-r0-" in n for n in names)
        assert any("-r1-" in n for n in names)
        (done,) = cache.glob("*/DONE")
        assert set(json.loads(done.read_text())["shards"]) == names


def test_error_of_one_rank_is_the_error_of_all(tmp_path, cache):
    files = write_pictures(tmp_path / "data", 8)
    files["im0005"][0].path.write_bytes(b"no picture")  # rank 1 of 2 has the odd positions

    def work(rank: int) -> str:
        try:
            _extract(cache, files, 0.0, 4096)
        except MtvError as e:
            return f"{type(e).__name__}: {e.message}"
        return "no error"

    a, b = _ranks(2, work)
    assert a == b
    assert a.startswith("DataError")
    assert "im0005.png" in a
    assert len(list(shards_in(cache))) == 2, "both ranks kept what they had"


def test_text_is_computed_by_rank_0_alone(cache):
    strings = [f"text {i}" for i in range(9)]

    def work(rank: int) -> Any:
        encoder = TinyEncoder()
        provider = FeatureProvider(encoder, options_for(cache))
        weights = provider.classifier(["cat", "dog"], ["a {}."])
        captions = provider.text(strings, kind="caption")
        return encoder.texts, captions.tolist(), weights.tolist()

    a, b = _ranks(2, work)
    assert a[1:] == b[1:]
    assert (a[0], b[0]) == (11, 0)


def test_shares_of_a_sharded_run_fill_one_entry_at_once(tmp_path, cache):
    files = write_pictures(tmp_path / "data", 20)
    shares = [shard_filter(files, i, 3) for i in range(3)]
    assert sorted(i for share in shares for i in share) == sorted(files)

    def work(i: int) -> int:
        return _extract(cache, {k: files[k] for k in shares[i]}, 0.02, 4096, shard=(i, 3))["misses"]

    children = [_start(work, i) for i in range(3)]
    assert [_answer(*c) for c in children] == [len(s) for s in shares]
    union = FeatureProvider(encoder := TinyEncoder(), options_for(cache))
    union.get(request_for(files))
    assert encoder.images == 0
    (entry,) = [d for d in cache.iterdir() if d.name != "content"]
    assert {p.name for p in shard_paths(entry)} == set(json.loads((entry / "DONE").read_text())["shards"])
