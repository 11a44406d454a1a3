"""`mtv-eval selftest`: planted encoders on tiny data, with answers that can be worked out by hand."""

from __future__ import annotations

import click

from mtv.eval.commands.options import json_option


@click.command()
@json_option
def selftest(as_json: bool) -> int:
    """Run every task on planted encoders and tiny generated data with known answers; no network, under a minute.

    Run it first on a new installation, and put its output into bug reports.
    """
    from mtv.eval.selftest.command import run_selftest

    return run_selftest(as_json=as_json)
