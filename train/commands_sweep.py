"""`mtv-train sweep`: the whole study, recipes times objectives times seeds, trained and measured."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtv.errors import DataError, UsageError

if TYPE_CHECKING:
    from mtv.train.sweep.plan import Cell, Plan
    from mtv.train.sweep.work import Work

DirPath = click.Path(path_type=Path)
TABLES = ("3", "4")


@click.command()
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("mini",),
    show_default=True,
    help="Recipe (`mtv-train recipes`); repeatable, for several sizes.",
)
@click.option(
    "--tasks",
    default="lattice",
    show_default=True,
    metavar="SETS",
    help="Sets of objectives: `lattice` for all 8 that contain vl, or a list such as 'vl;vl,ssl;vl,ssl,ground,depth'.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Seeds 0 to N-1.", metavar="N")
@click.option("--data", type=DirPath, required=True, help="Indexed shards, or a miniature world.")
@click.option("--out", type=DirPath, required=True, help="Folder of the sweep: runs, results, logs.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of all recipes, as in `run`; repeatable.",
)
@click.option(
    "--suite",
    multiple=True,
    default=("mini",),
    show_default=True,
    help="Task or suite that every run is measured with (`mtv-eval ls tasks`); repeatable.",
)
@click.option(
    "--eval-data", type=DirPath, default=None, help="Root of the benchmarks.  [default: the world, beside the corpus]"
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs at the same time: one GPU each, or a share of the cores.",
)
@click.option(
    "--torchrun",
    "processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes of every run.",
    metavar="N",
)
@click.option("--device", default=None, help="cpu, cuda ...  [default: a GPU if there is one]")
@click.option("--download", is_flag=True, help="Allow fetching tokenizers from a hub; never data.")
@click.option(
    "--slurm",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="FILE",
    help="Write an array job with one task per run into FILE, and start nothing. It asks for a GPU per process, "
    "except with --device cpu.",
)
@click.option(
    "--cell",
    type=click.IntRange(min=1),
    default=None,
    metavar="K",
    help="Only run K of the plan (--dry-run lists them).",
)
@click.option("--dry-run", is_flag=True, help="List the runs and how far each is, and stop.")
@click.option("--quiet", is_flag=True, help="No progress; only errors on stderr.")
def sweep(
    recipes: tuple[str, ...],
    tasks: str,
    seeds: int,
    data: Path,
    out: Path,
    settings: tuple[str, ...],
    suite: tuple[str, ...],
    eval_data: Path | None,
    **options: Any,
) -> int:
    """Train every recipe on every set of objectives with every seed, measure each run, and print Tables 3 and 4.

    Started again, it does only what is missing, wherever it was killed; seeds, sets and recipes may be added. Several
    may work on one folder at once: each takes what no other has in hand. A run that fails does not stop the others
    (exit code 1). Ctrl-C and SIGTERM save what is in progress.

    \b
    mtv-train sweep --recipe mini --tasks lattice --seeds 3 --data WORLD --out study
    mtv-train sweep --tasks 'vl;vl,ssl' --data WORLD --out study --set samples=32000 --dry-run
    mtv-train sweep --recipe small --data WORLD --out study --jobs 8
    mtv-train sweep --recipe mtv_b16_10m --data SHARDS --eval-data DATA --suite paper --out b16 --torchrun 8 \\
      --slurm job.sh
    """
    from mtv.console import setup_logging
    from mtv.train.sweep.plan import make_recipes, parse_subsets

    setup_logging(quiet=options["quiet"])
    if options["slurm"] is not None and options["cell"] is not None:
        raise UsageError("--slurm and --cell exclude each other", "The script adds --cell to its tasks.")
    made = make_recipes(recipes, settings)
    plan = _plan(made, settings, parse_subsets(tasks), seeds, data, suite, eval_data)
    cells = _chosen(plan, options["cell"])
    if options["dry_run"]:
        _list(plan, cells, out)
        return 0
    command = _command(plan, out, options)
    from mtv.train.sweep.manifest import claim

    claim(out, plan, command=shlex.join(["mtv-train", "sweep", *command]))
    if options["slurm"] is not None:
        _write_slurm(options["slurm"], plan, out, command, options)
        return 0
    return _run(plan, cells, out, options)


def _plan(
    recipes: Sequence[Any],
    settings: tuple[str, ...],
    subsets: tuple[tuple[str, ...], ...],
    seeds: int,
    data: Path,
    suite: tuple[str, ...],
    eval_data: Path | None,
) -> Plan:
    """The plan, after a look at the data: what is missing there shall not come out after hours."""
    from mtv.train.corpus import corpus_root, open_corpus
    from mtv.train.data.batch import Needs
    from mtv.train.sweep.plan import Plan

    root = eval_data if eval_data is not None else corpus_root(data).parent
    if not root.is_dir():
        raise DataError(f"--eval-data {root}: no such directory", "Name the folder that holds the benchmarks.")
    plan = Plan(
        recipes=tuple(recipes),
        settings=settings,
        subsets=subsets,
        seeds=tuple(range(seeds)),
        data=data,
        eval_data=root,
        suite=suite,
    )
    needs = Needs(regions="ground" in plan.objectives, depth="depth" in plan.objectives)
    for recipe in recipes:
        open_corpus(data, needs, recipe.data.labels)
    return plan


def _chosen(plan: Plan, number: int | None) -> tuple[Cell, ...]:
    if number is None:
        return plan.cells
    if number > len(plan.cells):
        raise UsageError(f"--cell {number}: the plan has {len(plan.cells)} runs", "--dry-run lists them.")
    return (plan.cells[number - 1],)


def _list(plan: Plan, cells: Sequence[Cell], out: Path) -> None:
    from mtv.train.sweep.state import state_of

    for number, cell in enumerate(plan.cells, 1):
        if cell in cells:
            found = state_of(cell, out, plan.suite)
            click.echo(f"{number:>4}  {found.state:<8} step {found.step}/{cell.recipe.steps}  {cell.name}")


def _command(plan: Plan, out: Path, options: dict[str, Any]) -> list[str]:
    """The options of this sweep with absolute paths, without --slurm and --cell."""
    words = [w for recipe in plan.recipes for w in ("--recipe", recipe.name)]
    words += ["--tasks", ";".join(",".join(s) for s in plan.subsets), "--seeds", str(len(plan.seeds))]
    words += ["--data", str(plan.data.resolve()), "--out", str(out.resolve())]
    words += ["--eval-data", str(plan.eval_data.resolve())]
    words += [w for setting in plan.settings for w in ("--set", setting)]
    words += [w for name in plan.suite for w in ("--suite", name)]
    words += ["--torchrun", str(options["processes"])] if options["processes"] > 1 else []
    words += ["--device", options["device"]] if options["device"] is not None else []
    return [*words, *(["--download"] if options["download"] else [])]


def _write_slurm(path: Path, plan: Plan, out: Path, command: Sequence[str], options: dict[str, Any]) -> None:
    from mtv.train.sweep.slurm import script, write_script

    logs = out.resolve() / "slurm"
    words = [sys.executable, "-m", "mtv.train", "sweep", *command]
    gpus = options["device"] != "cpu"
    text = script(words, cells=len(plan.cells), processes=options["processes"], gpus=gpus, logs=logs)
    write_script(path, text, logs=logs)
    click.echo(f"{path}: {len(plan.cells)} runs. Nothing was started; submit it with: sbatch {path}")
    click.echo(f"When all are done, the same command without --slurm prints the tables from {out / 'results'}.")


def _run(plan: Plan, cells: Sequence[Cell], out: Path, options: dict[str, Any]) -> int:
    from mtv.children import listening
    from mtv.train.sweep.places import places
    from mtv.train.sweep.state import state_of
    from mtv.train.sweep.work import Way, Work

    way = Way(
        processes=options["processes"],
        device=options["device"],
        download=options["download"],
        places=places(options["jobs"], options["processes"], options["device"]),
    )
    with listening() as stop:
        work = Work(plan, out, way, stop, quiet=options["quiet"])
        work.go(cells)
    done = [c for c in plan.cells if state_of(c, out, plan.suite).state == "done"]
    click.echo(f"{len(done)} of {len(plan.cells)} runs are trained and measured: {out / 'results'}", err=True)
    _say_failures(work)
    if stop.number is not None:
        again = shlex.join(["mtv-train", *sys.argv[1:]])
        click.echo(f"stopped; everything that was done is saved. Continue with:\n  {again}", err=True)
        return 128 + stop.number
    whole = len(done) == len(plan.cells)
    if any((out / "results").glob("*/*/*.json")) and (whole or options["cell"] is None):
        _tables(out)
    return 1 if work.failures else 0


def _say_failures(work: Work) -> None:
    for failure in work.failures:
        click.echo(f"FAILED {failure.cell.name}: {failure.stage}: {failure.message}\n  log: {failure.log}", err=True)


def _tables(out: Path) -> None:
    """Tables 3 and 4 of what is there, by a process: the trainer does not know the leaderboards.

    A table that cannot stand says why and fails nothing: the runs are what a sweep makes.
    """
    for number in TABLES:
        words = ["-m", "mtv.eval", "table", number, "--results", str(out / "results")]
        subprocess.run([sys.executable, *words], check=False)
