"""`mtv-train`: data on stdout, log on stderr, documented exit codes.

0 done; 1 failed; 2 usage; 3 data; 130 and 143 stopped by Ctrl-C and SIGTERM, saved. Commands import what they need when
they run, so that `--help`, `recipes` and `inspect` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mtv import __version__
from mtv import command_line as line

COMMANDS = {
    name: f"mtv.train.{place}"
    for name, place in {
        "run": "commands_run:run",
        "resume": "commands_run:resume",
        "recipes": "commands_recipes:recipes",
        "sweep": "commands_sweep:sweep",
        "inspect": "commands_export:inspect",
        "export": "commands_export:export",
        "data": "commands_data:data",
        "bench": "commands_bench:bench",
    }.items()
}
"""Command to `module:attribute`; a module is imported when its command is asked for."""


@click.group(cls=line.LazyGroup, lazy=COMMANDS, context_settings=line.CONTEXT)
@click.version_option(__version__, prog_name="mtv-train")
def cli() -> None:
    """Train a vision encoder on image-text, self-supervised, grounding and depth objectives together (MTV).

    \b
    mtv-eval data make-mini --out WORLD                    a small world with everything that training needs
    mtv-train run mini --data WORLD --out runs/mini        a tiny model on two CPU cores, in minutes
    mtv-train resume runs/mini                             go on after an interruption, bit for bit
    mtv-train sweep --recipe mini --data WORLD --out sweep every set of objectives, measured as it finishes
    mtv-train export runs/mini --to hf --out mini-hf       for transformers; mtv-eval reads mtv:runs/mini itself
    torchrun --nproc-per-node 8 -m mtv.train run mtv_b16_10m --data /data/shards --out runs/b16

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 data, 130/143 stopped by Ctrl-C/SIGTERM and saved.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through `sys.exit`."""
    sys.exit(invoke(argv))


def invoke(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    return line.invoke(cli, argv, name="mtv-train")
