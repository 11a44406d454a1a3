"""Linear segmentation end to end: against its literal form, learnt, interrupted, on odd data and on real pictures."""

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
from segmentation_files import (
    PATCH_14,
    VOID,
    LiteralProbe,
    N,
    naive_counts,
    naive_miou,
    picture_of,
    write_camvid,
    write_toy_ade,
)

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import DataError, NumericalError, UsageError
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.heads.segmentation_training import training_windows
from mtv.eval.protocols import protocol_for
from mtv.eval.suites import expand_tasks
from mtv.probes.segmentation_stream import HeadTrainer, TokenBatch
from mtv.results import TaskResult

SHORT: dict[str, Any] = {"base": 48, "stride": 32, "epochs": None, "iters": 12, "batch": 4, "lr": (3e-3,)}
"""A training of a second, with one head."""
HEADS: dict[str, Any] = {**SHORT, "lr": (1e-4, 1e-2), "held_out": 0.25}


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 12 training and 6 test pictures of many sizes. Read only."""
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the toy of the protocol page. Read only."""
    return write_toy_ade(tmp_path_factory.mktemp("toy"))


def probe(
    encoder: Encoder, data: Path, out: Path, task: str = "camvid", *, cache: Path | None = None, **fields: Any
) -> tuple[TaskResult, Table]:
    """The task on one model, with a short training."""
    options = {k: fields.pop(k) for k in ("batch_size", "workers", "artefacts") if k in fields}
    return measure(encoder, make_job(task, "fast", **{**SHORT, **fields}), data, out, cache=cache, **options)


def failure_of(encoder: Encoder, data: Path, task: str = "camvid", *, cache: Path | None = None, **fields: Any) -> Any:
    """What the task fails with."""
    runner = make_runner(data, None, cache=cache)
    job = make_job(task, "fast", **{**SHORT, **fields})
    runner.open([job])
    if not runner.failures:
        runner.run_model(encoder, [job])
    (failure,) = runner.failures
    return failure.error


def same_tables(a: Table, b: Table) -> None:
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


def counts_of(table: Table, picture: str) -> np.ndarray:
    """3,C: I, P, G of one picture in a sample table."""
    rows = table["cluster_id"] == picture
    assert table["class"][rows].tolist() == list(range(rows.sum()))
    return np.array([table[k][rows] for k in ("intersection", "predicted", "labelled")])


@pytest.mark.parametrize("variant", ["slide", "whole", "two layers"])
def test_it_is_the_literal_probe(variant: str, request: pytest.FixtureRequest, camvid: Path, tmp_path: Path) -> None:
    """Windows, labels, order, loss, schedule, test geometry and counts, all by plain loops."""
    encoder: Encoder = request.getfixturevalue("vit_tiny" if variant == "two layers" else "tiny_encoder")
    layers, tap = ((-1, 3), "none") if variant == "two layers" else ((-1,), "final")
    infer = "whole" if variant == "whole" else "slide"
    record, table = probe(
        encoder, camvid, tmp_path, layers=layers, tap=tap, infer=infer, loss="pixel", storage="fp32", warmup=0.25
    )
    literal = LiteralProbe(encoder, crop=48, stride=32, layers=layers, norm=tap)
    literal.train(n=12, iters=12, batch=4, lr=3e-3, wd=1e-4, warmup=3)
    total = np.zeros((3, N), np.int64)
    for number in range(6):
        rgb_HW3, raw_HW = picture_of("test", number)
        expected = naive_counts(literal.predict(rgb_HW3, whole=infer == "whole"), raw_HW)
        found = counts_of(table, f"p{number:02d}")
        assert found[2].tolist() == expected[2].tolist(), "labels are scored at the size of the PNG"
        # Not one pixel differed when this was written; another rounding may move some at borders.
        assert np.abs(found - expected).sum() <= 8, number
        total += found
    assert (total[1] > 0).sum() >= 3, "a head that says one thing would prove nothing"
    assert record.metrics["camvid/miou"].value == pytest.approx(naive_miou(total), abs=1e-9)
    assert record.metrics["camvid/aacc"].value == pytest.approx(100 * total[0].sum() / total[2].sum(), abs=1e-9)
    found_classes = total[2] > 0
    recall = 100 * np.mean(total[0][found_classes] / total[2][found_classes])
    assert record.metrics["camvid/macc"].value == pytest.approx(recall, abs=1e-9)
    assert record.metrics["camvid/classes_present"].value == (total[1] + total[2] > 0).sum()
    assert record.headline is not None
    assert record.headline[0] == "camvid/miou"


