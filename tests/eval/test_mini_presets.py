"""Miniature sets through the runner: other classes with their own names, NAVI at 256 pixels, and the suite `mini`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_helpers import Answer, make_job, make_runner, measure, stored
from run_mini import OTHER_CLASSES, write_ball_model, write_balls, write_other_classes
from run_oracles import GAP, agree, embed, pooled, unit, values
from run_world import write_coco, write_flickr, write_imagenet, write_spair

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import UsageError
from mtv.eval import evaluate
from mtv.eval.artefacts import captioned
from mtv.eval.protocols import protocol_for
from mtv.eval.suites import SUITE_PRESETS, SUITES, expand_tasks
from mtv.eval.task import make_task

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with every set of the suite, small."""
    root = tmp_path_factory.mktemp("mini")
    for write in (write_other_classes, write_coco, write_flickr, write_spair, write_balls):
        write(root)
    return root


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The encoder whose tokens are mean colours."""
    return load(write_ball_model(tmp_path_factory.mktemp("colours")))


def test_presets_of_the_original_sets_keep_their_hashes() -> None:
    """Results made before miniature sets existed stay comparable, except NAVI's, which got two fields."""
    expected = {"imagenet": "5283772a", "knn": "abe32c82", "coco": "13e91d71", "spair": "3c149175"}
    assert {task: protocol_for(task).hash[:8] for task in expected} == expected
    written_out = {"size": 512, "grid": 128}
    assert protocol_for("navi", "paper", written_out).hash == protocol_for("navi", "probe3d").hash


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"size": 200, "grid": 48}, "navi.grid must divide navi.size, got grid 48 and size 200"),
        ({"size": 100}, "got grid 128 and size 100"),
        ({"size": 0}, "size 0"),
        ({"grid": 0}, "grid 0"),
    ],
)
def test_impossible_sizes_are_refused_by_name(fields: dict[str, int], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        protocol_for("navi", "paper", fields)
    with pytest.raises(UsageError, match=r"spair\.size must be at least 1, got 0"):
        protocol_for("spair", "mini", {"size": "0"})


def test_an_encoder_that_knows_the_surface_is_right_and_a_mirrored_pose_wrong(
    colours: Encoder, mini: Path, tmp_path: Path
) -> None:
    """Poses, depth codes, both crops, grid and focal length agree at 256 pixels as they do at 512."""
    record, table = measure(colours, make_job("navi", "mini"), mini, tmp_path)
    found = values(record)
    assert (found["recall_2cm"] or 0) > 95
    assert (found["avg_recall"] or 0) > 95
    assert table["n"].tolist() == [244] * 8
    assert record.details["n_self_pairs"] == 0
    assert record.data["label"] == "subset (8 of 2298)"
    assert "5px times 0.5" in record.metrics["navi/recall_5px"].recipe["describe"]
    large, _ = measure(colours, make_job("navi", "mini", size=512, grid=128, matches=1000, stride=2), mini, tmp_path)
    # Thresholds are parts of the crop, so the recalls in pixels agree; at 256 they would be 5 of 256 otherwise.
    for name in ("recall_5px", "recall_25px", "recall_50px", "recall_1cm", "recall_5cm"):
        assert values(large)[name] == pytest.approx(found[name], abs=5), name
    assert large.metrics["navi/recall_5px"].recipe["describe"] == "matches closer than 5px"
    write_balls(tmp_path / "mirrored", mirrored=True)
    wrong, _ = measure(colours, make_job("navi", "mini"), tmp_path / "mirrored", tmp_path)
    assert (values(wrong)["avg_recall"] or 0) < 10


def test_probe3d_needs_as_many_cells_as_matches(colours: Encoder, mini: Path, tmp_path: Path) -> None:
    """A ball fills at most pi / 4 of 24 x 24 cells."""
    job = make_job("navi", "mini", mode="probe3d", size=96, grid=24, matches=500)
    runner = make_runner(mini, tmp_path)
    runner.open([job])
    runner.run_model(colours, [job])
    (failure,) = runner.failures
    assert "valid cells, 500 are needed" in failure.message
    assert "mode 'centered'" in failure.message


def test_imagenet_uses_the_names_of_the_data_set(two_tower: Encoder, mini: Path, tmp_path: Path) -> None:
    record, table = measure(two_tower, make_job("imagenet", "mini"), mini, tmp_path)
    names = [" ".join(OTHER_CLASSES[w].split()) for w in sorted(OTHER_CLASSES)]
    classifier = [unit(embed(two_tower, f"a photo of {name}.", "prompt")) for name in names]
    expected = {}
    for label, wnid in enumerate(sorted(OTHER_CLASSES)):
        for path in (mini / "imagenet" / "val" / wnid).iterdir():
            scores = [float(pooled(two_tower, path) @ c) for c in classifier]
            assert min(abs(a - b) for i, a in enumerate(scores) for b in scores[:i]) > GAP
            expected[f"{wnid}/{path.name}"] = label, int(np.argmax(scores))
    columns = zip(table["label"].tolist(), table["predicted"].tolist(), strict=True)
    assert dict(zip(table["sample_id"].tolist(), columns, strict=True)) == expected
    agree(record, {"top1": 100 * float(np.mean([a == b for a, b in expected.values()])), "top5": 100.0})
    assert record.metrics["imagenet/top1"].chance == pytest.approx(25)
    assert record.metrics["imagenet/top5"].chance == pytest.approx(100)
    assert record.data["label"] == "other classes (4)"
    assert record.data["counts"] == {"images": 16, "classes": 4}
    assert record.details["n_candidates"] == 4
    assert record.protocol["params"]["classnames"] == "dataset"
    assert "classnames_sha256" not in record.protocol["params"]


def test_classes_without_pictures_are_candidates_on_request(two_tower: Encoder, tmp_path: Path) -> None:
    write_other_classes(tmp_path)
    with (tmp_path / "imagenet" / "classnames.txt").open("a", encoding="utf-8") as f:
        f.write("n90000000 zebra\n")
    present, _ = measure(two_tower, make_job("imagenet", "mini"), tmp_path, tmp_path / "out")
    every, table = measure(two_tower, make_job("imagenet", "mini", classes="all"), tmp_path, tmp_path / "out")
    assert (present.details["n_candidates"], every.details["n_candidates"]) == (4, 5)
    assert every.metrics["imagenet/top1"].chance == pytest.approx(20)
    assert set(table["label"].tolist()) == {1, 2, 3, 4}


def test_a_file_of_names_serves_other_classes_too(two_tower: Encoder, mini: Path, tmp_path: Path) -> None:
    own = tmp_path / "names.txt"
    own.write_text("\n".join(" ".join(OTHER_CLASSES[w].split()) for w in sorted(OTHER_CLASSES)) + "\n")
    from_file, _ = measure(two_tower, make_job("imagenet", "mini", classnames=str(own)), mini, tmp_path)
    from_data, _ = measure(two_tower, make_job("imagenet", "mini"), mini, tmp_path)
    assert values(from_file) == values(from_data)
    assert from_file.protocol["hash"] != from_data.protocol["hash"]


def test_names_that_do_not_belong_are_refused_with_the_remedy(
    cli: Cli, tiny: str, mini: Path, world: Path, tmp_path: Path
) -> None:
    common = ("run", "-m", f"{tiny}:build", "-t", "imagenet", "--out", tmp_path, "--no-cache", "--workers", 0)
    answer = cli(*common, "--data", mini)
    assert answer.code == 2
    assert "this data set has 4 classes of its own (dog, mug, table lamp, ... (4 in all))" in answer.err
    assert "--protocol mini" in answer.err
    assert "--set imagenet.classnames=dataset" in answer.err
    answer = cli(*common, "--data", world, "--protocol", "mini")
    assert answer.code == 2
    assert "brings no names" in answer.err
    assert "--set imagenet.classnames=imagenet" in answer.err
    assert "classnames.txt" in answer.err
    answer = cli(*common, "--data", mini, "--set", "imagenet.classnames=datset")
    assert answer.code == 2
    assert "neither a file nor one of imagenet, dataset" in answer.err
    assert {record.status for _, record in stored(tmp_path).values()} == {"failed"}
    # The remedies are true.
    assert cli(*common, "--data", mini, "--protocol", "mini", "--no-artefacts").code == 0
    done = cli(*common, "--data", mini, "--set", "imagenet.classnames=dataset", "--set", "imagenet.templates=one")
    assert done.code == 0


def test_as_many_own_classes_as_imagenet_never_get_its_names(tmp_path: Path) -> None:
    """1000 classes of another set fit ImageNet's list by number only."""
    write_imagenet(tmp_path, (1, 1, 0, 0, 0))
    lines = [f"n9{i:07d} thing {i}" for i in range(998)] + ["n01440764 a", "n01443537 b"]
    (tmp_path / "imagenet" / "classnames.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="1000 classes of its own"):
        make_task(protocol_for("imagenet", "paper", {"templates": "one"})).open(tmp_path)


def test_knn_on_other_classes_shows_their_names(
    vit_tiny: Encoder, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def recorded(pixels: Any, lines: list[str]) -> Any:
        shown.extend(lines)
        return captioned(pixels, lines)

    monkeypatch.setattr("mtv.eval.tasks.knn.captioned", recorded)
    record, table = measure(vit_tiny, make_job("knn", "mini"), mini, tmp_path, artefacts=True)
    assert record.protocol["params"]["k"] == 10
    assert record.details["n_classes"] == 4
    assert record.metrics["knn/top1"].chance == pytest.approx(25)
    assert len(table["sample_id"]) == 16
    assert record.data["label"] == "other classes (4)"
    assert {line for line in shown if line.startswith("true: ")} == {
        "true: dog", "true: mug", "true: sailing boat", "true: table lamp"
    }  # fmt: skip


def test_suites_name_the_preset_of_their_tasks() -> None:
    assert set(SUITE_PRESETS) <= set(SUITES)
    assert {c.preset for c in expand_tasks(["mini"])} == {"mini"}
    assert {c.preset for c in expand_tasks(["paper"])} == {"paper"}
    assert {"imagenet", "knn", "coco", "flickr8k", "navi", "spair"} <= {c.task for c in expand_tasks(["mini"])}
    # A task asked for by name is asked for as it is.
    both = {c.task: c.preset for c in expand_tasks(["mini", "navi"])}
    assert (both["navi"], both["spair"]) == ("paper", "mini")
    for choice in expand_tasks(["mini"]):
        protocol_for(choice.task, choice.preset, choice.overrides)


def test_the_suite_mini_runs_as_it_is(cli: Cli, clip: str, mini_world: Path, tmp_path: Path) -> None:
    """One command without --protocol; every record says which preset it is."""
    out = tmp_path / "out"
    common = ("run", "-m", f"m={clip}", "--data", mini_world, "--out", out, "--workers", 0, "--no-artefacts")
    plan = json.loads(cli(*common, "-t", "mini", "--dry-run", "--json").out)
    planned = {line["protocol"].partition("#")[0] for line in plan}
    assert {"imagenet/mini", "navi/mini", "flickr8k/mini"} <= planned
    assert {p.partition("/")[2] for p in planned} == {"mini"}
    answer = cli(*common, "-t", "mini")
    assert answer.code == 0, answer.err
    records = {task: record for (_, task), (_, record) in stored(out).items()}
    assert {"imagenet", "knn", "coco", "flickr8k", "navi", "spair"} <= set(records)
    for task, record in records.items():
        assert record.status == "complete", task
        assert record.protocol["preset"] == "mini"
        assert record.protocol["hash"] == protocol_for(task, "mini").hash
        assert record.data["verdict"] == "ok-but"
        assert record.headline is not None
    again = cli(*common, "-t", "mini")
    assert again.err.count("stored already, skipped (mini-") == len(records)


def test_a_protocol_that_is_named_wins_over_the_suite(cli: Cli, clip: str, mini: Path, tmp_path: Path) -> None:
    common = ("run", "-m", f"m={clip}", "--data", mini, "--out", tmp_path, "--dry-run", "--json", "--workers", 0)
    asked = cli(*common, "-t", "mini", "--protocol", "centered")
    assert asked.code == 2
    assert "unknown protocol of task imagenet 'centered'" in asked.err
    (single,) = json.loads(cli(*common, "-t", "coco").out)
    assert single["protocol"].startswith("coco/paper#")
    (single,) = json.loads(cli(*common, "-t", "coco", "--protocol", "mini").out)
    assert single["protocol"].startswith("coco/mini#")
    help_text = " ".join(cli("run", "--help").out.split())
    assert "mini for suite mini, else paper" in help_text
    rows = {r["task"]: r for r in json.loads(cli("ls", "tasks", "--json").out)}
    assert rows["suite mini"]["presets"] == "mini"
    assert rows["suite paper"]["presets"] == "paper"


def test_evaluate_takes_the_preset_of_the_suite(clip: str, mini_world: Path) -> None:
    found = {r.task: r for r in evaluate(clip, "mini", mini_world, limit=32)}
    assert {r.protocol["preset"] for r in found.values()} == {"mini"}
    assert found["navi"].protocol["params"]["size"] == 256
    (named,) = evaluate(clip, "navi", mini_world, limit=1, overrides={"navi": {"matches": 50}})
    assert named.protocol["preset"] == "paper"
