"""`mtv-eval`: data on stdout, log on stderr, documented exit codes.

0 all done; 1 some task failed; 2 usage; 3 data check failed; 130 interrupted. Commands import what they need when they
run, so that `--help`, `ls`, `status`, `table` and `compare` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mtv import __version__
from mtv.errors import MtvError
from mtv.eval.commands import cache, data, inspect, ls, results, run, selftest


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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


for _command in (
    run.run,
    ls.ls,
    inspect.inspect,
    data.data,
    selftest.selftest,
    results.status,
    results.table,
    results.compare,
    results.power,
    cache.cache,
):
    cli.add_command(_command)


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
