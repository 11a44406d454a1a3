"""Runs every case of distributed_cases.py on two and on four gloo processes: `python distributed_worker.py FOLDER`.

The processes are forked from one that has imported torch and computed nothing yet, so they start at once.
"""

from __future__ import annotations

import multiprocessing
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from distributed_cases import run_cases


def work(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / f'store-{world}'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    torch.save(run_cases(), folder / f"{world}-{rank}.pt")
    dist.destroy_process_group()


def main(folder: Path) -> int:
    fork = multiprocessing.get_context("fork")
    for world in (2, 4):
        ranks = [fork.Process(target=work, args=(rank, world, folder)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
