"""What goes wrong in real runs: kills, bad pictures, changed files, two processes, full disks, NaN, pickled code.

Each gets its documented behaviour; nothing that had landed is lost or computed again, and nothing is executed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from run_world import (
    Answer,
    CommandProcess,
    make_job,
    make_runner,
    noise,
    same_outcome,
    save,
    stored,
    write_coco,
    write_imagenet,
    write_spair,
)

import mtv.atomic
from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import CacheError
from mtv.eval.features.shard import read_shard
from mtv.eval.runner import Runner

Cli = Callable[..., Answer]
TASKS = ("-t", "knn", "-t", "coco", "-t", "spair", "--set", "knn.k=3", "--set", "spair.size=64", "--set", "spair.norm=final")
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
    from mtv.eval.cli import invoke

    out = tmp_path_factory.mktemp("reference")
    command = ["run", "-m", f"{tiny}:build", *TASKS, "--data", str(three), "--out", str(out), "--no-cache", "--quiet"]
    assert invoke([*command, "--workers", "0"]) == 0
    return out


@pytest.fixture
def picture_world(tmp_path: Path) -> Path:
    """ImageNet alone, for tests that spoil files."""
    write_imagenet(tmp_path / "data")
    return tmp_path / "data"


def same_store(a: Path, b: Path) -> None:
    found, other = stored(a), stored(b)
    assert list(found) == list(other)
    for key, result in found.items():
        same_outcome(result, other[key])


def forwarded(log: Path) -> int:
    """Pictures that went through the model, by its own account."""
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def landed(cache: Path) -> dict[Path, tuple[int, str]]:
    """Finished shards with pictures: modification time and hash."""
    found = {}
    for path in cache.glob("*/shard-*.safetensors"):
        if "text" not in read_shard(path).outputs:
            found[path] = path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows_in(shards: dict[Path, tuple[int, str]]) -> int:
    return len({(p.parent, i) for p in shards for i in read_shard(p).ids})


def results_in(out: Path) -> dict[Path, tuple[int, str]]:
    """Records with their modification time and hash."""
    return {
        p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in out.glob("*/*/*.json")
        if not p.name.startswith(".")
    }


# --------------------------------------------------------------------------------------------------------------- kills


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


def test_torchrun_equals_one_process(tiny: str, three: Path, reference: Path, tmp_path: Path) -> None:
    """Two ranks split the pictures; only the first writes, prints and records."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", str(port), "-m", "mtv.eval", "run", "-m", f"{tiny}:build", *TASKS, "--data", str(three),
        "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--workers", "0", "--json",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TINY_LOG": str(tmp_path / "log")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [r["run"]["processes"] for r in json.loads(done.stdout)] == [2, 2, 2]
    assert forwarded(tmp_path / "log") == PICTURES
    assert {p.name.split("-")[1] for p in landed(tmp_path / "cache")} == {"r0", "r1"}
    same_store(reference, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------ pictures


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes(b"" if how == "zero-byte" else data[: len(data) // 2] if how == "truncated" else b"hello, no picture")


@pytest.mark.parametrize("how", ["truncated", "zero-byte", "foreign"])
def test_unreadable_pictures_are_named(cli: Cli, tiny: str, picture_world: Path, tmp_path: Path, how: str) -> None:
    """Exit code 3, the file in the message, no result; after the repair only what is missing is computed."""
    bad = sorted(picture_world.rglob("*.JPEG"))[9]
    whole = bad.read_bytes()
    damage(bad, how)
    out = tmp_path / "out"
    args = ("run", "-m", f"{tiny}:build", "-t", "knn", "--data", picture_world, "--out", out, "--workers", 0)
    answer = cli(*args, "--batch-size", 4)
    assert answer.code == 3
    assert bad.name in answer.err
    assert "opy" in answer.err, "the message says what to do"
    ((_, record),) = stored(out).values()
    assert record.status == "failed"
    assert record.error is not None
    assert record.error["type"] == "DataError"
    assert str(picture_world) not in record.error["message"]
    before = rows_in(landed(tmp_path / "cache"))
    assert before == (9 if how == "truncated" else 0), "what came before the bad picture is kept"
    bad.write_bytes(whole)
    assert cli(*args).code == 0
    ((_, record),) = stored(out).values()
    assert (record.status, record.run["cache"]["hits"]) == ("complete", before)


def spell(image: Image.Image, kind: str, path: Path) -> Image.Image:
    """Write `image` in an unusual form; returns what a reader must see."""
    if kind == "cmyk":
        save(image.convert("CMYK"), path, format="TIFF" if path.suffix == ".tif" else "JPEG", quality=95)
        return Image.open(path).convert("RGB")
    if kind == "palette":
        small = image.quantize(32)
        save(small, path, format="PNG")
        return small.convert("RGB")
    if kind == "palette-alpha":
        small = image.quantize(32)
        save(small, path, format="PNG", transparency=3)
        return small.convert("RGB")
    if kind == "16-bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        save(Image.fromarray(grey * 257), path, format="PNG")
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(image, path, format="PNG", exif=exif)
    assert Image.open(path).getexif()[0x0112] == 6
    return image


@pytest.mark.parametrize("kind", ["cmyk", "palette", "palette-alpha", "16-bit", "exif"])
def test_unusual_pictures_become_rgb_by_fixed_rules(
    tiny: str, picture_world: Path, tmp_path: Path, kind: str
) -> None:
    """The vector of the picture is that of the same colours in a plain file; EXIF does not turn it (section 2.1)."""
    encoder = load(f"{tiny}:build")
    path = sorted(picture_world.rglob("*.JPEG"))[3]
    expected = spell(noise(3, 60, 40), kind, path)
    runner = make_runner(picture_world, None, cache=tmp_path / "cache")
    job = make_job("knn", k=3)
    runner.open([job])
    runner.run_model(encoder, [job])
    assert not runner.failures, runner.failures
    (shard,) = landed(tmp_path / "cache")
    from safetensors import safe_open

    row = read_shard(shard).ids.index(path.stem)
    with safe_open(str(shard), framework="pt") as f:
        found = f.get_slice("pooled")[row]
    wanted = encoder.features(encoder.normalize(encoder.transform()(expected)[None]), pooled=True).pooled
    assert wanted is not None
    torch.testing.assert_close(found, wanted[0], atol=1e-6, rtol=1e-6)


def test_an_unreadable_picture_of_another_task_does_not_matter(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    """One spoiled COCO picture: coco fails, knn is done, exit code 3."""
    write_imagenet(tmp_path / "data")
    write_coco(tmp_path / "data")
    damage(sorted((tmp_path / "data" / "coco" / "val2014").iterdir())[2], "truncated")
    args = ("-t", "coco", "-t", "knn", "--data", tmp_path / "data", "--out", tmp_path / "out", "--workers", 0)
    assert cli("run", "-m", f"{tiny}:build", *args).code == 3
    assert {t: r.status for (_, t), (_, r) in stored(tmp_path / "out").items()} == {"coco": "failed", "knn": "complete"}


# ---------------------------------------------------------------------------------------------- files behind the cache


def test_a_file_replaced_behind_the_cache_is_seen(tiny: str, picture_world: Path, tmp_path: Path) -> None:
    """Same size, other bytes: its row and the result are made again. Same bytes, new time: nothing is."""
    encoder, job = load(f"{tiny}:build"), make_job("knn", k=3)
    for path in picture_world.rglob("*.JPEG"):
        pad = 20_000 - path.stat().st_size
        path.write_bytes(path.read_bytes() + b"\0" * pad)

    def run() -> Runner:
        runner = make_runner(picture_world, tmp_path / "out", cache=tmp_path / "cache")
        runner.open([job])
        runner.run_model(encoder, [job])
        assert not runner.failures
        return runner

    first = run().results[0]
    victim, donor = sorted(picture_world.rglob("*.JPEG"))[1::7][:2]
    assert victim.stat().st_size == donor.stat().st_size
    shutil.copyfile(donor, victim)
    changed = run()
    assert changed.plans[0].state == "run"
    assert changed.results[0].run["cache"] == {"hits": 15, "misses": 1, "stale": 1}
    assert changed.results[0].data["content_sha256"] != first.data["content_sha256"]
    for path in picture_world.rglob("*.JPEG"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert run().plans[0].state == "done"


# ----------------------------------------------------------------------------------------------------------- full disk


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
    except CacheError as e:
        assert "No space left" in str(e)
        return []
    runner.run_model(encoder, jobs)
    return [runner]


def test_a_disk_that_is_full_at_any_write(
    tiny: str, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of every durable write in turn: the failure names the file, the other task goes on, a rerun completes."""
    encoder = load(f"{tiny}:build")
    monkeypatch.setattr(mtv.atomic, "_fsync", counter := FullDisk(lambda step, name: False))
    attempt(encoder, three, tmp_path / "whole")
    whole = stored(tmp_path / "whole" / "out")
    assert counter.steps >= 28
    cases = [(f"step-{k}", lambda step, name, k=k: step == k) for k in range(1, counter.steps + 1)]
    cases.append(("picture", lambda step, name: ".webp" in name))
    for label, fails in cases:
        where = tmp_path / label
        monkeypatch.setattr(mtv.atomic, "_fsync", FullDisk(fails))
        for runner in attempt(encoder, three, where, artefacts=label == "picture"):
            assert len(runner.failures) == (2 if label == "picture" else 1), label
            for failure in runner.failures:
                assert "cannot write" in failure.message, (label, failure)
                assert "No space left on device" in failure.message
                assert "a rerun continues there" in failure.message
                assert runner.exit_code == 1
        assert not [p for p in where.rglob("*") if p.name.endswith(".tmp") or "write-test" in p.name]
        monkeypatch.setattr(mtv.atomic, "_fsync", FullDisk.real)
        (again,) = attempt(encoder, three, where)
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


# ------------------------------------------------------------------------------------------------------- bad numbers


def test_nan_weights_are_refused(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    """From a module and from a file: the tensor is named, the exit code is 1, nothing is scored."""
    from safetensors.torch import save_file

    out = tmp_path / "out"
    args = ("-t", "knn", "--data", world, "--out", out, "--workers", 0)
    answer = cli("run", "-m", f"bad={tiny}:nan_weights", *args)
    assert answer.code == 1
    assert "'mix.bias' holds 1 values that are NaN" in answer.err
    state = load("timm:vit_tiny_patch16_224@random").module.state_dict()
    state["blocks.3.mlp.fc1.weight"][5, 7] = float("inf")
    save_file(dict(state), str(tmp_path / "w.safetensors"))
    answer = cli("run", "-m", f"file=timm:vit_tiny_patch16_224.augreg_in21k@{tmp_path / 'w.safetensors'}", *args)
    assert answer.code == 1
    assert "'blocks.3.mlp.fc1.weight' holds 1 values" in answer.err
    assert {m: r.status for (m, _), (_, r) in stored(out).items()} == {"bad": "failed", "file": "failed"}


def test_features_that_are_not_finite_name_the_picture(cli: Cli, tiny: str, picture_world: Path, tmp_path: Path) -> None:
    """One black picture on which the model overflows: an error with its id, never a value; the others are kept."""
    black = sorted(picture_world.rglob("*.JPEG"))[6]
    Image.new("RGB", (40, 40)).save(black, format="JPEG")
    args = ("-t", "knn", "--data", picture_world, "--out", tmp_path / "out", "--workers", 0, "--batch-size", 1)
    answer = cli("run", "-m", f"{tiny}:infinite_on_black", *args)
    assert answer.code == 1
    assert f"'{black.stem}'" in answer.err
    assert "not finite" in answer.err
    ((_, record),) = stored(tmp_path / "out").values()
    assert record.error is not None
    assert record.error["type"] == "NumericalError"
    assert not record.metrics
    assert rows_in(landed(tmp_path / "cache")) == 6


# -------------------------------------------------------------------------------------------------------- hostile files


class Bomb:
    """A pickle that writes a file when it is opened carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_with_code_is_refused_and_not_executed(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    """The other model of the run is measured."""
    marker, out = tmp_path / "marker", tmp_path / "out"
    torch.save({"state_dict": {"weight": torch.zeros(1), "extra": Bomb(marker)}}, tmp_path / "bomb.pt")
    args = ("-t", "knn", "--data", world, "--out", out, "--workers", 0)
    bomb = f"bomb=timm:vit_tiny_patch16_224@{tmp_path / 'bomb.pt'}"
    answer = cli("run", "-m", bomb, "-m", f"good={tiny}:build", *args)
    assert answer.code == 1
    assert "refused; nothing in it was executed" in answer.err
    assert not marker.exists()
    assert {m: r.status for (m, _), (_, r) in stored(out).items()} == {"bomb": "failed", "good": "complete"}
    assert cli("inspect", bomb).code == 1
    assert not marker.exists()
    # The trap works: opened carelessly, it would have gone off.
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert marker.exists()


def test_a_factory_that_fails_is_reported_with_its_reason(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    args = ("-t", "knn", "--data", world, "--out", tmp_path / "out", "--workers", 0)
    answer = cli("run", "-m", f"{tiny}:broken", "-m", f"good={tiny}:build", *args)
    assert answer.code == 2
    assert "RuntimeError: no such luck" in answer.err
    assert [r.status for _, r in stored(tmp_path / "out").values()] == ["complete"]

