"""Tasks that a suite names but that cannot run yet: a column that says so, in the table and in the status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mtv.leaderboards.formats import FORMATS, render
from mtv.leaderboards.frame import load, suites
from mtv.leaderboards.grid import Table
from mtv.leaderboards.status import status_table
from mtv.leaderboards.table import build_table
from mtv.results import MetricValue

Write = Callable[..., Path]
Metric = Callable[..., MetricValue]
VQA = {"vqa": "task not available"}


def texts(table: Table, key: str) -> dict[str, str]:
    """Row name to the words of its cell in one column."""
    place = [c.key for c in table.columns].index(key)
    return {r.name: r.cells[place].text for r in table.rows}


def test_the_column_stands_in_its_place_and_gives_the_reason(store: Path) -> None:
    plain, table = (build_table(load(store), published=False, unavailable=u) for u in (None, VQA))
    assert [c.key for c in table.columns] == [*(c.key for c in plain.columns), "vqa/score"]
    assert table.columns[-1].title == "VQA score"
    assert set(texts(table, "vqa/score").values()) == {"not run: task not available"}
    assert texts(table, "navi/avg_recall")["mtv-b16"] == "not run"
    assert table.notes == plain.notes
    assert table.data == plain.data
    assert [r.cells[:-1] for r in table.rows] == [r.cells for r in plain.rows]


def test_every_format_shows_it(store: Path) -> None:
    table = build_table(load(store), published=False, unavailable=VQA)
    for fmt in set(FORMATS) - {"csv", "json"}:
        assert render(table, fmt).count("not run: task not available") == 3, fmt
    assert {"key": "vqa/score", "title": "VQA score", "label": ""} in json.loads(render(table, "json"))["columns"]


def test_published_values_stand_beside_it(store: Path) -> None:
    """Table 5 of the paper has a VQA score of CLIP B/16, 44.8: nothing measured makes it not comparable."""
    table = build_table(load(store), unavailable=VQA)
    (row,) = [r for r in table.rows if r.name == "published: CLIP B/16 (MTV paper, Table 5)"]
    assert (row.cells[-1].value, row.cells[-1].label) == (44.8, "")


def test_only_the_first_line_of_a_model_says_it(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    for limit in (None, 100):
        write_result("a", "imagenet", {"imagenet/top1": make_metric(60.0, 59, 61)}, params={"limit": limit})
    table = build_table(load(tmp_path / "results"), allow_mixed=True, unavailable=VQA)
    assert [r.cells[-1].text for r in table.rows] == ["not run: task not available", ""]


def test_results_win_over_the_reason(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    """A store of a newer version has the task: then its results are shown, and others are plainly `not run`."""
    write_result("a", "vqa", {"vqa/score": make_metric(45.0, 44, 46)})
    write_result("b", "imagenet", {"imagenet/top1": make_metric(60.0, 59, 61)})
    table = build_table(load(tmp_path / "results"), published=False, unavailable=VQA)
    assert texts(table, "vqa/score") == {"a": "", "b": "not run"}
    assert table.columns[-1].title == "VQA score [%]"


def test_a_failure_is_shown_as_a_failure(write_result: Write, tmp_path: Path) -> None:
    write_result("a", "vqa", {}, status="failed", error={"type": "DataError", "message": "no MMVP", "stage": "data"})
    table = build_table(load(tmp_path / "results"), unavailable=VQA)
    assert texts(table, "vqa/score") == {"a": "failed: DataError: no MMVP"}


def test_suites_of_a_store(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    value = {"imagenet/top1": make_metric(60.0, 59, 61)}
    for name, suite in (("a", "paper"), ("b", "mini"), ("c", "mini"), ("d", "")):
        write_result(name, "imagenet", value, run={"suite": suite})
    write_result("e", "imagenet", value)
    assert suites(load(tmp_path / "results")) == ["mini", "paper"]
    assert suites(load(tmp_path / "results", models=["d", "e"])) == []


def test_status_gives_the_reason(store: Path) -> None:
    table = status_table(load(store), models=["new"], tasks=["coco"], unavailable=VQA)
    assert table.columns[-1].key == "vqa"
    assert set(texts(table, "vqa").values()) == {"missing: task not available"}
    assert texts(table, "coco")["new"] == "missing"
    rows = {(d["model"], d["task"]): (d["state"], d["reason"]) for d in table.data}
    assert rows["new", "vqa"] == rows["clip-b16", "vqa"] == ("missing", "task not available")
    assert rows["new", "coco"] == ("missing", "")
    assert "vqa" not in [c.key for c in status_table(load(store)).columns]
