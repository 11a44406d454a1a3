"""Tables 1, 5 and 6 of the paper: measured files and models beside the paper's."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from paper_store import training, write

from mtv.errors import UsageError
from mtv.leaderboards.frame import load
from mtv.leaderboards.grid import Cell, Table
from mtv.leaderboards.paper_tables import table1, table5, table6

COUNTS = {
    "vl": 203_155_970,
    "vl+ssl": 232_591_106,
    "vl+ssl+ground": 239_679_746,
    "vl+ssl+ground+depth": 250_274_883,
}
"""Trainable parameters of B/16: `pretraining.md` section 4.5."""
MS = {"vl": 100.0, "vl+ssl": 250.0, "vl+ssl+ground": 262.0, "vl+ssl+ground+depth": 300.0}
SIMPLE = {"templates": "openai80"}


def bench_file(path: Path, *, recipe: str = "mtv_b16_10m", source: str = "tensors", **row: Any) -> Path:
    rows = [
        {"source": source, "tasks": t, "ms": ms, "img_s": 256e3 / ms, "mfu": 0.4, "params": COUNTS[t], **row}
        for t, ms in MS.items()
    ]
    body = {"recipe": recipe, "device": "NVIDIA H200", "processes": 1, "precision": "bf16", "rows": rows}
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def names(table: Table) -> list[str]:
    return [r.name for r in table.rows]


def cell(table: Table, row: str | int, key: str) -> Cell:
    place = row if isinstance(row, int) else names(table).index(row)
    return table.rows[place].cells[[c.key for c in table.columns].index(key)]


# Table 1


def test_parameters_are_exact_and_agree_with_the_papers_digits(tmp_path: Path) -> None:
    table = table1.build(table1.read_bench(bench_file(tmp_path / "b.json")))
    assert names(table)[:4] == ["mtv_b16_10m, NVIDIA H200, bf16, tensors", "VL", "paper (B/16)", "measured − paper"]
    for place, tasks in zip((1, 4, 7, 10), COUNTS, strict=True):
        measured = cell(table, place, "params")
        assert measured.value is not None
        assert round(measured.value * 1e6) == COUNTS[tasks]
        assert measured.decimals == 6
        assert round(measured.value, 1) == cell(table, place + 1, "params").value
        difference = cell(table, place + 2, "params")
        assert (round(difference.value or 0, 1), difference.decimals) == (0.0, 1)
    assert cell(table, 4, "params").label == "+29.435136"
    assert cell(table, 5, "params").label == "+29.4 M"


def test_times_are_relative_to_vl_and_never_compared(tmp_path: Path) -> None:
    table = table1.build(table1.read_bench(bench_file(tmp_path / "b.json")))
    assert [cell(table, k, "time").value for k in (1, 4, 7, 10)] == [1.0, 2.5, 2.62, 3.0]
    assert [cell(table, k, "time").label for k in (1, 4, 7, 10)] == ["", "+150 %", "+5 %", "+15 %"]
    assert [cell(table, k, "time").value for k in (2, 5, 8, 11)] == [1.0, 1.2, 1.5, 1.7]
    assert {cell(table, k, "time").text for k in (3, 6, 9, 12)} == {"not comparable"}
    assert cell(table, 10, "img_s").value == pytest.approx(256e3 / 300)
    assert cell(table, 10, "mfu").value == pytest.approx(40.0)


def test_without_a_measurement_the_rows_say_so_beside_the_paper() -> None:
    table = table1.build([])
    assert {c.text for r in table.rows if r.kind == "measured" for c in r.cells} == {"not run"}
    assert cell(table, 2, "params").value == 203.2
    assert any("mtv-train bench --recipe mtv_b16_10m --json" in t for _, t in table.notes)


def test_another_recipe_stands_alone_unless_asked(tmp_path: Path) -> None:
    found = table1.read_bench(bench_file(tmp_path / "b.json", recipe="mini", params=None, mfu=None))
    alone = table1.build(found)
    assert names(alone)[1:] == ["VL", "VL + SSL", "VL + SSL + Ground.", "VL + SSL + Ground. + Depth"]
    assert cell(alone, 1, "params").text == "not in the file"
    assert cell(alone, 1, "mfu").text == "n/a"
    beside = table1.build(found, beside=True)
    assert names(beside)[2] == "paper (B/16), not comparable"
    assert "measured − paper" not in names(beside)


def test_sources_and_partial_files_are_blocks_of_their_own(tmp_path: Path) -> None:
    body = json.loads(bench_file(tmp_path / "b.json").read_text())
    body["rows"] += [{**r, "source": "loader"} for r in body["rows"][1:3]]
    (tmp_path / "two.json").write_text(json.dumps(body))
    benches = table1.read_bench(tmp_path / "two.json")
    assert [b.title.split(", ")[-1] for b in benches] == ["tensors", "loader"]
    table = table1.build(benches[1:])
    assert [cell(table, k, "time").text for k in (1, 3)] == ["not run", "VL not run"]
    assert cell(table, "VL + SSL + Ground. + Depth", "params").text == "not run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"--bench b\.json: cannot be read"),
        ("[]", r"--bench b\.json: expected an object"),
        ('{"recipe": "mini", "device": "cpu"}', "field 'rows' is missing"),
        ('{"recipe": "m", "device": "d", "rows": [{"tasks": "vl"}]}', r"b\.json, row 1: field 'source' is missing"),
    ],
)
def test_a_file_that_is_no_measurement_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        table1.read_bench(tmp_path / "b.json")
    with pytest.raises(UsageError, match=r"none\.json: cannot be read \(No such file"):
        table1.read_bench(tmp_path / "none.json")


def test_what_the_trainer_writes_is_what_is_read(tmp_path: Path) -> None:
    """The fields of the trainer's own row, of which `mtv-train bench --json` prints `vars`; read without torch."""
    source = ast.parse((Path(__file__).resolve().parents[2] / "train" / "bench.py").read_text(encoding="utf-8"))
    (row,) = [n for n in source.body if isinstance(n, ast.ClassDef) and n.name == "Row"]
    fields = {n.target.id: 1.0 for n in row.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    body = {"recipe": "mini", "device": "cpu", "rows": [{**fields, "source": "tensors", "tasks": "vl"}]}
    (tmp_path / "b.json").write_text(json.dumps(body))
    (bench,) = table1.read_bench(tmp_path / "b.json")
    assert (bench.steps[("vl",)].ms, bench.steps[("vl",)].img_s, bench.steps[("vl",)].mfu) == (1.0, 1.0, 1.0)


# Table 5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP, SigLIP2, a run of the paper's length, a miniature one, and ablations; read only."""
    root = tmp_path_factory.mktemp("models") / "r"
    write(root, None, {"imagenet/top1": 68.0, "nyuv2/rmse": 0.61}, name="clip-b16", alias="clip-b16", params=SIMPLE)
    write(root, None, {"imagenet/top1": 75.0}, name="siglip2-b16", alias="siglip2-b16", params=SIMPLE)
    whole = training(recipe="mtv_b16_100m", samples=390_625 * 8192)
    write(root, whole, {"imagenet/top1": 69.0}, name="whole", params=SIMPLE)
    write(root, training(), {"imagenet/top1": 19.0}, name="mini", params=SIMPLE)
    write(root, training(("vl",)), {"imagenet/top1": 9.0}, name="ablation", params=SIMPLE)
    write(root, training(samples=10, samples_total=20), {"imagenet/top1": 8.0}, name="half", params=SIMPLE)
    return root


def test_models_stand_in_the_papers_order_with_its_row_below(models: Path) -> None:
    table = table5.build(load(models), unavailable={"vqa": "task not available"})
    assert names(table) == [
        "ViT-B/16",
        "clip-b16",
        "paper: CLIP B/16",
        "measured − paper",
        "paper: SigLIP B/16",
        "siglip2-b16",
        "paper: SigLIP2 B/16",
        "measured − paper",
        "mtv:runs/whole",
        "paper: MTV B/16 100M",
        "measured − paper",
        "ViT-L/14 and L/16",
        "paper: CLIP L/14",
        "paper: SigLIP L/16",
        "paper: SigLIP2 L/16",
        "paper: MTV L/16 100M",
        "measured here, not in the paper's table",
        "mtv:runs/mini",
    ]
    assert [c.title for c in table.columns][:2] == ["Data", "IN-1k Acc. [%]"]
    assert [table.rows[k].cells[0].text for k in (1, 2, 3, 8, 9, 17)] == [
        "",
        "400M",
        "",
        "3,200,000,000 seen",
        "100M",
        "32,000 seen",
    ]
    assert cell(table, 3, "imagenet/top1").value == pytest.approx(68.0 - 68.3)
    assert cell(table, 3, "nyuv2/rmse").value == pytest.approx((cell(table, 1, "nyuv2/rmse").value or 0) - 0.603)
    assert cell(table, 10, "imagenet/top1").value == pytest.approx(69.0 - 69.5)
    assert cell(table, 1, "navi/avg_recall").text == "not run"
    assert cell(table, 1, "vqa/score").text == "not run: task not available"
    assert (cell(table, 2, "vqa/score").value, cell(table, 3, "vqa/score").text) == (44.8, "–")


def test_best_is_bold_within_a_block(models: Path) -> None:
    table = table5.build(load(models))
    flagged = [r.name for r in table.rows if any(c.best for c in r.cells)]
    assert flagged == ["siglip2-b16"]


def test_ablations_are_left_out_and_counted_unless_named(models: Path) -> None:
    table = table5.build(load(models))
    assert any("left out: 2; --model shows them" in t for _, t in table.notes)
    named = table5.build(load(models, models=["mtv:runs/ablation"]), ablations=True)
    assert names(named)[-1] == "mtv:runs/ablation"
    with pytest.raises(UsageError, match="shown when named"):
        table5.build(load(models, models=["mtv:runs/ablation"]))


def test_a_random_initialisation_is_not_the_model_of_its_alias(tmp_path: Path) -> None:
    write(tmp_path / "r", None, {"imagenet/top1": 0.5}, name="clip-b16", alias="clip-b16", params=SIMPLE)
    (path,) = (tmp_path / "r").glob("*/*/*.json")
    path.write_text(path.read_text().replace('"random": false', '"random": true'))
    table = table5.build(load(tmp_path / "r"))
    assert names(table)[-2:] == ["measured here, not in the paper's table", "clip-b16 (random init)"]
    assert "measured − paper" not in names(table)


def test_a_known_difference_of_protocol_leaves_the_difference_out(tmp_path: Path) -> None:
    write(tmp_path / "r", None, {"imagenet/top1": 68.0}, name="c", alias="clip-b16", params={"templates": "simple"})
    table = table5.build(load(tmp_path / "r"))
    assert "measured − paper" not in names(table)
    said = [dict(table.notes)[m] for m in cell(table, "paper: CLIP B/16", "imagenet/top1").marks]
    assert "not comparable: templates: openai80 vs simple." in said


def test_mixed_protocols_are_refused_or_marked(tmp_path: Path) -> None:
    root = tmp_path / "r"
    for name, fields in (("a", SIMPLE), ("b", SIMPLE), ("c", {"templates": "simple"})):
        write(root, None, {"imagenet/top1": 60.0}, name=name, params=fields)
    with pytest.raises(UsageError, match="templates: openai80 vs simple"):
        table5.build(load(root))
    table = table5.build(load(root), allow_mixed=True)
    assert cell(table, "mtv:runs/c", "imagenet/top1").text == "protocol differs"
    assert cell(table, "mtv:runs/b", "imagenet/top1").value == pytest.approx(60.0)


def test_every_number_of_the_papers_table_is_there(models: Path) -> None:
    table = table5.build(load(models))
    assert sum(r["kind"] == "paper" for r in table.data) == 64
    assert len({tuple(r) for r in table.data}) == 1


# Table 6


def test_relative_depth_beside_depth_models(tmp_path: Path) -> None:
    root = tmp_path / "r"
    scores = {"rel_kitti/absrel_depth": 9.0, "rel_kitti/delta1": 91.0}
    write(root, None, scores, name="mtv-b16", alias="mtv-b16", image={"size": 224})
    write(root, training(), {"rel_nyu/absrel_depth": 12.0}, name="mini", image={"size": 48})
    table = table6.build(load(root))
    assert names(table) == [
        "base models",
        "paper: Marigold",
        "paper: DAv1-B",
        "paper: DAv2-B",
        "mtv-b16",
        "paper: MTV B/16 100M",
        "measured − paper",
        "large models",
        "paper: MiDaS v3.1",
        "paper: DAv1-L",
        "paper: DAv2-L",
        "paper: MTV L/16 100M",
        "measured here, not in the paper's table",
        "mtv:runs/mini",
    ]
    assert [c.title for c in table.columns] == [
        "Input",
        "KITTI AbsRel [%] ↓",
        "NYUv2 AbsRel [%] ↓",
        "KITTI δ1 [%]",
        "NYUv2 δ1 [%]",
    ]
    assert [table.rows[k].cells[0].text for k in (1, 4, 13)] == ["480 × 640", "224 × 224", "48 × 48"]
    assert cell(table, 6, "rel_kitti/absrel_depth").value == pytest.approx(9.0 - 8.9)
    assert [cell(table, k, "rel_kitti/delta1").text for k in (5, 6)] == ["–", "–"]
    assert cell(table, 4, "rel_kitti/delta1").value == pytest.approx(91.0)
    assert cell(table, 4, "rel_nyu/absrel_depth").text == "not run"
    assert sum(r["kind"] == "paper" for r in table.data) == 16


def test_without_relative_depth_there_is_no_table(models: Path) -> None:
    with pytest.raises(UsageError, match="no result for Table 6, which is about rel_kitti, rel_nyu"):
        table6.build(load(models))
