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
        for path in _figures(analyses, scaling, gradients, figures_dir):
            click.echo(f"wrote {path}", err=True)


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
) -> list[Path]:
    from mtv.leaderboards.figures.attribution import draw_attribution
    from mtv.leaderboards.figures.gradients import draw_gradients
    from mtv.leaderboards.figures.save import save_figure
    from mtv.leaderboards.figures.scaling import draw_scaling
    from mtv.leaderboards.figures.synergy import draw_synergy

    figures = {}
    for a in analyses:
        name = f"{a.study.recipe}-{a.study.size}-{a.study.samples}-{a.study.study_hash[:8]}-{a.study.data_hash[:8]}"
        if all(v.missing for v in a.synergies.values()):
            click.echo(f"no heat map of {a.study.title}: no pair has its four cells", err=True)
        else:
            figures[f"synergy-{name}"] = draw_synergy(a)
        if any(a.attributions[k].total for k in a.keys):
            title = f"Attribution of the gain over VL: {a.study.title}"
            figures[f"attribution-{name}"] = draw_attribution([a.attributions[k] for k in a.keys], title=title)
        else:
            click.echo(
                f"no figure of attribution of {a.study.title}: the 8 subsets with VL are not all there", err=True
            )
        own = {c.training.recipe_hash for c in a.study.cells.values()}
        if points := [p for p in gradients if p.recipe_hash in own]:
            title = f"Cosine between gradients on the trunk: {a.study.title}"
            figures[f"gradients-{name}"] = draw_gradients(points, list(a.averages.values()), title=title)
    if len({p.samples for p in scaling}) > 1:
        figures["scaling"] = draw_scaling(scaling)
    else:
        click.echo("no scaling curves: all results are after the same number of samples", err=True)
    known = {c.training.recipe_hash for a in analyses for c in a.study.cells.values()}
    if others := [p for p in gradients if p.recipe_hash not in known]:
        figures["gradients-other-runs"] = draw_gradients(others, title="Cosine between gradients: runs without results")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for name in figures for suffix in ("pdf", "png")]
    for path in paths:
        save_figure(figures[path.stem], path)
    return paths
