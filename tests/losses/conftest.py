"""Fixtures of the losses' tests: what two and four processes computed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

Outcomes = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="session")
def one_process() -> Outcomes:
    """Outcome of every case of distributed_cases.py in this process, without a process group."""
    from distributed_cases import run_cases

    return run_cases()


@pytest.fixture(scope="session")
def many_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Outcomes]:
    """Outcome of every case by (number of processes, rank); one start of the interpreter for all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    worker = Path(__file__).parent / "distributed_worker.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(worker), str(folder)], capture_output=True, text=True, timeout=180, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = {
        (int(path.stem.split("-")[0]), int(path.stem.split("-")[1])): torch.load(path, weights_only=True)
        for path in folder.glob("*.pt")
    }
    assert sorted(found) == [(2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)]
    return found
