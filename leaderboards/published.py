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

TABLES = ("table5", "zero_shot", "omniprobe_navi", "table3", "table6")


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
        text = (files("mtv.leaderboards.paper") / f"{table}.csv").read_text(encoding="utf-8")
        for line, cells in enumerate(csv.DictReader(text.splitlines()), start=2):
            key = (cells["source"], cells["model"], cells["metric"])
            if key in seen or not cells["value"]:
                raise UsageError(f"{table}.csv line {line}: empty or repeated value of {key}")
            seen.add(key)
            out.append(_parse(table, cells))
    return tuple(out)


def _parse(table: str, cells: Mapping[str, str]) -> Published:
    fields = dict(part.split("=", 1) for part in cells["protocol"].split(";") if part)
    rest = {k: cells[k] for k in ("model", "alias", "metric", "unit", "source", "reference", "note")}
    return Published(table=table, value=float(cells["value"]), printed=cells["value"], protocol=fields, **rest)


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