def test_chance_is_the_most_frequent_training_class(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    record, table = probe(tiny_encoder, camvid, tmp_path, iters=1)
    literal = LiteralProbe(tiny_encoder, crop=48, stride=32)
    pixels = np.concatenate([literal.train_window(number)[1].numpy().ravel() for number in range(12)])
    most = int(np.bincount(pixels[pixels < VOID]).argmax())
    total = np.zeros((3, N), np.int64)
    for number in range(6):
        raw_HW = picture_of("test", number)[1]
        total += naive_counts(np.full_like(raw_HW, most), raw_HW)
    assert record.metrics["camvid/miou"].chance == pytest.approx(naive_miou(total))
    assert record.metrics["camvid/aacc"].chance == pytest.approx(100 * total[0].sum() / total[2].sum())
    assert len(table["sample_id"]) == 6 * N == len(set(table["sample_id"].tolist()))


@pytest.mark.parametrize(("loss", "infer", "batch"), [("patch", "slide", 8), ("pixel", "whole", 3)])
def test_c6_four_colours_are_learnt(
    loss: str, infer: str, batch: int, vit_tiny: Encoder, toy: Path, tmp_path: Path
) -> None:
    fields = {"base": 64, "stride": 48, "iters": 20, "lr": (1e-4, 1e-2), "held_out": 0.1}
    record, _ = probe(vit_tiny, toy, tmp_path, "ade20k", loss=loss, infer=infer, batch=batch, **fields)
    metric = record.metrics["ade20k/miou"]
    assert metric.value is not None
    assert metric.value >= 90
    assert metric.ci95 is not None
    assert metric.ci95[0] > 80
    assert metric.n_clusters == 6
    heads = record.details["heads"]
    assert [h["lr"] for h in heads] == [1e-4, 1e-2]
    assert heads[1]["held_out_miou"] > heads[0]["held_out_miou"]
    assert record.details["lr"] == 1e-2
    assert record.details["held_out_images"] == 2
    assert set(record.details["iou"]) == set(open_dataset("ade20k", toy).classes)  # type: ignore[attr-defined]
    assert record.details["iou"]["wall"] > 85
    assert record.details["iou"]["flag"] is not None
    assert record.details["iou"]["tree"] is None


def test_seeds_and_run_options(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    first, table = probe(tiny_encoder, camvid, tmp_path / "a", **HEADS)
    again, same = probe(tiny_encoder, camvid, tmp_path / "b", batch_size=1, workers=1, **HEADS)
    same_tables(table, same)
    assert again.details == first.details
    other, _ = probe(tiny_encoder, camvid, tmp_path / "c", seed=1, **HEADS)
    assert other.details["heads"] != first.details["heads"]
    assert other.key[1] != first.key[1]


class Stop(KeyboardInterrupt):
    """As if the user had pressed Ctrl-C."""


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], list[int]]:
    """Save after every step, and stop once before step `at`; returns the steps that were run since."""
    run, seen, step = [True], [], HeadTrainer.step

    def stopping(self: HeadTrainer, batch: TokenBatch) -> list[float]:
        if run[0] and self.iteration == at:
            run[0] = False
            seen.clear()
            raise Stop
        seen.append(self.iteration)
        return step(self, batch)

    monkeypatch.setattr(HeadTraining, "save_seconds", 0.0)
    monkeypatch.setattr(HeadTrainer, "step", stopping)
    return lambda: seen


