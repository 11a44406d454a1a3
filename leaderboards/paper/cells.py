"""The paper's tables as data: every printed cell of Tables 1, 3, 4, 5 and 6, the points of Figure 3, and the same
numbers where the running text repeats them ("Revisiting Multi-Task Visual Representation Learning", arXiv 2601.13886).

* One CSV per table beside this file; a number stands in one of them only. Figure 3 has no numbers of its own: its
  points name the tables that hold them.
* Whatever can be recomputed from other cells is kept as printed and checked in `mtv.leaderboards.paper.checks`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from mtv.errors import UsageError

REFERENCE = "arXiv 2601.13886"
FILES = {
    "table1": "Table 1",
    "table3": "Table 3",
    "table4": "Table 4",
    "table5": "Table 5",
    "table6": "Table 6",
    "text": "text",
}
"""File to where its numbers stand in the paper."""
METRICS = (
    "imagenet/top1",
    "coco/t2i_r1",
    "coco/i2t_r1",
    "vqa/score",
    "ade20k/miou",
    "navi/avg_recall",
    "spair/avg_recall",
    "nyuv2/rmse",
)
"""Columns of Tables 3 and 5."""
ALL = ("vl", "ssl", "ground", "depth")
"""Every objective, in the order of the paper's path."""
WORDS = {"vl": "VL", "ssl": "SSL", "ground": "Ground.", "depth": "Depth"}
"""Objectives as the paper's tables print them."""

Quantity = Literal["value", "gain", "step", "synergy", "average", "params", "time"]


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One printed number and where it stands."""

    table: str
    """`Table 3`, ...; `text` for the running text."""
    row: str
    """As printed, merged cells filled down, joined by ` | `; for the text its section."""
    column: str
    """As printed; for the text what the number is said to be."""
    quantity: Quantity
    """`value` of a metric; `gain` over VL alone; `step` over the row above; `synergy` and its `average` in per cent of
    the larger single gain; `params` and `time` of training."""
    metric: str
    """`task/metric` of this project; empty where it is no metric."""
    printed: str
    """The number as printed."""
    step: str
    """The number in parentheses behind it, as printed: the change from the row above; empty where none is."""
    unit: str
    """Unit of the value."""
    higher_is_better: bool
    """Direction."""
    size: str
    """`B/16`, `L/16` or `L/14`: of the model; what is printed stands in `row`."""
    data: str
    """Training samples: `10M`, `50M`, `100M`, `400M`, `10B`; empty where not stated."""
    objectives: tuple[str, ...]
    """Trained ones in the order vl, ssl, ground, depth; the two of a synergy; empty for models from elsewhere."""
    model: str
    """What the paper calls the model, made unambiguous."""
    alias: str
    """Alias of the same weights here, or empty."""
    protocol: Mapping[str, str] = field(default_factory=dict)
    """Known protocol fields; `unknown` where the paper does not say."""
    note: str = ""
    """Remark on this number."""

    @property
    def value(self) -> float:
        """In `unit`."""
        return float(self.printed)

    @property
    def decimals(self) -> int:
        """Digits after the point, as printed."""
        return len(self.printed.partition(".")[2])

    @property
    def step_value(self) -> float | None:
        """The printed change, in `unit`, or in per cent for `time`."""
        return float(self.step.rstrip(" M%")) if self.step else None

    @property
    def where(self) -> str:
        """Table, row and column, for messages."""
        return f"{self.table}, {self.row}, {self.column}"


@cache
def cells(table: str) -> tuple[PaperCell, ...]:
    """The printed cells of one file of `FILES`, in the paper's order.

    Raises:
        UsageError: a cell that stands there twice, or has no number; names file and line.
    """
    out: list[PaperCell] = []
    seen: set[tuple[str, str]] = set()
    for line, row in enumerate(_read(table), start=2):
        place = (row["row"], row["column"])
        if place in seen or not row["value"]:
            raise UsageError(f"{table}.csv line {line}: empty or repeated cell {' | '.join(place)}")
        seen.add(place)
        out.append(_cell(table, row))
    return tuple(out)


def _read(name: str) -> list[dict[str, str]]:
    from importlib.resources import files

    text = (files("mtv.leaderboards.paper") / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _cell(table: str, row: Mapping[str, str]) -> PaperCell:
    objectives = tuple(o for o in row["objectives"].split("+") if o)
    named = f"{tasks_text(objectives)} {row['size']} {row.get('data', '')}".strip()
    return PaperCell(
        table=FILES[table],
        row=row["row"],
        column=row["column"],
        quantity=row["quantity"],  # type: ignore[arg-type]
        metric=row.get("metric", ""),
        printed=row["value"],
        step=row.get("step", ""),
        unit=row["unit"],
        higher_is_better=row["direction"] == "higher",
        size=row["size"],
        data=row.get("data", ""),
        objectives=objectives,
        model=row.get("model") or named,
        alias=row.get("alias", ""),
        protocol=dict(part.split("=", 1) for part in row.get("protocol", "").split(";") if part),
        note=row.get("note", ""),
    )


def tasks_text(objectives: tuple[str, ...]) -> str:
    """`VL + SSL + Ground.`, as the paper's rows are called."""
    return " + ".join(WORDS.get(o, o) for o in objectives)


