"""Table 1 of the paper from `mtv-train bench`: trainable parameters and time of a step, objective by objective.

* Parameters compare with the paper to its printed digit. Times never do: its ratios stand on an input pipeline and a
  fixed cost per image that are not known, so a faster trainer shows larger ratios. Images per second and the share of
  the device's peak stand beside them, by which a trainer is judged.
* One block per measurement: a file of `mtv-train bench --json` may hold one on tensors and one with the loader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.formats import number_text
from mtv.leaderboards.grid import Cell, Column, Row, Table
from mtv.leaderboards.layout import Notes
from mtv.leaderboards.paper.cells import ALL, PaperCell, find, tasks_text
from mtv.leaderboards.paper_tables.records import flat
from mtv.leaderboards.paper_tables.runs import SIZES
from mtv.leaderboards.paper_tables.stacked import Beside, group_row, stacked

COMMAND = "mtv-train bench --recipe mtv_b16_10m --json > bench.json"
COLUMNS = (
    Column(key="params", title="Trainable Params. [M]"),
    Column(key="time", title="Train Time [× VL]"),
    Column(key="img_s", title="images / s"),
    Column(key="mfu", title="MFU [%]"),
)
TIME_REASON = "the paper's times include an input pipeline and fixed costs that are not known"
PATHS = tuple(ALL[:n] for n in range(1, len(ALL) + 1))
_PARTS = {"recipe": str, "device": str, "rows": list}
_ROW = {"source": str, "tasks": str, "ms": (int, float), "img_s": (int, float)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One row of a measurement."""

    ms: float
    """Median of a training step, milliseconds."""
    img_s: float
    """Images per second of all processes."""
    params: int | None
    """Trainable parameters; None where the file is of a version that did not write them."""
    mfu: float | None
    """Share of the device's peak; None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One measurement of `mtv-train bench`."""

    recipe: str
    """Name of the recipe; empty where nothing was measured."""
    title: str
    """What was measured on."""
    steps: Mapping[tuple[str, ...], Step]
    """Objectives to what a step costs."""

    @property
    def size(self) -> str:
        """`B/16` or `L/16` for a recipe of the paper, else empty."""
        return next((size for name, size in SIZES.items() if self.recipe.startswith(f"mtv_{name}_")), "")


