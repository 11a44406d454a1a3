"""`mtv-eval synergy` from the outside: tables, machine formats, figures, errors."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mtv.errors import CacheError, UsageError
from mtv.eval.commands.synergy import synergy
from mtv.leaderboards.attribution.analysis import analyse, choose_keys
from mtv.leaderboards.attribution.tables import attribution_table, interaction_table, synergy_table

Skills = Callable[[Sequence[str]], float]


@pytest.fixture
def lattice(writer: Any, skills: Skills, table_of: Any) -> Path:
    """All subsets on two tasks; NAVI falls with every objective."""
    writer.lattice(skills, ["imagenet", "nyuv2"])
    for objectives in writer.study().subsets:
        writer.cell(objectives, {"navi": table_of("navi", 0.6 - 0.1 * len(objectives))})
    return Path(writer.root)


def run(results: Path, *more: str) -> Result:
    return CliRunner().invoke(synergy, ["--results", str(results), "--resamples", "60", *more], catch_exceptions=False)


def test_tables_say_what_is_defined_undefined_and_missing(lattice: Path) -> None:
    out = run(lattice, "--format", "md").stdout
    assert "**Task synergy \\[%\\] over VL: mini, 32,000 samples**" in out
    assert "**Attribution of the gain over VL" in out
    assert "**Shapley interaction index" in out
    lines = [line for line in out.splitlines() if line.startswith("| SSL + Ground |")]
    assert "undefined<sup>" in lines[0]
    assert "missing<sup>" in lines[0]
    assert "(of 2; 1 undefined, 3 missing)" in lines[0]
    assert "No individual gain (SSL −" in out
    assert "Spair not measured." in out
    assert "one training seed: they cover the choice of test samples only, not training" in out


def test_table_numbers_are_those_of_the_analysis(writer: Any, lattice: Path) -> None:
    study = writer.study()
    a = analyse(study, ("imagenet/top1", "nyuv2/rmse"), resamples=60)
    table = synergy_table(a)
    assert [r.name for r in table.rows] == ["SSL + Ground", "SSL + Depth", "Depth + Ground"]
    value = a.synergies[("ssl", "depth"), "nyuv2/rmse"].value
    assert value is not None
    assert table.rows[1].cells[1].value == pytest.approx(100 * value)
    rows = {r.name: r.cells for r in attribution_table(a).rows}
    parts = [rows[f"{o}: Shapley value"][0].value for o in ("SSL", "Ground", "Depth")]
    assert sum(p or 0 for p in parts) == pytest.approx(rows["all three over VL"][0].value)
    assert " … " in rows["SSL: least to most"][0].text
    assert [r.name for r in interaction_table(a).rows] == ["SSL × Ground", "SSL × Depth", "Ground × Depth"]


def test_json_holds_everything(lattice: Path) -> None:
    body = json.loads(run(lattice, "--format", "json").stdout)
    (study,) = body["studies"]
    assert len(study["subsets"]) == 8
    assert len(study["synergy"]) == 3 * 6
    undefined = next(s for s in study["synergy"] if s["metric"] == "navi/avg_recall")
    assert undefined["value"] is None
    assert undefined["reason"].startswith("no individual gain")
    assert undefined["undefined_share"] > 0.9
    top1 = next(a for a in study["attribution"] if a["metric"] == "imagenet/top1")
    assert sum(c["shapley"]["value"] for c in top1["contributions"]) == pytest.approx(top1["gain_of_all"]["value"])
    assert {len(c["by_order"]) for c in top1["contributions"]} == {6}
    assert len(top1["interactions"]) == 3
    assert {p["metric"] for p in body["scaling"]} == {"imagenet/top1", "nyuv2/rmse", "navi/avg_recall"}
    assert body["gradients"] == []


def test_csv_is_tidy(lattice: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(lattice, "--format", "csv").stdout)))
    kinds = {r["quantity"] for r in rows}
    assert {"synergy", "average synergy", "shapley", "paper order", "interaction", "gain of all"} <= kinds
    assert "order ssl>ground>depth" in kinds
    shown = [r for r in rows if r["quantity"] == "synergy" and r["metric"] == "imagenet/top1"]
    assert [r["objectives"] for r in shown] == ["ssl+ground", "ssl+depth", "depth+ground"]
    assert all(float(r["lo"]) <= float(r["hi"]) for r in shown)


@pytest.mark.parametrize("fmt", ["rich", "tex", "html"])
def test_other_formats_have_all_three_tables(lattice: Path, fmt: str) -> None:
    out = run(lattice, "--format", fmt, "--metric", "imagenet/top1").stdout
    assert out.count("Average") >= 1
    assert "Task synergy" in out
    assert "Shapley interaction index" in out


def test_an_average_is_over_the_chosen_metrics(lattice: Path) -> None:
    out = run(lattice, "--format", "md", "--metric", "nyuv2/rmse").stdout
    assert "Average over the defined ones of nyuv2/rmse." in out


def test_seeds_are_told(writer: Any, skills: Skills) -> None:
    writer.lattice(skills, ["imagenet"], seeds=[0, 1, 2])
    out = run(writer.root, "--format", "md", "--metric", "imagenet/top1").stdout
    assert "over training seeds, then test samples (3 seeds" in out


def test_figures_and_gradients_are_written(lattice: Path, writer: Any, table_of: Any, tmp_path: Path) -> None:
    cell = writer.study().cells[("vl", "ssl", "ground", "depth"), 0]
    for name, recipe_hash in (("full", cell.training.recipe_hash), ("other", "x")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        lines = [{"kind": "start", "step": 0, "tasks": ["vl", "ssl"], "recipe_hash": recipe_hash}]
        lines += [{"kind": "gradients", "step": k, "cosine/vl-ssl": 0.1 * k} for k in range(4)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    writer.cell(("vl",), {"imagenet": table_of("imagenet", 0.2)}, samples=8_000, samples_total=32_000)
    out = tmp_path / "figures"
    more = ["--runs", str(tmp_path / "runs"), "--metric", "imagenet/top1", "--format", "md"]
    done = run(lattice, "--out", str(out), *more)
    assert "Cosine between gradients on the trunk" in done.stdout
    names = sorted(p.stem.split("-")[0] + p.suffix for p in out.iterdir())
    stems = ["attribution", "gradients", "gradients", "scaling", "synergy"]
    assert names == sorted(f"{s}{x}" for s in stems for x in (".pdf", ".png"))
    assert (out / "gradients-other-runs.png").stat().st_size > 5_000
    assert done.stderr.count("wrote ") == 10


def test_figures_without_content_are_left_out_and_named(writer: Any, table_of: Any, tmp_path: Path) -> None:
    writer.cell(("vl",), {"imagenet": table_of("imagenet", 0.4)})
    done = run(writer.root, "--out", str(tmp_path / "figures"))
    assert not (tmp_path / "figures").exists()
    assert "not possible: Synergy of objectives: mini, 32,000 samples: " in done.stderr
    assert "not possible: Attribution of the gain over VL: mini, 32,000 samples: " in done.stderr
    assert "not possible: Scaling curves: every run was measured after one number of samples only" in done.stderr


def test_a_store_without_studies_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no result store at"):
        run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"(?s)--results .*empty: no results of checkpoints.*mtv-train sweep"):
        run(tmp_path / "empty")


def test_wrong_options_are_named(lattice: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown metric in these studies 'imagenet/top'; did you mean imagenet/top1"):
        run(lattice, "--metric", "imagenet/top")
    with pytest.raises(UsageError, match=r"no log\.jsonl"):
        run(lattice, "--runs", str(tmp_path))
    assert "Invalid value for '--resamples'" in CliRunner().invoke(synergy, ["--resamples", "0"]).stderr


def test_default_columns_are_the_papers(writer: Any, lattice: Path, table_of: Any) -> None:
    table4 = ("imagenet/top1", "coco/i2t_r1", "ade20k/miou", "navi/avg_recall", "spair/avg_recall", "nyuv2/rmse")
    assert choose_keys(writer.studies()) == table4
    writer.cell(("vl",), {"coco": table_of("coco", 0.4)})
    assert choose_keys(writer.studies()) == (table4[0], "coco/t2i_r1", *table4[1:])


def test_the_command_imports_neither_torch_nor_pandas(lattice: Path) -> None:
    program = (
        "import sys; from mtv.eval.commands.synergy import synergy\n"
        f"synergy.main(['--results', {str(lattice)!r}, '--resamples', '20'], standalone_mode=False)\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, capture_output=True)
