"""`mtv-eval data`: where every data set is expected, and `data check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mtv.errors import unknown
from mtv.eval.commands.data_mini import make_mini, show
from mtv.eval.commands.options import DirPath, cache_option, default_cache, json_option


@click.group(invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """Where each data set is expected, how to get it and under which licence; `data check` verifies a folder."""
    if context.invoked_subcommand is None:
        from mtv.eval.datasets.describe import describe_all

        click.echo(describe_all())


@data.command()
@click.argument("names", nargs=-1)
@click.option(
    "--data", "root", type=DirPath, required=True, help="Folder that holds the data sets, up to two levels below."
)
@click.option("--split", default=None, help="Split to check, e.g. val2017 for coco.  [default: the set's own]")
@click.option("--full", is_flag=True, help="Decode every file too; the outcome is kept in the cache, by fingerprint.")
@click.option("--workers", type=int, default=None, help="Decoding processes of --full.  [default: min(8, cores)]")
@cache_option
@json_option
def check(
    names: tuple[str, ...],
    root: Path,
    split: str | None,
    full: bool,
    workers: int | None,
    cache_dir: Path | None,
    as_json: bool,
) -> int:
    """Verify counts, layout, readability and known mix-ups of NAMES (all sets when none is named).

    Verdicts: ok; ok-but (usable, labelled); wrong (would falsify the number); missing. Exit code 3 if a named set is
    wrong or missing, if any found set is wrong, or if nothing is found at all.
    """
    from mtv.console import Reporter, setup_logging
    from mtv.eval.datasets.base import as_dict
    from mtv.eval.datasets.describe import describe_report
    from mtv.eval.datasets.registry import READERS, check_dataset

    setup_logging()
    for name in names:
        if name not in READERS:
            raise unknown("data set", name, READERS)
    reports: list[Any] = []
    for name in names or READERS:
        with Reporter(f"check {name}") as reporter:

            def progress(done: int, total: int, reporter: Reporter = reporter) -> None:
                reporter.tick("decode", done, total)

            cache = cache_dir or default_cache()
            report = check_dataset(name, root, split=split, full=full, cache=cache, workers=workers, progress=progress)
        reports.append(report)
        if not as_json:
            click.echo(describe_report(report, data=root) + "\n")
    if as_json:
        click.echo(json.dumps([as_dict(r) for r in reports], indent=1))
    refused = [r for r in reports if r.verdict == "wrong" or (names and r.verdict == "missing")]
    if not names and all(r.verdict == "missing" for r in reports):
        return 3
    return 3 if refused else 0


data.add_command(make_mini)
data.add_command(show)
