"""`mtv-eval`: data on stdout, log on stderr, documented exit codes.

0 all done; 1 some task failed; 2 usage; 3 data check failed; 130 interrupted. Commands import what they need when they
run, so that `--help`, `ls`, `status`, `table` and `compare` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mtv import __version__
from mtv import command_line as line

COMMANDS = {
    name: f"mtv.eval.commands.{place}"
    for name, place in {
        "quickstart": "quickstart:quickstart",
        "run": "run:run",
        "ls": "ls:ls",
        "inspect": "inspect:inspect",
        "data": "data:data",
        "selftest": "selftest:selftest",
        "status": "results:status",
        "table": "results:table",
        "compare": "results:compare",
        "synergy": "synergy:synergy",
        "power": "results:power",
        "report": "report:report",
        "figures": "report:figures",
        "results": "results_store:results",
        "cache": "cache:cache",
        "depth-head": "depth_head:depth_head",
        "depth-figure": "depth_figure:depth_figure",
    }.items()
}
"""Command to `module:attribute`; a module is imported when its command is asked for."""


@click.group(cls=line.LazyGroup, lazy=COMMANDS, context_settings=line.CONTEXT)
@click.version_option(__version__, prog_name="mtv-eval")
def cli() -> None:
    """Measure any vision encoder: zero-shot, retrieval, correspondence, segmentation and depth, with intervals.

    \b
    mtv-eval quickstart                                           all of it in miniature, without any data
    mtv-eval selftest                                             trust this installation (no data, no network)
    mtv-eval run -m siglip-b16 -t paper --data DATA --out results
    mtv-eval table --results results                              models by tasks, with 95 % intervals
    mtv-eval compare clip-b16 siglip-b16 --results results        paired tests
    mtv-eval table 3 --results results                            the paper's Table 3 from these results (1, 3 to 6)
    mtv-eval synergy --results results                            Eq. 4 and order-free attribution of objectives
    mtv-eval report --results results --out report.html           all of it on one page, with pictures

    Exit codes: 0 done, 1 a task failed, 2 wrong usage, 3 data check failed, 130 interrupted.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through `sys.exit`."""
    sys.exit(invoke(argv))


def invoke(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    return line.invoke(cli, argv, name="mtv-eval")
