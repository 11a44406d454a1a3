"""Crash: the process dies after each step of each write, and the rerun must give the same bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mtv import atomic
from mtv.eval.selftest.checks import Check
from mtv.eval.selftest.session import Ran, Session
from mtv.hashing import sha256_file, sha256_json

TASK = "flickr8k"
"""The smallest task: two pictures, one caption, yet every kind of file is written."""


class Killed(BaseException):
    """The end of the process, as far as one process can play it: not an Exception, so nothing may handle it."""


def checks(session: Session) -> list[Check]:
    """Kill at each step; damage what was written; run again what is complete."""
    s = session
    return [
        _check(
            "kill at each step of each write, rerun: same bytes", "all same", lambda: _kill_everywhere(s), _all_same
        ),
        _check("damaged feature shard: rows made again, same bytes", "same", lambda: _damaged_shard(s)),
        _check("record whose sample table is gone: made again", "same", lambda: _lost_samples(s)),
        _check("complete result: not computed again", "skipped", lambda: _complete(s)),
    ]


def _check(name: str, expected: str, measure: Callable[[], str], agrees: Callable[[Any], bool] | None = None) -> Check:
    return Check(layer="crash", name=name, expected=expected, measure=measure, agrees=agrees)


def _all_same(measured: Any) -> bool:
    """`20 of 20 same`: at least a write test, two cache entries of three files, table and record, two steps each."""
    same, _, total, _ = str(measured).split()
    return same == total and int(total) >= 18


@contextlib.contextmanager
def _dies_after(steps: int) -> Iterator[list[Path]]:
    """Let `steps` syncs to disk succeed and end the process at the next one; yields the paths synced so far.

    `mtv.atomic` syncs twice per write: the temporary file before it is renamed, and the directory afterwards. So an
    even number dies with the file not yet in place, an odd one with it in place.
    """
    done: list[Path] = []
    sync = atomic._fsync

    def counted(path: Path) -> None:
        if len(done) >= steps:
            raise Killed
        sync(path)
        done.append(path)

    with mock.patch.object(atomic, "_fsync", counted):
        yield done


def _run(s: Session, folder: Path) -> Ran:
    return s.run(TASK, out=folder / "results", cache=folder / "cache")


def _content(ran: Ran) -> tuple[str, str]:
    """Hashes of the metrics in the record and of the bytes of the sample table."""
    assert ran.record.samples is not None
    return sha256_json(ran.record.to_json()["metrics"]), sha256_file(ran.path.with_name(ran.record.samples["file"]))


def _kill_everywhere(s: Session) -> str:
    with _dies_after(10**9) as done:
        expected = _content(_run(s, s.new_folder()))
    same = 0
    for steps in range(len(done)):
        folder = s.new_folder()
        with contextlib.suppress(Killed), _dies_after(steps):
            _run(s, folder)
            raise RuntimeError(f"the run survived the end of its process at step {steps} of {len(done)}")
        same += _content(_run(s, folder)) == expected
    return f"{same} of {len(done)} same"


def _damaged_shard(s: Session) -> str:
    folder = s.new_folder()
    before = _run(s, folder)
    expected = _content(before)
    shards = sorted((folder / "cache").glob("*/shard-*.safetensors"))
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-3])
    after = s.run(TASK, out=folder / "others", cache=folder / "cache")
    misses = after.record.run["cache"]["misses"]
    if not shards or misses != 2:
        return f"{len(shards)} shards damaged, {misses} of 2 pictures computed again"
    return "same" if _content(after) == expected else "other bytes"


def _lost_samples(s: Session) -> str:
    folder = s.new_folder()
    before = _run(s, folder)
    expected = _content(before)
    assert before.record.samples is not None
    before.path.with_name(before.record.samples["file"]).unlink()
    return "same" if _content(_run(s, folder)) == expected else "other bytes"


def _complete(s: Session) -> str:
    folder = s.new_folder()
    before = _run(s, folder)
    stamp = before.path.stat().st_mtime_ns
    after = _run(s, folder)
    return "skipped" if after.path == before.path and after.path.stat().st_mtime_ns == stamp else "written again"
