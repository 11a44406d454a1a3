"""Saves that are killed: `python kill_worker.py FOLDER` makes FOLDER/<n>/run, killed at the n-th access to the disk.

Every run holds step 3 before and was about to hold step 6. Accesses are flushes, renames and removals.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from checkpoint_world import save, trained_parallel
from synthetic import take_steps

from mtv.train.parallel import Parallel

POINTS = 6
"""Places at which a save is killed, spread evenly; every third of the last 24 is tried as well."""


class Fuse:
    """Counts accesses and kills the process at one of them, before it happens."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.count = 0

    def watch(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)

    def install(self) -> None:
        os.fsync = partial(self.watch, os.fsync)  # type: ignore[assignment]
        os.rename = partial(self.watch, os.rename)
        os.replace = partial(self.watch, os.replace)
        os.unlink = partial(self.watch, os.unlink)


def child(folder: Path, parallel: Parallel, at: int | None) -> None:
    """Save step 6 beside step 3, with the fuse; without one, write down how often it would have counted."""
    torch.set_num_threads(1)
    run = folder / f"{at or 'whole'}" / "run"
    shutil.copytree(folder / "start", run)
    fuse = Fuse(at)
    fuse.install()
    save(run, parallel, 6, keep=1)
    (run.parent / "count").write_text(str(fuse.count))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    parallel = trained_parallel()
    save(folder / "start", parallel, 3, keep=1)
    take_steps(parallel, range(3, 4))
    fork = multiprocessing.get_context("fork")

    def run(at: int | None) -> int | None:
        process = fork.Process(target=child, args=(folder, parallel, at))
        process.start()
        process.join()
        return process.exitcode

    assert run(None) == 0
    total = int((folder / "whole" / "count").read_text())
    spread = {1 + total * i // POINTS for i in range(POINTS)} | set(range(total - 23, total + 1, 3))
    for at in sorted(spread):
        assert run(at) == -signal.SIGKILL, at


if __name__ == "__main__":
    main(Path(sys.argv[1]))
