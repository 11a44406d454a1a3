"""What goes wrong during extraction: every error names its thing, and what was finished before is kept."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import signal
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from feature_world import PngPreparation, age, naive, request_for, save_noise, shards_in

from mtv.errors import CacheError, DataError, MtvError, NumericalError, UsageError
from mtv.eval.features import extract, loader, store
from mtv.eval.features.loader import iter_batches


def _poison(value: float, position: int, output_ndim: int):
    """Puts `value` into row `position` (counted over the run) of tensors with that many dimensions."""
    seen = {"rows": 0}

    def after(x: torch.Tensor) -> torch.Tensor:
        if x.ndim != output_ndim:
            return x
        row = position - seen["rows"]
        seen["rows"] += len(x)
        if 0 <= row < len(x):
            x = x.clone()
            x[row].view(-1)[-1] = value
        return x

    return after


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_features_name_the_sample_and_are_not_stored(provider, encoder, files, cache, value):
    encoder.after = _poison(value, 6, output_ndim=2)
    with pytest.raises(NumericalError, match=r"pooled of sample 'im0006' of noise is not finite"):
        provider().get(request_for(files))
    encoder.after = lambda x: x
    again = provider()
    again.get(request_for(files))
    assert again.stats.hits == 4, "the batch before the bad one is kept, the bad one is not"


@pytest.mark.parametrize("value", [65520.0, -1e30])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_fp16_overflow_names_the_sample_and_the_option(provider, encoder, files, cache, value, where):
    encoder.after = _poison(value, 5, output_ndim=4)
    with pytest.raises(NumericalError, match=r"(?s)'im0005'.*--set <task>.storage=fp32"):
        provider(cache_dir=cache if where == "disk" else None).get(request_for(files, layers=(2,)))


def test_largest_fp16_value_and_large_pooled_values_pass(provider, encoder, files):
    encoder.after = _poison(65519.0, 5, output_ndim=4)
    assert provider().get(request_for(files, layers=(2,))).get("im0005")["layer2"].max() == 65504
    encoder.after = _poison(1e30, 5, output_ndim=2)
    assert provider(cache_dir=None).get(request_for(files)).get("im0005")["pooled"].max() == 1e30
    encoder.after = _poison(1e30, 5, output_ndim=4)
    features = provider(cache_dir=None).get(request_for(files, layers=(2,), storage="fp32"))
    assert features.get("im0005")["layer2"].max() == 1e30


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_and_goes_on(provider, encoder, files, caplog, error):
    def full(x: torch.Tensor) -> None:
        if len(x) > 3:
            raise error

    encoder.before = full
    request = request_for(files)
    with caplog.at_level(logging.WARNING):
        features = provider(batch_size=8).get(request)
    assert encoder.batches == [2, 2, 2, 2, 2]  # 8 -> 4 -> 2, and it stays there
    assert "with 8 pictures; going on with 4" in caplog.text
    assert "with 4 pictures; going on with 2" in caplog.text
    encoder.before = lambda x: None
    for i in files:
        torch.testing.assert_close(features.get(i)["pooled"], naive(encoder, request, i)["pooled"], atol=1e-6, rtol=0)


def test_out_of_memory_on_one_picture_is_an_error(provider, encoder, files):
    def full(x: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    encoder.before = full
    with pytest.raises(MtvError, match="single picture 'im0000'"):
        provider().get(request_for(files))


def test_other_runtime_errors_are_not_taken_for_memory(provider, encoder, files):
    def broken(x: torch.Tensor) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    encoder.before = broken
    with pytest.raises(RuntimeError, match="mat1"):
        provider().get(request_for(files))


@pytest.mark.parametrize("workers", [0, 2])
def test_undecodable_file_is_named_and_what_came_before_is_kept(provider, encoder, files, workers):
    files["im0006"][0].path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"im0006\.png.*cannot be decoded"):
        provider(workers=workers).get(request_for(files))
    assert encoder.images == 6
    save_noise(files["im0006"][0].path, seed=6)
    again = provider()
    again.get(request_for(files))
    assert (again.stats.hits, again.stats.misses) == (6, 4)


def test_missing_file_is_named_before_anything_runs(provider, encoder, files):
    files["im0004"][0].path.unlink()
    with pytest.raises(DataError, match=r"im0004\.png: cannot be read"):
        provider().get(request_for(files))
    with pytest.raises(DataError, match=r"im0004\.png: cannot be read"):
        provider(cache_dir=None).get(request_for(files))
    assert encoder.images == 4


class _Rewrites(PngPreparation):
    """Rewrites a later file while the first one is prepared."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __call__(self, sample_id, blobs):
        save_noise(self._path, seed=77)
        return super().__call__(sample_id, blobs)


