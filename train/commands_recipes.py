"""`mtv-train recipes`: what there is, and every field of one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import click


@click.command()
@click.argument("name", required=False, metavar="[RECIPE]")
@click.option("--tasks", default=None, metavar="A,B", help="Objectives, as in `run`.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a field; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")
def recipes(name: str | None, tasks: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """List the recipes, or print every field of RECIPE with its meaning.

    \b
    mtv-train recipes
    mtv-train recipes mini
    mtv-train recipes mtv_b16_10m --tasks vl,ssl --set optim.lr=1e-3 --json
    """
    from mtv.train.recipes import RECIPES, get_recipe

    if name is None:
        lines = {n: (make.__doc__ or "").splitlines()[0] for n, make in RECIPES.items()}
        if as_json:
            click.echo(json.dumps(lines, indent=1))
            return
        for recipe, line in lines.items():
            click.echo(f"{recipe:<14} {line}")
        return
    resolved = get_recipe(name).set([*([f"tasks={tasks}"] if tasks is not None else []), *settings])
    if as_json:
        click.echo(json.dumps(resolved.to_dict(), indent=1))
        return
    click.echo(f"{resolved.name}: {resolved.steps:,} steps of {resolved.batch:,} images, {'+'.join(resolved.tasks)}\n")
    for field, value, doc in _listed(resolved):
        click.echo(f"{f'{field}={value}':<44} {doc}")


def _listed(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(field, value as --set takes it, meaning) of every field below a dataclass."""
    from mtv.fields import field_docs

    docs = field_docs(type(config))
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _listed(value, f"{prefix}{f.name}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield f"{prefix}{f.name}", text, docs[f.name]
