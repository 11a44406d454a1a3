"""Metrics as data: how a number is computed from the per-sample table that lies beside every result.

A task stores its outcomes per sample and, for every metric, the recipe that turns the table into the number. Point
value, confidence interval, paired test and later synergy all apply the same recipe to weighted rows, so none of them
ever needs the model again, and two models can be resampled jointly.

This module holds the description only; `mtv.stats` evaluates it with numpy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from mtv.errors import UsageError

Kind = Literal["ratio", "median", "present", "average", "sum", "root"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One metric over the per-sample table.

    `ratio` is scale * sum(w x) / sum(w d) over the rows that pass `where`; with `group` it is the unweighted mean of
    that ratio over the groups whose denominator is above 0 (mIoU: intersection over union by class); with `within` rows
    are first averaged inside each unit named by that column. `median` is the weighted median of the column. `present`
    counts the groups over whose rows the column sums to more than 0. `average` (of those that have a value), `sum`
    (undefined if one has none) and `root` (square root of a single one) combine other metrics of the same result.
    """

    kind: Kind
    """How rows become a number."""
    column: str = ""
    """Column holding x (numbers or booleans); not used by `average`, `sum` and `root`."""
    at_most: float | None = None
    """Replace x by the indicator x <= at_most."""
    below: float | None = None
    """Replace x by the indicator x < below."""
    weight: str | None = None
    """Column holding d, the denominator; 1 per row when absent."""
    where: dict[str, str | int | bool] = field(default_factory=dict)
    """Equality filters on other columns, all of which must hold."""
    group: str | None = None
    """Macro average over this column's values."""
    within: str | None = None
    """Average rows inside each value of this column first (per-pair rates)."""
    of: tuple[str, ...] = ()
    """Names of the metrics that `average` and `sum` combine; the one of `root`."""
    scale: float = 100.0
    """Factor of the result: 100 for percent; `average`, `sum` and `root` ignore it."""
    unit: str = "percent"
    """Unit of the value, stored in the record."""
    higher_is_better: bool = True
    """Direction; RMSE falls."""
    chance: float | None = None
    """Score of guessing, in the metric's unit, where it is known."""
    headline: bool = False
    """The metric that stands for the task in tables."""
    describe: str = ""
    """The definition in words, printed under tables."""

    def __post_init__(self) -> None:
        combines = self.kind in ("average", "sum", "root")
        if combines != bool(self.of):
            raise UsageError(f"Recipe.of: {self.kind} {'needs' if combines else 'does not take'} other metrics")
        if combines == bool(self.column):
            raise UsageError(f"Recipe.column: {self.kind} {'does not take' if combines else 'needs'} a column")
        if self.kind == "present" and (not self.group or self.weight or self.within):
            raise UsageError("Recipe.group: present counts groups, and takes neither weight nor within")
        if self.kind == "root" and len(self.of) != 1:
            raise UsageError(f"Recipe.of: root takes one metric, got {self.of}")
        if self.at_most is not None and self.below is not None:
            raise UsageError("Recipe.at_most and Recipe.below exclude each other")

    def to_dict(self) -> dict[str, Any]:
        """Only the fields that differ from their default: what the record stores."""
        data = asdict(self)
        return {f.name: data[f.name] for f in fields(self) if f.name == "kind" or not _is_default(f, data[f.name])}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Recipe:
        """Inverse of `to_dict`.

        Raises:
            UsageError: a field this version does not know.
        """
        known = {f.name for f in fields(Recipe)}
        if extra := set(data) - known:
            raise UsageError(f"metric recipe has unknown fields {sorted(extra)}", "It was written by a newer version.")
        return Recipe(**{**data, "of": tuple(data.get("of", ()))})


def _is_default(f: Any, value: Any) -> bool:
    return value == ({} if f.name == "where" else f.default)
