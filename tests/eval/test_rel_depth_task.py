"""Relative depth end to end: planted answers, the naive definitions, refusals, resuming, and real frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rel_helpers import fail, score, value
from rel_world import mean_constant, naive_scores, read, write_kitti, write_models, write_nyu
from run_helpers import Answer, make_job, make_runner, measure, stored

from mtv.encoders import load
from mtv.errors import DataError, UsageError
from mtv.eval.protocols import protocol_for
from mtv.eval.suites import expand_tasks

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`python:FILE`, to be followed by `:Reads` or another class."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six test frames of 64 x 64. Read only."""
    return write_nyu(tmp_path_factory.mktemp("nyu"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames each of NYUv2 and KITTI in their original sizes. Read only."""
    return write_kitti(write_nyu(tmp_path_factory.mktemp("full"), 2, size=(640, 480)))


def test_a_model_that_reads_the_planted_disparity_is_right(models: str, nyu: Path, tmp_path: Path) -> None:
    record, table = score(load(f"{models}:Reads"), nyu, tmp_path)
    head = record.headline
    assert head is not None
    assert head[0] == "rel_nyu/absrel_depth"
    # 8-bit grey leaves an error of half a step of 1.3 / 255 per metre, at 9 m 2 %.
    assert value(record, "absrel_depth") < 1.5
    assert value(record, "absrel_disp") < 1.5
    assert value(record, "delta1") > 99.9
    assert value(record, "positive_scale") == 100
    assert sorted(table["cluster_id"].tolist()) == ["room_0"] * 3 + ["room_1"] * 3
    assert head[1].n_clusters == 2
    assert head[1].higher_is_better is False
    # The Eigen mask on 64 x 64: rows 6 to 63, columns 4 to 60; six columns are holes.
    assert set(table["n_pixels"].tolist()) == {(63 - 6) * (60 - 6)}
    depths = [read(p)[6:63, 6:60] / 1000 for p in sorted(nyu.rglob("sync_depth_*.png"))]
    assert head[1].chance == pytest.approx(mean_constant(depths), rel=1e-6)
    assert record.details["depth_head"]["kind"] == "disparity"
    assert (record.details["fit_mask"], record.details["input_sizes"]) == ("all", {"64x64": 6})
    assert record.diagnosis == []


SHORT_SIDES = {"rel_nyu": (64, 88), "rel_kitti": (64, 224)}
"""480 x 640 and 352 x 1216 at a shorter side of 64, rounded to the patch of 8: 85.3 and 221.1 wide."""


@pytest.mark.parametrize("task", ["rel_nyu", "rel_kitti"])
@pytest.mark.parametrize("resize", ["squash", "short_side"])
@pytest.mark.parametrize("kind", ["Rough", "Floored", "Metric"])
def test_every_number_follows_the_definitions(
    models: str, full_size: Path, tmp_path: Path, task: str, resize: str, kind: str
) -> None:
    """Original sizes, crops and masks written out, against PIL, torch's resizing and numpy's least squares."""
    encoder = load(f"{models}:{kind}")
    align = "depth" if kind == "Metric" else "disp"
    record, table = score(encoder, full_size, tmp_path, task, resize=resize, align=align, force=True)
    if task == "rel_nyu":
        crop, mask, limits, per_metre = np.s_[:, :], np.s_[45:471, 41:601], (0.001, 10.0), 1000
        files = sorted(full_size.rglob("rgb_*.png")), sorted(full_size.rglob("sync_depth_*.png"))
    else:
        crop, mask, limits, per_metre = np.s_[23:375, 13:1229], np.s_[117:321, 43:1172], (1e-5, 80.0), 256
        files = sorted(full_size.rglob("image_02/data/*.png")), sorted(full_size.rglob("groundtruth/image_02/*.png"))
    size = (64, 64) if resize == "squash" else SHORT_SIDES[task]
    assert record.details["input_sizes"] == {f"{size[0]}x{size[1]}": 2}
    for row, (rgb, truth) in enumerate(zip(*files, strict=True)):
        expected = naive_scores(
            read(rgb)[crop],
            read(truth)[crop] / per_metre,
            mask,
            encoder.module.predict_depth,  # type: ignore[operator]
            size=size,
            depth_range=limits,
            align=align,
            positive=kind == "Floored",
        )
        found = {name: float(table[name][row]) for name in expected}
        assert found == pytest.approx(expected, rel=2e-5, abs=1e-6)
    for name in ("absrel_disp", "absrel_depth_cap") if align == "disp" else ("absrel_depth_ls",):
        assert value(record, name) == pytest.approx(100 * float(table[name].mean()))


def test_model_resize_follows_the_processor(models: str, full_size: Path, tmp_path: Path) -> None:
    """A processor that keeps proportions fits the side that changes least; one that does not squashes."""
    from dataclasses import replace

    encoder = load(f"{models}:Reads")
    record, _ = score(encoder, full_size, tmp_path, resize="model")
    assert record.details["input_sizes"] == {"64x64": 2}
    assert encoder.info.depth_head is not None
    head = replace(encoder.info.depth_head, keep_aspect=True, multiple=16)
    encoder.info = replace(encoder.info, depth_head=head, fingerprint="other")
    assert score(encoder, full_size, tmp_path, resize="model")[0].details["input_sizes"] == {"64x80": 2}
    kitti, _ = score(encoder, full_size, tmp_path, "rel_kitti", resize="model", size=400)
    assert kitti.details["input_sizes"] == {"400x1376": 2}


def test_a_disparity_head_is_not_aligned_in_depth(models: str, nyu: Path, tmp_path: Path) -> None:
    """R8: refused without force; forced, the number is labelled, and worse."""
    encoder = load(f"{models}:Reads")
    error = fail(encoder, nyu, tmp_path, align="depth")
    assert isinstance(error, UsageError)
    assert "align=depth is wrong for a head that predicts disparity" in str(error)
    record, _ = score(encoder, nyu, tmp_path, align="depth", force=True)
    assert record.diagnosis[0] == "Depth-space fit of a disparity head (forced)."
    assert record.headline is not None
    assert record.headline[0] == "rel_nyu/absrel_depth_ls"
    assert value(record, "absrel_depth_ls") > 5


def test_a_depth_head_asks_for_its_space(models: str, nyu: Path, tmp_path: Path) -> None:
    encoder = load(f"{models}:Metric")
    assert "rel_nyu.align=depth" in str(fail(encoder, nyu, tmp_path))
    record, table = score(encoder, nyu, tmp_path, align="depth")
    assert record.headline is not None
    assert record.headline[0] == "rel_nyu/absrel_depth_ls"
    assert not {"absrel_depth", "absrel_disp"} & set(table)
    assert record.diagnosis == []


def test_a_constant_prediction_is_flagged_and_equals_chance(models: str, nyu: Path, tmp_path: Path) -> None:
    record, table = score(load(f"{models}:Constant"), nyu, tmp_path)
    assert record.diagnosis == ["The prediction is constant in 6 of 6 pictures."]
    assert bool(table["constant"].all())
    for name, metric in record.metrics.items():
        if metric.chance is not None:
            assert metric.value == pytest.approx(metric.chance), name
    assert value(record, "positive_scale") == 0


def test_zeros_of_a_relu_stay_out_of_the_fit(models: str, nyu: Path, tmp_path: Path) -> None:
    encoder = load(f"{models}:Floored")
    record, table = score(encoder, nyu, tmp_path)
    assert record.details["fit_mask"] == "positive"
    assert 20 < value(record, "fit_dropped") < 95
    whole, _ = score(encoder, nyu, tmp_path, fit_mask="all")
    assert whole.details["fit_mask"] == "all"
    assert value(whole, "fit_dropped") == 0
    assert value(whole, "absrel_depth") != pytest.approx(value(record, "absrel_depth"))
    assert len(table["sample_id"]) == 6


def test_small_kitti_frames_need_a_smaller_crop(models: str, tmp_path: Path) -> None:
    data = write_kitti(tmp_path / "data", size=(320, 96))
    encoder = load(f"{models}:Reads")
    error = fail(encoder, data, tmp_path, "rel_kitti")
    assert isinstance(error, DataError)
    assert "rel_kitti.crop=share" in str(error)
    _, table = measure(encoder, make_job("rel_kitti", "mini"), data, tmp_path)
    # 352 of 375 rows and 1216 of 1242 columns are 90 x 313; the mask is rows 30 to 82, columns 11 to 302 of these.
    assert bool((np.abs(table["n_pixels"] - 0.2 * 52 * 291) < 200).all())
    whole, _ = measure(encoder, make_job("rel_kitti", "mini", crop="none", mask="none"), data, tmp_path)
    assert whole.status == "complete"


def test_the_miniature_world_runs_under_mini(models: str, mini_world: Path, tmp_path: Path) -> None:
    encoder = load(f"{models}:Rough")
    for task in ("rel_nyu", "rel_kitti"):
        record, table = measure(encoder, make_job(task, "mini", force=True), mini_world, tmp_path)
        assert record.status == "complete"
        assert record.data["counts"]["images"] >= len(table["sample_id"]) > 0
        assert np.isfinite(table["absrel_depth"]).all()


def test_limit_takes_frames_of_every_scene(models: str, nyu: Path, tmp_path: Path) -> None:
    record, table = score(load(f"{models}:Reads"), nyu, tmp_path, limit=2)
    assert record.status == "partial"
    assert sorted(table["cluster_id"].tolist()) == ["room_0", "room_1"]
    assert record.data["counts"] == {"images": 2, "groups": 2}


def test_encoders_without_a_head_are_skipped_by_suites(models: str, nyu: Path, tmp_path: Path) -> None:
    assert {c.task for c in expand_tasks(["depth"])} == {"rel_nyu", "rel_kitti"}
    assert {"rel_nyu", "rel_kitti"} <= {c.task for c in expand_tasks(["mini"])}
    blind = load(f"{models}:blind")
    assert "has no depth head" in str(fail(blind, nyu, tmp_path))
    runner = make_runner(nyu, tmp_path / "skipped")
    jobs = [make_job("rel_nyu", suite="depth")]
    runner.open(jobs)
    for encoder in (blind, load(f"{models}:Metric")):
        runner.run_model(encoder, jobs)
    assert (runner.failures, runner.results) == ([], [])
    assert ["has no depth head" in p.state or "align=depth" in p.state for p in runner.plans] == [True, True]


def test_protocols_check_their_fields() -> None:
    for fields, named in (
        ({"size": 0}, "rel_nyu.size"),
        ({"min_depth": 10}, "min_depth and max_depth"),
        ({"mask": "garg"}, "rel_nyu.mask"),
        ({"resize": "crop"}, "rel_nyu.resize"),
    ):
        with pytest.raises(UsageError, match=named):
            protocol_for("rel_nyu", "paper", fields)
    assert protocol_for("rel_nyu", "mini").hash == protocol_for("rel_nyu").hash
    assert protocol_for("rel_kitti", "mini").hash != protocol_for("rel_kitti").hash


def test_bf16_towers_are_part_of_the_protocol(models: str, nyu: Path, tmp_path: Path) -> None:
    encoder = load(f"{models}:Reads", dtype="bf16")
    assert "rel_nyu asks for a tower in fp32" in str(fail(encoder, nyu, tmp_path))
    record, _ = score(encoder, nyu, tmp_path, tower_dtype="bf16")
    assert value(record, "absrel_depth") < 5


def test_pictures_of_best_and_worst_are_written(models: str, nyu: Path, tmp_path: Path) -> None:
    record, _ = measure(load(f"{models}:Rough"), make_job("rel_nyu", force=True), nyu, tmp_path, artefacts=True)
    names = sorted(Path(a).name for a in record.artefacts)
    assert names == [f"{kind}-{turn:02d}.webp" for kind in ("best", "worst") for turn in range(3)]


def test_the_command_fits_a_head_and_every_table_says_so(cli: Cli, models: str, nyu: Path, tmp_path: Path) -> None:
    data = write_nyu(write_nyu(tmp_path / "data", 5), 6, split="train")
    head, spec = tmp_path / "head.safetensors", f"{models}:blind"
    fit = ("depth-head", "-m", spec, "--data", data, "--out", head, "--device", "cpu", "--norm", "none")
    made = cli(*fit, "--limit", 4)
    assert made.code == 0, made.err
    assert "fitted on nyuv2 train, 4 of 6 frames, subset (6 of 24231), 64 x 64" in made.out
    common = ("run", "-t", "rel_nyu", "--data", data, "--out", tmp_path / "out", "--no-artefacts", "--device", "cpu")
    answer = cli(*common, "-m", f"named={spec}?depth_head={head}")
    assert answer.code == 0, answer.err
    table = cli("table", "--results", tmp_path / "out", "--format", "md").out
    assert "fitted on nyuv2 train, 4 of 6 frames" in table
    # The pictures show disparity, so a linear map of patches must do far better than a constant.
    (_, record) = next(iter(stored(tmp_path / "out").values()))
    chance = record.metrics["rel_nyu/absrel_depth"].chance
    assert chance is not None
    assert value(record, "absrel_depth") < 0.6 * chance
    other = cli(*common, "-m", f"{spec}?size=32&depth_head={head}")
    assert other.code == 1
    assert "fitted on encoder" in other.err
    inspected = json.loads(cli("inspect", f"{spec}?depth_head={head}", "--json").out)
    assert inspected["depth_head"]["kind"] == "disparity"
    assert inspected["trial"]["outputs"]["depth"] == [1, 8, 8]
    assert cli(*fit, "--ridge", 0).code == 2
    assert cli(*fit[:4], nyu, *fit[5:]).code == 3  # no training frames there


def test_real_frames(real_data: Path, tmp_path: Path) -> None:
    """A head on a few real training frames: pretrained beats chance on real NYUv2, and the KITTI frames run."""
    from mtv.encoders.depth_head import attach_depth_head, save_depth_head
    from mtv.eval.depth_head_fit import HeadFitConfig, fit_depth_head

    weights = real_data / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    torch.set_num_threads(1)
    encoder = load(f"timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k@{weights}")
    head = fit_depth_head(encoder, real_data, HeadFitConfig(limit=12))
    assert "12 of 50 frames, subset (50 of 24231)" in head.fitted_on
    save_depth_head(tmp_path / "head.safetensors", head)
    fitted = attach_depth_head(encoder, tmp_path / "head.safetensors")
    record, table = score(fitted, real_data, tmp_path, limit=10, force=True)
    chance = record.metrics["rel_nyu/absrel_depth"].chance
    assert chance is not None
    assert value(record, "absrel_depth") < 0.9 * chance
    assert bool((table["n_pixels"] <= 238560).all())
    assert "fitted on nyuv2 train" in record.diagnosis[0]
    kitti, table = score(fitted, real_data, tmp_path, "rel_kitti", force=True)
    assert len(table["sample_id"]) == 3
    assert "depth selection" in kitti.data["label"]
