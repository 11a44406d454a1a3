"""`mtv-train sweep` in a process of its own, for the tests of sweeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mtv.train.recipe import Recipe
from mtv.train.sweep.plan import Cell, make_recipes

CODE = """
import sys
from mtv.command_line import invoke
from mtv.train.commands_sweep import sweep
sys.exit(invoke(sweep, sys.argv[1:], name="mtv-train sweep"))
"""
BATCH = 4


def settings(*, steps: int, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`--set` values that make `nano` small, and the same on every machine."""
    return (f"optim.global_batch={BATCH}", f"samples={BATCH * steps}", "log.every=1", "perf.threads=1", *more)


def nano_cell(tasks: tuple[str, ...], *, steps: int, more: tuple[str, ...] = ()) -> Cell:
    """One cell of such a sweep, with seed 0."""
    (recipe,) = make_recipes(["nano"], settings(steps=steps, more=more))
    return Cell(recipe=_with_tasks(recipe, tasks))


def _with_tasks(recipe: Recipe, tasks: tuple[str, ...]) -> Recipe:
    return recipe.set([f"tasks={','.join(tasks)}"])


def arguments(tasks: str, data: Path, out: Path, *, steps: int, more: tuple[str, ...] = ()) -> list[str]:
    """The command line of a sweep over `nano`, measured with COCO."""
    words = ["--recipe", "nano", "--tasks", tasks, "--data", str(data), "--out", str(out), "--suite", "coco"]
    words += [w for s in settings(steps=steps, more=more) for w in ("--set", s)]
    return [*words, "--device", "cpu"]


def start(words: list[str]) -> subprocess.Popen[str]:
    """Start it; stdout and stderr are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err
