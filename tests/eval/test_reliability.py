"""Kills, several processes, full disks: nothing that had landed is lost or made again, and the outcome is the same."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_helpers import (
    Answer,
    CommandProcess,
    forwarded,
    landed,
    make_job,
    make_runner,
    mtv_eval,
    rows_in,
    same_outcome,
    stored,
)
from run_world import write_coco, write_imagenet, write_spair

import mtv.atomic
from mtv.encoders.base import Encoder
from mtv.errors import CacheError
from mtv.eval.runner import Runner

Cli = Callable[..., Answer]
TASKS = ("-t", "knn", "-t", "coco", "-t", "spair", "--set", "knn.k=3", "--set", "spair.size=64")
PICTURES = 16 + 6 + 12
"""Forward passes of `TASKS`: imagenet, coco, spair."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet, COCO and SPair, old enough for time stamps to be trusted."""
    root = tmp_path_factory.mktemp("three")
    for write in (write_imagenet, write_coco, write_spair):
        write(root)
    return root


@pytest.fixture(scope="module")
def reference(tiny: str, three: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one process."""
    out = tmp_path_factory.mktemp("reference")
    args = (*TASKS, "--data", three, "--out", out, "--no-cache", "--quiet", "--workers", 0)
    assert mtv_eval("run", "-m", f"{tiny}:build", *args) == 0
    return out


def same_store(a: Path, b: Path) -> None:
    found, other = stored(a), stored(b)
    assert list(found) == list(other)
    for key, result in found.items():
        same_outcome(result, other[key])


def results_in(out: Path) -> dict[Path, tuple[int, str]]:
    """Records with their modification time and hash."""
    return {
        p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in out.glob("*/*/*.json")
        if not p.name.startswith(".")
    }


def test_sigkill_at_random_moments_loses_nothing(tiny: str, three: Path, reference: Path, tmp_path: Path) -> None:
    """Killed anywhere between start and end, then finished: equal outcome, no landed row or result made again."""
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = (
        "run", "-m", f"{tiny}:build", *TASKS, "--data", three, "--out", out, "--cache", cache,
        "--workers", 0, "--batch-size", 2, "--quiet",
    )  # fmt: skip
    rng = random.Random(20)
    shards: dict[Path, tuple[int, str]] = {}
    records: dict[Path, tuple[int, str]] = {}
    kills = 0
    for attempt in range(8):
        last = attempt == 7
        log = tmp_path / f"log-{attempt}"
        env = {"TINY_LOG": str(log), "TINY_DELAY": "0" if last else "0.02"}
        process = CommandProcess(command, tmp_path / f"process-{attempt}", env=env, flush_rows=4)
        if not last:
            wait_for(log, rng.randrange(0, 6), process, rng.uniform(0, 0.1))
            kills += process.process.exitcode is None
            process.kill()
        else:
            assert process.answer().code == 0
        now, done = landed(cache), results_in(out)
        # What had landed is still there, bit for bit, never touched again.
        assert shards.items() <= now.items(), attempt
        assert records.items() <= done.items(), attempt
        if last:
            assert forwarded(log) == PICTURES - rows_in(shards)
        shards, records = now, done
    assert kills >= 4
    assert rows_in(shards) == PICTURES
    same_store(reference, out)


def wait_for(log: Path, batches: int, process: CommandProcess, delay: float) -> None:
    """Until so many forward passes are done, two seconds or the process are over, and a little longer."""
    end = time.monotonic() + 2
    while process.process.exitcode is None and time.monotonic() < end:
        if (len(log.read_text().split()) if log.exists() else 0) >= batches:
            break
        time.sleep(0.005)
    process.process.join(delay)


def test_two_processes_on_one_cache_share_the_work(tiny: str, three: Path, reference: Path, tmp_path: Path) -> None:
    """Started together on the same cache and store: both succeed, no picture goes through the model twice."""
    out, cache, log = tmp_path / "out", tmp_path / "cache", tmp_path / "log"
    command = (
        "run", "-m", f"{tiny}:build", *TASKS, "--data", three, "--out", out, "--cache", cache,
        "--workers", 0, "--batch-size", 2, "--quiet",
    )  # fmt: skip
    env = {"TINY_LOG": str(log), "TINY_DELAY": "0.02"}
    both = [CommandProcess(command, tmp_path / f"process-{i}", env=env, flush_rows=4) for i in range(2)]
    answers = [p.answer() for p in both]
    assert [a.code for a in answers] == [0, 0], answers
    assert forwarded(log) == PICTURES
    same_store(reference, out)


def torchrun(*words: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`mtv-eval` under two processes. The launcher chooses the port: one that we look for may be taken until then."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--local-addr", "127.0.0.1"]
    command = [sys.executable, *launcher, "-m", "mtv.eval", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def test_torchrun_equals_one_process(tiny: str, three: Path, reference: Path, tmp_path: Path) -> None:
    """Two ranks split the pictures; only the first scores, writes, prints and records."""
    where = ("--data", three, "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--workers", 0)
    log = {"TINY_LOG": str(tmp_path / "log")}
    done = torchrun("run", "-m", f"{tiny}:build", *TASKS, *where, "--json", env=log)
    assert done.returncode == 0, done.stderr
    assert [r["run"]["processes"] for r in json.loads(done.stdout)] == [2, 2, 2]
    assert forwarded(tmp_path / "log") == PICTURES
    assert {p.name.split("-")[1] for p in landed(tmp_path / "cache")} == {"r0", "r1"}
    same_store(reference, tmp_path / "out")


def test_a_failure_while_scoring_ends_all_processes(tiny: str, tmp_path: Path) -> None:
    """Classes of one picture each cannot be voted on: known only after the pass, by the process that scores."""
    write_imagenet(tmp_path / "data", per_class=(1, 1, 1, 1, 1))
    where = ("--data", tmp_path / "data", "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--workers", 0)
    done = torchrun("run", "-m", f"{tiny}:build", "-t", "knn", *where, env={})
    assert done.returncode != 0
    assert "every class has a single image" in done.stderr
    ((_, record),) = stored(tmp_path / "out").values()
    assert record.status == "failed"


class FullDisk:
    """Makes one step of `mtv.atomic` fail as a full disk does, and counts them: each write has two, file and folder."""

    real = staticmethod(mtv.atomic._fsync)

    def __init__(self, fails: Callable[[int, str], bool]) -> None:
        self.fails, self.steps = fails, 0

    def __call__(self, path: Path) -> None:
        self.steps += 1
        if self.fails(self.steps, path.name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.real(path)


def attempt(encoder: Encoder, world: Path, where: Path, *, artefacts: bool = False) -> list[Runner]:
    """One run in a fresh runner; a store that cannot be written ends it before anything is computed."""
    jobs = [make_job("knn", k=3, limit=6), make_job("coco", limit=3)]
    runner = make_runner(world, where / "out", cache=where / "cache", artefacts=artefacts)
    try:
        runner.open(jobs)
    except CacheError:
        return []
    runner.run_model(encoder, jobs)
    return [runner]


def test_a_disk_that_is_full_at_any_write(
    tiny_encoder: Encoder, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write step in turn: the failure names the file, the other task goes on, and a rerun completes."""
    monkeypatch.setattr(mtv.atomic, "_fsync", counter := FullDisk(lambda step, name: False))
    attempt(tiny_encoder, three, tmp_path / "whole")
    whole = stored(tmp_path / "whole" / "out")
    assert counter.steps >= 28
    # Odd steps are files; of the even ones, the folders, a few.
    steps = [*range(1, counter.steps + 1, 2), 2, 8, counter.steps]
    cases = [(f"step-{k}", lambda step, name, k=k: step == k) for k in steps]
    cases.append(("picture", lambda step, name: ".webp" in name))
    for label, fails in cases:
        where = tmp_path / label
        monkeypatch.setattr(mtv.atomic, "_fsync", FullDisk(fails))
        for runner in attempt(tiny_encoder, three, where, artefacts=label == "picture"):
            assert len(runner.failures) == (2 if label == "picture" else 1), label
            for failure in runner.failures:
                assert "cannot write" in failure.message, (label, failure)
                assert "No space left on device" in failure.message
                assert "a rerun continues there" in failure.message
                assert runner.exit_code == 1
        assert not [p for p in where.rglob("*") if p.name.endswith(".tmp") or "write-test" in p.name]
        monkeypatch.setattr(mtv.atomic, "_fsync", FullDisk.real)
        (again,) = attempt(tiny_encoder, three, where)
        assert not again.failures
        found = stored(where / "out")
        for key, result in whole.items():
            same_outcome(result, found[key])
        shutil.rmtree(where)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB, where mounting is allowed."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here; the simulated full disk is tested above")
    yield place
    # Lazily: the kernel may still be closing a file when the test is over.
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_truly_full_disk(cli: Cli, tiny: str, three: Path, small_disk: Path, tmp_path: Path) -> None:
    """The space is checked before the first forward pass, and the message says how much is missing."""
    args = ("run", "-m", f"{tiny}:build", "-t", "spair", "--data", three, "--out", tmp_path / "out", "--workers", 0)
    full = cli(*args, "--cache", small_disk / "cache")
    assert full.code == 1
    assert "are free" in full.err
    assert not list(small_disk.rglob("shard-*"))
    (small_disk / "ballast").write_bytes(b"\0" * (250 << 10))
    full = cli(*args, "--out", small_disk / "out", "--cache", tmp_path / "cache", "--set", "spair.size=64")
    assert full.code == 1
    assert "No space left" in full.err
