"""Checkpoints in one process: bitwise resume (X3, S11), content, retention, runs that start from another."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_world import DATA, assert_equal, everything, save
from safetensors.torch import load_file
from synthetic import build, take_steps, tiny_recipe

from mtv.errors import CheckpointError, UsageError
from mtv.model.model import MtvModel
from mtv.train.checkpoint import RunState, load_checkpoint, newest_checkpoint, read_state, start_from
from mtv.train.parallel import Parallel
from mtv.train.run_folder import OPTIMIZER, read_recipe, step_folders

SETS = [("vl",), ("ssl",), ("depth",), ("vl", "ground"), ("vl", "ssl", "ground", "depth")]


@pytest.mark.parametrize("tasks", SETS, ids="+".join)
def test_resume_is_bitwise(tasks: tuple[str, ...], tmp_path: Path) -> None:
    recipe = tiny_recipe(tasks=tasks)
    straight, first, second = (build(recipe) for _ in range(3))
    reports = take_steps(straight, range(6))
    take_steps(first, range(3))
    where = load_checkpoint(save(tmp_path, first, 3), second, data_hash=DATA)
    assert where == RunState(step=3, samples_seen=48, skipped_in_a_row=1)
    assert_equal(everything(second), everything(first))
    assert take_steps(second, range(3, 6)) == reports[3:]
    assert_equal(everything(second), everything(straight))


def test_everything_comes_from_the_file(saved: Path, trained: Parallel) -> None:
    """Another start, moments of other steps, another order of the parameters: nothing of it stays."""
    other = build(trained.learner.recipe)
    with torch.no_grad():
        for tensor in other.learner.state_dict().values():
            tensor.fill_(7.0)
    backwards = torch.optim.AdamW(list(reversed(other.parameters)), lr=1.0, fused=True)
    other.optimizer = backwards
    load_checkpoint(saved, other, data_hash=DATA)
    assert_equal(everything(other), everything(trained))
    assert float(trained.learner.state_dict()["centres.dino.value"].norm()) > 0


def test_before_the_first_step(tmp_path: Path, fresh: Parallel) -> None:
    folder = save(tmp_path, fresh, 0)
    after = build(fresh.learner.recipe)
    take_steps(after, range(1))
    load_checkpoint(folder, after, data_hash=DATA)
    assert_equal(everything(after), everything(fresh))
    assert take_steps(after, range(2)) == take_steps(fresh, range(2))


def test_state_says_what_it_is(saved: Path, trained: Parallel) -> None:
    state = read_state(saved)
    recipe = trained.learner.recipe
    assert state["step"] == 3
    assert state["recipe_hash"] == recipe.hash
    assert state["data_hash"] == DATA
    assert state["processes"] == 1
    assert state["parameters"]["total"] == sum(p.numel() for p in trained.parameters)
    assert set(state["files"]) == {p.name for p in saved.iterdir()} - {"state.json"}
    assert all(tensor.dtype == torch.float32 for tensor in load_file(saved / OPTIMIZER).values())
    assert read_recipe(saved.parent) == recipe


def test_keeps_the_newest(tmp_path: Path, fresh: Parallel) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, fresh, step)
        assert newest_checkpoint(tmp_path) == tmp_path / f"step_{step:07d}"
    assert list(step_folders(tmp_path)) == [3, 4]
    assert {p.name for p in tmp_path.iterdir()} == {"step_0000003", "step_0000004", "latest", "recipe.json"}


def test_a_run_that_went_back_keeps_what_it_writes(tmp_path: Path, fresh: Parallel) -> None:
    for step in (5, 9, 6):
        save(tmp_path, fresh, step, keep=1)
    assert list(step_folders(tmp_path)) == [6, 9]
    assert newest_checkpoint(tmp_path) == tmp_path / "step_0000006"


def test_a_step_can_be_written_again(tmp_path: Path, fresh: Parallel) -> None:
    save(tmp_path, fresh, 1)
    take_steps(fresh, range(1))
    folder = save(tmp_path, fresh, 1)
    again = build(fresh.learner.recipe)
    load_checkpoint(folder, again, data_hash=DATA)
    assert_equal(everything(again), everything(fresh))
    assert list(step_folders(tmp_path)) == [1]


def test_newest_of_a_run(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    assert newest_checkpoint(tmp_path) is None
    for name in ("step_0000002", "step_0000010", ".step_0000030.new", "step_x"):
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "step_0000010"
    (tmp_path / "latest").write_text("step_0000002\n")
    assert newest_checkpoint(tmp_path) == tmp_path / "step_0000002"
    (tmp_path / "latest").write_text("step_0000003\n")
    with pytest.raises(CheckpointError, match="step_0000002, step_0000010"):
        newest_checkpoint(tmp_path)


def test_a_damaged_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        read_recipe(tmp_path)
    (tmp_path / "recipe.json").write_text('{"name": ')
    with pytest.raises(CheckpointError, match=r"recipe\.json is damaged"):
        read_recipe(tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(CheckpointError, match="not a recipe of this version"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("whole_run", [True, False])
def test_start_from_another_run(whole_run: bool, folder: Path, trained: Parallel, caplog: Any) -> None:
    model = build(tiny_recipe(seed=5), bias=-10.0).learner.model
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        start_from(model, folder.parent if whole_run else folder)
    assert "start fresh" in caplog.text
    assert "teacher" in caplog.text
    source = trained.learner.model.state_dict()
    heads = ("dino_head", "ibot_head", "prompter", "dpt", "vision.mask_token")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, own[name] if name.startswith(heads) else source[name]), name


def test_start_from_towers_of_another_size(folder: Path) -> None:
    small = tiny_recipe().model.with_(name="other", text={"layers": 1})
    with pytest.raises(CheckpointError, match=r"text\.layers: file 2, model 1"):
        start_from(MtvModel(small, frozenset(["vl"])), folder)