def find(table: str, **wanted: Any) -> PaperCell | None:
    """The first cell of a file whose fields have these values, or None."""
    return next((c for c in cells(table) if all(getattr(c, k) == v for k, v in wanted.items())), None)


def paper_value(metric: str, *, size: str, data: str, objectives: tuple[str, ...]) -> PaperCell | None:
    """The printed score of a training run, of Table 3 or (100M samples) Table 5; None where the paper has no such run.

    Args:
        metric: `task/metric`.
        size: `B/16` or `L/16`.
        data: `10M`, `50M` or `100M`.
        objectives: in the order vl, ssl, ground, depth.
    """
    wanted = {"quantity": "value", "metric": metric, "size": size, "data": data, "objectives": objectives}
    return find("table3", **wanted) or find("table5", **wanted)


@dataclass(frozen=True, kw_only=True)
class FigurePoint:
    """What the text says about one point, line or turn of Figure 3."""

    row: str
    """Series and data, as the caption names them."""
    quantity: Literal["point", "line", "turn"]
    """`point` of the curve; `line`: a level drawn across; `turn`: where the text says that the curve changes."""
    metrics: tuple[str, ...]
    """Metrics that it concerns."""
    size: str
    """Model size."""
    data: str
    """Training samples, distinct; empty for a turn."""
    samples: int | None
    """Samples seen: distinct ones times epochs."""
    objectives: tuple[str, ...]
    """Trained ones; empty for models from elsewhere."""
    values: str
    """File of `FILES` that holds its numbers; empty for a turn."""
    note: str
    """Remark."""

    def cell(self, metric: str) -> PaperCell | None:
        """The printed number of one metric; None for a turn, or where the table has none."""
        wanted = {"metric": metric, "size": self.size, "data": self.data, "objectives": self.objectives}
        return find(self.values, quantity="value", **wanted) if self.values else None


def figure3() -> tuple[FigurePoint, ...]:
    """Data scaling of the B/16 model, as far as the text and the tables give it: three points, a level and a turn."""
    return tuple(
        FigurePoint(
            row=row["row"],
            quantity=row["quantity"],  # type: ignore[arg-type]
            metrics=METRICS if row["metrics"] == "all" else tuple(row["metrics"].split()),
            size=row["size"],
            data=row["data"],
            samples=int(row["samples"]) if row["samples"] else None,
            objectives=tuple(o for o in row["objectives"].split("+") if o),
            values=row["values"],
            note=row["note"],
        )
        for row in _read("figure3")
    )
