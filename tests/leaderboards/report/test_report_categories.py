"""Numbers per category: those that tasks wrote, and those computed here, against a loop over the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_document import parse
from report_stores import put, sample_table

from mtv.errors import CacheError
from mtv.leaderboards.frame import load, model_labels
from mtv.leaderboards.report.build import build_report
from mtv.leaderboards.report.categories import breakdowns, by_group


def one(root: Path, task: str, skill: float = 0.6, **more: object) -> object:
    put(root, "vit", task, skill, **more)  # type: ignore[arg-type]
    return load(root)[0]


def test_classes_are_named_by_the_folder_of_their_samples(tmp_path: Path) -> None:
    found = by_group(one(tmp_path, "imagenet"))  # type: ignore[arg-type]
    table = sample_table("imagenet", 0.6)
    for g in range(4):
        own = [r <= 1 for r, k in zip(table["rank"], table["label"], strict=True) if k == g]
        assert found[f"n{g:08d}"] == pytest.approx(100 * sum(own) / len(own))
    assert len(found) == 4


def test_an_average_is_that_of_its_parts_in_the_group(tmp_path: Path) -> None:
    found = by_group(one(tmp_path, "navi"))  # type: ignore[arg-type]
    table = sample_table("navi", 0.6)
    for name in np.unique(table["group"]):
        rows = table["group"] == name
        expected = 50 * (table["near"][rows].mean() + table["far"][rows].mean())
        assert found[str(name)] == pytest.approx(expected)


def test_a_metric_that_falls_keeps_its_unit(tmp_path: Path) -> None:
    stored = one(tmp_path, "nyuv2")
    table = sample_table("nyuv2", 0.6)
    expected = {str(g): table["rmse"][table["group"] == g].mean() for g in np.unique(table["group"])}
    assert by_group(stored) == pytest.approx(expected)  # type: ignore[arg-type]
    (found,) = breakdowns([stored], model_labels([stored]))  # type: ignore[list-item]
    assert (found.title, found.decimals) == ("NYUv2 RMSE [m] ↓ by group", 3)


def test_what_a_task_wrote_is_shown_and_nothing_computed_beside_it(tmp_path: Path) -> None:
    iou = {"wall": 41.25, "sky": None, "bed": 7.0}
    stored = one(tmp_path, "ade20k", details={"iou": iou, "input": {"size": [1, 2]}, "lr": 0.1, "one": {"a": 1}})
    (found,) = breakdowns([stored], model_labels([stored]))  # type: ignore[list-item]
    assert found.columns == {"vit": iou}
    cells = {r.name: (r.cells[0].value, r.cells[0].text) for r in found.table().rows}
    assert cells == {"wall": (41.25, ""), "sky": (None, "–"), "bed": (7.0, "")}


def test_several_quantities_are_columns_of_each_model(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        per_class = {"mug": {"recall": 10.5 + k, "pairs": 3}, "lamp": {"recall": 0.0, "pairs": 9}}
        put(tmp_path, name, "spair", details={"per_class": per_class})
    records = load(tmp_path)
    (found,) = breakdowns(records, model_labels(records))
    assert list(found.columns) == ["a: recall", "a: pairs", "b: recall", "b: pairs"]
    assert found.columns["b: recall"] == {"mug": 11.5, "lamp": 0.0}
    page = parse(build_report(records)[0])
    assert page.one(id="task-spair-0-by-0").grid()[1] == ["mug", "10.5", "3.0", "11.5", "3.0"]


def test_a_changed_sample_table_is_refused(tmp_path: Path) -> None:
    stored = one(tmp_path, "navi")
    next(tmp_path.glob("**/*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(CacheError, match="not the table"):
        by_group(stored)  # type: ignore[arg-type]