def test_file_changed_during_the_run(provider, files):
    with pytest.raises(DataError, match=r"im0008\.png: changed during the run"):
        provider().get(request_for(files, preparation=_Rewrites(files["im0008"][0].path)))


class _Odd(PngPreparation):
    """Wrong in the way `how` says, for one sample."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def __call__(self, sample_id, blobs):
        pixels = super().__call__(sample_id, blobs)
        if sample_id != "im0005":
            return pixels
        if self._how == "bug":
            raise KeyError("box")
        if self._how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels[:, :16] if self._how == "size" else pixels.float()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("size", r"im0005\.png: sample 'im0005' is \(3, 16, 32\) after preparation, others are \(3, 32, 32\)"),
        ("dtype", r"im0005\.png: _Odd gave torch.float32"),
        ("bug", r"im0005\.png: sample 'im0005' cannot be prepared \(KeyError: 'box'\)"),
    ],
)
def test_preparations_that_break_their_contract(provider, files, how, message):
    with pytest.raises(DataError, match=message):
        provider().get(request_for(files, preparation=_Odd(how)))


def test_killed_loader_process_is_reported_with_its_file(provider, encoder, files):
    with pytest.raises(MtvError, match=r"(?s)loader process died.*im0005\.png.*--workers"):
        provider(workers=1).get(request_for(files, preparation=_Odd("die")))


def test_stalled_loader_is_reported_with_its_file(files, caplog):
    request = request_for(files, preparation=PngPreparation(delay_s=0.4))
    with caplog.at_level(logging.WARNING):
        batches = iter_batches(
            request,
            ["im0002", "im0003"],
            dict.fromkeys(files, ""),
            size=(3, 32, 32),
            batch_size=2,
            workers=1,
            stall_s=0.1,
        )
        assert [b.ids for b in batches] == [["im0002", "im0003"]]
    assert "the loader has given nothing for" in caplog.text
    assert "im0002.png" in caplog.text


def test_little_shared_memory_means_fewer_workers(monkeypatch, caplog):
    usage = namedtuple("usage", "total used free")
    chunks = [["a"] * 16] * 8
    size = (3, 224, 224)
    one = 16 * 3 * 224 * 224
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda p: usage(0, 0, 1 << 40))
    assert loader._workers_that_fit(4, chunks, size, 64) == (4, 2)
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda p: usage(0, 0, one * 3 / 0.8 + 8))
    with caplog.at_level(logging.WARNING):
        assert loader._workers_that_fit(4, chunks, size, 64) == (1, 2)
    assert "/dev/shm" in caplog.text
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda p: usage(0, 0, one))
    assert loader._workers_that_fit(4, chunks, size, 64) == (0, 0)


def test_disk_full_at_the_second_shard_keeps_the_first(provider, encoder, files, cache, monkeypatch):
    monkeypatch.setattr("mtv.eval.features.writer.FLUSH_ROWS", 4)
    fsync = os.fsync
    data_shards = []

    def full(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        if ".shard-" in name:
            data_shards.append(name)
            if len(data_shards) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"shard-00001.*No space left"):
        provider().get(request_for(files))
    monkeypatch.setattr(os, "fsync", fsync)
    assert [p.name for p in shards_in(cache)] == ["shard-00000.safetensors"]
    assert not list(cache.glob("*/.shard*"))
    again = provider()
    again.get(request_for(files))
    assert (again.stats.hits, again.stats.misses) == (4, 6)


def test_file_size_limit_of_the_process(provider, files, cache):
    """A real write error: the kernel refuses to let the shard grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        with pytest.raises(CacheError, match=r"cannot write .*shard-00000"):
            provider().get(request_for(files))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(shards_in(cache))
    assert not list(cache.glob("*/.shard*"))


