"""What a checkpoint refuses to read or to write, and that a refusal costs nothing."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_world import DATA, assert_equal, everything, reseal, save, tree
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import build, tiny_recipe

from mtv.errors import CacheError, CheckpointError, DataError
from mtv.train import checkpoint
from mtv.train.checkpoint import load_checkpoint, newest_checkpoint, read_state
from mtv.train.parallel import Parallel
from mtv.train.run_folder import OPTIMIZER


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 5)


FILES = ("model.safetensors", "mtv_heads.safetensors", OPTIMIZER, "config.json", "tokenizer.json", "state.json")


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink], ids=["changed", "cut", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_one_error_that_names_the_file(
    name: str, damage: Callable[[Path], None], folder: Path, fresh: Parallel
) -> None:
    before = everything(fresh)
    damage(folder / name)
    with pytest.raises(CheckpointError, match=name) as caught:
        load_checkpoint(folder, fresh, data_hash=DATA)
    assert "resume RUN/step_" in caught.value.hint
    assert_equal(everything(fresh), before)


def test_a_pickle_in_place_of_tensors_is_never_run(folder: Path, tmp_path: Path, fresh: Parallel) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (folder / OPTIMIZER).write_bytes(pickle.dumps(Bomb()))
    reseal(folder)
    with pytest.raises(CheckpointError, match=OPTIMIZER):
        load_checkpoint(folder, fresh, data_hash=DATA)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [OPTIMIZER, "mtv_heads.safetensors"])
@pytest.mark.parametrize("edit", ["rename", "shape", "nan"])
def test_foreign_tensors_are_refused(name: str, edit: str, folder: Path, fresh: Parallel) -> None:
    before = everything(fresh)
    file = folder / name
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {k: v.clone() for k, v in load_file(file).items()}
    key = next(k for k in tensors if k.endswith(("fc1.weight", "fc1.weight.exp_avg")))
    if edit == "rename":
        tensors[f"{key}.other"] = tensors.pop(key)
    elif edit == "shape":
        tensors[key] = tensors[key][:-1].clone()
    else:
        tensors[key][0, 0] = torch.nan
    save_file(tensors, file, metadata=metadata)
    reseal(folder)
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        load_checkpoint(folder, fresh, data_hash=DATA)
    assert_equal(everything(fresh), before)


def test_another_recipe_is_refused_by_field(folder: Path) -> None:
    other = build(tiny_recipe(optim__lr=2e-3, views__mask_ratio=0.25, perf__threads=1, log__every=7))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, other, data_hash=DATA)
    assert "optim.lr: 0.001 -> 0.002; views.mask_ratio: 0.5 -> 0.25" in caught.value.message
    assert "perf" not in caught.value.message
    assert "--set init=" in caught.value.hint
    load_checkpoint(folder, build(tiny_recipe(perf__threads=1, log__every=7)), data_hash=DATA)


def test_other_data_needs_a_new_order(folder: Path, fresh: Parallel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="dddddddddddd, now eeeeeeeeeeee") as caught:
        load_checkpoint(folder, fresh, data_hash="e" * 64)
    assert "--new-order" in caught.value.hint
    assert load_checkpoint(folder, fresh, data_hash="e" * 64, new_order=True).step == 3
    assert load_checkpoint(folder, fresh, data_hash=None).step == 3
    monkeypatch.setattr(checkpoint, "ORDER_VERSION", 99)
    with pytest.raises(DataError, match="this mtv has 99"):
        load_checkpoint(folder, fresh, data_hash=DATA)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 2, "mtv": "9.9"}'])
def test_another_format_is_refused(content: str, folder: Path, fresh: Parallel) -> None:
    (folder / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="reads format 1") as caught:
        load_checkpoint(folder, fresh, data_hash=DATA)
    assert "9.9" in caught.value.hint or "another trainer" in caught.value.hint


def test_a_recipe_of_another_version_is_refused(folder: Path, fresh: Parallel) -> None:
    recipe = read_state(folder)["recipe"]
    recipe["optim"]["momentum"] = 0.9
    reseal(folder, recipe=recipe)
    with pytest.raises(CheckpointError, match="momentum"):
        load_checkpoint(folder, fresh, data_hash=DATA)


def _spoil_weight(parallel: Parallel) -> None:
    parallel.learner.model.state_dict()["vision.blocks.1.mlp.fc1.weight"][3, 3] = torch.nan


def _spoil_centre(parallel: Parallel) -> None:
    parallel.learner.state_dict()["centres.ibot.value"][0, 0] = torch.inf


def _spoil_moment(parallel: Parallel) -> None:
    parallel.optimizer.state[parallel.parameters[5]]["exp_avg_sq"].view(-1)[0] = torch.nan


@pytest.mark.parametrize("spoil", [_spoil_weight, _spoil_centre, _spoil_moment])
def test_values_that_are_not_finite_are_not_saved(
    spoil: Callable[[Parallel], None], folder: Path, fresh: Parallel
) -> None:
    run, before = folder.parent, tree(folder.parent)
    load_checkpoint(folder, fresh, data_hash=DATA)
    spoil(fresh)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        save(run, fresh, 4)
    assert tree(run) == before


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 1 MB: what a full disk looks like to a program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_error_and_costs_nothing(folder: Path, fresh: Parallel, small_files: None) -> None:
    run, before = folder.parent, tree(folder.parent)
    with pytest.raises(CacheError, match="step_0000004") as caught:
        save(run, fresh, 4)
    assert "what was written before is intact" in caught.value.hint
    assert tree(run) == before
    assert newest_checkpoint(run) == folder


def test_a_file_where_the_run_should_be(tmp_path: Path, fresh: Parallel) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(CacheError, match="run"):
        save(tmp_path / "run", fresh, 0)
    assert (tmp_path / "run").read_text() == "in the way"
