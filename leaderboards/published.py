"""Published values as data: value, source, and the protocol as far as it is known.

A published number is shown beside a measured one, never instead of it, and says in which known field it differs.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.frame import Stored, flatten
from mtv.leaderboards.paper.cells import REFERENCE, PaperCell, cells

TABLES = ("table5", "zero_shot", "omniprobe_navi", "table3", "table6")
OF_THE_PAPER = ("table3", "table5", "table6")
"""Read by `mtv.leaderboards.paper.cells`, which knows more about their cells; here they are values like any other."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number."""

    table: str
    """File it stands in."""
    model: str
    """What the source calls the model, made unambiguous."""
    alias: str
    """Alias of the same weights here, or empty."""
    metric: str
    """`task/metric` of this project that means the same."""
    value: float
    """In `unit`."""
    printed: str
    """The value as the source prints it."""
    unit: str
    """Unit of the value."""
    source: str
    """Who published it, short: `MTV paper, Table 5`, `open_clip`."""
    reference: str
    """Where it stands: arXiv number, or repository and file."""
    protocol: Mapping[str, str] = field(default_factory=dict)
    """Known protocol fields; `unknown` where the source does not say."""
    note: str = ""
    """Remark on this number."""

    @property
    def task(self) -> str:
        """Task of the metric."""
        return self.metric.split("/")[0]

    @property
    def label(self) -> str:
        """Row name."""
        return f"published: {self.model} ({self.source})"

    @property
    def decimals(self) -> int:
        """Digits after the point in the source."""
        return len(self.printed.partition(".")[2])


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All published values, in the order of `TABLES` and of their files.

    Raises:
        UsageError: a file with an empty or repeated cell; names file and line.
    """
    from importlib.resources import files

    out: list[Published] = []
    seen: set[tuple[str, str, str]] = set()
    for table in TABLES:
        if table in OF_THE_PAPER:
            out += [from_paper(table, c) for c in cells(table) if c.quantity == "value"]
            continue
        text = (files("mtv.leaderboards.paper") / f"{table}.csv").read_text(encoding="utf-8")
        for line, row in enumerate(csv.DictReader(text.splitlines()), start=2):
            key = (row["source"], row["model"], row["metric"])
            if key in seen or not row["value"]:
                raise UsageError(f"{table}.csv line {line}: empty or repeated value of {key}")
            seen.add(key)
            out.append(_parse(table, row))
    return tuple(out)


def _parse(table: str, row: Mapping[str, str]) -> Published:
    fields = dict(part.split("=", 1) for part in row["protocol"].split(";") if part)
    rest = {k: row[k] for k in ("model", "alias", "metric", "unit", "source", "reference", "note")}
    return Published(table=table, value=float(row["value"]), printed=row["value"], protocol=fields, **rest)


def from_paper(table: str, cell: PaperCell) -> Published:
    """A cell of the paper's tables as a published value.

    Args:
        table: file that it stands in.
        cell: a metric's value.
    """
    return Published(
        table=table,
        model=cell.model,
        alias=cell.alias,
        metric=cell.metric,
        value=cell.value,
        printed=cell.printed,
        unit=cell.unit,
        source=f"MTV paper, {cell.table}",
        reference=REFERENCE,
        protocol=cell.protocol,
        note=cell.note,
    )


def alias_of(model: Mapping[str, Any]) -> str:
    """The alias of a measured model: the one it was asked for by, or the one whose spec it is."""
    if model.get("alias"):
        return str(model["alias"])
    from mtv.encoders.aliases import ALIASES

    return next((name for name, a in ALIASES.items() if a.spec == model.get("spec")), "")


def not_comparable(value: Published, stored: Stored) -> str:
    """Why a published value and a measured result answer different questions, or an empty string if nothing is known.

    Compared are the fields that the source states: those of the protocol, and `image.*` and `text.*` of the model if
    the result is of the same model. A measured subset or limited run never compares with a full set.
    """
    record = stored.record
    known: dict[str, Any] = flatten(record.protocol.get("params", {}))
    if value.alias and value.alias == alias_of(record.model):
        known.update(flatten({k: record.model.get(k) or {} for k in ("image", "text")}))
    reasons = [
        f"{name}: {said or 'none'} vs {known[name] or 'none'}"
        for name, said in value.protocol.items()
        if said != "unknown" and name in known and str(known[name]) != said
    ]
    if stored.label:
        reasons.append(f"full set vs {stored.label}")
    return "; ".join(reasons)
