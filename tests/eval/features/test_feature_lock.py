"""The lock file: exclusion, death of the holder, other hosts, clean-up underneath, forks."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from mtv.errors import CacheError
from mtv.eval.features.lock import FileLock, is_held

FORK = multiprocessing.get_context("fork")


def _hold(path: Path, ready: object, leave_child: bool = False) -> None:
    FileLock(path).acquire()
    if leave_child and os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    ready.set()
    time.sleep(20)


def _holder(path: Path, *, leave_child: bool = False) -> multiprocessing.Process:
    ready = FORK.Event()
    process = FORK.Process(target=_hold, args=(path, ready, leave_child))
    process.start()
    assert ready.wait(20)
    return process


def test_lock_excludes_and_is_emptied_on_release(tmp_path):
    path = tmp_path / "deep" / "lock"
    with FileLock(path):
        assert json.loads(path.read_text()).keys() == {"pid", "host", "time"}
        assert is_held(path)
        assert not FileLock(path).acquire(wait=False)
    assert path.read_bytes() == b""
    assert not is_held(path)
    lock = FileLock(path)
    assert lock.acquire(wait=False)
    lock.release()
    lock.release()


@pytest.mark.parametrize("leave_child", [False, True], ids=["alone", "with a forked child that lives on"])
def test_death_of_the_holder_frees_the_lock(tmp_path, caplog, leave_child):
    path = tmp_path / "lock"
    process = _holder(path, leave_child=leave_child)
    assert not FileLock(path).acquire(wait=False)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with caplog.at_level(logging.WARNING):
        lock = FileLock(path)
        assert lock.acquire(wait=False)
    assert f"left behind by pid {process.pid}" in caplog.text
    lock.release()


def test_waiting_is_reported_and_ends(tmp_path, caplog):
    path = tmp_path / "lock"
    process = _holder(path)
    os.kill(process.pid, signal.SIGSTOP)
    with caplog.at_level(logging.INFO):
        waiting = FORK.Process(target=lambda: os.kill(process.pid, signal.SIGKILL) if not time.sleep(0.5) else None)
        waiting.start()
        with FileLock(path, poll_s=0.01, report_s=0.1):
            pass
    waiting.join()
    process.join()
    lines = [r.getMessage() for r in caplog.records if "waiting for" in r.getMessage()]
    assert len(lines) >= 2
    assert f"pid {process.pid} on {socket.gethostname()}" in lines[0]


def test_lock_of_another_host_needs_break_lock(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 7, "host": "elsewhere", "time": time.time() - 7200}))
    with pytest.raises(CacheError, match=r"(?s)pid 7 on host elsewhere, for 120 min.*--break-lock"):
        FileLock(path).acquire()
    assert "elsewhere" in path.read_text()
    assert not is_held(path)
    with FileLock(path, break_lock=True):
        assert json.loads(path.read_text())["host"] == socket.gethostname()


def test_held_lock_is_not_broken(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path):
        assert not FileLock(path, break_lock=True).acquire(wait=False)


def test_garbage_inside_names_nobody(tmp_path):
    path = tmp_path / "lock"
    path.write_text("garbage")
    with FileLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_file_removed_underneath_does_not_guard_two(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path):
        path.unlink()
        second = FileLock(path)
        assert second.acquire(wait=False)
        stale = FileLock(path)
        assert not stale.acquire(wait=False)
        second.release()


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot lock"):
        FileLock(tmp_path / "file" / "lock").acquire()
    assert not is_held(tmp_path / "absent")
