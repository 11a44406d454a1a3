"""A run goes on with another number of processes, as replicas or as shards, and back (S11, X4)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_world import DATA, assert_equal, everything, save, trained_parallel
from ranks import start_script
from safetensors.torch import load_file
from synthetic import build, take_steps, tiny_recipe

from mtv.train.checkpoint import load_checkpoint, newest_checkpoint, read_state

TENSORS = ("model.safetensors", "mtv_heads.safetensors", "optimizer.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the run of one process after three steps, and what two processes made of it."""
    folder = tmp_path_factory.mktemp("elastic")
    save(folder / "one", trained_parallel(), 3)
    start_script("checkpoint_worker.py", folder)
    return folder


def newest(run: Path) -> Path:
    found = newest_checkpoint(run)
    assert found is not None
    return found


@pytest.mark.parametrize(("source", "copy"), [("one", "replicas-copy"), ("replicas", "shards-copy")])
def test_what_is_read_is_written_back_bit_for_bit(source: str, copy: str, runs: Path) -> None:
    a, b = newest(runs / source), newest(runs / copy)
    for name in TENSORS:
        assert_equal(load_file(a / name), load_file(b / name))
    assert read_state(b)["processes"] == 2


def test_one_process_goes_on_from_shards(runs: Path) -> None:
    """Five steps straight, and 3 in one process + 1 in two replicas + 1 in two shards: equal to rounding."""
    straight, back = build(tiny_recipe()), build(tiny_recipe())
    reports = take_steps(straight, range(6))
    assert load_checkpoint(newest(runs / "shards"), back, data_hash=DATA).step == 5
    for name, step in (("replicas", 3), ("shards", 4)):
        for rank in range(2):
            loss = torch.load(runs / f"{name}-{rank}.pt", weights_only=True)
            assert float(loss) == pytest.approx(reports[step].values["loss"], rel=1e-5)
    assert take_steps(back, range(5, 6))[0].values["loss"] == pytest.approx(reports[5].values["loss"], rel=1e-5)
    a, b = everything(back), everything(straight)
    assert a.keys() == b.keys()
    # Adam turns a gradient of rounding size into a step of full size; one such entry may differ by the steps taken.
    assert max(float((a[n] - b[n]).abs().max()) for n in a if " exp_avg" not in n) < 1e-3
    far = [n for n in a if float((a[n] - b[n]).norm()) > 1e-4 * float(b[n].norm()) + 1e-6]
    assert [n for n in far if "dpt.out3.bias" not in n] == []


def test_every_rank_hears_of_a_refusal(runs: Path) -> None:
    first, second = ((runs / f"refusals-{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert "CacheError: cannot write" in first
    assert "CheckpointError" in first
    assert "optim.lr: 0.001 -> 0.002" in first
