"""Runs every case of step_cases.py on several gloo processes: `python step_worker.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ranks import fork_ranks
from step_cases import CASES, nan_on_the_last_rank, outcome

from mtv.collectives import rank, world_size


def cases(folder: Path) -> None:
    """Every case of this number of processes."""
    for name, case in CASES.items():
        if world_size() in case.worlds:
            torch.save(outcome(case, case.changes), folder / f"{name}-{world_size()}-{rank()}.pt")
    if world_size() == 2:
        torch.save(nan_on_the_last_rank(), folder / f"nan-{rank()}.pt")


if __name__ == "__main__":
    fork_ranks(2, cases, Path(sys.argv[1]))
    fork_ranks(4, cases, Path(sys.argv[1]))
