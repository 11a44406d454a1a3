"""What may stand in one column, in which order, and what must be said beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtv.errors import CacheError, UsageError
from mtv.leaderboards.formats import render
from mtv.leaderboards.frame import load, rows, to_frame
from mtv.leaderboards.grid import Cell, Row, Table
from mtv.leaderboards.table import build_table
from mtv.recipes import Recipe
from mtv.results import MetricValue

Write = Callable[..., Path]
Metric = Callable[..., MetricValue]


def line(table: Table, name: str) -> Row:
    return next(r for r in table.rows if r.name == name)


def cell(table: Table, name: str, key: str) -> Cell:
    return line(table, name).cells[[c.key for c in table.columns].index(key)]


def test_columns_and_rows_have_a_fixed_order(store: Path) -> None:
    table = build_table(load(store), published=False)
    assert [c.key for c in table.columns] == [
        "imagenet/top1",
        "coco/t2i_r1",
        "coco/i2t_r1",
        "navi/avg_recall",
        "spair/avg_recall",
        "nyuv2/rmse",
    ]
    assert [r.name for r in table.rows] == ["clip-b16", "mtv-b16", "tiny_vit (random init)"]


def test_models_of_one_moment_are_sorted_by_name(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        write_result(name, "imagenet", {"imagenet/top1": make_metric(50.0, 49, 51)})
    assert [r.name for r in build_table(load(tmp_path / "results")).rows] == ["a", "b", "c"]


def test_directions_of_retrieval_are_named_in_words(store: Path) -> None:
    titles = {c.key: c.title for c in build_table(load(store)).columns}
    assert "text→image" in titles["coco/t2i_r1"]
    assert "image→text" in titles["coco/i2t_r1"]
    assert titles["nyuv2/rmse"].endswith("[m] ↓")


def test_best_is_flagged_per_column_with_its_direction_and_ties(store: Path) -> None:
    table = build_table(load(store))
    flags = {(r.name, c.key) for r in table.rows for c, x in zip(table.columns, r.cells, strict=True) if x.best}
    assert flags == {
        ("mtv-b16", "imagenet/top1"),
        ("mtv-b16", "coco/t2i_r1"),
        ("mtv-b16", "coco/i2t_r1"),
        ("clip-b16", "coco/i2t_r1"),
        ("mtv-b16", "nyuv2/rmse"),
    }


def test_labels_failures_and_gaps_are_visible(store: Path) -> None:
    table = build_table(load(store))
    labels = {c.key: c.label for c in table.columns}
    assert labels["coco/t2i_r1"] == "subset (79 of 5000)"
    assert labels["spair/avg_recall"] == "limit 100"
    assert cell(table, "mtv-b16", "spair/avg_recall").text.startswith("failed: DataError: SPair-71k: 17 of 18 classes")
    assert cell(table, "mtv-b16", "navi/avg_recall").text == "not run"
    undefined = cell(table, "tiny_vit (random init)", "navi/avg_recall")
    assert undefined.text == "n/a"
    assert dict(table.notes)[undefined.marks[0]] == "n/a: undefined, a part of it has no value."


def test_notes_name_protocol_data_chance_ties_diagnosis_and_scope(store: Path) -> None:
    table = build_table(load(store))
    text = "\n".join(t for _, t in table.notes)
    assert "top-1 accuracy; imagenet/paper#" in text
    assert "chance 0.1" in text
    assert "12 tied queries; 69.50 if every tie were lost, 69.54 if won" in text
    assert "Predicts 4 of 1000 classes." in text
    assert text.endswith("test samples only: not training seeds, not the fitting of a head.")


def test_differing_protocols_are_refused_and_the_field_is_named(
    write_result: Write, make_metric: Metric, tmp_path: Path
) -> None:
    """R8 of the retrieval page: variants have their own hashes, and the table refuses one column."""
    value = {"coco/t2i_r1": make_metric(41.0, 40, 42), "coco/i2t_r1": make_metric(57.0, 56, 58)}
    write_result("a", "coco", value, params={"captions": "all", "prefix": ""})
    write_result("b", "coco", value, params={"captions": "first5", "prefix": "a photo of "})
    with pytest.raises(UsageError, match="differ in captions: all vs first5; prefix: none vs a photo of"):
        build_table(load(tmp_path / "results"))
    mixed = build_table(load(tmp_path / "results"), allow_mixed=True)
    marks = [cell(mixed, n, "coco/t2i_r1").marks for n in ("a", "b")]
    notes = dict(mixed.notes)
    assert marks[0] != marks[1]
    assert "differs in" not in notes[marks[0][0]]
    assert "differs in captions: all vs first5" in notes[marks[1][0]]
    assert not any(c.best for r in mixed.rows for c in r.cells)


def test_differing_data_are_refused_like_protocols(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    value = {"imagenet/top1": make_metric(68.0, 67, 69)}
    write_result("a", "imagenet", value)
    write_result("b", "imagenet", value, data="part", label="subset (200 of 50000)")
    with pytest.raises(UsageError, match=r"data label: full set vs subset \(200 of 50000\); data fingerprint"):
        build_table(load(tmp_path / "results"))
    mixed = build_table(load(tmp_path / "results"), allow_mixed=True)
    assert cell(mixed, "b", "imagenet/top1").label == "subset (200 of 50000)"
    assert cell(mixed, "a", "imagenet/top1").label == ""


def test_limit_is_part_of_the_comparison(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    value = {"imagenet/top1": make_metric(68.0, 67, 69)}
    write_result("a", "imagenet", value)
    write_result("b", "imagenet", value, params={"limit": 100}, status="partial")
    with pytest.raises(UsageError, match="limit: none vs 100"):
        build_table(load(tmp_path / "results"))


def test_two_protocols_of_one_model_get_two_lines(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    write_result("a", "imagenet", {"imagenet/top1": make_metric(68.0, 67, 69)})
    write_result("a", "imagenet", {"imagenet/top1": make_metric(60.0, 59, 61)}, params={"limit": 100}, preset="fast")
    write_result("a", "navi", {"navi/avg_recall": make_metric(37.0, 36, 38)})
    table = build_table(load(tmp_path / "results"), allow_mixed=True)
    assert [r.name for r in table.rows] == ["a", "a"]
    assert {r.cells[0].value for r in table.rows} == {60.0, 68.0}
    assert [r.cells[1].text for r in table.rows] == ["", ""]
    assert sorted(r.cells[1].value or 0 for r in table.rows) == [0, 37.0]
    narrowed = build_table(load(tmp_path / "results", presets=["fast"]))
    assert [c.value for c in narrowed.rows[0].cells] == [60.0]


def test_models_of_one_name_and_other_weights_stay_apart(
    write_result: Write, make_metric: Metric, tmp_path: Path
) -> None:
    for weights, value in (("one", 60.0), ("two", 61.0)):
        write_result("mine", "imagenet", {"imagenet/top1": make_metric(value, value - 1, value + 1)}, weights=weights)
    names = [r.name for r in build_table(load(tmp_path / "results")).rows]
    assert len(set(names)) == 2
    assert all(n.startswith("mine [") for n in names)


def test_a_shard_is_never_best(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    write_result("a", "imagenet", {"imagenet/top1": make_metric(60.0, 59, 61)})
    write_result("b", "imagenet", {"imagenet/top1": make_metric(61.0, 60, 62)})
    write_result("c", "imagenet", {"imagenet/top1": make_metric(90.0, 80, 95)}, status="partial", run={"shard": "1/4"})
    table = build_table(load(tmp_path / "results"))
    assert cell(table, "c", "imagenet/top1").label == "shard 1/4"
    assert [r.name for r in table.rows if r.cells[0].best] == ["b"]


def test_a_failure_that_a_later_run_repaired_is_not_shown(
    write_result: Write, make_metric: Metric, tmp_path: Path
) -> None:
    write_result("a", "imagenet", {}, status="failed", error={"type": "E", "message": "m", "stage": "s"}, data="old")
    write_result("a", "imagenet", {"imagenet/top1": make_metric(60.0, 59, 61)})
    assert [c.value for c in build_table(load(tmp_path / "results")).rows[0].cells] == [60.0]


def test_published_rows_stand_below_their_model(store: Path) -> None:
    names = [r.name for r in build_table(load(store)).rows]
    k = names.index("clip-b16")
    assert names[k + 1] == "published: CLIP B/16 (MTV paper, Table 5)"
    assert names[names.index("mtv-b16") + 1] == "published: MTV B/16 100M (MTV paper, Table 5)"
    assert not any("SigLIP" in n for n in names)
    everything = [r.name for r in build_table(load(store), published="all").rows]
    assert everything[: len(names)] == names
    assert any("SigLIP2 L/16" in n for n in everything)
    assert not any(n.startswith("published") for n in (r.name for r in build_table(load(store), published=False).rows))


def test_a_random_initialisation_has_no_published_row(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    write_result("clip-b16", "imagenet", {"imagenet/top1": make_metric(0.1, 0, 0.2)}, random=True)
    assert [r.name for r in build_table(load(tmp_path / "results")).rows] == ["clip-b16 (random init)"]


@pytest.mark.parametrize(
    ("params", "image", "label", "reason"),
    [
        ({"templates": "openai80"}, {"resize": "squash"}, "", "image.resize: crop vs squash"),
        ({"templates": "openai7"}, {"resize": "crop"}, "", "templates: openai80 vs openai7"),
        ({"templates": "openai80"}, {"resize": "crop"}, "subset (200 of 50000)", r"full set vs subset (200 of 50000)"),
        ({"templates": "openai80"}, {"resize": "crop"}, "", ""),
    ],
)
def test_published_values_say_why_they_do_not_compare(
    params: dict, image: dict, label: str, reason: str, write_result: Write, make_metric: Metric, tmp_path: Path
) -> None:
    write_result(
        "clip-b16", "imagenet", {"imagenet/top1": make_metric(68.3, 68, 69)}, params=params, image=image, label=label
    )
    table = build_table(load(tmp_path / "results"))
    quoted = cell(table, "published: CLIP B/16 (open_clip)", "imagenet/top1")
    assert quoted.value == 68.34
    assert quoted.label == ("not comparable" if reason else "")
    said = [dict(table.notes)[m] for m in quoted.marks]
    assert any(reason in t for t in said) if reason else said == []


def test_a_spec_finds_the_published_rows_of_its_alias(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    path = write_result(
        "x", "imagenet", {"imagenet/top1": make_metric(68.3, 68, 69)}, spec="open_clip:ViT-B-16-quickgelu/openai"
    )
    path.write_text(path.read_text().replace('"alias": "x"', '"alias": null'))
    names = [r.name for r in build_table(load(tmp_path / "results")).rows]
    assert names[0] == "open_clip:ViT-B-16-quickgelu/openai"
    assert "published: CLIP B/16 (open_clip)" in names


def test_all_metrics_follow_the_headline(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    other = Recipe(kind="ratio", column="rank", at_most=5)
    write_result("a", "imagenet", {"top5": make_metric(90.0, 89, 91, recipe=other), "top1": make_metric(60.0, 59, 61)})
    keys = [c.key for c in build_table(load(tmp_path / "results"), all_metrics=True).columns]
    assert keys == ["imagenet/top1", "imagenet/top5"]
    assert [c.key for c in build_table(load(tmp_path / "results")).columns] == ["imagenet/top1"]


def test_an_average_that_leaves_a_part_out_says_so(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    part = Recipe(kind="ratio", column="hit")
    average = Recipe(kind="average", of=("recall_vp0", "recall_vp1"), headline=True)
    metrics = {
        "spair/recall_vp0": make_metric(30.0, 28, 32, recipe=part),
        "spair/recall_vp1": make_metric(None, recipe=part),
        "spair/avg_recall": make_metric(30.0, 28, 32, recipe=average),
    }
    write_result("a", "spair", metrics)
    table = build_table(load(tmp_path / "results"))
    (mark,) = cell(table, "a", "spair/avg_recall").marks
    assert dict(table.notes)[mark] == "spair/avg_recall: average without spair/recall_vp1, which no sample falls into."


def test_names_that_do_not_exist_are_errors_with_suggestions(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="clip-b16"):
        load(store, models=["clip-b17"])
    with pytest.raises(UsageError, match="imagenet"):
        load(store, tasks=["imagnet"])
    with pytest.raises(UsageError, match="paper"):
        load(store, presets=["papre"])
    with pytest.raises(CacheError, match="no result store"):
        load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no results"):
        build_table([])


def test_rows_are_flat_and_to_frame_holds_them(store: Path) -> None:
    flat = rows(load(store))
    assert len({tuple(r) for r in flat}) == 1
    failed = next(r for r in flat if r["status"] == "failed")
    assert (failed["metric"], failed["value"]) == ("", None)
    assert failed["note"].startswith("DataError")
    frame = to_frame(load(store))
    assert len(frame) == len(flat)
    top1 = frame[(frame.model == "mtv-b16") & (frame.metric == "imagenet/top1")].iloc[0]
    assert (top1.value, top1.lo, top1.hi, top1.n) == (69.52, 69.12, 69.92, 50_000)


def test_no_output_shows_where_the_store_lies(store: Path) -> None:
    table = build_table(load(store))
    for fmt in ("rich", "md", "csv", "json", "tex", "html"):
        assert str(store) not in render(table, fmt)


def test_reading_results_imports_no_heavy_library(store: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from mtv.leaderboards import compare, frame, formats, power, status, table\n"
        f"t = table.build_table(frame.load(Path({str(store)!r})))\n"
        "formats.render(t, 'md'); status.status_table([])\n"
        "print([m for m in ('torch', 'scipy', 'pandas', 'transformers', 'open_clip', 'numpy', 'pyarrow', 'rich')"
        " if m in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
