"""Several gloo processes on this machine: `start_script` from a test, `fork_ranks` in the script.

The script imports torch once, with the parts that optimisers load when they are first used, and forks before it
computes anything: so the ranks start at once.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch._dynamo
import torch.distributed as dist


def start_script(script: str, folder: Path) -> None:
    """Run a script of this directory with `folder` as its argument; its output is shown if it fails."""
    path = Path(__file__).parent / script
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def fork_ranks(world: int, work: Callable[[Path], object], folder: Path) -> None:
    """Run `work(folder)` on `world` processes of a process group.

    Raises:
        SystemExit: one of them failed.
    """
    fork = multiprocessing.get_context("fork")
    store = folder / f"store-{work.__name__}-{world}"
    ranks = [fork.Process(target=_join_and, args=(work, folder, store, rank, world)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise SystemExit(1)


def _join_and(work: Callable[[Path], object], folder: Path, store: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    work(folder)
    dist.destroy_process_group()
