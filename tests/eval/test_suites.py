"""A suite whose task cannot run yet: the others run, and tables and status say why that one has no number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from run_helpers import Answer, stored

from mtv.eval import evaluate
from mtv.eval.suites import SUITES

Cli = Callable[..., Answer]
REASON = "not run: task not available"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A suite of one task that runs and one that is planned."""
    monkeypatch.setitem(SUITES, "small", {"knn": {"k": 3}, "vqa": {}})
    return "small"


@pytest.fixture
def run(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> Callable[..., Answer]:
    """`mtv-eval run` of the tiny model into `tmp_path / "o"`."""
    common = ("--data", world, "--out", tmp_path / "o", "--workers", 0, "--no-artefacts", "--protocol", "paper")
    return lambda *argv: cli("run", "-m", f"m={tiny}:build", *argv, *common)


def test_run_and_table_say_why(cli: Cli, run: Callable[..., Answer], small: str, tmp_path: Path) -> None:
    done = run("-t", small)
    assert done.code == 0, done.err
    assert "vqa: not run, task not available" in done.err
    assert REASON in done.out
    ((_, record),) = stored(tmp_path / "o").values()
    assert (record.task, record.run["suite"]) == ("knn", small)
    table = cli("table", "--results", tmp_path / "o", "--format", "md")
    assert re.search(r"\| model \| kNN.* \| VQA score \|", table.out)
    assert re.search(rf"^\| m \| .* \| {REASON} \|$", table.out, re.M)
    assert "VQA" not in cli("table", "--results", tmp_path / "o", "-t", "knn").out
    again = run("-t", small)
    assert "stored already, skipped" in again.err
    assert REASON in again.out


def test_status_gives_the_reason_too(cli: Cli, run: Callable[..., Answer], small: str, tmp_path: Path) -> None:
    assert run("-t", small).code == 0
    assert "missing: task not available" in cli("status", "--out", tmp_path / "o").out
    rows = json.loads(cli("status", "--out", tmp_path / "o", "--json").out)["rows"]
    assert [(r["task"], r["state"], r["reason"]) for r in rows if r["task"] == "vqa"] == [
        ("vqa", "missing", "task not available")
    ]


def test_a_task_by_name_brings_no_such_column(cli: Cli, run: Callable[..., Answer], tmp_path: Path) -> None:
    done = run("-t", "knn", "--set", "knn.k=3")
    assert done.code == 0
    assert "vqa" not in (done.err + done.out).lower()
    assert "VQA" not in cli("table", "--results", tmp_path / "o").out
    asked = cli("status", "--out", tmp_path / "o", "-t", "paper")
    assert "missing: task not available" in asked.out


def test_a_planned_task_by_name_is_one_clear_usage_error(cli: Cli, run: Callable[..., Answer], tmp_path: Path) -> None:
    for argv in (("-t", "vqa"), ("-t", "knn", "-t", "vqa"), ("-t", "mini", "-t", "vqa")):
        answer = run(*argv)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.count("error:") == 1
        assert "task vqa is not available yet" in answer.err
        assert "mtv-eval data check" in answer.err
    assert not (tmp_path / "o").exists()
    assert cli("ls", "protocols", "vqa").code == 2
    setting = run("-t", "mini", "--set", "vqa.model=x")
    assert setting.code == 2
    assert "'vqa' is not a task of this run" in setting.err


def test_a_failed_task_keeps_its_suite(
    run: Callable[..., Answer], small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtv.eval.tasks.knn.KnnTask.open", lambda self, data: 1 / 0)
    done = run("-t", small)
    assert done.code == 1
    assert REASON in done.out
    ((_, record),) = stored(tmp_path / "o").values()
    assert (record.status, record.run) == ("failed", {"suite": small})


def test_evaluate_leaves_it_out(tiny: str, world: Path, small: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="mtv.eval"):
        results = evaluate(f"{tiny}:build", small, world)
    assert [r.task for r in results] == ["knn"]
    assert "vqa: not run, task not available" in caplog.text


def test_ls_tasks_lists_it_as_planned(cli: Cli) -> None:
    rows = {r["task"]: r for r in json.loads(cli("ls", "tasks", "--json").out)}
    assert rows["vqa"]["what"].startswith("not available yet: MMVP")
    assert rows["vqa"]["presets"] == ""
    assert "vqa" in rows["suite paper"]["what"]
    assert "vqa" in rows["suite mini"]["what"]