def read_bench(path: Path, *, option: str = "--bench") -> list[Bench]:
    """The measurements in a file of `mtv-train bench --json`: on tensors, with the loader, or both.

    Raises:
        UsageError: no such file, or not one of these; names the file and the field.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(f"{option} {path.name}: cannot be read ({_plain(e)})", f"Make one with `{COMMAND}`.") from e
    _check(value, _PARTS, f"{option} {path.name}")
    by_source: dict[str, dict[tuple[str, ...], Step]] = {}
    for place, row in enumerate(value["rows"], start=1):
        _check(row, _ROW, f"{option} {path.name}, row {place}")
        step = Step(ms=row["ms"], img_s=row["img_s"], params=row.get("params"), mfu=row.get("mfu"))
        by_source.setdefault(row["source"], {})[tuple(row["tasks"].split("+"))] = step
    processes, precision = value.get("processes", 1), value.get("precision", "")
    parts = [value["recipe"], value["device"], *([f"{processes} processes"] if processes != 1 else [])]
    return [
        Bench(recipe=value["recipe"], title=", ".join(p for p in [*parts, precision, source] if p), steps=steps)
        for source, steps in by_source.items()
    ]


def build(benches: Sequence[Bench], *, beside: bool = False) -> Table:
    """Lay out Table 1.

    Args:
        benches: measurements; without any the rows say so beside the paper's.
        beside: show the paper's rows for reference also beside recipes that are not its ViT-B/16.
    """
    notes = Notes()
    rows: list[Row] = []
    data: list[dict[str, Any]] = []
    for bench in benches or [Bench(recipe="mtv_b16_10m", title="ViT-B/16, not run", steps={})]:
        rows.append(group_row(bench.title, len(COLUMNS)))
        for more in _block(bench, notes, beside=beside):
            rows, data = rows + more[0], data + more[1]
    general = [
        "Time of a training step relative to VL alone, images per second of all processes, and the share of the "
        "device's peak (MFU) where that is known. In parentheses: change from the row above.",
        "Paper: ViT-B/16 on NVIDIA H200. Its parameters compare to the printed digit; its times are for reference: "
        f"{TIME_REASON}.",
    ]
    general += [] if benches else [f"Not run: measure with `{COMMAND}` and give the file with --bench."]
    return Table(
        title="Table 1. Training cost",
        head="Training Tasks",
        columns=COLUMNS,
        rows=tuple(rows),
        notes=(*notes.pairs(), *(("", t) for t in general)),
        data=tuple(data),
    )


def _block(bench: Bench, notes: Notes, *, beside: bool) -> list[tuple[list[Row], list[dict[str, Any]]]]:
    own = bench.size == "B/16"
    against = "" if own else f"{bench.recipe} is another model than ViT-B/16"
    out = []
    for objectives in dict.fromkeys([*PATHS, *bench.steps]):
        name = tasks_text(objectives)
        line = [_params(bench, objectives), _time(bench, objectives), *_speed(bench, objectives)]
        printed = [
            find("table1", objectives=objectives, quantity=q) if own or beside else None for q in ("params", "time")
        ]
        shown = [
            Beside(
                cell=cell,
                record=_record(bench, objectives, name, column.key, cell),
                paper=paper,
                differs=TIME_REASON if column.key == "time" else "",
            )
            for column, cell, paper in zip(COLUMNS, line, _padded(printed), strict=True)
        ]
        out.append(stacked(name, shown, notes, paper="paper (B/16)", against=against))
    return out


def _padded(printed: Sequence[PaperCell | None]) -> list[PaperCell | None]:
    return [*printed, *[None] * (len(COLUMNS) - len(printed))]


def _params(bench: Bench, objectives: tuple[str, ...]) -> Cell:
    step, before = bench.steps.get(objectives), bench.steps.get(objectives[:-1])
    if step is None:
        return Cell(text="not run")
    if step.params is None:
        return Cell(text="not in the file")
    change = ""
    if before is not None and before.params is not None:
        change = number_text((step.params - before.params) / 1e6, 6, signed=True)
    return Cell(value=step.params / 1e6, decimals=6, label=change)


def _time(bench: Bench, objectives: tuple[str, ...]) -> Cell:
    step, before, first = (bench.steps.get(o) for o in (objectives, objectives[:-1], ALL[:1]))
    if step is None:
        return Cell(text="not run")
    if first is None:
        return Cell(text="VL not run")
    change = "" if before is None else f"{number_text(100 * (step.ms / before.ms - 1), 0, signed=True)} %"
    return Cell(value=step.ms / first.ms, decimals=2, label=change)


def _speed(bench: Bench, objectives: tuple[str, ...]) -> list[Cell]:
    step = bench.steps.get(objectives)
    if step is None:
        return [Cell(text="not run"), Cell(text="not run")]
    mfu = Cell(text="n/a") if step.mfu is None else Cell(value=100 * step.mfu, decimals=1)
    return [Cell(value=step.img_s, decimals=1), mfu]


def _record(bench: Bench, objectives: tuple[str, ...], name: str, quantity: str, cell: Cell) -> dict[str, Any]:
    units = {"params": "millions", "time": "x VL", "img_s": "images/s", "mfu": "percent"}
    return flat(
        table="1",
        block=bench.title,
        row=name,
        kind="measured",
        recipe=bench.recipe if bench.steps else None,
        objectives="+".join(objectives),
        quantity=quantity,
        value=cell.value,
        unit=units[quantity],
        higher_is_better=quantity in ("img_s", "mfu"),
        reason=cell.text or None,
    )


def _check(value: Any, fields: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected an object", f"Make the file with `{COMMAND}`.")
    for name, kind in fields.items():
        if not isinstance(value.get(name), kind):
            raise UsageError(
                f"{where}: field {name!r} is missing or of another kind: not from `mtv-train bench --json`",
                f"Make the file with `{COMMAND}`.",
            )


def _plain(error: Exception) -> str:
    return error.strerror or "error" if isinstance(error, OSError) else str(error)
