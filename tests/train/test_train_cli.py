"""`mtv-train`: light imports, exit codes, messages, and the way from a run to its export and its evaluation."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_nano import lines, nano

from mtv.train.cli import COMMANDS, invoke
from mtv.train.recipe import Recipe
from mtv.train.recipes import RECIPES, get_recipe
from mtv.train.run_folder import read_recipe

QUICK = ("--set", "optim.global_batch=8", "--set", "samples=16", "--set", "log.every=1", "--device", "cpu")


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    """Commands set the log up for a process of their own."""
    root, mtv = logging.getLogger(), logging.getLogger("mtv")
    handlers, levels = root.handlers[:], (root.level, mtv.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    mtv.setLevel(levels[1])


@pytest.fixture(scope="module")
def run(mini_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps through the command line."""
    out = tmp_path_factory.mktemp("runs") / "two"
    assert invoke(["run", "nano", "--data", str(mini_world), "--out", str(out), "--seed", "3", "--quiet", *QUICK]) == 0
    return out


def test_help_and_recipes_import_no_torch() -> None:
    code = "import sys; from mtv.train.cli import invoke\n"
    for words in (["--help"], ["recipes"], ["recipes", "mini", "--json"], *([c, "--help"] for c in COMMANDS)):
        code += f"assert invoke({words!r}) == 0\n"
    code += "heavy = {'torch', 'transformers', 'open_clip', 'timm'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_recipes_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recipes"]) == 0
    listing = capsys.readouterr().out
    assert [line.split()[0] for line in listing.splitlines()] == list(RECIPES)
    assert invoke(["recipes", "mini", "--tasks", "ssl,vl", "--set", "optim.lr=0.25", "--json"]) == 0
    printed = Recipe.from_dict(json.loads(capsys.readouterr().out))
    assert printed == get_recipe("mini").set(["tasks=vl,ssl", "optim.lr=0.25"])
    assert invoke(["recipes", "mini"]) == 0
    text = capsys.readouterr().out
    settings = [row.split(" ")[0] for row in text.splitlines()[2:]]
    assert f"optim.lr={get_recipe('mini').optim.lr}" in settings
    free = [s for s in settings if not s.startswith("model.")]
    assert get_recipe("mini").set(free) == get_recipe("mini")


def test_wrong_words_are_two_and_say_what_is_right(
    mini_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    where = ["--data", str(mini_world), "--out", str(out)]
    cases: list[tuple[list[str], str]] = [
        (["run", "mni", *where], "did you mean mini"),
        (["rn"], "did you mean run"),
        (["run", "nano", *where, "--set", "optim.lrr=1"], "did you mean lr"),
        (["run", "nano", *where, "--set", "optim.lr=fast"], "'fast' is not a valid float"),
        (["run", "nano", *where, "--set", "optim.decay=slow"], "choice of cosine, linear, constant"),
        (["run", "nano", *where, "--set", "optim.lr"], "expected FIELD=VALUE"),
        (["run", "nano", *where, "--set", "optim=1"], "its fields: optim.lr"),
        (["run", "nano", *where, "--tasks", "vl,sl"], "Choose from vl, ssl, ground, depth"),
        (["run", "nano", *where, "--device", "cuda:99"], "does not exist"),
        (["run", "nano", "--out", str(out)], "Missing option '--data'"),
        (["resume", str(tmp_path / "gone")], "is no run"),
    ]
    for words, message in cases:
        assert invoke(words) == 2, words
        assert message in capsys.readouterr().err
    assert not (out / "recipe.json").exists()
    assert invoke(["run", "nano", "--data", str(tmp_path / "gone"), "--out", str(out), "--device", "cpu"]) == 3
    assert "no such directory" in capsys.readouterr().err


def test_the_run_is_what_was_asked_for(run: Path, mini_world: Path) -> None:
    recipe = read_recipe(run)
    assert (recipe.seed, recipe.batch, recipe.samples) == (3, 8, 16)
    assert json.loads((run / "run.json").read_text()) == {"data": str(mini_world.resolve())}
    assert [line["step"] for line in lines(run, "step")] == [1, 2]


def test_inspect_says_how_far_it_came(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["inspect", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["steps"], found["in_progress"], found["latest"]) == (2, 2, None, "step_0000002")
    assert found["parameters"]["total"] > 10_000
    assert invoke(["inspect", str(run)]) == 0
    text = capsys.readouterr().out
    assert "step 2 of 2 (100%), 16 samples" in text
    assert "sound (latest)" in text


def test_resume_changes_how_and_never_what(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["resume", str(run), "--set", "optim.lr=1"]) == 2
    assert "resume cannot change what is learnt: optim.lr: 0.001 -> 1.0" in capsys.readouterr().err
    assert invoke(["resume", str(run), "--set", "log.every=7", "--device", "cpu", "--quiet"]) == 0
    assert read_recipe(run).log.every == 7
    assert [line["step"] for line in lines(run, "step")] == [1, 2]


def test_export_is_a_siglip_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import SiglipModel

    assert invoke(["export", str(run), "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    assert SiglipModel.from_pretrained(tmp_path / "hf").config.vision_config.hidden_size == 64
    assert invoke(["export", str(run), "--to", "open_clip", "--out", str(tmp_path / "oc")]) == 2
    assert invoke(["export", str(run / "step_0000002"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_evaluation_on_the_way(mini_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real benchmarks; one that does not exist is reported, and the weights are those of a run without any."""
    from mtv.train.run import train

    settings = ["eval.every=2", "eval.tasks=imagenet/mini,knn/mini,wrong", "eval.limit=24"]
    train(nano(*settings, steps=3), mini_world, tmp_path / "a", device="cpu", resume=False)
    train(nano(steps=3), mini_world, tmp_path / "b", device="cpu", resume=False)
    found = lines(tmp_path / "a", "eval")
    assert [line["step"] for line in found] == [2, 3]
    for line in found:
        scores = {k: v for k, v in line.items() if k.startswith(("imagenet/", "knn/"))}
        assert len(scores) == 2
        assert all(0 <= v <= 100 for v in scores.values())
        assert "unknown task or suite 'wrong'" in line["error/wrong"]
    ends = [p / "step_0000003" / "model.safetensors" for p in (tmp_path / "a", tmp_path / "b")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_bench_prints_a_row_per_objective(capsys: pytest.CaptureFixture[str], mini_world: Path) -> None:
    words = ["bench", "--recipe", "nano", "--batch", "8", "--warmup", "1", "--steps", "1", "--device", "cpu", "--json"]
    assert invoke([*words, "--tasks", "vl,ground", "--data", str(mini_world)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    assert [(r["source"], r["tasks"]) for r in rows] == [
        ("tensors", "vl"), ("tensors", "vl+ground"), ("loader", "vl"), ("loader", "vl+ground"),
    ]  # fmt: skip
    assert all(r["ms"] > 0 and r["mfu"] is None and r["memory_gib"] > 0 for r in rows)
    assert rows[1]["added_ms"] == pytest.approx(rows[1]["ms"] - rows[0]["ms"])
    assert rows[1]["literal_tflops"] > rows[1]["executed_tflops"]
    assert rows[0]["literal_tflops"] == pytest.approx(rows[0]["executed_tflops"])
    assert (rows[0]["data_wait"], 0 <= rows[2]["data_wait"] <= 1) == (None, True)
    assert found["precision"] in ("fp32", "bf16")
