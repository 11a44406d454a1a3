"""The quickstart from end to end, small: killed after the world, started again, and once more when all is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_helpers import Answer, usual_logging

from mtv.command_line import invoke
from mtv.eval.commands.quickstart import quickstart
from mtv.leaderboards.miniature import shipped_checkpoints
from mtv.results import find_records
from mtv.training_record import read_training

Command = Callable[..., Answer]
CODE = """
import sys
from mtv.command_line import invoke
from mtv.eval.commands.quickstart import quickstart
sys.exit(invoke(quickstart, sys.argv[1:], name="mtv-eval quickstart"))
"""
SMALL = (
    "--minutes",
    "0.002",
    "--scale",
    "tiny",
    "--size",
    "48",
    "--recipe",
    "nano",
    "--suite",
    "coco",
    "--device",
    "cpu",
)
"""Hidden options that make it a matter of seconds."""
SHIPPED = [f"shipped-{name}" for name in shipped_checkpoints()]
STEPS = 6 + len(SHIPPED)
"""World, speed, train, one per model, tables and report."""


def start(out: Path, err: Path) -> subprocess.Popen[str]:
    """The command in a process of its own; its stderr goes into a file."""
    with err.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", CODE, "--out", str(out), *SMALL],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


@pytest.fixture
def out(mini_world: Path, tmp_path: Path) -> Path:
    """A folder with the world in it already, all but one file."""
    out = tmp_path / "quick start"
    shutil.copytree(mini_world, out / "world")
    (out / "world" / "README.md").unlink()
    return out


@pytest.fixture
def cli_of(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command in this process."""

    def run(*argv: object) -> Answer:
        capfd.readouterr()
        with usual_logging():
            code = invoke(quickstart, [str(a) for a in argv], name="mtv-eval quickstart")
        shown, said = capfd.readouterr()
        return Answer(code=code, out=shown, err=said)

    return run


def test_killed_after_the_world_it_goes_on_to_the_end(out: Path, tmp_path: Path, cli_of: Command) -> None:
    err = tmp_path / "err"
    process = start(out, err)
    deadline = time.monotonic() + 120
    while "step 2 of" not in err.read_text():
        assert process.poll() is None, err.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (out / "world" / "README.md").is_file()
    assert json.loads((out / "quickstart.json").read_text())["decided"] is None

    process = start(out, err)
    shown, _ = process.communicate(timeout=900)
    said = err.read_text()
    assert process.returncode == 0, said
    decided = json.loads((out / "quickstart.json").read_text())["decided"]
    training = read_training(out / "runs" / "full" / (out / "runs" / "full" / "latest").read_text().strip())
    assert training is not None
    assert training.finished
    assert training.samples == decided["samples"]
    assert training.objectives == ("vl", "ssl", "ground", "depth")
    assert not (out / "runs" / ".speed").exists()
    records = {r.model_name: r for _, r in find_records(out / "results")}
    assert sorted(records) == sorted(["quickstart", "random", *SHIPPED])
    assert records["random"].model["training"] is None
    assert {r.status for r in records.values()} == {"complete"}
    assert f"step 1 of {STEPS}, world" in said
    assert f"step {STEPS} of {STEPS}, tables and report: done" in said
    assert ("no trained miniature checkpoints" in said) == (not SHIPPED)
    assert "Table 3" in shown
    assert "COCO" in shown
    for place in ("world", "runs/full", "results", "report.html"):
        assert str(out / place) in shown
    page = (out / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "quickstart" in page

    before = {p: p.stat().st_mtime_ns for p in [*(out / "runs").rglob("*"), *(out / "results").rglob("*.json")]}
    answer = cli_of("--out", out, *SMALL)
    assert answer.code == 0
    assert "train: done already" in answer.err
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert answer.out == shown


def test_an_error_names_the_step_and_the_way_on(out: Path, cli_of: Command) -> None:
    """The folder holds a world of another size."""
    answer = cli_of("--out", out, *SMALL, "--size", "64")
    assert answer.code == 2
    assert f"error: step 1 of {STEPS}, world: " in answer.err
    assert "size" in answer.err
    assert "Then go on with: mtv-eval" in answer.err
    assert not (out / "runs").exists()
