"""The helper modules of this folder are importable from its tests; worlds of three sets to make again and to damage."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from mtv.miniworld.pool import ChunkJob


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of three sets at 32 px, made by one process; read only."""
    from make_helpers import build

    out = tmp_path_factory.mktemp("made") / "world"
    build(out)
    return out


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The road of the GPU, taken with the CPU as its device: other processes compose and write."""

    from mtv.miniworld import make, pool

    def run(jobs: Sequence[ChunkJob], *, workers: int) -> Iterator[ChunkJob]:
        with pool._one_thread():
            yield from pool._on_device(jobs, workers, "cpu")

    monkeypatch.setattr(make, "run_jobs", run)
