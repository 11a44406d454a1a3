"""Plain text about data sets: where each is expected and how to get it, and what a check found. No colours."""

from __future__ import annotations

import textwrap
from pathlib import Path

from mtv.eval.datasets.base import CheckReport
from mtv.eval.datasets.registry import READERS, ReaderInfo, reader_info

WORDS = {"ok": "ok", "ok-but": "ok, but", "wrong": "WRONG", "missing": "MISSING"}


def describe_all() -> str:
    """Every data set, in the order of the registry: the text of `mtv-eval data`."""
    return "\n\n".join(describe_info(reader_info(name)) for name in READERS)


def describe_info(info: ReaderInfo) -> str:
    """One data set: what it is, counts, splits and options, licence, where it is described, expected layout."""
    counts = ", ".join(f"{v:,} {k}" for k, v in info.expected.items())
    rows = [("counts", counts), ("splits", _choices(info.splits, info.default_split))]
    rows += [(name, f"{_choices(o.choices, o.choices[0])}: {o.help}") for name, o in info.options.items()]
    rows += [("licence", info.licence), ("get it", info.how_to_get), ("layout", info.layout)]
    return f"{info.name}: {info.title}\n{_rows(rows)}"


def describe_report(report: CheckReport, *, data: Path | None = None) -> str:
    """One check: verdict, counts got and expected, fingerprint, problems and the repair.

    Args:
        report: the outcome.
        data: when given, the root is printed relative to it.
    """
    head = f"{report.name} ({report.split}): {WORDS[report.verdict]}"
    if report.label:
        head += f" [{report.label}]"
    rows = []
    if report.root is not None:
        inside = data is not None and report.root.is_relative_to(data)
        rows.append(("root", report.root.relative_to(data).as_posix() if data and inside else str(report.root)))
    if report.layout:
        rows.append(("layout", report.layout))
    if report.found:
        rows.append(("found", _counts(report)))
    if report.fingerprint:
        rows.append(("data", f"{report.fingerprint} ({report.checked} check)"))
    rows += [("note" if report.verdict == "ok-but" else "problem", p) for p in report.problems]
    if report.repair:
        rows.append(("repair", report.repair))
    return f"{head}\n{_rows(rows)}" if rows else head


def _counts(report: CheckReport) -> str:
    keys = [*report.expected, *(k for k in report.found if k not in report.expected)]
    return ", ".join(
        f"{report.found.get(k, 0):,}{f' of {report.expected[k]:,}' if k in report.expected else ''} {k}" for k in keys
    )


def _choices(choices: tuple[str, ...], default: str) -> str:
    return ", ".join(f"{c} (default)" if c == default and len(choices) > 1 else c for c in choices)


def _rows(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"  {key:<9}{textwrap.indent(value, ' ' * 11).lstrip()}" for key, value in rows)