def test_small_real_disk(provider, encoder, files, tmp_path):
    """On a tmpfs of 64 KB the need is noticed before the first forward pass."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a tmpfs")
    try:
        with pytest.raises(CacheError, match=r"disk/\w+ needs .* KB, .* are free"):
            provider(cache_dir=disk).get(request_for(files))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert encoder.images == 0


def test_too_little_space_is_noticed_first(provider, encoder, files, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda p: usage(10, 9, 1000))
    with pytest.raises(CacheError, match="1000 bytes are free"):
        provider().get(request_for(files))
    assert encoder.images == 0


def test_unwritable_directory_is_noticed_first(provider, encoder, files, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(CacheError, match="file"):
        provider(cache_dir=blocked / "cache").get(request_for(files))
    assert encoder.images == 0


def test_ctrl_c_keeps_what_is_computed(provider, encoder, files):
    def interrupt(x: torch.Tensor) -> None:
        if encoder.images == 8:
            raise KeyboardInterrupt

    encoder.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        provider().get(request_for(files))
    encoder.before = lambda x: None
    again = provider()
    again.get(request_for(files))
    assert (again.stats.hits, again.stats.misses) == (8, 2)


def test_encoder_without_a_pooled_vector(provider, encoder, files, monkeypatch):
    forward = encoder.forward_features

    def dense_only(x, **k):
        f = forward(x, **k)
        return type(f)(tokens=f.tokens, pooled=None, global_token=f.global_token)

    monkeypatch.setattr(encoder, "forward_features", dense_only)
    with pytest.raises(UsageError, match="gives no pooled vector, which noise asks for"):
        provider().get(request_for(files))


def test_same_size_and_times_but_other_bytes(provider, encoder, files, monkeypatch):
    """Only --verify can see it; the time of change (ctime) is taken out of the picture here."""
    monkeypatch.setattr("mtv.eval.features.content._RACY_NS", -(1 << 62))
    monkeypatch.setattr("mtv.eval.features.content._states", _without_ctime())
    path = files["im0002"][0].path
    age(path)
    times = path.stat().st_mtime_ns
    request = request_for(files)
    old = provider().get(request).get("im0002")["pooled"]
    size = path.stat().st_size
    save_noise(path, seed=55)
    os.utime(path, ns=(times, times))
    assert path.stat().st_size == size
    blind = provider()
    assert torch.equal(blind.get(request).get("im0002")["pooled"], old)
    assert blind.stats.misses == 0
    seeing = provider(verify=True)
    new = seeing.get(request).get("im0002")["pooled"]
    assert seeing.stats.stale == 1
    assert not torch.equal(new, old)
    torch.testing.assert_close(new, naive(encoder, request, "im0002")["pooled"])


def _without_ctime():
    from mtv.eval.features import content

    states = content._states
    return lambda refs: ((n, (s[0], s[1], 0, s[3], s[4])) for n, s in states(refs))


def test_auto_batch_size():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert extract.auto_batch_size(cpu, (3, 224, 224)) == 32
    assert extract.auto_batch_size(gpu, (3, 224, 224)) == 256
    assert extract.auto_batch_size(cpu, (3, 448, 448)) == 8
    assert extract.auto_batch_size(cpu, (3, 4000, 4000)) == 1
    assert extract.auto_batch_size(cpu, (3, 32, 32)) == 128
