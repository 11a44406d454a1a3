"""`mtv-eval synergy`: do objectives support each other, and what does each contribute? Reads results only, no torch."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtv.errors import UsageError
from mtv.eval.commands.options import DirPath, results_option
from mtv.eval.commands.results import format_option

if TYPE_CHECKING:
    from mtv.leaderboards.attribution.analysis import StudyAnalysis
    from mtv.leaderboards.attribution.gradients import GradientPoint
    from mtv.leaderboards.attribution.scaling import ScalingPoint


@click.command()
@results_option
@click.option("--out", "figures_dir", type=DirPath, default=None, help="Write the figures there, as PDF and PNG.")
@click.option(
    "--runs",
    "run_dirs",
    type=DirPath,
    multiple=True,
    help="Folder of a run, or of many: gradient cosines from their logs; repeatable.",
)
@format_option
@click.option(
    "--metric", "metrics", multiple=True, help="Only this task/metric; repeatable.  [default: the paper's columns]"
)
@click.option("--resamples", type=click.IntRange(min=1), default=2000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("-m", "--model", "models", multiple=True, help="Only this checkpoint (alias or spec); repeatable.")
@click.option("--protocol", "presets", multiple=True, help="Only results of this preset; repeatable.")
@click.option("--allow-mixed", is_flag=True, help="Where protocols or data of a task differ, take the most frequent.")
def synergy(
    results_dir: Path,
    figures_dir: Path | None,
    run_dirs: tuple[Path, ...],
    fmt: str,
    metrics: tuple[str, ...],
    resamples: int,
    seed: int,
    models: tuple[str, ...],
    presets: tuple[str, ...],
    allow_mixed: bool,
) -> None:
    """Synergy of each pair of objectives over VL (Eq. 4), Shapley values and interactions, with 95 % intervals.

    Works on checkpoints of `mtv-train` that differ in objectives and seed only: one set of tables per recipe, size,
    training data and number of samples. Synergy needs VL, each objective with VL, and both; Shapley values need all 8
    subsets that contain VL. What is undefined or missing says why.
    """
    from mtv.leaderboards.attribution.analysis import analyse, choose_keys
    from mtv.leaderboards.attribution.gradients import find_runs, read_gradients
    from mtv.leaderboards.attribution.scaling import scaling_points
    from mtv.leaderboards.attribution.synergy import TABLE4_KEYS
    from mtv.leaderboards.frame import load
    from mtv.leaderboards.study import studies

    found = studies(load(results_dir, models=models, presets=presets), allow_mixed=allow_mixed)
    if not found:
        raise UsageError(
            f"--results {results_dir}: no results of checkpoints of mtv-train, so there is nothing to attribute",
            "Train and measure the objective sets with `mtv-train sweep --tasks lattice`, then name its result store.",
        )
    gradients = [p for folder in run_dirs for run in find_runs(folder) for p in read_gradients(run)]
    keys = choose_keys(found, metrics)
    averaged = metrics or TABLE4_KEYS
    analyses = [analyse(s, keys, averaged=averaged, resamples=resamples, seed=seed) for s in found]
    needed = fmt == "json" or figures_dir is not None
    scaling = scaling_points(found, keys, resamples=resamples, seed=seed) if needed else []
    _show(analyses, scaling, gradients, fmt)
    if figures_dir is not None:
        _figures(analyses, scaling, gradients, figures_dir)


def _show(
    analyses: Sequence[StudyAnalysis],
    scaling: Sequence[ScalingPoint],
    gradients: Sequence[GradientPoint],
    fmt: str,
) -> None:
    from mtv.leaderboards.attribution import tables
    from mtv.leaderboards.attribution.document import document
    from mtv.leaderboards.attribution.gradients import gradient_table
    from mtv.leaderboards.formats import render
    from mtv.leaderboards.grid import Table

    if fmt == "json":
        click.echo(json.dumps(document(analyses, scaling, gradients), indent=1, ensure_ascii=False, allow_nan=False))
        return
    if fmt == "csv":
        rows = tuple(r for a in analyses for r in tables.records(a))
        click.echo(render(Table(title="", head="", columns=(), rows=(), data=rows), "csv"), nl=False)
        return
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    builders = (tables.synergy_table, tables.attribution_table, tables.interaction_table)
    shown = [render(build(a), fmt, color=terminal, width=width) for a in analyses for build in builders]
    if gradients:
        shown.append(render(gradient_table(gradients), fmt, color=terminal, width=width))
    click.echo("\n".join(shown), nl=False)


def _figures(
    analyses: Sequence[StudyAnalysis],
    scaling: Sequence[ScalingPoint],
    gradients: Sequence[GradientPoint],
    folder: Path,
) -> None:
    from mtv.leaderboards.figures.every import Studied, study_drawings
    from mtv.leaderboards.figures.save import save_figure

    shown, missing = study_drawings(Studied(analyses=tuple(analyses), points=tuple(scaling)), gradients)
    for drawing in shown:
        figure = drawing.draw()
        for suffix in ("pdf", "png"):
            path = folder / f"{drawing.name}.{suffix}"
            save_figure(figure, path)
            click.echo(f"wrote {path}", err=True)
    for obstacle in missing:
        click.echo(f"not possible: {obstacle.title}: {obstacle.reason}", err=True)
