"""`mtv-train run` and `mtv-train resume`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtv.errors import MtvError, UsageError

if TYPE_CHECKING:
    from mtv.train.recipe import Recipe

DirPath = click.Path(path_type=Path)


def _shared(f: Callable[..., Any]) -> Callable[..., Any]:
    """Options of both commands."""
    for option in (
        click.option("--verbose", is_flag=True, help="Log details on stderr."),
        click.option("--quiet", is_flag=True, help="No progress; only errors on stderr."),
        click.option("--download", is_flag=True, help="Allow fetching the tokenizer from a hub; never data."),
        click.option(
            "--stop-after",
            type=click.IntRange(min=1),
            default=None,
            metavar="N",
            help="Stop when the run has had N steps, with a checkpoint; `resume` goes on.",
        ),
        click.option("--new-order", is_flag=True, help="Go on although the data changed, in an order of their own."),
        click.option(
            "--device",
            default=None,
            help="cpu, cuda, cuda:N.  [default: a GPU if there is one; under torchrun one per process]",
        ),
    ):
        f = option(f)
    return f


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--data", type=DirPath, required=True, help="Indexed shards, or a miniature world.")
@click.option("--out", type=DirPath, required=True, help="Folder of the run.")
@click.option("--tasks", default=None, metavar="A,B", help="Objectives: any of vl, ssl, ground, depth.  [default: all]")
@click.option("--seed", type=int, default=None, help="Of initial weights, order and every draw.  [default: 0]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of the recipe (`mtv-train recipes RECIPE` lists them); repeatable.",
)
@_shared
def run(recipe: str, data: Path, out: Path, tasks: str | None, seed: int | None, **options: Any) -> int:
    """Train RECIPE (`mtv-train recipes`) on --data and write log and checkpoints into --out.

    Started again with the same recipe and --out, it goes on from the newest checkpoint; a folder with a run of another
    recipe is refused. Ctrl-C and SIGTERM finish the step, save, and exit; a second Ctrl-C exits at once.

    \b
    mtv-train run mini --data WORLD --out runs/full
    mtv-train run mini --data WORLD --out runs/vl --tasks vl
    mtv-train run small --data WORLD --out runs/small --set optim.lr=5e-4 --set save.every=200
    mtv-train run mini --data WORLD --out runs/watched --set eval.every=500 --set log.trackers=tensorboard
    torchrun --nproc-per-node 8 --max-restarts 3 -m mtv.train run mtv_b16_10m --data SHARDS --out runs/b16
    """
    from mtv.train.recipes import get_recipe

    settings = [f"tasks={tasks}"] if tasks is not None else []
    settings += [f"seed={seed}"] if seed is not None else []
    resolved = get_recipe(recipe).set([*settings, *options.pop("settings")])
    return _train(resolved, data, out, resume=False, **options)


@click.command()
@click.argument("folder", type=DirPath, metavar="RUN")
@click.option("--data", type=DirPath, default=None, help="Where the data are now.  [default: where they were]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change how the run is carried out or reported (perf, log, save, eval, data.workers ...); repeatable.",
)
@_shared
def resume(folder: Path, data: Path | None, settings: tuple[str, ...], **options: Any) -> int:
    """Go on with RUN from its newest checkpoint, or from a step of it (RUN/step_0000500), with its own recipe.

    On the same machine and number of processes the result is bit for bit that of a run without interruption; with
    another number of processes it sees the same samples and differs by rounding.

    \b
    mtv-train resume runs/full
    mtv-train resume runs/full --set save.every=100 --set data.workers=2
    """
    from mtv.train.claim import read_origin
    from mtv.train.recipe import differences
    from mtv.train.run_folder import STATE, read_recipe

    home = folder.parent if (folder / STATE).is_file() else folder
    saved = read_recipe(home)
    recipe = saved.set(settings)
    wrong = differences(saved, recipe)
    if wrong:
        raise UsageError(
            f"resume cannot change what is learnt: {'; '.join(wrong)}",
            "Start a new run with --out; --set init=RUN takes over the towers of this one.",
        )
    return _train(recipe, data if data is not None else read_origin(home), folder, resume=True, **options)


def _train(recipe: Recipe, data: Path, out: Path, *, verbose: bool, quiet: bool, **options: Any) -> int:
    from mtv.console import setup_logging

    rank, world = (int(os.environ.get(name, fallback)) for name, fallback in (("RANK", "0"), ("WORLD_SIZE", "1")))
    setup_logging(verbose=verbose, quiet=quiet, rank=rank)
    from mtv.train.run import train
    from mtv.train.stopping import StoppedError

    try:
        train(recipe, data, out, live=not quiet, **options)
    except StoppedError as e:
        if rank == 0:
            click.echo(str(e), err=True)
        return e.exit_code
    except KeyboardInterrupt:
        click.echo(f"ended at once; go on from the last checkpoint with: mtv-train resume {out}", err=True)
        return 130
    except MtvError as e:
        if world == 1:
            raise
        click.echo(f"error: rank {rank}: {e}", err=True)
        return e.exit_code
    return 0
