"""`engine=mmseg` through the runner: learnt, interrupted, on odd data, beside the native engine, and refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_files import save
from run_helpers import Table, make_job, make_runner, measure
from segmentation_files import PATCH_14, VOID, N, picture_of, write_camvid, write_toy_ade

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import DataError, MtvError, NumericalError, UsageError
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.mmseg import installed as door
from mtv.results import TaskResult

pytest.importorskip("mmseg", reason="mmsegmentation is not installed: pip install mtv[mmseg]")

from mmengine.optim import OptimWrapper

SHORT: dict[str, Any] = {"crop": 48, "stride": 32, "iters": 8, "batch": 4, "lr": (3e-3,)}
"""A training of a second."""


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 12 training and 6 test pictures of many sizes. Read only."""
    return write_camvid(tmp_path_factory.mktemp("camvid"))


def probe(
    encoder: Encoder, data: Path, out: Path, task: str = "camvid", *, cache: Path | None = None, **fields: Any
) -> tuple[TaskResult, Table]:
    """Protocol `paper`, shortened."""
    options = {k: fields.pop(k) for k in ("workers", "artefacts") if k in fields}
    return measure(encoder, make_job(task, "paper", **{**SHORT, **fields}), data, out, cache=cache, **options)


def failure_of(encoder: Encoder, data: Path, *, cache: Path | None = None, **fields: Any) -> MtvError:
    """What the task fails with."""
    runner = make_runner(data, None, cache=cache)
    job = make_job("camvid", "paper", **{**SHORT, **fields})
    runner.open([job])
    if not runner.failures:
        runner.run_model(encoder, [job])
    (failure,) = runner.failures
    assert isinstance(failure.error, MtvError), failure.error
    return failure.error


def same(a: tuple[TaskResult, Table], b: tuple[TaskResult, Table]) -> None:
    assert a[0].details == b[0].details
    for name, values in a[1].items():
        np.testing.assert_array_equal(values, b[1][name], err_msg=name)


