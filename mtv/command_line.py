"""What the console commands share: groups that import only the command they run, and one way out for errors.

Exit codes: 0 done, 1 failed, 2 usage, 3 data, 130 interrupted (`mtv.errors`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from mtv.errors import MtvError, unknown

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""Settings of every group."""


class LazyGroup(click.Group):
    """A group that imports only the command it runs.

    Args:
        lazy: command to `module:attribute`, in the order of the help.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a researcher's day."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named by the first word; an unknown one is answered with the nearest spellings."""
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            raise unknown("command", args[0], self.lazy)
        return super().resolve_command(ctx, args)


def invoke(cli: click.Command, argv: Sequence[str] | None, *, name: str) -> int:
    """Run one command line and return its exit code.

    Args:
        cli: the outermost command.
        argv: arguments; None takes those of the process.
        name: of the program, for messages.
    """
    try:
        value = cli.main(args=None if argv is None else list(argv), prog_name=name, standalone_mode=False)
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
