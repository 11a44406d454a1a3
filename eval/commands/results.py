"""`mtv-eval status|table|compare|power`: they read results only, and import no torch."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtv.eval.commands.options import json_option, results_option
from mtv.eval.commands.paper_table import check_options, paper_options, paper_table

if TYPE_CHECKING:
    from mtv.leaderboards.grid import Table

FORMATS = ("rich", "md", "csv", "tex", "json", "html")

format_option = click.option(
    "--format", "fmt", type=click.Choice(FORMATS), default="rich", show_default=True, help="Output format, on stdout."
)


@click.command()
@click.option(
    "--out",
    "--results",
    "results_dir",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Result store.",
)
@click.option("-m", "--model", "models", multiple=True, help="Model expected besides those found; repeatable.")
@click.option("-t", "--task", "tasks", multiple=True, help="Task expected besides those found; repeatable.")
@format_option
@json_option
def status(results_dir: Path, models: tuple[str, ...], tasks: tuple[str, ...], fmt: str, as_json: bool) -> None:
    """Done, partial, missing and failed per model and task, with the reason."""
    from mtv.eval.suites import expand_tasks, unavailable
    from mtv.leaderboards.frame import load, suites
    from mtv.leaderboards.status import status_table

    records = load(results_dir)
    wanted = [c.task for c in expand_tasks(list(tasks))]
    without = unavailable([*tasks, *suites(records)])
    _print(status_table(records, models=models, tasks=wanted, unavailable=without), "json" if as_json else fmt)


@click.command()
@results_option
@format_option
@click.option("-m", "--model", "models", multiple=True, help="Only this model (alias or spec); repeatable.")
@click.option("-t", "--task", "tasks", multiple=True, help="Only this task; repeatable.")
@click.option("--protocol", "presets", multiple=True, help="Only results of this preset; repeatable.")
@click.option("--all-metrics", is_flag=True, help="Every metric instead of the headlines.")
@click.option("--allow-mixed", is_flag=True, help="Put differing protocols or data sets into one column, each marked.")
@click.option(
    "--published",
    type=click.Choice(["same", "all", "none"]),
    default="same",
    show_default=True,
    help="Published values: beside the measured model, of all models, or none.",
)
@paper_options
@click.pass_context
def table(
    ctx: click.Context,
    number: str | None,
    results_dir: Path,
    fmt: str,
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    presets: tuple[str, ...],
    all_metrics: bool,
    allow_mixed: bool,
    published: str,
    bench: tuple[Path, ...],
    order: str | None,
    beside: str | None,
) -> None:
    """Models by tasks: value with its 95 % interval, best in bold, published values beside measured ones.

    Results share a column only if protocol and data agree; --allow-mixed marks each cell with what differs. A task that
    the suite of a result names but that cannot run yet has a column that says so.

    With a number, that table of the paper from these results: 1 training cost, 3 objectives added one by one, 4 synergy
    of pairs, 5 comparison of models, 6 relative depth. The paper's number and the difference stand below a measured one
    where the run is the paper's; cells without a number say why.

    \b
    mtv-eval table                              models by tasks
    mtv-eval table 3 --beside B/16:10M          a miniature study, the paper's rows for reference
    mtv-eval table 1 --bench bench.json         after mtv-train bench --json > bench.json
    """
    check_options(ctx, number)
    if number is not None:
        built = paper_table(
            number,
            results_dir=results_dir,
            models=models,
            presets=presets,
            allow_mixed=allow_mixed,
            bench=bench,
            order=order,
            beside=beside,
        )
        _print(built, fmt)
        return
    from mtv.eval.suites import unavailable
    from mtv.leaderboards.frame import load, suites
    from mtv.leaderboards.table import build_table

    records = load(results_dir, models=models, tasks=tasks, presets=presets)
    quoted = {"same": True, "all": "all", "none": False}[published]
    built = build_table(
        records,
        allow_mixed=allow_mixed,
        published=quoted,  # type: ignore[arg-type]
        all_metrics=all_metrics,
        unavailable={} if tasks else unavailable(suites(records)),
    )
    _print(built, fmt)


@click.command()
@click.argument("a")
@click.argument("b")
@results_option
@click.option("-t", "--task", "tasks", multiple=True, help="Only this task; repeatable.")
@click.option("--protocol", "presets", multiple=True, help="Only results of this preset; repeatable.")
@click.option("--all-metrics", is_flag=True, help="Every metric instead of the headlines.")
@format_option
@json_option
def compare(
    a: str,
    b: str,
    results_dir: Path,
    tasks: tuple[str, ...],
    presets: tuple[str, ...],
    all_metrics: bool,
    fmt: str,
    as_json: bool,
) -> None:
    """Paired difference B - A per task: interval, discordant samples, p, and p after Holm's correction.

    A and B are aliases, specs, or the first six or more digits of a fingerprint (`mtv-eval ls results`).
    """
    from mtv.leaderboards import compare as paired
    from mtv.leaderboards.frame import load

    records = load(results_dir, tasks=tasks, presets=presets)
    found = paired.compare(paired.select_model(records, a), paired.select_model(records, b), all_metrics=all_metrics)
    _print(paired.comparison_table(found), "json" if as_json else fmt)


@click.command()
@click.option("--delta", type=float, required=True, help="Difference of two models, percentage points.")
@click.option("-t", "--task", "tasks", multiple=True, help="Task with 0/1 outcomes; repeatable.  [default: all]")
@click.option("-n", "--samples", type=int, default=None, help="Instead: a set of this many independent samples.")
@format_option
@json_option
def power(delta: float, tasks: tuple[str, ...], samples: int | None, fmt: str, as_json: bool) -> None:
    """At which share of discordant samples a difference becomes visible on each test set."""
    from mtv.leaderboards.power import power_table

    _print(power_table(delta, tasks, n=samples), "json" if as_json else fmt)


def _print(table: Table, fmt: str) -> None:
    from mtv.leaderboards.formats import render

    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(render(table, fmt, color=terminal, width=width))
