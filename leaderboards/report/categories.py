"""Numbers per class, object, scene or bin: those a task wrote into its record, and those its sample table gives.

A task's own tables come first. Where it wrote none, the headline metric is evaluated on the rows of each group: the
same recipe on fewer samples, so that no category is defined twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtv.errors import MtvError
from mtv.leaderboards.frame import Stored, title_of
from mtv.leaderboards.grid import Column, Table, decimals
from mtv.leaderboards.report.tables import number, plain_table
from mtv.results import read_samples, recipes
from mtv.stats import evaluate

log = logging.getLogger(__name__)

TITLES = {
    "iou": "Intersection over union by class [%]",
    "per_class": "By category",
    "bin_counts": "Pairs per bin",
    "input_sizes": "Pictures by input size",
}
OWN_BREAKDOWN = ("iou", "per_class")
"""Details that break the headline down: nothing has to be computed beside them."""
GROUP_COLUMNS = ("category", "group", "stratum", "label")
"""Columns of sample tables that name what a sample belongs to, the plainest first."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """One table of categories: several quantities per model."""

    title: str
    """Above it."""
    columns: Mapping[str, Mapping[str, float | None]]
    """Heading to category to value."""
    decimals: int = 1
    """Digits after the point."""

    def table(self) -> Table:
        """Categories by columns."""
        names = list(dict.fromkeys(c for column in self.columns.values() for c in column))
        heads = [Column(key=h, title=h) for h in self.columns]
        rows = [(name, [number(column.get(name), self.decimals) for column in self.columns.values()]) for name in names]
        return plain_table(self.title, "category", heads, rows)


def breakdowns(results: Sequence[Stored], labels: Mapping[tuple[str, str], str]) -> list[Breakdown]:
    """All breakdowns of one task.

    Args:
        results: complete results of one task under one protocol, on one data set.
        labels: model to its name in tables.
    """
    found: dict[str, dict[str, Mapping[str, float | None]]] = {}
    for s in results:
        for key, values in _tables(s.record.details):
            for quantity, column in values.items():
                head = f"{labels[s.model]}: {quantity}" if quantity else labels[s.model]
                found.setdefault(key, {})[head] = column
    out = [
        Breakdown(title=TITLES.get(key, key.replace("_", " ")), columns=columns, decimals=_digits(columns))
        for key, columns in found.items()
    ]
    return out if any(k in found for k in OWN_BREAKDOWN) else [*_from_samples(results, labels), *out]


def _tables(details: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Mapping[str, float | None]]]]:
    """Entries of `details` that map categories to a number, or to several named ones (quantity `""` for one)."""
    for key, value in details.items():
        if not isinstance(value, Mapping) or len(value) < 2:
            continue
        if all(_is_number(v) for v in value.values()):
            yield key, {"": dict(value)}
        elif all(isinstance(v, Mapping) and v and all(map(_is_number, v.values())) for v in value.values()):
            quantities = list(dict.fromkeys(q for v in value.values() for q in v))
            yield key, {q: {c: v.get(q) for c, v in value.items()} for q in quantities}


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _digits(columns: Mapping[str, Mapping[str, float | None]]) -> int:
    values = [v for column in columns.values() for v in column.values() if v is not None]
    return 0 if all(float(v).is_integer() for v in values) else 1


def _from_samples(results: Sequence[Stored], labels: Mapping[tuple[str, str], str]) -> list[Breakdown]:
    columns: dict[str, Mapping[str, float | None]] = {}
    title, digits = "", 1
    for s in results:
        head = s.record.headline
        if head is None or s.record.samples is None:
            continue
        try:
            values = by_group(s)
        except MtvError as e:
            # The page says it under "Failures and missing cells"; the other models still have their numbers.
            log.warning("no breakdown of %s, %s: %s", labels[s.model], s.record.task, e.message)
            continue
        if len(values) > 1:
            columns[labels[s.model]] = values
            title, digits = f"{title_of(*head)} by group", decimals(head[1].unit)
    return [Breakdown(title=title, columns=columns, decimals=digits)] if columns else []


def by_group(stored: Stored) -> dict[str, float | None]:
    """The headline metric on the rows of every group; empty where the table names no groups.

    Raises:
        CacheError: the sample table is missing or was changed.
    """
    head = stored.record.headline
    table = read_samples(stored.path, stored.record)
    column = next((c for c in GROUP_COLUMNS if c in table), None)
    if head is None or column is None:
        return {}
    own = _needed(head[0], recipes(stored.record))
    out = {}
    for value in np.unique(table[column]):
        rows = {k: v[table[column] == value] for k, v in table.items()}
        # Points only: two resamples are the fewest that `evaluate` draws, and its intervals are not used.
        out[_name(value, rows)] = evaluate(own, rows, n_resamples=2)[head[0]].value
    return out


def _needed(name: str, all_recipes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of `name` and of everything that it combines."""
    prefix = f"{name.rsplit('/', 1)[0]}/"
    out = {name: all_recipes[name]}
    for part in all_recipes[name].of:
        out.update(_needed(part if part in all_recipes else prefix + part, all_recipes))
    return out


def _name(value: Any, rows: Mapping[str, np.ndarray]) -> str:
    """The group in words: a class number becomes the folder that all its samples lie in."""
    if isinstance(value, (str, np.str_)):
        return str(value)
    folders = {str(i).rpartition("/")[0] for i in rows["sample_id"]}
    return folders.pop() if len(folders) == 1 and "" not in folders else f"class {value}"
