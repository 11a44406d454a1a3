"""`mtv-eval table 1|3|4|5|6`: the paper's tables from results, with the paper's numbers beside measured ones.

The command itself is `table` of `mtv.eval.commands.results`; here are the options that only these tables have, which of
all options belong to which table, and the way to the builders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtv.errors import UsageError

if TYPE_CHECKING:
    from mtv.leaderboards.grid import Table
    from mtv.leaderboards.paper_tables.runs import Scale

NUMBERS = ("1", "3", "4", "5", "6")
_RESULTS = ("results_dir", "models", "presets", "allow_mixed")
TAKES: dict[str | None, tuple[str, ...]] = {
    None: (*_RESULTS, "tasks", "all_metrics", "published"),
    "1": ("bench", "beside"),
    "3": (*_RESULTS, "order", "beside"),
    "4": (*_RESULTS, "beside"),
    "5": _RESULTS,
    "6": _RESULTS,
}
"""Table to the parameters that change it; None for models by tasks."""
OPTIONS = {
    "results_dir": "--results",
    "models": "--model",
    "presets": "--protocol",
    "allow_mixed": "--allow-mixed",
    "tasks": "--task",
    "all_metrics": "--all-metrics",
    "published": "--published",
    "bench": "--bench",
    "order": "--order",
    "beside": "--beside",
}


def paper_options(f: Callable[..., Any]) -> Callable[..., Any]:
    """The argument that chooses a table of the paper, and the options that only these tables have."""
    for decorate in (
        click.option(
            "--bench",
            "bench",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Table 1: what `mtv-train bench --json` printed; repeatable.",
        ),
        click.option(
            "--beside",
            default=None,
            metavar="BLOCK",
            help="Show these numbers of the paper also beside runs that are not the paper's, marked as not comparable: "
            "B/16:10M, B/16:50M, L/16:10M, ... for Tables 3 and 4, B/16 for Table 1.",
        ),
        click.option(
            "--order",
            default=None,
            metavar="A,B,C",
            help="Table 3: order in which ssl, ground and depth join VL.  [default: ssl,ground,depth, as the paper]",
        ),
        click.argument("number", required=False, default=None, type=click.Choice(NUMBERS), metavar="[1|3|4|5|6]"),
    ):
        f = decorate(f)
    return f


def check_options(ctx: click.Context, number: str | None) -> None:
    """Refuse options that do not belong to the table that was asked for.

    Raises:
        UsageError: names the option, and the tables that take it.
    """
    from click.core import ParameterSource

    for name, option in OPTIONS.items():
        if name in TAKES[number] or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        where = [f"`table {n}`" if n else "`table` without a number" for n, names in TAKES.items() if name in names]
        what = f"table {number}" if number else "the table of models by tasks"
        raise UsageError(f"{option} does not apply to {what}", f"It belongs to {', '.join(where)}.")


def paper_table(
    number: str,
    *,
    results_dir: Path,
    models: Sequence[str] = (),
    presets: Sequence[str] = (),
    allow_mixed: bool = False,
    bench: Sequence[Path] = (),
    order: str | None = None,
    beside: str | None = None,
) -> Table:
    """Build one of the paper's tables.

    Args:
        number: of `NUMBERS`.
        results_dir: result store; not read for Table 1.
        models: only these; for Tables 5 and 6 this also brings checkpoints that they otherwise leave out.
        presets: only results of these presets.
        allow_mixed: show the most frequent setting where results differ in protocol or data.
        bench: files for Table 1.
        order: expansion path of Table 3.
        beside: block of the paper for reference.

    Raises:
        UsageError: a wrong value, nothing to show, or a mixture of settings.
        CacheError: the store, or a sample table in it, cannot be read.
    """
    if number == "1":
        return _table1(bench, beside)
    from mtv.eval.suites import unavailable
    from mtv.leaderboards.frame import load

    block = _block(beside)
    path = _order(order)
    records = load(results_dir, models=models, presets=presets)
    shared: dict[str, Any] = {"unavailable": unavailable(["paper"]), "allow_mixed": allow_mixed}
    if number == "3":
        from mtv.leaderboards.paper_tables import table3

        return table3.build(records, order=path, beside=block, **shared)
    if number == "4":
        from mtv.leaderboards.paper_tables import table4

        return table4.build(records, beside=block, **shared)
    if number == "5":
        from mtv.leaderboards.paper_tables import table5

        return table5.build(records, ablations=bool(models), **shared)
    from mtv.leaderboards.paper_tables import table6

    return table6.build(records, ablations=bool(models), **shared)


def _table1(bench: Sequence[Path], beside: str | None) -> Table:
    from mtv.leaderboards.paper_tables import table1

    if beside not in (None, "B/16"):
        raise UsageError(f"--beside {beside}: Table 1 of the paper has one model", "Write --beside B/16.")
    return table1.build([b for path in bench for b in table1.read_bench(path)], beside=beside is not None)


def _block(beside: str | None) -> Scale | None:
    from mtv.leaderboards.paper_tables.runs import parse_scale

    return None if beside is None else parse_scale(beside)


def _order(order: str | None) -> tuple[str, ...]:
    from mtv.leaderboards.paper_tables.table3 import PATH, parse_order

    return PATH if order is None else parse_order(order)
