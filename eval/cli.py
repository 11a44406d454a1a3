"""`mtv-eval`: data on stdout, log on stderr, documented exit codes.

0 all done; 1 some task failed; 2 usage; 3 data check failed; 130 interrupted. Commands import what they need when they
run, so that `--help`, `ls`, `status`, `table` and `compare` answer at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from mtv import __version__
from mtv.errors import MtvError, unknown

COMMANDS = {
    "run": "run:run",
    "ls": "ls:ls",
    "inspect": "inspect:inspect",
    "data": "data:data",
    "selftest": "selftest:selftest",
    "status": "results:status",
    "table": "results:table",
    "compare": "results:compare",
    "power": "results:power",
    "cache": "cache:cache",
    "depth-head": "depth_head:depth_head",
    "depth-figure": "depth_figure:depth_figure",
}
"""Command to `module:attribute` below `mtv.eval.commands`; a module is imported when its command is asked for."""


class LazyGroup(click.Group):
    """A group that imports only the command it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a researcher's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(f"mtv.eval.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named by the first word; an unknown one is answered with the nearest spellings."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mtv-eval")
def cli() -> None:
    """Measure any vision encoder: zero-shot, retrieval, kNN and correspondence, with intervals, from one command.

    \b
    mtv-eval selftest                                             trust this installation (no data, no network)
    mtv-eval run -m siglip-b16 -t paper --data DATA --out results
    mtv-eval table --results results                              models by tasks, with 95 % intervals
    mtv-eval compare clip-b16 siglip-b16 --results results        paired tests

    Exit codes: 0 done, 1 a task failed, 2 wrong usage, 3 data check failed, 130 interrupted.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through `sys.exit`."""
    sys.exit(invoke(argv))


def invoke(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        value = cli.main(args=None if argv is None else list(argv), prog_name="mtv-eval", standalone_mode=False)
        return value if isinstance(value, int) else 0
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except MtvError as e:
        click.echo(f"error: {e}", err=True)
        return e.exit_code
    except BrokenPipeError:
        # `mtv-eval table | head` closes our stdout; that is no failure, and a second error at exit must not appear.
        sys.stdout = None
        return 0