def test_a_resumed_training_ends_with_the_same_bits(
    tiny_encoder: Encoder, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, table = probe(tiny_encoder, camvid, tmp_path / "a", cache=tmp_path / "c1", **HEADS)
    steps = interrupted(monkeypatch, at=7)
    with pytest.raises(Stop):
        probe(tiny_encoder, camvid, tmp_path / "b", cache=tmp_path / "c2", **HEADS)
    (state,) = (tmp_path / "c2" / "work").glob("*/segmentation_heads.pt")
    assert torch.load(state, weights_only=True)["steps"] == 7
    resumed, same = probe(tiny_encoder, camvid, tmp_path / "b", cache=tmp_path / "c2", **HEADS)
    assert steps() == [7, 8, 9, 10, 11]
    assert not state.parent.exists()
    same_tables(table, same)
    assert resumed.details == whole.details


def test_another_head_needs_no_forward_pass(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    first, _ = probe(tiny_encoder, camvid, tmp_path / "o", cache=tmp_path / "c", **HEADS)
    windows = first.details["train_windows"] + first.details["held_out_images"] + first.details["test_windows"]
    assert first.run["cache"] == {"hits": 0, "misses": windows, "stale": 0}
    second, _ = probe(tiny_encoder, camvid, tmp_path / "o", cache=tmp_path / "c", **{**HEADS, "loss": "pixel"})
    assert second.run["cache"]["misses"] == 0
    assert second.details["heads"] != first.details["heads"]
    more, _ = probe(tiny_encoder, camvid, tmp_path / "o", cache=tmp_path / "c", views=2, **HEADS)
    assert more.details["train_windows"] == 2 * first.details["train_windows"]
    assert more.run["cache"]["misses"] == first.details["train_windows"], "plain windows are reused"


def test_divergence_names_the_step_and_the_last_good_state(
    tiny_encoder: Encoder, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadTraining, "save_seconds", 0.0)
    error = failure_of(tiny_encoder, camvid, cache=tmp_path / "c", **{**HEADS, "lr": (1e-3, 1e37), "warmup": 0.0})
    assert isinstance(error, NumericalError)
    match = re.search(r"diverged at step (\d+): the head with lr 1e\+37", error.message)
    assert match, error.message
    (state,) = (tmp_path / "c" / "work").glob("*/segmentation_heads.pt")
    assert str(state) in error.message
    good = torch.load(state, weights_only=True)
    assert good["steps"] == int(match[1]) == 1
    weights = [v for head in good["parts"]["heads"]["heads"] for v in head.values()]
    assert all(bool(torch.isfinite(v).all()) for v in weights)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_out_of_range_names_file_and_value(split: str, tiny_encoder: Encoder, tmp_path: Path) -> None:
    """The quick check decodes 16 maps, spread over the split; this one is none of them."""
    data = write_camvid(tmp_path / "d", train=40, test=40)
    raw_HW = picture_of(split, 11)[1]
    raw_HW[20, 10] = 77
    save(data / "CamVid" / f"{split}annot" / "p11.png", raw_HW)
    error = failure_of(tiny_encoder, data, cache=tmp_path / "c")
    assert isinstance(error, DataError)
    assert f"{split}annot/p11.png: holds 77, which no label of this set is" in error.message
    views = failure_of(tiny_encoder, data, views=2) if split == "train" else error
    assert "holds 77" in views.message
    assert "p11" in views.message


def test_pictures_without_labels_count_nowhere(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    data = write_camvid(tmp_path / "d")
    for split, number in (("train", 3), ("test", 1)):
        raw_HW = picture_of(split, number)[1]
        save(data / "CamVid" / f"{split}annot" / f"p{number:02d}.png", np.full_like(raw_HW, VOID))
    record, table = probe(tiny_encoder, data, tmp_path / "o", artefacts=True)
    assert counts_of(table, "p01").sum() == 0
    assert sorted(Path(a).stem for a in record.artefacts) == ["best-00", "best-01", "worst-00", "worst-01"]
    for folder in ("trainannot", "testannot"):
        bare = write_camvid(tmp_path / folder)
        for path in (bare / "CamVid" / folder).iterdir():
            save(path, np.full_like(picture_of(folder[:-5], int(path.stem[1:]))[1], VOID))
        error = failure_of(tiny_encoder, bare)
        assert isinstance(error, DataError)
        assert "not a single labelled pixel" in error.message


def test_both_splits_belong_to_the_result(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    data = write_camvid(tmp_path / "d")
    before, _ = probe(tiny_encoder, data, tmp_path / "o", iters=1)
    raw_HW = picture_of("train", 5)[1]
    raw_HW[-4:] = 3
    save(data / "CamVid" / "trainannot" / "p05.png", raw_HW)
    after, _ = probe(tiny_encoder, data, tmp_path / "o", iters=1)
    assert before.data["content_sha256"] != after.data["content_sha256"]
    fewer, _ = probe(tiny_encoder, write_camvid(tmp_path / "e", train=11), tmp_path / "o", iters=1)
    assert fewer.data["fingerprint"] != before.data["fingerprint"]
    assert before.data["counts"] == {"images": 6, "train images": 12, "classes": N}
    assert before.data["label"] == "subset (6 of 233), trained on subset (12 of 367)"


def test_patch_14_keeps_the_tokens(camvid: Path, tmp_path: Path) -> None:
    path = tmp_path / "coarse.py"
    path.write_text(PATCH_14)
    encoder = load(f"python:{path}:build")
    record, _ = probe(encoder, camvid, tmp_path / "o", base=64, stride=None)
    details = record.details
    assert (details["crop"], details["stride"], details["tokens"]) == (56, 56, [4, 4])
    assert details["fit_into"] == [224, 56]
    assert details["patch_size"] == 14
    sixteen = load("timm:vit_tiny_patch16_224@random?size=64")
    other, _ = probe(sixteen, camvid, tmp_path / "o", base=64, stride=None)
    assert (other.details["crop"], other.details["tokens"]) == (64, [4, 4])
    error = failure_of(encoder, camvid, crop=64)
    assert isinstance(error, UsageError)
    assert "crop 64 is no multiple of patch 14" in error.message
    assert "56 or 70" in error.hint


def test_taps(vit_tiny: Encoder, tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    """The global token is the class token, or what the encoder has in its place."""
    for encoder in (vit_tiny, tiny_encoder):
        plain, _ = probe(encoder, camvid, tmp_path, iters=2)
        wide, _ = probe(encoder, camvid, tmp_path, iters=2, concat_global=True)
        assert plain.details["global_token"] is None
        assert wide.details["width"] == 2 * plain.details["width"] == 2 * encoder.width
        assert wide.details["head_parameters"] == 2 * 2 * encoder.width + N * (2 * encoder.width + 1)
        assert wide.details["heads"] != plain.details["heads"]
    error = failure_of(tiny_encoder, camvid, layers=(-1, 7))
    assert isinstance(error, UsageError)
    assert "layer 7 does not exist" in error.message


def test_held_out_pictures_train_no_head(camvid: Path) -> None:
    pictures = [f"p{k:02d}" for k in range(12)]
    protocol = protocol_for("camvid", "fast", {"views": 3, "held_out": 0.25})
    windows = training_windows(protocol, pictures)  # type: ignore[arg-type]
    held, trained = {p for p, _ in windows.held_out}, {p for p, _ in windows.train}
    assert len(held) == 3
    assert not held & trained
    assert held | trained == set(pictures)
    assert all(number == 0 for _, number in windows.held_out)
    assert len(windows.train) == 27 == len(set(windows.train))
    alone = training_windows(protocol_for("camvid", "fast", {"lr": "0.001"}), pictures)  # type: ignore[arg-type]
    assert (len(alone.train), len(alone.held_out)) == (12, 0)
    with pytest.raises(DataError, match="1 training pictures"):
        training_windows(protocol, pictures[:1])  # type: ignore[arg-type]
    # The full set: 1,010 of 20,210, and 6,000 iterations over the rest.
    full = training_windows(protocol_for("ade20k", "fast"), [str(k) for k in range(20_210)])  # type: ignore[arg-type]
    assert (len(full.train), len(full.held_out)) == (19_200, 1_010)


def test_limits(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    record, table = probe(tiny_encoder, camvid, tmp_path, limit=2, train_images=5, epochs=3.0, iters=None)
    assert record.status == "partial"
    assert record.data["counts"] == {"images": 2, "train images": 5, "classes": N}
    assert len(set(table["cluster_id"].tolist())) == 2
    assert record.details["iters"] == 4, "15 windows in batches of 4"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"epochs": 3.0, "iters": 5}, "camvid: give iters or epochs"),
        ({"epochs": None, "iters": None}, "camvid: give iters or epochs"),
        ({"lr": ()}, "camvid.lr must be positive"),
        ({"lr": "1e-3,-1"}, "camvid.lr must be positive"),
        ({"engine": "mmseg"}, "mmsegmentation trains one head"),
        ({"scale": "2,0.5"}, "camvid.scale needs two positive numbers in order"),
        ({"held_out": 1.0}, "camvid.held_out must be 0 to below 1"),
        ({"layers": ()}, "camvid.layers must name at least one block"),
        ({"views": 0}, "camvid.views must be at least 1, got 0"),
        ({"infer": "tta"}, "camvid.infer: 'tta' is not a valid choice of slide, whole"),
        ({"split": "train"}, "camvid.split: 'train' is not a valid choice of test, val"),
    ],
)
def test_impossible_fields_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        protocol_for("camvid", "fast", fields)


def test_presets_and_suites() -> None:
    paper: Any = protocol_for("ade20k")
    assert (paper.engine, paper.lr, paper.iters, paper.batch, paper.loss, paper.base) == (
        "mmseg", (4e-5,), 40_000, 32, "pixel", 576
    )  # fmt: skip
    assert int(paper.warmup * paper.iters) == 1_500
    fast: Any = protocol_for("ade20k", "fast")
    assert (fast.engine, fast.lr, fast.epochs, fast.wd) == ("native", (3e-4, 1e-3, 3e-3), 10, 1e-4)
    assert "ade20k" in {c.task for c in expand_tasks(["paper"])} & {c.task for c in expand_tasks(["mini"])}
    assert {c.task: c.preset for c in expand_tasks(["real"])}["camvid"] == "mini"


def test_the_miniature_world(vit_tiny: Encoder, mini_world: Path, tmp_path: Path) -> None:
    record, table = measure(vit_tiny, make_job("ade20k", "mini", base=64), mini_world, tmp_path, artefacts=True)
    metric = record.metrics["ade20k/miou"]
    assert metric.value is not None
    assert metric.chance is not None
    assert 0 < metric.value < 60
    assert "other classes" in record.data["label"]
    assert len(table["sample_id"]) == len(set(table["cluster_id"].tolist())) * record.data["counts"]["classes"]
    assert {Path(a).stem[:4] for a in record.artefacts} == {"best", "wors"}


@pytest.mark.parametrize("task", ["camvid", "nyu40"])
def test_real_pictures(task: str, vit_tiny: Encoder, real_data: Path, tmp_path: Path) -> None:
    """A few of them; random weights at a coarse grid are above the constant already."""
    fields: dict[str, Any] = {"base": 96, "limit": 6, "train_images": 12, "epochs": 20.0, "iters": None}
    record, _ = probe(vit_tiny, real_data, tmp_path, task, **{**fields, "lr": (3e-3,), "batch": 4})
    metric = record.metrics[f"{task}/miou"]
    assert metric.value is not None
    assert metric.chance is not None
    assert metric.value > metric.chance
    assert record.diagnosis == []


def test_half_precision_stays_close(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    half = probe(tiny_encoder, camvid, tmp_path / "a", storage="fp16")
    full = probe(tiny_encoder, camvid, tmp_path / "b", storage="fp32")
    moved = np.abs(half[1]["predicted"] - full[1]["predicted"]).sum()
    assert moved <= 0.02 * full[1]["labelled"].sum()
    assert half[0].key[1] != full[0].key[1]
