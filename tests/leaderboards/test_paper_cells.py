"""The paper as data: every printed cell of every table, with where it stands, against the paper's own text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtv.errors import UsageError
from mtv.leaderboards.paper import cells as paper_cells
from mtv.leaderboards.paper.cells import ALL, FILES, METRICS, PaperCell, cells, figure3, find, paper_value
from mtv.leaderboards.published import published

ROOT = Path(__file__).resolve().parents[2]
Printed = dict[tuple[str, str], tuple[str, str]]
"""(row, column) to (value, change in parentheses), as printed."""


@pytest.fixture(scope="session")
def paper() -> str:
    path = Path(os.environ.get("MTV_PAPER", ROOT.parent / "shared" / "paper.md"))
    if not path.is_file():
        pytest.skip(f"the paper's text is not at {path}; set MTV_PAPER to run this test")
    return path.read_text(encoding="utf-8")


def grid(paper: str, number: int) -> Iterator[list[str]]:
    """Cells of a table, line by line, without headings."""
    after = paper.split(f"\nTable {number}. ")[1].split("\n\n")[1]
    for line in after.splitlines():
        line = re.sub(r"</?b>|</?math>", "", line).replace(r"\Delta", "Δ").replace("$", "").replace(r" \times ", " × ")
        row = [c.strip() for c in line.split("\t")]
        if row[0] not in ("Training Tasks", "Model", "ViT", "Input") and any(row):
            yield row


def split(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([+-]?[\d.]+)[ M×]*(?:\(([^)]*)\))?", text)
    assert found, text
    return found[1], found[2] or ""


def filled(rows: Iterator[list[str]], merged: int) -> Iterator[list[str]]:
    """Lines with the first `merged` cells filled down; lines without numbers are headings."""
    last = [""] * merged
    for row in rows:
        if not any(re.match(r"[+-]?\d", c) for c in row[merged:]):
            continue
        last = [c or before for c, before in zip(row, last, strict=False)]
        yield [*last, *row[merged:]]


def scores(row: list[str], names: str, columns: list[str]) -> Printed:
    assert len(row) == len(columns), row
    return {(names, c): split(t) for c, t in zip(columns, row, strict=True)}


COLUMNS = ["IN-1k Acc.", "COCO T→I", "COCO I→T", "VQA Score", "ADE20k mIoU", "NAVI Recall", "SPair Recall"]


def printed(paper: str, number: int) -> Printed:
    out: Printed = {}
    if number == 1:
        for row in grid(paper, 1):
            out |= scores(row[1:], row[0], ["Trainable Params.", "Train Time"])
    elif number == 3:
        for vit, data, tasks, *values in filled(grid(paper, 3), 2):
            out |= scores(values, f"{vit} | {data} | {tasks}", [*COLUMNS, "NYUv2 RMSE ↓"])
    elif number == 4:
        names = ["IN-1k", "COCO*", "ADE20k", "NAVI", "SPair", "NYUv2", "Average"]
        for row in filled(grid(paper, 4), 3):
            out |= scores(row[5:], " | ".join(row[:5]), names)
    elif number == 5:
        names = [c.replace("ADE20k", "ADE20K") for c in COLUMNS]
        for row in filled(grid(paper, 5), 1):
            out |= scores(row[3:], " | ".join(row[:3]), [*names, "NYUv2 RMSE ↓"])
    else:
        for row in grid(paper, 6):
            out |= scores(row[2:], " | ".join(row[:2]), ["KITTI ↓", "NYUv2 ↓"])
    return out


@pytest.mark.parametrize(("number", "count"), [(1, 8), (3, 160), (4, 84), (5, 64), (6, 16)])
def test_every_printed_cell_is_here_once_and_nothing_else(paper: str, number: int, count: int) -> None:
    ours = {(c.row, c.column): (c.printed, c.step) for c in cells(f"table{number}")}
    assert ours == printed(paper, number)
    assert len(ours) == len(cells(f"table{number}")) == count


def test_objectives_sizes_and_data_are_what_the_row_says() -> None:
    words = {"VL": "vl", "SSL": "ssl", "Ground.": "ground", "Depth": "depth"}
    for c in (*cells("table3"), *cells("table1")):
        name = c.row.split(" | ")[-1].rstrip("*")
        assert c.objectives == (ALL if c.quantity == "gain" else tuple(words[w] for w in name.split(" + "))), c
        if c.table == "Table 3":
            assert (c.size, c.data) == tuple(c.row.split(" | ")[:2]), c
    for c in cells("table4"):
        size, data, base, a, b = c.row.split(" | ")
        assert base == "VL"
        assert (c.size, c.data, set(c.objectives)) == (size, data, {words[a], words[b]}), c
        assert list(c.objectives) == sorted(c.objectives, key=ALL.index), c


def test_units_and_directions() -> None:
    for name in FILES:
        for c in cells(name):
            lower = c.quantity in ("params", "time") or c.metric == "nyuv2/rmse" or "absrel" in c.metric
            assert c.higher_is_better != (lower and c.quantity != "synergy"), c.where
            per_cent = c.quantity in ("synergy", "average") or c.metric not in ("nyuv2/rmse", "")
            assert (c.unit == "percent") == per_cent, c.where
            assert c.value == float(c.printed)


def test_columns_of_the_same_name_hold_the_same_metric() -> None:
    for table in ("table3", "table5"):
        of_column: dict[str, set[str]] = {}
        for c in cells(table):
            of_column.setdefault(c.column, set()).add(c.metric)
        assert [m for (m,) in map(tuple, of_column.values())] == list(METRICS)


def test_a_run_of_the_paper_is_found_by_what_it_is() -> None:
    hit = paper_value("coco/i2t_r1", size="L/16", data="50M", objectives=("vl", "ssl"))
    assert hit is not None
    assert (hit.printed, hit.step, hit.table) == ("48.0", "+1.7", "Table 3")
    assert hit.step_value == 1.7
    whole = paper_value("nyuv2/rmse", size="B/16", data="100M", objectives=ALL)
    assert whole is not None
    assert (whole.printed, whole.table, whole.decimals) == ("0.469", "Table 5", 3)
    # The gain of the last row has the same objectives, but is no value; runs that the paper lacks are none.
    full = paper_value("imagenet/top1", size="B/16", data="10M", objectives=ALL)
    assert full is not None
    assert full.value == 49.7
    assert paper_value("imagenet/top1", size="B/16", data="10M", objectives=("vl", "depth")) is None
    assert paper_value("imagenet/top1", size="B/16", data="100M", objectives=("vl",)) is None


def test_steps_are_numbers_whatever_stands_behind_them() -> None:
    steps = {c.step: c.step_value for c in (*cells("table1"), *cells("table3")) if c.step}
    assert (steps["+29.4 M"], steps["+13%"], steps["-.075"], steps["+0.2"]) == (29.4, 13.0, -0.075, 0.2)
    assert find("table3", size="B/16", data="50M", metric="imagenet/top1", objectives=ALL, quantity="value") is not None
    assert {c.step_value for c in cells("table3") if not c.step} == {None}


def test_figure_3_has_the_samples_of_the_text_and_the_numbers_of_the_tables(paper: str) -> None:
    text = " ".join(paper.split())
    assert "10M and 50M data scales" in text
    assert "trained for 20 and 10 epochs, respectively, with a global batch size of 4k" in text
    assert "100M model is trained for 32 epochs with a global batch size of 8k" in text
    assert "begins to decline once the number of seen samples exceeds 1B" in text
    points = {p.data: p for p in figure3() if p.quantity == "point"}
    assert {d: p.samples for d, p in points.items()} == {
        "10M": 10_000_000 * 20,
        "50M": 50_000_000 * 10,
        "100M": 100_000_000 * 32,
    }
    curve = [points[d].cell("imagenet/top1") for d in points]
    assert [c.printed for c in curve if c is not None] == ["49.7", "62.9", "69.5"]
    (line,) = [p for p in figure3() if p.quantity == "line"]
    level = line.cell("nyuv2/rmse")
    assert level is not None
    assert (level.model, level.printed) == ("CLIP B/16", "0.603")
    (turn,) = [p for p in figure3() if p.quantity == "turn"]
    assert (turn.samples, turn.metrics) == (10**9, ("navi/avg_recall", "spair/avg_recall"))
    assert turn.cell("navi/avg_recall") is None
    for p in (*points.values(), line):
        assert all(p.cell(m) for m in p.metrics)


def test_numbers_of_the_running_text_stand_in_it(paper: str) -> None:
    assert len(cells("text")) == 5
    body = paper.split("## References")[0]
    for c in cells("text"):
        assert c.printed.lstrip("-") in body, c.where


def test_a_number_stands_in_one_place_only() -> None:
    """Values of the paper enter the published ones from the same cells, each once."""
    ours = [v for v in published() if v.source.startswith("MTV paper")]
    theirs: list[PaperCell] = [c for t in ("table3", "table5", "table6") for c in cells(t) if c.quantity == "value"]
    assert len(ours) == len(theirs) == 128 + 64 + 16
    assert {(v.model, v.metric, v.printed) for v in ours} == {(c.model, c.metric, c.printed) for c in theirs}
    assert len({(v.model, v.metric, v.source) for v in ours}) == len(ours)


def test_a_damaged_file_names_file_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"row": "r", "column": "c", "quantity": "value", "value": "1.0", "unit": "percent", "direction": "higher"}
    row |= {"size": "B/16", "objectives": "vl"}
    monkeypatch.setattr(paper_cells, "_read", lambda _: [row, row])
    with pytest.raises(UsageError, match=r"table3\.csv line 3: empty or repeated cell r \| c"):
        cells.__wrapped__("table3")
    monkeypatch.setattr(paper_cells, "_read", lambda _: [{**row, "value": ""}])
    with pytest.raises(UsageError, match="line 2"):
        cells.__wrapped__("table3")
