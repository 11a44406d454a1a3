"""The command line: exit codes, what goes where, messages, and that commands that only read import no torch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_helpers import Answer, mtv_eval, stored
from run_world import write_imagenet

from mtv.errors import UsageError

Cli = Callable[..., Answer]
QUICK = ("--workers", 0, "--no-artefacts", "--set", "knn.k=3")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tiny: str, world: Path) -> Path:
    """Two models on three tasks, and one failed task."""
    out = tmp_path_factory.mktemp("results")
    sets = ["--set", "spair.size=64", "--workers", "0", "--no-artefacts", "--no-cache", "--quiet"]
    models = ["-m", f"a={tiny}:build", "-m", f"b={tiny}:other"]
    tasks = ["-t", "knn", "-t", "coco", "-t", "spair"]
    assert mtv_eval("run", *models, *tasks, "--data", world, "--out", out, *sets) == 0
    return out


def test_done_is_zero_and_stdout_is_the_table(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    first = cli("run", "-m", f"{tiny}:build", "-t", "knn", "--data", world, "--out", tmp_path / "o", *QUICK)
    assert first.code == 0
    assert "Results" in first.out
    assert "subset (16 of 50000)" in first.out
    assert not re.search(r"^\d\d:\d\d:\d\d ", first.out, re.M)
    assert re.search(r"^\d\d:\d\d:\d\d I .*run, 16 images, 0 cached", first.err, re.M)
    assert "\x1b" not in first.out
    again = cli("run", "-m", f"{tiny}:build", "-t", "knn", "--data", world, "--out", tmp_path / "o", *QUICK)
    assert again.code == 0
    assert "stored already, skipped (paper-" in again.err
    assert again.out == first.out


def test_json_parses_and_stdout_holds_nothing_else(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    args = ("-m", f"{tiny}:build", "-t", "knn", "--data", world, "--out", tmp_path / "o", *QUICK)
    plan = cli("run", *args, "--dry-run", "--json")
    assert plan.code == 0
    (line,) = json.loads(plan.out)
    assert (line["state"], line["images"], line["cached"]) == ("run", 16, 0)
    assert line["seconds"] > 0
    assert not (tmp_path / "o").exists()
    assert not list(tmp_path.rglob("*.safetensors"))
    words = cli("run", *args, "--dry-run")
    assert re.search(
        r"knn/paper#[0-9a-f]{8}  imagenet val \[subset .*\]: run, 16 images, 0 cached, .* about", words.out
    )
    done = cli("run", *args, "--json")
    (record,) = json.loads(done.out)
    assert record["metrics"]["knn/top1"]["headline"] is True
    assert json.loads(cli("run", *args, "--dry-run", "--json").out)[0]["state"] == "done"
    quiet = cli("run", *args, "--force", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert len(list((tmp_path / "o").rglob("*.json.prev"))) == 1


def test_a_failed_task_is_one_and_the_others_are_done(
    cli: Cli, tiny: str, world: Path, mini_world: Path, tmp_path: Path
) -> None:
    """Without text tower: a suite leaves text tasks out, a task that was named fails."""
    out = tmp_path / "o"
    model = ("-m", f"m={tiny}:without_text")
    named = cli("run", *model, "-t", "coco", "-t", "knn", "--data", world, "--out", out, *QUICK)
    assert named.code == 1
    assert "FAILED" in named.err
    assert "has no text tower" in named.err
    assert {t: r.status for (_, t), (_, r) in stored(out).items()} == {"coco": "failed", "knn": "complete"}
    status = json.loads(cli("status", "--out", out, "--json").out)
    rows = status["rows"] if isinstance(status, dict) else status
    states = {r["task"]: (r["state"], r["reason"]) for r in rows}
    assert states["knn"][0] == "done"
    assert states["coco"][0] == "failed"
    assert "has no text tower" in states["coco"][1]
    suite = cli("run", *model, "-t", "mini", "--data", mini_world, "--out", tmp_path / "s", "--workers", 0)
    assert suite.code == 0, suite.err
    assert "skipped, python:" in suite.err
    done = {t for _, t in stored(tmp_path / "s")}
    assert {"knn", "navi", "spair"} <= done
    assert not {"imagenet", "coco", "flickr8k"} & done


def test_wrong_data_are_three(cli: Cli, tiny: str, tmp_path: Path) -> None:
    """A missing set, and class folders with integer names; every message says what to do."""
    (tmp_path / "data").mkdir()
    args = ("-m", f"{tiny}:build", "--data", tmp_path / "data", "--out", tmp_path / "o", *QUICK)
    missing = cli("run", "-t", "knn", *args)
    assert missing.code == 3
    assert "val/<wnid>/ILSVRC2012_val_########.JPEG" in missing.err
    write_imagenet(tmp_path / "data")
    for number, folder in enumerate(sorted((tmp_path / "data" / "imagenet" / "val").iterdir()), 1):
        folder.rename(folder.with_name(str(number)))
    wrong = cli("run", "-t", "knn", *args)
    assert wrong.code == 3
    assert "class folders are integers" in wrong.err
    assert "Rename each folder to its wnid" in wrong.err
    check = cli("data", "check", "imagenet", "--data", tmp_path / "data", "--json")
    assert check.code == 3
    assert json.loads(check.out)[0]["verdict"] == "wrong"


def test_usage_errors_are_two_and_name_the_nearest_spelling(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    """Nothing is written by any of them."""
    out, model = tmp_path / "o", ("-m", f"{tiny}:build")
    common = ("--data", world, "--out", out, "--workers", 0)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("run", *model, "-t", "imagnet", *common), "did you mean imagenet"),
        (("run", "-m", "clip-b61", "-t", "knn", *common), "did you mean clip-b16"),
        (("run", "-m", "tim:vit", "-t", "knn", *common), "unknown model scheme 'tim'; did you mean timm"),
        (("run", "-m", "timm:vit_tinny_patch16_224@random", "-t", "knn", *common), "vit_tiny_patch16_224"),
        (("run", *model, "-t", "knn", "--protocol", "papr", *common), "did you mean paper"),
        (
            ("run", *model, "-t", "knn", "--set", "knn.kk=3", *common),
            "unknown field knn.kk; fields of knn: data, feature",
        ),
        (("run", *model, "-t", "knn", "--set", "knn.k=three", *common), "knn.k: 'three' is not a valid int"),
        (("run", *model, "-t", "knn", "--set", "knn.data=coco", *common), "choice of imagenet, spair"),
        (("run", *model, "-t", "knn", "--set", "spair.size=3", *common), "'spair' is not a task of this run"),
        (("run", *model, "-t", "knn", "--set", "k=3", *common), "expected task.field=value"),
        (("run", *model, "-t", "knn", "--set", "knn.limit=3", *common), "use --limit"),
        (("run", *model, "-t", "knn", "--set", "image.sizes=3", *common), "did you mean image.size"),
        (("run", *model, "-t", "knn", "--limit", 0, *common), "limit must be at least 1"),
        (("run", *model, "-t", "knn", "--shard", "2/2", *common), "0 <= I < N"),
        (("run", *model, "-t", "knn", "--shard", "0/2", "--no-cache", *common), "exclude each other"),
        (("run", *model, "-t", "knn", "--batch-size", "0", *common), "--batch-size 0"),
        (("run", *model, "-t", "knn", "--device", "cudaa", *common), "unknown device 'cudaa'"),
        (("run", *model, "-t", "knn", "--device", "cuda:77", *common), "cuda:77 does not exist"),
        (("run", *model, "-t", "knn", "--data", world / "no", "--out", out), "no such directory"),
        (("run", *model, "-t", "imagenet", "--set", "imagenet.templates=ones", *common), "neither a file nor one of"),
        (("run", *model, "-t", "knn", "--outt", out, "--data", world), "No such option"),
        (("run", *model, "-t", "knn", "--bat", 3, *common), "No such option"),
        (("run", *model, "-t", "knn"), "Missing option '--data'"),
        (("data", "check", "imagnet", "--data", world), "did you mean imagenet"),
        (("rum",), "unknown command 'rum'; did you mean run"),
    ]
    for argv, message in cases:
        answer = cli(*argv)
        assert answer.code == 2, (argv, answer)
        assert message in re.sub(r"\s+", " ", answer.err), (argv, answer.err)
        assert not answer.out
    assert not list(out.rglob("*.json"))


def test_a_model_that_cannot_be_loaded_fails_alone_and_is_forgotten_once_it_loads(
    cli: Cli, world: Path, tmp_path: Path, tiny: str
) -> None:
    """A file that is not there, then is: `status` tells the truth both times."""
    import torch

    from mtv.encoders import load

    weights, out = tmp_path / "w.pt", tmp_path / "o"
    args = ("-t", "knn", "--data", world, "--out", out, *QUICK)
    models = ("-m", f"v=timm:vit_tiny_patch16_224.augreg_in21k@{weights}?size=32", "-m", f"m={tiny}:build")
    first = cli("run", *models, *args)
    assert first.code == 1
    assert "w.pt does not exist" in first.err
    assert {m: r.status for (m, _), (_, r) in stored(out).items()} == {"v": "failed", "m": "complete"}
    assert str(tmp_path) not in stored(out)["v", "knn"][0].read_text()
    torch.save(load("timm:vit_tiny_patch16_224@random?size=32").module.state_dict(), weights)
    assert cli("run", *models, *args).code == 0
    assert {m: r.status for (m, _), (_, r) in stored(out).items()} == {"v": "complete", "m": "complete"}
    assert not list(out.glob("*unloaded*"))


def test_limits_are_labelled_in_every_table(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    args = ("-m", f"{tiny}:build", "-t", "knn", "--data", world, "--out", tmp_path / "o", *QUICK)
    run = cli("run", *args, "--limit", 8)
    assert "limit 8" in run.out
    assert "limit 8" in cli("table", "--results", tmp_path / "o", "--format", "md").out
    ((_, record),) = stored(tmp_path / "o").values()
    assert record.status == "partial"
    assert cli("run", *args).code == 0
    mixed = cli("table", "--results", tmp_path / "o", "--format", "md")
    assert mixed.code == 2
    assert "limit" in mixed.err
    assert "--allow-mixed" in mixed.err
    marked = cli("table", "--results", tmp_path / "o", "--format", "md", "--allow-mixed")
    assert marked.code == 0
    assert "limit" in marked.out


def test_reading_commands(cli: Cli, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """table, compare, status, power, ls on stored results, as text and as JSON."""
    monkeypatch.setenv("NO_COLOR", "1")
    table = cli("table", "--results", results)
    assert table.code == 0
    assert "\x1b" not in table.out
    assert re.search(r"^\s*a\s.*^\s*b\s", table.out, re.M | re.S)
    for fmt in ("md", "csv", "tex", "json", "html"):
        assert cli("table", "--results", results, "--format", fmt, "--all-metrics").code == 0
    compared = cli("compare", "a", "b", "--results", results, "--json")
    assert compared.code == 0
    rows = json.loads(compared.out)
    rows = rows["rows"] if isinstance(rows, dict) else rows
    records = stored(results)
    for task, headline in (("knn", "knn/top1"), ("spair", "spair/avg_recall")):
        a, b = (records[m, task][1].metrics[headline].value or 0.0 for m in "ab")
        (row,) = [r for r in rows if headline in r.values()]
        assert row["delta"] == pytest.approx(b - a)
    text = cli("compare", "a", "b", "--results", results, "-t", "knn")
    assert text.code == 0
    unknown = cli("compare", "a", "c", "--results", results)
    assert unknown.code == 2
    status = cli("status", "--results", results, "-m", "c", "-t", "navi")
    assert status.code == 0
    assert "missing" in status.out
    assert cli("power", "--delta", "0.5", "-t", "imagenet").code == 0
    listed = json.loads(cli("ls", "results", "--results", results, "--json").out)
    assert len(listed) == 6
    assert {row["status"] for row in listed} == {"complete"}
    assert cli("table", "--results", results / "nowhere").code == 1


def test_listing_commands(cli: Cli) -> None:
    aliases = json.loads(cli("ls", "models", "--json").out)
    assert {"clip-b16", "mtv-b16"} <= {a["alias"] for a in aliases}
    tasks = cli("ls", "tasks")
    assert "suite paper" in tasks.out
    protocols = json.loads(cli("ls", "protocols", "spair", "--json").out)
    assert {"spair.mode", "spair.size"} <= {p["field"] for p in protocols}
    assert all(p["meaning"] for p in protocols)
    assert "spair/centered#" in cli("ls", "protocols").out
    assert cli("--help").code == 0
    assert cli("--version").code == 0
    assert "SPair-71k/" in cli("data").out


def test_a_missing_extra_is_told_where_tasks_are_listed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UsageError("engine=mmseg needs mmsegmentation, which is not installed")

    monkeypatch.setattr("mtv.eval.mmseg.installed.installed", missing)
    lacking = [t["task"] for t in json.loads(cli("ls", "tasks", "--json").out) if "not installed" in t["what"]]
    assert lacking == ["ade20k", "camvid", "nyu40"]


def test_every_option_says_what_it_does() -> None:
    """Section 7: help for every option, no boolean that takes a value."""
    import click

    from mtv.eval.cli import cli as root

    def walk(command: click.Command) -> list[click.Command]:
        inside = command.commands.values() if isinstance(command, click.Group) else ()
        return [command, *(c for sub in inside for c in walk(sub))]

    for command in walk(root):
        assert command.help, command.name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (command.name, option.name)
                assert option.is_flag or not isinstance(option.type, click.types.BoolParamType)


def test_inspect_prints_what_was_resolved(cli: Cli, tiny: str) -> None:
    answer = cli("inspect", f"{tiny}:build", "--json")
    assert answer.code == 0
    record = json.loads(answer.out)
    assert record["trial"]["finite"] is True
    assert record["image"]["size"] == 32
    text = cli("inspect", f"{tiny}:build?size=48")
    assert "option" in text.out
    assert "48" in text.out


def test_cache_commands(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    args = ("-m", f"m={tiny}:build", "-t", "knn", "--data", world, "--out", tmp_path / "o", *QUICK)
    assert cli("run", *args).code == 0
    (entry,) = json.loads(cli("cache", "ls", "--json").out)
    assert (entry["rows"], entry["data"], entry["state"]) == (16, "imagenet", "complete")
    assert cli("cache", "verify").code == 0
    (shard,) = (tmp_path / "cache").glob("*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert cli("cache", "verify").code == 1
    assert "removed" in cli("cache", "gc", "--max-size", "0GB", "--dry-run", "--json").out
    assert shard.exists()
    assert cli("cache", "gc", "--max-size", "0GB").code == 0
    assert not shard.exists()
    assert cli("cache", "gc", "--older-than", "x").code == 2


def test_reading_commands_import_no_torch(results: Path) -> None:
    """One fresh process runs them all; half a second each is the budget, most of which is Python's own start."""
    commands = [
        ["--help"], ["run", "--help"], ["ls", "models"], ["ls", "tasks"], ["ls", "protocols"],
        ["ls", "results", "--results", str(results)], ["status", "--out", str(results)],
        ["table", "--results", str(results)], ["table", "--results", str(results), "--format", "csv"],
        ["compare", "a", "b", "--results", str(results)], ["power", "--delta", "1", "-t", "coco"],
    ]  # fmt: skip
    script = (
        "import json, sys\n"
        "from mtv.eval.cli import invoke\n"
        "codes = [invoke(argv) for argv in json.loads(sys.argv[1])]\n"
        "heavy = [m for m in ('torch', 'transformers', 'open_clip', 'timm', 'pandas') if m in sys.modules]\n"
        "print('VERDICT', codes, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == f"VERDICT {[0] * len(commands)} []", done.stderr


def test_ctrl_c_is_130_and_keeps_what_was_computed(
    cli: Cli, tiny: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT in a pass: the rows so far land, the message says how to go on, and a rerun does the rest."""
    log, cache, out = tmp_path / "log", tmp_path / "cache", tmp_path / "o"
    args = [
        "run", "-m", f"{tiny}:build", "-t", "knn", "--data", str(world), "--out", str(out), "--cache", str(cache),
        "--workers", "1", "--batch-size", "2", "--no-artefacts",
    ]  # fmt: skip
    env = {**os.environ, "TINY_LOG": str(log), "TINY_DELAY": "0.2", "OMP_NUM_THREADS": "1"}
    words, pipe = [sys.executable, "-m", "mtv.eval", *args], subprocess.PIPE

    def listen() -> None:
        # A suite that runs in the background of a shell inherits SIGINT as ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        words, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=listen
    )
    deadline = time.monotonic() + 100
    while not (log.exists() and len(log.read_text().split()) >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the loader process gets it, too
    printed, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert printed == ""
    assert "everything finished is stored. Continue with:\n  mtv-eval run -m" in err
    assert "Traceback" not in err
    from mtv.eval.features.admin import list_entries

    (entry,) = list_entries(cache)
    assert 2 <= entry.rows < 16
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "second"))
    assert cli(*args).code == 0
    assert sum(map(int, (tmp_path / "second").read_text().split())) == 16 - entry.rows
