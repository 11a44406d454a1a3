"""`mtv-train inspect` and `mtv-train export`: what a run is, and its model for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

DirPath = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=DirPath, metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")
def inspect(run: Path, as_json: bool) -> int:
    """How far RUN came, what its last log line says, and whether its checkpoints are whole.

    Reads every byte of the checkpoints. Exit code 1 if one of them is damaged.
    """
    from mtv.train.claim import holder
    from mtv.train.export import inspect_run

    found = {**inspect_run(run), "in_progress": holder(run)}
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found)))
    return 0 if all(c["sound"] for c in found["checkpoints"]) else 1


@click.command()
@click.argument("run", type=DirPath, metavar="RUN")
@click.option(
    "--to",
    "target",
    type=click.Choice(["hf", "open_clip"]),
    required=True,
    help="hf: transformers' SiglipModel with processor, heads and teacher beside it; open_clip: both towers.",
)
@click.option("--out", type=DirPath, required=True, help="Directory to make.")
@click.option("--towers-only", is_flag=True, help="hf: leave out heads and teacher.")
@click.option("--half", is_flag=True, help="hf, with --towers-only: write the towers in float16.")
def export(run: Path, target: Literal["hf", "open_clip"], out: Path, towers_only: bool, half: bool) -> None:
    """Write the model of RUN (its newest checkpoint) or of RUN/step_N in a form that other libraries load.

    mtv-eval needs no export: `mtv-eval run -m mtv:RUN ...` reads the run itself.
    """
    from mtv.train.export import export_run

    export_run(run, out, target, towers_only=towers_only, half=half)
    click.echo(f"{out}: {target} export of {run}")


def _lines(found: dict[str, Any]) -> list[str]:
    percent = found["step"] / found["steps"]
    lines = [
        f"{found['run']}: {found['name']}, {'+'.join(found['recipe']['tasks'])}, recipe {found['recipe_hash'][:12]}",
        f"  saved        step {found['step']:,} of {found['steps']:,} ({percent:.0%}), {found['samples']:,} samples",
    ]
    if found["in_progress"]:
        lines.append(f"  in progress  {found['in_progress']}")
    if found["parameters"]:
        parts = ", ".join(f"{k} {v:,}" for k, v in found["parameters"].items())
        lines.append(f"  parameters   {parts}")
    if found["log"]:
        shown = {k: v for k, v in found["log"].items() if k in ("kind", "step", "elapsed_s") or k.startswith("loss")}
        lines.append(f"  last line    {', '.join(f'{k} {_short(v)}' for k, v in shown.items())}")
    for c in found["checkpoints"]:
        newest = " (latest)" if c["name"] == found["latest"] else ""
        state = "sound" if c["sound"] else f"DAMAGED: {c['problem']}"
        lines.append(f"  {c['name']}  {c['bytes'] / 2**20:,.1f} MiB, {state}{newest}")
    return lines


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
