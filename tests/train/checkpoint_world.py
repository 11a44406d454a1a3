"""Checkpoints of the synthetic run: saved, compared, copied, sealed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from synthetic import build, take_steps, tiny_recipe
from torch import Tensor

from mtv.model.tokenizer import Tokenizer, load_tokenizer
from mtv.train.checkpoint import RunState, read_state, save_checkpoint
from mtv.train.parallel import Parallel
from mtv.train.recipe import Recipe
from mtv.train.run_folder import seal

DATA = "d" * 64


def tokenizer_of(recipe: Recipe) -> Tokenizer | None:
    texts = recipe.objectives & {"vl", "ground"}
    return load_tokenizer(recipe.tokenizer, positions=recipe.model.text.positions) if texts else None


def save(run: Path, parallel: Parallel, step: int, **changes: Any) -> Path:
    recipe = parallel.learner.recipe
    state = RunState(step=step, samples_seen=step * recipe.batch, skipped_in_a_row=1)
    arguments = {"tokenizer": tokenizer_of(recipe), "data_hash": DATA, "pictures_hash": DATA, "keep": 2, **changes}
    return save_checkpoint(run, parallel, state, **arguments)


def everything(parallel: Parallel) -> dict[str, Tensor]:
    """Copies of weights, teacher, centres, moments and counters, by name."""
    names = {p: n for n, p in parallel.learner.named_parameters()}
    moments = {f"{names[p]} {k}": v for p, own in parallel.optimizer.state.items() for k, v in own.items()}
    return {n: t.clone() for n, t in {**parallel.learner.state_dict(), **moments}.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


def trained_parallel() -> Parallel:
    """All objectives after three steps."""
    parallel = build(tiny_recipe())
    take_steps(parallel, range(3))
    return parallel


def copied(saved: Path, run: Path) -> Path:
    """A step folder in a run of its own."""
    target = run / saved.name
    target.mkdir(parents=True)
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    (run / "latest").write_text(f"{saved.name}\n")
    return target


def reseal(folder: Path, **changes: Any) -> None:
    """Make the hashes fit what is there, as someone would who edits a checkpoint on purpose."""
    state = {**read_state(folder), **changes}
    del state["files"]
    (folder / "state.json").unlink()
    seal(folder, state)


def tree(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}
