"""Checkpoints across processes: `python checkpoint_worker.py FOLDER`, where FOLDER/one holds a run of one process.

Two replicas go on from it, two shards from what the replicas wrote; both also write back at once what they have read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from checkpoint_world import DATA, save
from ranks import fork_ranks
from synthetic import build, take_steps, tiny_recipe

from mtv.collectives import rank
from mtv.errors import MtvError
from mtv.train.checkpoint import load_checkpoint, newest_checkpoint


def go_on(folder: Path, source: str, name: str, parallel: str, step: int) -> None:
    """Read the newest checkpoint of `source`, write it back under `name-copy`, take a step, write it under `name`."""
    own = build(tiny_recipe(perf__parallel=parallel))
    newest = newest_checkpoint(folder / source)
    assert newest is not None
    assert load_checkpoint(newest, own, data_hash=DATA).step == step
    save(folder / f"{name}-copy", own, step)
    losses = [report.values["loss"] for report in take_steps(own, range(step, step + 1))]
    save(folder / name, own, step + 1)
    torch.save(torch.tensor(losses), folder / f"{name}-{rank()}.pt")


def refusals(folder: Path) -> None:
    """Every rank raises what rank 0 met when writing, and what it meets itself when reading."""
    own = build(tiny_recipe(optim__lr=2e-3))
    newest = newest_checkpoint(folder / "one")
    assert newest is not None
    (folder / "in-the-way").touch()
    messages = []
    for attempt in (lambda: save(folder / "in-the-way", own, 1), lambda: load_checkpoint(newest, own, data_hash=DATA)):
        try:
            attempt()
        except MtvError as e:
            messages.append(f"{type(e).__name__}: {e}")
    (folder / f"refusals-{rank()}.txt").write_text("\n".join(messages))


def work(folder: Path) -> None:
    """All of it."""
    go_on(folder, "one", "replicas", "ddp", 3)
    go_on(folder, "replicas", "shards", "fsdp", 4)
    refusals(folder)


if __name__ == "__main__":
    fork_ranks(2, work, Path(sys.argv[1]))
