"""Sweeps that run: what is done is skipped, what is half goes on, what fails does not stop the rest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from run_nano import lines, weights
from sweep_command import arguments, finish, nano_cell, start

from mtv.children import Stop, claimed, reason, run_child
from mtv.eval import evaluate
from mtv.leaderboards.frame import Stored
from mtv.leaderboards.study import studies
from mtv.results import find_records
from mtv.train.run import train
from mtv.train.sweep.plan import Cell, Plan, make_recipes, parse_subsets
from mtv.train.sweep.state import RESULTS, remember_measured, state_of
from mtv.train.sweep.work import Way, Work
from mtv.training_record import TrainingRecord

SUITE = ("coco",)


def test_a_sweep_is_stopped_and_goes_on(mini_world: Path, tmp_path: Path) -> None:
    """One cell is done, one is interrupted by SIGTERM, and the folder of one belongs to another run."""
    out, steps, more = tmp_path / "study", 100, ("save.every=1000",)
    cut, done, broken = (nano_cell(t, steps=steps, more=more) for t in (("vl",), ("vl", "ground"), ("vl", "depth")))
    train(done.recipe, mini_world, done.run(out), device="cpu", resume=False, live=False)
    evaluate(f"{done.alias}=mtv:{done.run(out)}", SUITE, mini_world, out=out / RESULTS)
    assert remember_measured(done, out, SUITE, seconds=1.0) == 1
    other = broken.recipe.set(["optim.lr=0.5"])
    train(other, mini_world, broken.run(out), device="cpu", resume=False, stop_after=1, live=False)
    states = [state_of(c, out, SUITE) for c in (cut, done, broken)]
    assert [(s.state, s.step) for s in states] == [("missing", 0), ("done", steps), ("missing", 0)]
    before = {p: p.stat().st_mtime_ns for p in done.run(out).rglob("*")}
    words = arguments("vl;vl,ground;vl,depth", mini_world, out, steps=steps, more=more)

    process = start(words)
    wait_for(process, lambda: (cut.run(out) / "log.jsonl").is_file() and len(lines_of(cut.run(out))) > 3)
    process.send_signal(signal.SIGTERM)
    code, shown, said = finish(process)
    assert code == 143, said
    assert "Continue with:\n  mtv-train" in said
    assert "1 of 3 runs" in said
    state = state_of(cut, out, SUITE)
    assert state.state == "begun"
    assert 3 < state.step < steps
    assert (cut.run(out) / "latest").read_text() == f"step_{state.step:07d}\n"

    code, shown, said = finish(start(words))
    assert code == 1, said
    straight = tmp_path / "straight"
    train(cut.recipe, mini_world, straight, device="cpu", resume=False, live=False)
    assert weights(cut.run(out)) == weights(straight)
    assert [line["step"] for line in lines(cut.run(out), "step")] == list(range(1, steps + 1))
    assert {p: p.stat().st_mtime_ns for p in done.run(out).rglob("*")} == before
    assert not list(done.notes(out).glob("*.log"))
    assert [state_of(c, out, SUITE).state for c in (cut, done, broken)] == ["done", "done", "missing"]
    assert not (cut.notes(out) / "features").exists()
    log = broken.notes(out) / "train.log"
    assert "2 of 3 runs are trained and measured" in said
    assert f"FAILED {broken.name}: training: error: " in said
    assert "another recipe: optim.lr: 0.5 -> 0.001" in said
    assert f"log: {log}" in said
    assert "another recipe" in log.read_text()
    assert "Table 3" in shown
    assert "Table 4" in shown
    found = [r for _, r in find_records(out / RESULTS)]
    records = [TrainingRecord.from_dict(r.model["training"], where="result") for r in found]
    assert {(r.objectives, r.seed, r.samples) for r in records} == {
        (t, 0, 4 * steps) for t in (("vl",), ("vl", "ground"))
    }
    assert len({r.study_hash for r in records}) == 1
    (study,) = studies([Stored(path=Path(), record=r) for r in found])
    assert study.subsets == (("vl",), ("vl", "ground"))

    # A result that is lost is measured again; nothing is trained again.
    next(p for p, r in find_records(out / RESULTS) if r.model_name == done.alias).unlink()
    assert state_of(done, out, SUITE).state == "trained"
    assert state_of(cut, out, ("coco", "knn")).state == "trained"


def test_a_killed_sweep_leaves_a_child_that_the_next_one_waits_for(tmp_path: Path) -> None:
    """With a plain program as the child: the lock lives in whoever has the file open."""
    lock, log = tmp_path / "cell" / "lock", tmp_path / "child.log"
    parent = (
        "import sys; from pathlib import Path; from mtv.children import *\n"
        "with claimed(Path(sys.argv[1]), waiting=print) as handle:\n"
        "    run_child(['sleep', '3'], Path(sys.argv[2]), Stop(), pass_fds=(handle,))\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(lock), str(log)]) as process:
        wait_for(process, log.exists)
        time.sleep(0.3)
        process.kill()
    waited: list[str] = []
    with claimed(lock, waiting=waited.append) as handle:
        assert f"pid {process.pid} on " in waited[0]
        told: list[str] = []
        command = ["bash", "-c", "echo 12:00:00 I first; echo; sleep 0.6; echo error: nothing works; exit 7"]
        assert run_child(command, log, Stop(), pass_fds=(handle,), tell=told.append) == 7
    assert "first" in told
    assert reason(log) == "error: nothing works"


class Order(Work):
    """Work that trains nothing and remembers what it was told to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trained: list[str] = []

    def _train(self, job: int, cell: Cell, title: str, handle: int) -> None:
        self.trained.append("+".join(cell.recipe.tasks))

    def _measure(self, job: int, cell: Cell, title: str, handle: int) -> None:
        pass


def test_what_another_sweep_has_in_hand_is_waited_for_last(mini_world: Path, tmp_path: Path) -> None:
    plan = Plan(
        recipes=make_recipes(["nano"], []),
        settings=(),
        subsets=parse_subsets("vl;vl,ssl;vl,ground"),
        seeds=(0,),
        data=mini_world,
        eval_data=mini_world,
        suite=SUITE,
    )
    work = Order(plan, tmp_path, Way(), Stop(), quiet=True)
    with ThreadPoolExecutor(1) as pool:
        with claimed(plan.cells[0].notes(tmp_path) / "lock", waiting=print):
            running = pool.submit(work.go, plan.cells)
            deadline = time.monotonic() + 60
            while len(work.trained) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.5)
            assert work.trained == ["vl+ssl", "vl+ground"]
        running.result(timeout=60)
    assert work.trained == ["vl+ssl", "vl+ground", "vl"]


def lines_of(run: Path) -> list[object]:
    """Whole lines of a log that is being written."""
    found = []
    for raw in (run / "log.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(raw))
        except ValueError:
            break
    return found


def wait_for(process: subprocess.Popen[str] | subprocess.Popen[bytes], ready: object) -> None:
    """Until `ready()`; the process must not end before."""
    assert callable(ready)
    deadline = time.monotonic() + 600
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
