"""`mtv-eval report|figures`: a page and figures from stored results. They read results only, and import no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtv.errors import UsageError
from mtv.eval.commands.options import DirPath, results_option, verbosity_options
from mtv.leaderboards.report.pictures import DEFAULT_BUDGET_MB

if TYPE_CHECKING:
    from mtv.leaderboards.frame import Stored


def _narrowing(f: Any) -> Any:
    """Options that choose among the results, and the runs to draw gradients of."""
    options = (
        click.option("-m", "--model", "models", multiple=True, help="Only this model (alias or spec); repeatable."),
        click.option("-t", "--task", "tasks", multiple=True, help="Only this task; repeatable."),
        click.option("--protocol", "presets", multiple=True, help="Only results of this preset; repeatable."),
        click.option(
            "--runs",
            type=DirPath,
            multiple=True,
            help="Folder of a training run, or of many: gradient cosines from their logs; repeatable.",
        ),
    )
    for option in reversed(options):
        f = option(f)
    return f


@click.command()
@click.argument("results", type=DirPath, required=False)
@results_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="HTML file to write.",
)
@click.option("--title", default="Report of mtv-eval", show_default=True, help="Heading of the page.")
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0),
    default=DEFAULT_BUDGET_MB,
    show_default=True,
    help="Megabytes of sample pictures in the page; 0 for none.",
)
@_narrowing
@verbosity_options
def report(results: Path | None, results_dir: Path, out: Path, title: str, max_mb: float, **options: Any) -> None:
    """One self-contained HTML page about a result store: RESULTS, or --results.

    Tables with intervals, radar, synergy, attribution and scaling where the results allow, every metric and category
    per task, best and worst samples, speed, and the command that makes each number again. The page asks the network
    for nothing.

    \b
    mtv-eval report results --out report.html
    mtv-eval report results -m mtv-b16 -m clip-b16 --max-mb 2 --out small.html
    """
    from mtv.console import setup_logging
    from mtv.leaderboards.report.build import build_report, write_report

    setup_logging(verbose=options["verbose"], quiet=options["quiet"])
    records, unavailable = _read(_store(results, results_dir), options)
    page, written = build_report(records, title=title, unavailable=unavailable, budget_mb=max_mb, runs=options["runs"])
    write_report(out, page)
    left = f", {written.left_out} left out" if written.left_out else ""
    click.echo(f"{out}: {written.size / 1e6:.1f} MB, {len(records)} results, {written.pictures} pictures{left}")


@click.command()
@click.argument("results", type=DirPath, required=False)
@results_option
@click.option("--out", type=DirPath, default=Path("figures"), show_default=True, help="Folder to write into.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["pdf", "png", "svg"]),
    multiple=True,
    help="File format; repeatable.  [default: pdf]",
)
@_narrowing
@verbosity_options
def figures(results: Path | None, results_dir: Path, out: Path, formats: tuple[str, ...], **options: Any) -> None:
    """Write every figure that the results allow, and say which are not possible and why.

    Radar of models, and of the objectives of a study; synergy heat map, Shapley bars, scaling curves; gradient cosines
    with --runs. Colours are safe for colour-blind readers; the same results give the same bytes.
    """
    from mtv.console import setup_logging
    from mtv.leaderboards.figures.every import drawings, studied
    from mtv.leaderboards.figures.save import save_figure

    setup_logging(verbose=options["verbose"], quiet=options["quiet"])
    records, _ = _read(_store(results, results_dir), options)
    shown, missing = drawings(records, studied(records), runs=options["runs"])
    for drawing in shown:
        figure = drawing.draw()
        for suffix in formats or ("pdf",):
            path = out / f"{drawing.name}.{suffix}"
            save_figure(figure, path)
            click.echo(f"{path}: {drawing.title}")
    for obstacle in missing:
        click.echo(f"not possible: {obstacle.title}: {obstacle.reason}", err=True)


def _store(argument: Path | None, option: Path) -> Path:
    """The result store, named either way.

    Raises:
        UsageError: named both ways, and differently.
    """
    if argument is not None and option != Path("results") and argument != option:
        raise UsageError(f"RESULTS {argument} and --results {option} name two result stores", "Name one.")
    return argument or option


def _read(folder: Path, options: dict[str, Any]) -> tuple[list[Stored], dict[str, str]]:
    """The chosen results, and the tasks of their suites that cannot have any.

    Raises:
        UsageError: an empty store; names it.
        CacheError: no store there, or an unreadable record; names it.
    """
    from mtv.eval.suites import unavailable
    from mtv.leaderboards.frame import load, suites

    records = load(folder, models=options["models"], tasks=options["tasks"], presets=options["presets"])
    if not records:
        raise UsageError(
            f"{folder} holds no results", "Make some with `mtv-eval run --out DIR`, then name that folder."
        )
    return records, {} if options["tasks"] else unavailable(suites(records))
