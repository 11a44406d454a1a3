"""Scaling points over checkpoints and runs, and gradient cosines from logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtv.errors import DataError, UsageError
from mtv.leaderboards.attribution.gradients import (
    GradientPoint,
    find_runs,
    gradient_frame,
    gradient_table,
    read_gradients,
)
from mtv.leaderboards.attribution.scaling import ScalingPoint, run_ends, scaling_frame, scaling_points
from mtv.leaderboards.formats import render

Make = Callable[..., dict[str, np.ndarray]]
FULL = ("vl", "ssl", "ground", "depth")


def test_checkpoints_of_a_run_are_one_line_and_other_runs_another(writer: Any, table_of: Make) -> None:
    for samples, total, skill in (
        (8_000, 32_000, 0.3),
        (32_000, 32_000, 0.5),
        (16_000, 32_000, 0.4),
        (16_000, 16_000, 0.45),
    ):
        for objectives in (("vl",), FULL):
            table = table_of("imagenet", skill + 0.1 * (objectives == FULL))
            writer.cell(objectives, {"imagenet": table}, samples=samples, samples_total=total)
    points = scaling_points(writer.studies(), ["imagenet/top1"])
    lines: dict[str, list[int]] = {}
    for p in points:
        lines.setdefault(f"{p.samples_total} {p.objectives}", []).append(p.samples)
    assert lines == {
        "32000 VL": [8_000, 16_000, 32_000],
        "32000 VL + SSL + Ground + Depth": [8_000, 16_000, 32_000],
        "16000 VL": [16_000],
        "16000 VL + SSL + Ground + Depth": [16_000],
    }
    assert len({p.line for p in points}) == 4
    study = next(s for s in writer.studies() if s.samples == 8_000)
    stored = study.cells[("vl",), 0].metric("imagenet/top1")
    first = next(p for p in points if p.samples == 8_000 and p.objectives == "VL")
    assert stored is not None
    assert (first.value, (first.lo, first.hi)) == (stored.value, stored.ci95), "one seed keeps its record's interval"
    assert (first.level, first.n_seeds) == ("samples", 1)


def test_ends_of_runs_of_several_lengths_are_joined(writer: Any, table_of: Make) -> None:
    for total, skill in ((32_000, 0.5), (16_000, 0.4), (64_000, 0.6)):
        for samples in (8_000, total):
            writer.cell(("vl",), {"imagenet": table_of("imagenet", skill)}, samples=samples, samples_total=total)
    writer.cell(FULL, {"imagenet": table_of("imagenet", 0.7)}, samples=16_000, samples_total=16_000)
    points = scaling_points(writer.studies(), ["imagenet/top1"])
    assert [[(p.objectives, p.samples) for p in ends] for ends in run_ends(points)] == [
        [("VL", 16_000), ("VL", 32_000), ("VL", 64_000)]
    ], "one end alone joins nothing"
    last = next(p for p in points if p.samples == 64_000)
    assert run_ends([*points, replace(last, line="other")]) == [], "two runs of one length: which one belongs?"
    for field in ("recipe", "size", "data_hash"):
        assert run_ends([*points, replace(last, samples=1, samples_total=1, **{field: "other"})]) == run_ends(points)
    paper = [
        replace(last, recipe=f"mtv_b16_{m}m", size="b16", data_hash=f"{m}", samples=m, samples_total=m)
        for m in (100, 10, 50)
    ]
    assert [[p.samples for p in ends] for ends in run_ends(paper)] == [[10, 50, 100]], "nested data, one family"
    assert run_ends([paper[0], replace(paper[1], recipe="mtv_l16_10m")]) == []


def test_several_seeds_are_averaged_with_their_own_spread(writer: Any, table_of: Make) -> None:
    for seed, skill in enumerate((0.3, 0.5, 0.7)):
        writer.cell(("vl",), {"nyuv2": table_of("nyuv2", skill, seed=seed)}, seed=seed)
    writer.cell(("vl", "ssl"), {"nyuv2": table_of("nyuv2", 0.6)})
    study = writer.study()
    points = {p.objectives: p for p in scaling_points([study], ["nyuv2/rmse"])}
    own = [study.cells[("vl",), k].metric("nyuv2/rmse").value for k in range(3)]  # type: ignore[union-attr]
    vl = points["VL"]
    assert vl.value == pytest.approx(np.mean(own))
    assert (vl.level, vl.n_seeds, vl.higher_is_better, vl.unit) == ("seeds and samples", 3, False, "m")
    assert vl.lo is not None
    assert vl.hi is not None
    assert vl.lo < min(own) + 0.05
    assert vl.hi > max(own) - 0.05
    assert points["VL + SSL"].level == "samples"


def test_scaling_frame_is_tidy_and_skips_what_was_not_measured(writer: Any, table_of: Make) -> None:
    writer.cell(("vl",), {"imagenet": table_of("imagenet", 0.4)})
    frame = scaling_frame(writer.studies(), ["imagenet/top1", "navi/avg_recall"])
    assert list(frame.columns) == [f.name for f in fields(ScalingPoint)]
    assert list(frame["metric"]) == ["imagenet/top1"]
    assert list(scaling_frame([], ["imagenet/top1"]).columns) == list(frame.columns)


def log_lines(cosine: float, steps: Sequence[int], tasks: Sequence[str] = ("vl", "ssl")) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [
        {"kind": "start", "step": 0, "recipe": "mini", "tasks": list(tasks), "recipe_hash": "abc", "processes": 1}
    ]
    for step in steps:
        out.append({"kind": "step", "step": step, "loss": 1.0, "cosine/vl-ssl": 99.0})
        out.append(
            {"kind": "gradients", "step": step, "norm/vl": 2.0, "norm/ssl": 0.5, "cosine/vl-ssl": cosine, "rank": 17.5}
        )
    return out


def write_run(folder: Path, lines: Sequence[dict[str, Any]], recipe: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if recipe is not None:
        (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    return folder


def test_gradients_are_read_with_the_samples_seen(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", log_lines(0.25, [0, 100]), {"optim": {"global_batch": 64}, "seed": 3})
    points = read_gradients(run)
    assert len(points) == 8
    (first,) = [p for p in points if p.kind == "cosine" and p.step == 100]
    assert first == GradientPoint(
        run="run",
        recipe_hash="abc",
        objectives=("vl", "ssl"),
        seed=3,
        step=100,
        samples=6400,
        kind="cosine",
        a="vl",
        b="ssl",
        value=0.25,
    )
    assert {(p.kind, p.a, p.value) for p in points} >= {("norm", "vl", 2.0), ("norm", "ssl", 0.5), ("rank", "", 17.5)}


def test_what_the_trainer_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "train"))
    from synthetic import build, synthetic_batch, tiny_recipe

    from mtv.train.monitor import GradientMonitor
    from mtv.train.run_log import RunLog
    from mtv.train.step import Stepper

    recipe = tiny_recipe()
    parallel = build(recipe)
    batch = synthetic_batch(recipe, 8, 0)
    values = GradientMonitor(parallel).measure(batch, Stepper(parallel, recipe.steps).contexts([batch], 0)[0])
    run_log = RunLog(tmp_path, recipe, step=0, live=False)
    run_log.write("start", 0, {"tasks": list(recipe.tasks), "recipe_hash": recipe.hash})
    run_log.write("gradients", 3, values)
    run_log.close()
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()), encoding="utf-8")
    points = read_gradients(tmp_path)
    found = {f"{p.kind}/{p.a}" + (f"-{p.b}" if p.b else "") if p.a else p.kind: p.value for p in points}
    assert found == values
    assert len(found) == 4 + 6 + 1
    assert {(p.step, p.samples, p.seed, p.objectives, p.recipe_hash) for p in points} == {
        (3, 3 * recipe.batch, recipe.seed, recipe.tasks, recipe.hash)
    }


def test_a_run_without_recipe_is_told_by_steps(tmp_path: Path) -> None:
    points = read_gradients(write_run(tmp_path / "run", log_lines(0.1, [50])))
    assert {(p.samples, p.seed, p.objectives) for p in points} == {(None, None, ("vl", "ssl"))}


def test_a_step_that_a_resumed_run_measured_again_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [*log_lines(0.1, [0, 50]), *log_lines(0.3, [50, 100])])
    assert [(p.step, p.value) for p in read_gradients(run) if p.kind == "cosine"] == [(0, 0.1), (50, 0.3), (100, 0.3)]


def test_a_line_cut_off_by_a_kill_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", log_lines(0.1, [0, 50]))
    log = run / "log.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_text(whole + '{"kind": "gradients", "st', encoding="utf-8")
    assert len(read_gradients(run)) == 8
    log.write_text('{"kind"\n' + whole, encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.jsonl: line 1 is not JSON"):
        read_gradients(run)
    log.write_text('{"kind": "gradients", "step": 1, "cosine/vl-ssl": "high"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: cosine/vl-ssl is no number: 'high'"):
        read_gradients(run)


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    one = write_run(tmp_path / "sweep" / "a", log_lines(0.1, [0]))
    two = write_run(tmp_path / "sweep" / "b", log_lines(0.1, [0]))
    assert find_runs(tmp_path / "sweep") == [one, two]
    assert find_runs(two) == [two]
    with pytest.raises(UsageError, match=r"no log\.jsonl in or below .*nothing"):
        find_runs(tmp_path / "nothing")


def test_gradient_frame_and_table(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", log_lines(0.5, [0, 50])),
        write_run(tmp_path / "b", log_lines(-0.1, [0, 50])),
        write_run(tmp_path / "c", [{"kind": "start", "step": 0, "tasks": ["vl"]}]),
    ]
    frame = gradient_frame(runs)
    assert list(frame.columns) == [f.name for f in fields(GradientPoint)]
    assert len(frame) == 16
    table = gradient_table([p for run in runs for p in read_gradients(run)])
    assert [c.key for c in table.columns] == ["vl-ssl"]
    assert table.rows[0].cells[0].value == pytest.approx(0.2)
    assert "50% of 4 below 0" in render(table, "md")
    assert gradient_table([]).rows == ()
