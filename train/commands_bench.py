"""`mtv-train bench`: what a training step costs on this machine, objective by objective."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click


@click.command()
@click.option("--recipe", "name", default="mtv_b16_10m", show_default=True, help="`mtv-train recipes`.")
@click.option("--tasks", default=None, metavar="A,B", help="Objectives, added one by one.  [default: all]")
@click.option(
    "--batch", type=click.IntRange(min=1), default=None, help="Images per process.  [default: the recipe's, up to 256]"
)
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Also measure with this corpus.")
@click.option("--warmup", type=click.IntRange(min=1), default=20, show_default=True, help="Steps before timing.")
@click.option("--steps", type=click.IntRange(min=1), default=50, show_default=True, help="Timed steps; their median.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a field; repeatable.")
@click.option("--device", default=None, help="cpu, cuda, cuda:N.  [default: a GPU if there is one]")
@click.option("--download", is_flag=True, help="Allow fetching the tokenizer from a hub (with --data).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")
def bench(
    name: str,
    tasks: str | None,
    batch: int | None,
    data: Path | None,
    warmup: int,
    steps: int,
    settings: tuple[str, ...],
    device: str | None,
    download: bool,
    as_json: bool,
) -> None:
    """Time optimiser steps on synthetic tensors: VL, then with SSL, Grounding and Depth added one by one.

    `executed` counts the operations that are carried out, `literal` those of the paper's formulation in the same time;
    MFU is executed over the device's peak in bf16, where that is known. Under torchrun every process takes --batch.

    \b
    mtv-train bench                                        ViT-B/16 at the paper's shapes
    mtv-train bench --recipe mini --batch 64 --warmup 2 --steps 5
    mtv-train bench --data SHARDS --set data.workers=16
    """
    from mtv.console import setup_logging

    rank = int(os.environ.get("RANK", "0"))
    setup_logging(rank=rank)
    from mtv.train.bench import header, measure, row_text
    from mtv.train.parallel import local_device, process_group
    from mtv.train.recipes import get_recipe

    recipe = get_recipe(name).set([*([f"tasks={tasks}"] if tasks is not None else []), *settings])
    place = local_device(device)
    with process_group(place):
        first, found = header(recipe, place), []
        if rank == 0 and not as_json:
            click.echo(first["text"])
        for row in measure(recipe, place, batch=batch, data=data, warmup=warmup, steps=steps, download=download):
            found.append(row)
            if rank == 0 and not as_json:
                click.echo(row_text(row))
    if rank == 0 and as_json:
        click.echo(json.dumps({**first["about"], "rows": [vars(r) for r in found]}, indent=1))
