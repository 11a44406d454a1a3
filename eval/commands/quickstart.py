"""`mtv-eval quickstart`: from nothing to tables and a report, in minutes, with everything made on the spot."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtv.errors import UsageError
from mtv.eval.commands.options import DirPath

if TYPE_CHECKING:
    from mtv.eval.quickstart import Folder, Settings
    from mtv.leaderboards.grid import Table

WORLD_S, SPEED_S, START_S, EVALUATE_S, REPORT_S = 90.0, 25.0, 10.0, 60.0, 10.0
"""First guesses of what steps take on two slow cores."""
GUIDE = """
world    {world}: every benchmark and the pretraining shards, generated
run      {run}: the model trained here; mtv:{run} in any mtv-eval command
results  {results}: one record per model and task, with per-sample outcomes
report   {report}: open it in a browser
"""


@click.command()
@click.option(
    "--out", type=DirPath, default=Path("quickstart"), show_default=True, help="Folder for everything that is made."
)
@click.option("--minutes", type=float, default=2.5, show_default=True, help="Minutes of training.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of world, initial weights and order."
)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps; auto takes a GPU if there is one."
)
@click.option("--quiet", is_flag=True, help="No progress; only errors on stderr.")
@click.option("--scale", default="small", hidden=True, help="Of the world; tiny in tests.")
@click.option("--size", type=int, default=96, hidden=True, help="Shorter side of the world's pictures in pixels.")
@click.option("--recipe", default="mini", hidden=True, help="Recipe of mtv-train; nano in tests.")
@click.option("--suite", default="mini", hidden=True, help="Task or suite to measure with.")
def quickstart(out: Path, device: str, quiet: bool, **options: Any) -> int:
    """First contact without any data: make a small world, train on it, measure, and write a report.

    Generates a miniature world with every benchmark (about 90 s on two cores), trains a tiny model on all objectives
    for --minutes, measures it beside an untrained one and the checkpoints that come with this installation on every
    task, prints Table 3 of the paper for them, and writes an HTML report. Started again, it goes on where it stopped.

    \b
    mtv-eval quickstart
    mtv-eval quickstart --out try --minutes 5
    """
    from mtv.console import setup_logging
    from mtv.eval.quickstart import Folder, Settings

    setup_logging(quiet=quiet)
    again = shlex.join(["mtv-eval", *sys.argv[1:]])
    folder, settings = Folder(out=out), Settings(**options)
    try:
        failed = _carry_out(folder, settings, device, quiet=quiet, again=again)
    except KeyboardInterrupt:
        click.echo(f"interrupted; everything that was done is saved. Go on with:\n  {again}", err=True)
        return 130
    for line in failed:
        click.echo(f"FAILED {line}", err=True)
    return 1 if failed else 0


def _carry_out(folder: Folder, settings: Settings, device: str, *, quiet: bool, again: str) -> list[str]:
    """Everything, by one quickstart at a time; returns what failed without stopping the rest."""
    from mtv.children import claimed
    from mtv.eval.suites import expand_tasks

    expand_tasks([settings.suite])  # a wrong name would come out after minutes
    said: set[str] = set()

    def waiting(who: str) -> None:
        if who not in said:
            click.echo(f"{folder.out}: waiting for the quickstart of {who}, or what it left behind", err=True)
            said.add(who)

    with claimed(folder.out / ".lock", waiting=waiting) as lock:
        return _steps(folder, settings, device, lock, quiet=quiet, again=again)


def _steps(folder: Folder, settings: Settings, device: str, lock: int, *, quiet: bool, again: str) -> list[str]:
    from mtv.console import Reporter
    from mtv.eval import quickstart as work
    from mtv.eval.commands.options import device_of
    from mtv.eval.quickstart_steps import Steps
    from mtv.leaderboards.miniature import shipped_checkpoints

    decided = work.open_folder(folder, settings)
    shipped = shipped_checkpoints()
    steps = Steps(_expected(settings, shipped, measured=decided is not None), again=again)
    with steps.step("world"), Reporter("world", enabled=not quiet) as reporter:
        work.make_world(folder, settings, progress=reporter.tick)
    place = device_of(device)
    trainer = work.Trainer(folder=folder, settings=settings, device=place, lock=lock, tell=steps.tell)
    if decided is None:
        with steps.step("speed of training on this machine"):
            decided = trainer.decide()
    click.echo(f"training: {decided.img_s:.0f} images/s, so {decided.samples:,} samples", err=True)
    if work.is_trained(folder, decided):
        steps.skip("train", "done already")
    else:
        with steps.step("train"):
            trainer.train(decided)
    if not shipped:
        click.echo("This installation has no trained miniature checkpoints: only models made here.", err=True)
    failed = []
    for name, spec in work.models(folder, settings, shipped).items():
        with steps.step(f"evaluate {name}"):
            records = work.measure(folder, settings, name, spec, device=place, quiet=quiet)
        failed += [f"{name} {r.task}: {(r.error or {}).get('message')}" for r in records]
    with steps.step("tables and report"):
        _show(folder)
    if not failed:
        shutil.rmtree(folder.cache, ignore_errors=True)
    return failed


def _expected(settings: Settings, shipped: Mapping[str, Path], *, measured: bool) -> dict[str, float]:
    """First guess of the seconds of every step."""
    speed = {} if measured else {"speed of training on this machine": SPEED_S}
    names = ["random", "quickstart", *(f"shipped-{name}" for name in shipped)]
    evaluations = {f"evaluate {name}": EVALUATE_S for name in names}
    training = {"train": 60 * settings.minutes + START_S}
    return {"world": WORLD_S, **speed, **training, **evaluations, "tables and report": REPORT_S}


def _show(folder: Folder) -> None:
    """Table 3's rows, models by tasks, the page, and where everything is."""
    from mtv.eval.commands.paper_table import paper_table
    from mtv.eval.suites import unavailable
    from mtv.leaderboards.frame import load, suites
    from mtv.leaderboards.report.build import build_report, write_report
    from mtv.leaderboards.table import build_table

    records = load(folder.results)
    if not records:
        raise UsageError(f"{folder.results} holds no results", "No task of the suite suits a model.")
    without = unavailable(suites(records))
    _echo(lambda: paper_table("3", results_dir=folder.results))
    _echo(lambda: build_table(records, unavailable=without))
    page, written = build_report(records, title="mtv-eval quickstart", unavailable=without, runs=[folder.run])
    write_report(folder.report, page)
    names = {"world": folder.world, "run": folder.run, "results": folder.results, "report": folder.report}
    click.echo(GUIDE.format(**names))
    click.echo(f"The page has {written.size / 1e6:.1f} MB and needs no network.")


def _echo(build: Callable[[], Table]) -> None:
    """Print a table; one that cannot stand on these results says why, and the others are printed all the same."""
    from mtv.leaderboards.formats import render

    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    try:
        click.echo(render(build(), "rich", color=terminal, width=width))
    except UsageError as e:
        click.echo(f"no table: {e.message}", err=True)