class Stop(KeyboardInterrupt):
    """As if the user had pressed Ctrl-C."""


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Save after every step, and stop once before step `at`; returns how many steps were run since."""
    run, seen, step = [True], [0], OptimWrapper.update_params

    def stopping(self: Any, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        if run[0] and seen[0] == at:
            run[0], seen[0] = False, 0
            raise Stop
        seen[0] += 1
        step(self, loss, *args, **kwargs)

    monkeypatch.setattr(HeadTraining, "save_seconds", 0.0)
    monkeypatch.setattr(OptimWrapper, "update_params", stopping)
    return lambda: seen[0]


def test_the_miniature_world_interrupted_and_resumed(
    vit_tiny: Encoder, mini_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in three parts (in training, in the test), and with worker processes: the same bits."""
    fields = {**SHORT, "crop": 64, "stride": 48, "warmup": 0.25, "limit": 4, "train_images": 6, "batch": 2}
    whole = probe(vit_tiny, mini_world, tmp_path / "a", "ade20k", artefacts=True, **fields)
    from mtv.eval.mmseg import scoring  # needs mmsegmentation, which the engine has imported its way by now

    record, table = whole
    metric = record.metrics["ade20k/miou"]
    assert metric.value is not None
    assert metric.value == pytest.approx(record.details["miou_mmseg"], abs=0.01)
    assert metric.ci95 is not None
    assert metric.n_clusters == record.data["counts"]["images"] > 3
    assert "other classes" in record.data["label"]
    assert table["intersection"].dtype == np.int64
    assert {Path(a).stem[:4] for a in record.artefacts} == {"best", "wors"}
    steps = interrupted(monkeypatch, at=5)
    with pytest.raises(Stop):
        probe(vit_tiny, mini_world, tmp_path / "b", "ade20k", cache=tmp_path / "c", **fields)
    (state,) = (tmp_path / "c" / "work").glob("*/mmseg_head.pt")
    loaded = torch.load(state, weights_only=True)
    assert loaded["steps"] == 5
    assert state.stat().st_size < 1e6, "the encoder is not in it"
    predict = scoring.predict
    monkeypatch.setattr(scoring, "predict", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        probe(vit_tiny, mini_world, tmp_path / "b", "ade20k", cache=tmp_path / "c", workers=2, **fields)
    assert steps() == 3
    monkeypatch.setattr(scoring, "predict", predict)
    resumed = probe(vit_tiny, mini_world, tmp_path / "b", "ade20k", cache=tmp_path / "c", workers=2, **fields)
    assert steps() == 3, "nothing is left to train"
    assert not state.parent.exists()
    same(whole, resumed)


def test_c6_four_colours_are_learnt(vit_tiny: Encoder, tmp_path: Path) -> None:
    data = write_toy_ade(tmp_path)
    fields = {"crop": 64, "stride": 48, "iters": 20, "batch": 6, "lr": (1e-2,)}
    record, _ = probe(vit_tiny, data, tmp_path / "o", "ade20k", **fields)
    metric = record.metrics["ade20k/miou"]
    assert metric.value is not None
    assert metric.value >= 90
    details = record.details
    assert details["engine"] == "mmseg"
    assert details["iou"]["wall"] > 85
    assert details["iou"]["tree"] is None
    assert details["head_parameters"] == 2 * 192 + 150 * 193
    assert (details["final_lr"], details["iters"], details["epochs"]) == (0, 20, 7.5)
    assert details["mmseg"] == door.installed().record()
    assert "patch_rule" not in details
    assert metric.chance is not None
    assert metric.chance < 15


def test_whole_inference_every_second_setting_and_seeds(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    fields = {
        "infer": "whole", "bn": False, "loss_mean": "valid", "concat_global": True, "colour": 0.0, "wd": 0.1,
        "warmup": 0.0, "iters": None, "epochs": 2.0,
    }  # fmt: skip
    first = probe(tiny_encoder, camvid, tmp_path / "a", **fields)
    assert first[0].details["iters"] == 6
    assert first[0].details["width"] == 2 * tiny_encoder.width
    assert first[0].details["head_parameters"] == N * (2 * tiny_encoder.width + 1)
    same(first, probe(tiny_encoder, camvid, tmp_path / "b", workers=1, **fields))
    other = probe(tiny_encoder, camvid, tmp_path / "c", seed=1, **fields)
    assert other[0].details["final_loss"] != first[0].details["final_loss"]


def test_labels_are_scored_at_the_size_of_the_png(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    """T3, and ignored pixels count nowhere."""
    _, table = probe(tiny_encoder, camvid, tmp_path, iters=1)
    for number in range(6):
        raw_HW = picture_of("test", number)[1]
        rows = table["cluster_id"] == f"p{number:02d}"
        assert table["labelled"][rows].tolist() == np.bincount(raw_HW[raw_HW != VOID], minlength=N).tolist()
        assert table["predicted"][rows].sum() == table["labelled"][rows].sum()


def test_patch_14_keeps_the_tokens_and_says_so(camvid: Path, tmp_path: Path) -> None:
    path = tmp_path / "coarse.py"
    path.write_text(PATCH_14)
    encoder = load(f"python:{path}:build")
    record, _ = probe(encoder, camvid, tmp_path / "o", crop="auto", base=64, stride=None, iters=2)
    details = record.details
    assert (details["crop"], details["stride"], details["tokens"]) == (56, 56, [4, 4])
    assert details["fit_into"] == [224, 56]
    assert details["patch_rule"] == (
        "patch 14: windows of 56 instead of 64 pixels, a multiple of the patch with the tokens of patch 16"
    )
    error = failure_of(encoder, camvid, crop=64)
    assert isinstance(error, UsageError)
    assert "crop 64 is no multiple of patch 14" in error.message


def test_divergence_names_the_step_and_the_last_good_state(
    tiny_encoder: Encoder, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadTraining, "save_seconds", 0.0)
    step, count = OptimWrapper.update_params, [0]

    def poisoned(self: Any, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        step(self, loss, *args, **kwargs)
        count[0] += 1
        if count[0] == 4:
            self.optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(OptimWrapper, "update_params", poisoned)
    error = failure_of(tiny_encoder, camvid, cache=tmp_path / "c")
    assert isinstance(error, NumericalError)
    (state,) = (tmp_path / "c" / "work").glob("*/mmseg_head.pt")
    assert "training of mmseg_head diverged at step 3" in error.message
    assert f"the last good state, after 3 steps, is {state}" in error.message
    good = torch.load(state, weights_only=True)
    assert all(bool(torch.isfinite(v).all()) for v in good["parts"]["head"].values())
    steep = failure_of(tiny_encoder, camvid, lr=(1e37,), warmup=0.0)
    assert isinstance(steep, NumericalError)
    assert re.search(r"diverged at step \d", steep.message)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_named(split: str, workers: int, tiny_encoder: Encoder, tmp_path: Path) -> None:
    data = write_camvid(tmp_path / "d")
    path = data / "CamVid" / split / "p05.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    job, runner = make_job("camvid", "paper", **{**SHORT, "iters": 3}), make_runner(data, None, workers=workers)
    runner.open([job])
    runner.run_model(tiny_encoder, [job])
    (failure,) = runner.failures
    assert isinstance(failure.error, DataError)
    assert f"{split}/p05.png: no readable image" in failure.message
    assert "Traceback" not in failure.message


def test_a_label_out_of_range_and_no_label_at_all(tiny_encoder: Encoder, tmp_path: Path) -> None:
    data = write_camvid(tmp_path / "d", train=40, test=2)
    raw_HW = picture_of("train", 11)[1]
    raw_HW[20, 10] = 77
    save(data / "CamVid" / "trainannot" / "p11.png", raw_HW)
    error = failure_of(tiny_encoder, data)
    assert isinstance(error, DataError)
    assert "trainannot/p11.png: holds 77, which no label of this set is" in error.message
    bare = write_camvid(tmp_path / "e")
    for path in (bare / "CamVid" / "trainannot").iterdir():
        save(path, np.full_like(picture_of("train", int(path.stem[1:]))[1], VOID))
    assert "not a single labelled pixel" in failure_of(tiny_encoder, bare).message


def test_tokens_that_are_not_finite(tiny: str, camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training the loss tells, in the test the tokens."""
    encoder = load(f"{tiny}:build")
    bias = encoder.module.get_parameter("mix.bias")
    step = OptimWrapper.update_params

    def spoil(self: Any, *args: Any, **kwargs: Any) -> None:
        step(self, *args, **kwargs)
        bias.data.fill_(float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(OptimWrapper, "update_params", spoil)
        error = failure_of(encoder, camvid, iters=1)
    assert isinstance(error, NumericalError)
    assert "in a test window of" in error.message
    bias.data.fill_(float("nan"))
    error = failure_of(encoder, camvid)
    assert isinstance(error, NumericalError)
    assert "diverged at step 0: the loss is nan" in error.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss": "patch"}, "camvid.loss=patch does not go with engine=mmseg"),
        ({"views": 2}, "camvid.views=2 does not go with engine=mmseg"),
        ({"colour": 0.3}, "camvid.colour=0.3 does not go with engine=mmseg"),
        ({"hue": 0}, "camvid.hue=0 does not go with engine=mmseg"),
        ({"tower_dtype": "bf16"}, "camvid asks for a tower in bf16"),
    ],
)
def test_what_it_cannot_do_is_refused(fields: dict[str, Any], said: str, tiny_encoder: Encoder, camvid: Path) -> None:
    error = failure_of(tiny_encoder, camvid, **fields)
    assert isinstance(error, UsageError)
    assert said in error.message


def test_without_the_extra_only_this_task_fails(
    tiny_encoder: Encoder, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_version", lambda name: None)
    jobs = [make_job("camvid", "paper", **SHORT), make_job("camvid", "fast", base=48, stride=32, epochs=1.0)]
    runner = make_runner(camvid, tmp_path)
    runner.open(jobs)
    runner.run_model(tiny_encoder, jobs)
    (failure,) = runner.failures
    assert isinstance(failure.error, UsageError)
    assert "pip install mtv[mmseg]" in failure.message
    assert "--protocol fast" in failure.message
    assert runner.exit_code == 1
    assert [r.status for r in runner.results] == ["failed", "complete"]
