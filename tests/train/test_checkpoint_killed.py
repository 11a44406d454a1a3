"""Whenever a save is killed, the run still has a whole checkpoint, and the next save cleans up."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_world import DATA, save
from ranks import start_script
from synthetic import build, tiny_recipe

from mtv.train.checkpoint import load_checkpoint, newest_checkpoint
from mtv.train.run_folder import read_state, step_folders, verify


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    start_script("kill_worker.py", folder)
    return folder


def test_a_killed_save_costs_at_most_itself(killed: Path) -> None:
    runs = sorted((int(p.name), p / "run") for p in killed.iterdir() if p.name.isdigit())
    assert len(runs) > 9
    found = []
    for _, run in runs:
        newest = newest_checkpoint(run)
        assert newest is not None
        found.append(int(newest.name.removeprefix("step_")))
        for folder in step_folders(run).values():
            verify(folder, read_state(folder))
    # Up to some access the save had not happened yet, from there on it had; both kinds were met.
    assert found == sorted(found)
    assert set(found) == {3, 6}


def test_the_next_save_cleans_up(killed: Path) -> None:
    fresh = build(tiny_recipe())
    leftovers = {run: [p.name for p in run.iterdir() if p.name[0] == "."] for run in killed.glob("*/run")}
    assert any(names for names in leftovers.values())
    for run in sorted(leftovers)[:6]:
        newest = newest_checkpoint(run)
        assert newest is not None
        load_checkpoint(newest, fresh, data_hash=DATA)
        save(run, fresh, 7, keep=1)
        assert {p.name for p in run.iterdir()} == {"step_0000007", "latest", "recipe.json"}
