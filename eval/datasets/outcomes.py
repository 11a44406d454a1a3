"""The verdicts that the correspondence and dense readers share: missing, two candidates, wrong, a labelled subset."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, Verdict, describe_counts
from mtv.eval.datasets.registry import ReaderInfo

log = logging.getLogger(__name__)

SHOWN = 20
"""Problems that a report lists; the rest is counted."""


def missing(info: ReaderInfo, data: Path, *, split: str, detail: str = "") -> CheckReport:
    """Nothing recognised under `data`: the report shows the expected tree."""
    return CheckReport(
        name=info.name,
        verdict="missing",
        split=split,
        expected=dict(info.expected),
        problems=(detail or f"no {info.name} data set in {data} or up to two levels below it",),
        repair=f"Expected layout:\n{info.layout}\n{info.how_to_get}",
    )


def ambiguous(info: ReaderInfo, roots: Sequence[Path], *, split: str) -> CheckReport:
    """Two candidates: the report lists all and asks for a narrower --data."""
    return wrong(
        info,
        split=split,
        problems=[f"candidate: {root}" for root in roots],
        repair="Name one of them with --data.",
    )


def wrong(
    info: ReaderInfo,
    *,
    split: str,
    problems: Sequence[str],
    repair: str,
    root: Path | None = None,
    layout: str = "",
    found: Mapping[str, int] | None = None,
) -> CheckReport:
    """What would falsify the number, one sentence per problem; only the first `SHOWN` are spelled out."""
    shown = list(problems[:SHOWN])
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more")
    return CheckReport(
        name=info.name,
        verdict="wrong",
        root=root,
        layout=layout,
        split=split,
        found=dict(found or {}),
        expected=dict(info.expected),
        problems=tuple(shown),
        repair=repair,
    )


def usable(
    info: ReaderInfo,
    *,
    split: str,
    root: Path,
    layout: str,
    found: Mapping[str, int],
    expected: Mapping[str, int],
    unit: str,
    fingerprint: str,
    notes: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> CheckReport:
    """`ok` when every expected count is met and there is no note, else `ok-but`, labelled `subset (n of N)` in `unit`.

    Args:
        unit: the key of `expected` that the label counts.
        notes: further reasons why this is not the full set, one sentence each.
        labels: what the notes add to the label, a few words each (`filled`); they need a note that explains them.
    """
    differs = any(found.get(key, 0) != count for key, count in expected.items())
    verdict: Verdict = "ok-but" if differs or notes else "ok"
    n, full = found.get(unit, 0), expected[unit]
    extent = f"{n} {unit} instead of {full}" if n > full else f"subset ({n} of {full})"
    parts = ([] if n == full and labels else [extent]) + list(labels)
    problems = ((f"not the full set: {describe_counts(dict(found), dict(expected))}",) if differs else ()) + tuple(
        notes
    )
    return CheckReport(
        name=info.name,
        verdict=verdict,
        root=root,
        layout=layout,
        split=split,
        found=dict(found),
        expected=dict(expected),
        label=", ".join(parts) if verdict == "ok-but" else "",
        fingerprint=fingerprint,
        problems=problems,
    )


def folders(data: Path) -> list[Path]:
    """`data` and its visible folders down to two levels, each level sorted.

    Raises:
        DataError: `data` is no directory.
    """
    if not data.is_dir():
        raise DataError(f"--data {data}: no such directory", "Name the folder that holds the data sets.")
    level1 = subfolders(data)
    return [data, *level1, *(inner for outer in level1 for inner in subfolders(outer))]


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly inside, sorted by name. One that may not be listed (`lost+found`) has none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except PermissionError:
        log.info("%s may not be listed; skipped", folder)
        return []


def outermost(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` that lie in no other of them."""
    return [p for p in paths if not any(p != other and p.is_relative_to(other) for other in paths)]
