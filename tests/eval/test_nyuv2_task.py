"""The depth probe end to end: against its literal form, interrupted, under odd data, and on real frames."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nyu_files import (
    TEST,
    TRAIN,
    LiteralProbe,
    depth_file,
    frame,
    normalised,
    scored,
    write_frame,
    write_nyu,
)
from PIL import Image
from run_helpers import Table, make_job, make_runner, measure, same_outcome, stored

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import DataError, NumericalError
from mtv.eval.heads.depth_training import DepthTrainer, SampleOrder
from mtv.eval.heads.depth_views import frame_of, view_of
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.protocols import protocol_for
from mtv.eval.suites import expand_tasks
from mtv.probes.depth_head import DepthHead
from mtv.results import TaskResult

SHORT: dict[str, Any] = {"views": 2, "epochs": None, "steps": 8, "batch": 4, "lr": 3e-3, "loss_warmup": 3}
"""A training of a second."""


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small NYUv2. Read only."""
    return write_nyu(tmp_path_factory.mktemp("nyu"))


def probe(
    encoder: Encoder, data: Path, out: Path, preset: str = "fast", *, cache: Path | None = None, **fields: Any
) -> tuple[TaskResult, Table]:
    """The task on one model, with a short training."""
    return measure(encoder, make_job("nyuv2", preset, **{**SHORT, **fields}), data, out, cache=cache)


def names(splits: tuple[str, ...]) -> list[str]:
    """Ids in the order of the reader."""
    return sorted(n.replace("/", "/rgb_") for n in splits)


def file_of(picture: str) -> str:
    return picture.replace("/rgb_", "/")


def naive_features(encoder: Encoder, rgb_HW3: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and global token of one picture, zero-padded to the patch by hand."""
    x_13HW, patch = normalised(rgb_HW3), encoder.patch_size
    height, width = -x_13HW.shape[2] % patch, -x_13HW.shape[3] % patch
    x_13HW = F.pad(x_13HW, (width // 2, width - width // 2, height // 2, height - height // 2))
    layer = encoder.depth - 1
    norm = "none" if encoder.has_class_token else "final"
    out = encoder.features(x_13HW, layers=[layer], norm=norm, pooled=True)
    vector = out.class_token[layer] if encoder.has_class_token else out.global_token
    assert vector is not None
    return out.tokens[layer], vector


def literal_run(encoder: Encoder, data: Path, steps: int, batch: int) -> dict[str, tuple[float, float]]:
    """Picture to RMSE with and without flip averaging, by the literal form of the probe on centred crops."""
    start = DepthHead(encoder.width, seed=0)
    literal = LiteralProbe(start.weight.detach(), start.bias.detach(), steps=steps, lr=3e-3, warmup=3)
    pictures = names(TRAIN)
    inputs = []
    for picture in pictures:
        rgb_HW3, depth_HW = frame(data, "train", file_of(picture))
        cut = np.s_[9 + 1 : 9 + 1 + 83, 9 + 2 : 9 + 2 + 109]
        inputs.append((*naive_features(encoder, rgb_HW3[cut]), torch.from_numpy(depth_HW[cut]).float()[None, None]))
    order = SampleOrder(n=len(pictures), batch=batch, seed=0)
    for step in range(steps):
        rows = [row for row, _ in order.at(step)]
        literal.step(step, *(torch.cat([inputs[r][k] for r in rows]) for k in range(3)))
    out = {}
    for picture in names(TEST):
        rgb_HW3, depth_HW = frame(data, "test", file_of(picture))
        both = [naive_features(encoder, x) for x in (rgb_HW3, rgb_HW3[:, ::-1])]
        tokens, vector = (torch.cat([b[k] for b in both]) for k in range(2))
        valid = scored(depth_HW)
        errors = []
        for pair in (slice(None), [0, 0]):
            if pair == [0, 0]:
                with torch.no_grad():
                    pred = F.interpolate(literal.depth(tokens[:1], vector[:1]), size=(96, 128), mode="bilinear")
                pred_HW = pred[0, 0].double().numpy()
            else:
                pred_HW = literal.predict(tokens[pair], vector[pair], (96, 128))
            errors.append(math.sqrt(np.mean((pred_HW - depth_HW)[valid] ** 2)))
        out[picture] = (errors[0], errors[1])
    return out


@pytest.mark.parametrize("kind", ["class token", "pooled"])
def test_one_view_is_the_literal_probe_on_centred_crops(
    kind: str, vit_tiny: Encoder, tiny_encoder: Encoder, nyu: Path, tmp_path: Path
) -> None:
    encoder = vit_tiny if kind == "class token" else tiny_encoder
    record, table = probe(encoder, nyu, tmp_path, views=1, storage="fp32")
    expected = literal_run(encoder, nyu, 8, 4)
    assert table["sample_id"].tolist() == list(expected)
    np.testing.assert_allclose(table["rmse"], [e[0] for e in expected.values()], rtol=2e-4)
    np.testing.assert_allclose(table["rmse_noflip"], [e[1] for e in expected.values()], rtol=2e-4)
    assert record.headline is not None
    name, metric = record.headline
    assert (name, metric.unit, metric.higher_is_better) == ("nyuv2/rmse", "m", False)
    assert metric.value == pytest.approx(np.mean([e[0] for e in expected.values()]), rel=2e-4)
    assert record.details["feat_norm"] == ("none" if kind == "class token" else "final")
    assert (record.details["global_token"] == "class token") == (kind == "class token")


def test_the_constant_pooled_and_cached_numbers(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    record, table = probe(tiny_encoder, nyu, tmp_path)
    train = np.concatenate([frame(nyu, "train", n)[1][9:94, 9:122].ravel() for n in TRAIN])
    constant = float(np.median(train[train > 0]))
    assert record.details["constant_depth_m"] == pytest.approx(constant, abs=1e-9)
    errors, shares, squares, pixels = [], [], 0.0, 0
    for name in TEST:
        depth_HW = frame(nyu, "test", name)[1]
        truth = depth_HW[scored(depth_HW)]
        errors.append(math.sqrt(np.mean((truth - constant) ** 2)))
        shares.append(np.mean(np.maximum(truth / constant, constant / truth) < 1.25))
    metrics = record.metrics
    assert metrics["nyuv2/rmse"].chance == pytest.approx(np.mean(errors), rel=1e-6)
    assert metrics["nyuv2/delta1"].chance == pytest.approx(100 * np.mean(shares), rel=1e-6)
    for rmse, n in zip(table["rmse"], table["pixels"], strict=True):
        squares, pixels = squares + n * rmse**2, pixels + n
    assert metrics["nyuv2/rmse_pooled"].value == pytest.approx(math.sqrt(squares / pixels), rel=1e-9)
    pooled, squared = metrics["nyuv2/rmse_pooled"].ci95, metrics["nyuv2/mse_pooled"].ci95
    assert pooled is not None
    assert squared is not None
    assert pooled == pytest.approx([math.sqrt(v) for v in squared], rel=1e-3)
    assert metrics["nyuv2/rmse_cached"].value == metrics["nyuv2/rmse"].value
    assert metrics["nyuv2/abs_rel"].value == pytest.approx(100 * table["abs_rel"].mean())
    assert "nyuv2/rmse_best" not in metrics
    assert table["cluster_id"].tolist()[-2:] == ["porch_0007", "porch_0007"]
    assert table["cluster_id"][0] == table["sample_id"][0] == "attic/rgb_00011"
    assert metrics["nyuv2/rmse"].n_clusters == 4
    assert record.data["counts"] == {"images": 5, "groups": 3, "train images": 5}
    assert record.data["label"] == "subset (5 of 654), 128 x 96, trained on subset (5 of 24231)"


def test_it_learns(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    """Near is bright here: a trained head beats the constant, an untrained one does not."""
    record, _ = probe(tiny_encoder, nyu, tmp_path / "a", steps=80, lr=1e-2)
    untrained, _ = probe(tiny_encoder, nyu, tmp_path / "b", steps=5, lr=1e-9)
    metric, before = record.metrics["nyuv2/rmse"], untrained.metrics["nyuv2/rmse"]
    assert metric.value is not None
    assert metric.chance is not None
    assert before.value is not None
    assert metric.value < 0.8 * metric.chance
    assert before.value > metric.chance


def test_seeds_and_run_options(vit_tiny: Encoder, nyu: Path, tmp_path: Path) -> None:
    job = make_job("nyuv2", "fast", **SHORT)
    first, table = measure(vit_tiny, job, nyu, tmp_path / "a", cache=tmp_path / "c1")
    again, same = measure(vit_tiny, job, nyu, tmp_path / "b", cache=tmp_path / "c1")
    assert again.run["cache"]["misses"] == 0
    assert [m.value for m in again.metrics.values()] == [m.value for m in first.metrics.values()]
    np.testing.assert_array_equal(table["rmse"], same["rmse"])
    _, other = probe(vit_tiny, nyu, tmp_path / "s", cache=tmp_path / "c1", seed=1)
    assert np.abs(other["rmse"] - table["rmse"]).max() > 1e-4
    measure(vit_tiny, job, nyu, tmp_path / "w", cache=None, batch_size=7, workers=2)
    same_outcome(stored(tmp_path / "a").popitem()[1], stored(tmp_path / "w").popitem()[1], tolerance=2e-4)


class Stop(KeyboardInterrupt):
    """As if the user had pressed Ctrl-C."""


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], list[int]]:
    """Save after every step, and stop once before step `at`; returns the steps that were run since."""
    run, seen, step = [True], [], DepthTrainer.step

    def stopping(self: DepthTrainer, number: int, batch: Any) -> torch.Tensor:
        if run[0] and number == at:
            run[0] = False
            seen.clear()
            raise Stop
        seen.append(number)
        return step(self, number, batch)

    monkeypatch.setattr(HeadTraining, "save_seconds", 0.0)
    monkeypatch.setattr(DepthTrainer, "step", stopping)
    return lambda: seen


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_resumed_training_ends_with_the_same_bits(
    preset: str, tiny_encoder: Encoder, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"eval_every": 3} if preset == "paper" else {}
    whole, table = probe(tiny_encoder, nyu, tmp_path / "a", preset, cache=tmp_path / "c1", **fields)
    steps = interrupted(monkeypatch, at=5)
    with pytest.raises(Stop):
        probe(tiny_encoder, nyu, tmp_path / "b", preset, cache=tmp_path / "c2", **fields)
    (state,) = (tmp_path / "c2" / "work").glob("*/depth_head.pt")
    assert torch.load(state, weights_only=True)["steps"] == 5
    resumed, same = probe(tiny_encoder, nyu, tmp_path / "b", preset, cache=tmp_path / "c2", **fields)
    assert steps() == [5, 6, 7]
    assert not state.parent.exists()
    for name, values in table.items():
        np.testing.assert_array_equal(values, same[name], err_msg=name)
    assert resumed.details == whole.details


def test_another_data_set_does_not_inherit_the_state(
    tiny_encoder: Encoder, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = interrupted(monkeypatch, at=5)
    with pytest.raises(Stop):
        probe(tiny_encoder, nyu, tmp_path / "b", cache=tmp_path / "c")
    data = write_nyu(tmp_path / "d")
    write_frame(data, "train", TRAIN[0], seed=999)
    probe(tiny_encoder, data, tmp_path / "b", cache=tmp_path / "c")
    assert steps() == list(range(8))


def test_a_broken_state_is_named(tiny_encoder: Encoder, nyu: Path, tmp_path: Path, monkeypatch: Any) -> None:
    interrupted(monkeypatch, at=5)
    with pytest.raises(Stop):
        probe(tiny_encoder, nyu, tmp_path / "b", cache=tmp_path / "c")
    (state,) = (tmp_path / "c" / "work").glob("*/depth_head.pt")
    state.write_bytes(state.read_bytes()[:1000])
    runner = make_runner(nyu, None, cache=tmp_path / "c")
    job = make_job("nyuv2", "fast", **SHORT)
    runner.open([job])
    runner.run_model(tiny_encoder, [job])
    (failure,) = runner.failures
    assert str(state) in failure.message
    assert "Delete this file" in failure.message


def failure_of(encoder: Encoder, data: Path, cache: Path | None = None, **fields: Any) -> Exception:
    """What the task fails with."""
    runner = make_runner(data, None, cache=cache)
    job = make_job("nyuv2", fields.pop("preset", "fast"), **{**SHORT, **fields})
    runner.open([job])
    if not runner.failures:
        runner.run_model(encoder, [job])
    (failure,) = runner.failures
    return failure.error


def test_divergence_names_the_step_and_the_last_good_state(
    tiny_encoder: Encoder, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadTraining, "save_seconds", 0.0)
    error = failure_of(tiny_encoder, nyu, tmp_path / "c", lr=1e37)
    assert isinstance(error, NumericalError)
    assert "diverged at step" in error.message
    step = int(error.message.split("diverged at step ")[1].split(":")[0])
    (state,) = (tmp_path / "c" / "work").glob("*/depth_head.pt")
    assert str(state) in error.message
    good = torch.load(state, weights_only=True)
    assert good["steps"] == step
    assert all(bool(torch.isfinite(v).all()) for v in good["parts"]["head"].values())


def test_online_without_augmentation_is_cached_without_views(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    """With a random crop as large as the fixed one nothing is drawn, so both ways train on the same features."""
    fields = {"random_crop": (427, 565), "storage": "fp32", "train_limit": None, "eval_every": 5}
    plain = {"rotate": 0.0, "flip": 0.0, "colour": 0.0}
    online, table = probe(tiny_encoder, nyu, tmp_path / "a", "paper", **fields, **plain)
    _, cached = probe(tiny_encoder, nyu, tmp_path / "b", "fast", views=1, **fields)
    for key in ("rmse", "abs_rel", "silog", "rmse_noflip", "rmse_best"):
        np.testing.assert_allclose(table[key], cached[key], rtol=1e-4, err_msg=key)
    curve = online.details["curve"]
    assert [c["step"] for c in curve] == [5, 8]
    best = min(curve, key=lambda c: c["abs_rel"])
    assert online.details["best_step"] == best["step"]
    assert online.metrics["nyuv2/rmse_best"].value == pytest.approx(best["rmse"])
    assert online.metrics["nyuv2/rmse"].value == pytest.approx(curve[-1]["rmse"])
    assert online.metrics["nyuv2/rmse"].headline
    assert not online.metrics["nyuv2/rmse_best"].headline
    assert "nyuv2/rmse_cached" not in online.metrics


def test_augmentation_changes_the_number(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    runs = {}
    for name, fields in {"all": {}, "none": {"rotate": 0.0, "flip": 0.0, "colour": 0.0}}.items():
        runs[name] = probe(tiny_encoder, nyu, tmp_path / name, "paper", **fields)[1]["rmse"]
    assert np.abs(runs["all"] - runs["none"]).max() > 1e-4


def test_views_are_crops_of_the_frame_and_half_are_mirrored(nyu: Path) -> None:
    protocol = protocol_for("nyuv2", "fast")
    geometry = frame_of(protocol, (640, 480))  # type: ignore[arg-type]
    views = [view_of(geometry, seed=0, picture="a/b", number=n) for n in range(40)]
    assert (views[0].top, views[0].left, views[0].flip) == (5, 10, False)
    assert [v.flip for v in views] == [n % 2 == 1 for n in range(40)]
    assert {v.top for v in views} <= set(range(12))
    assert {v.left for v in views} <= set(range(22))
    assert len({(v.top, v.left) for v in views}) > 30
    assert views != [view_of(geometry, seed=1, picture="a/b", number=n) for n in range(40)]
    ramp_HW = np.arange(427 * 565).reshape(427, 565)
    for v in views[:4]:
        part = v.cut(ramp_HW, geometry)
        assert part.shape == (416, 544)
        corner = part[0, -1] if v.flip else part[0, 0]
        assert corner == v.top * 565 + v.left


def test_every_epoch_sees_every_picture_once() -> None:
    order = SampleOrder(n=5, batch=4, seed=3)
    row = [pair for step in range(10) for pair in order.at(step)]
    for epoch in range(8):
        part = row[5 * epoch : 5 * epoch + 5]
        assert sorted(i for i, _ in part) == list(range(5))
        assert {e for _, e in part} == {epoch}
    assert len({tuple(i for i, _ in row[5 * e : 5 * e + 5]) for e in range(8)}) > 4


def test_frames_without_depth(tiny_encoder: Encoder, tmp_path: Path) -> None:
    data = write_nyu(tmp_path / "d")
    for split, name in (("train", TRAIN[1]), ("train", TRAIN[2]), ("test", TEST[1])):
        path = depth_file(data, split, name)
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    record, table = probe(tiny_encoder, data, tmp_path / "o", chunk=1)
    pairs = [row for step in range(8) for row, _ in SampleOrder(n=5, batch=4, seed=0).at(step)]
    assert record.details["chunks_without_depth"] == sum(row in (1, 2) for row in pairs)
    assert record.details["n_empty"] == 1
    empty = table["sample_id"] == "attic/rgb_00012"
    assert table["scored"].tolist() == (~empty).tolist()
    assert np.isnan(table["rmse"][empty]).all()
    assert record.metrics["nyuv2/rmse"].value == pytest.approx(table["rmse"][~empty].mean())
    assert record.metrics["nyuv2/rmse"].n == 4


@pytest.mark.parametrize("split", ["train", "test"])
def test_depth_of_another_size_is_refused(split: str, tiny_encoder: Encoder, tmp_path: Path) -> None:
    data = write_nyu(tmp_path)
    path = depth_file(data, split, (TRAIN if split == "train" else TEST)[1])
    Image.fromarray(np.asarray(Image.open(path))[:-1]).save(path)
    error = failure_of(tiny_encoder, data)
    assert isinstance(error, DataError)
    assert path.name in str(error)


def test_a_picture_in_both_lists_is_refused(tiny_encoder: Encoder, tmp_path: Path) -> None:
    data = write_nyu(tmp_path)
    write_frame(data, "train", TEST[2], seed=1)
    with (data / "nyuv2" / "nyu_train.txt").open("a") as f:
        name = TEST[2]
        f.write(f"\n{name.replace('/', '/rgb_')}.png {name.replace('/', '/sync_depth_')}.png 518.8579")
    error = failure_of(tiny_encoder, data)
    assert isinstance(error, DataError)
    assert "bath/rgb_00013" in str(error)


def test_train_bytes_belong_to_the_result(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    data = write_nyu(tmp_path / "d")
    first, _ = probe(tiny_encoder, data, tmp_path / "o", cache=tmp_path / "c")
    write_frame(data, "train", TRAIN[0], seed=999)
    second, _ = probe(tiny_encoder, data, tmp_path / "o2", cache=tmp_path / "c")
    assert first.data["content_sha256"] != second.data["content_sha256"]
    assert first.data["fingerprint"] == second.data["fingerprint"]
    assert second.run["cache"]["misses"] == 2
    fewer = write_nyu(tmp_path / "e", train=TRAIN[:4])
    third, _ = probe(tiny_encoder, fewer, tmp_path / "o3")
    assert third.data["fingerprint"] != first.data["fingerprint"]


PATCH14 = """
import torch
from torch import nn


class Fourteen(nn.Module):
    patch_size = 14
    size = 56

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patch = nn.Conv2d(3, 16, 14, 14)

    def forward(self, x):
        return self.patch(x)


def build():
    return Fourteen().eval()
"""


def test_patch_14_pads(nyu: Path, tmp_path: Path) -> None:
    (tmp_path / "fourteen.py").write_text(PATCH14)
    record, _ = probe(load(f"python:{tmp_path / 'fourteen.py'}:build"), nyu, tmp_path / "o")
    assert record.details["input"] == {"size": [96, 128], "padded": [98, 140], "tokens": [7, 10]}
    assert record.details["train_input"] == {"size": [83, 109], "padded": [84, 112], "tokens": [6, 8]}
    assert record.details["global_token"] == "mean of the dense map"


def test_another_head_needs_no_forward_pass(
    tiny_encoder: Encoder, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, forward = [], type(tiny_encoder).forward_features

    def counted(self: Encoder, images_B3HW: torch.Tensor, **kwargs: Any) -> Any:
        passes.append(len(images_B3HW))
        return forward(self, images_B3HW, **kwargs)

    monkeypatch.setattr(type(tiny_encoder), "forward_features", counted)
    first, _ = probe(tiny_encoder, nyu, tmp_path / "a", cache=tmp_path / "c")
    assert sum(passes) == 2 * len(TRAIN) + 2 * len(TEST), "two views, and every test picture with its mirror image"
    passes.clear()
    second, _ = probe(tiny_encoder, nyu, tmp_path / "b", cache=tmp_path / "c", spacing="log", steps=9, lr=1e-3)
    assert passes == []
    assert second.metrics["nyuv2/rmse"].value != first.metrics["nyuv2/rmse"].value


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_without_any_depth_is_refused(split: str, tiny_encoder: Encoder, tmp_path: Path) -> None:
    data = write_nyu(tmp_path)
    for name in TRAIN if split == "train" else TEST:
        path = depth_file(data, split, name)
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    error = failure_of(tiny_encoder, data)
    assert isinstance(error, DataError)
    assert f"nyuv2 ({split})" in str(error)
    assert "5 of 5 decoded depth maps hold no depth at all" in str(error)


def test_frames_smaller_than_the_crop_keep_its_share(tiny_encoder: Encoder, tmp_path: Path) -> None:
    record, table = probe(tiny_encoder, write_nyu(tmp_path / "d", size=(24, 18)), tmp_path / "o")
    assert record.details["train_input"]["size"] == [round(18 * 416 / 480), round(24 * 544 / 640)]
    assert (table["pixels"] <= (round(18 * 471 / 480) - round(18 * 45 / 480)) * 22).all()
    assert np.isfinite(table["rmse"]).all()


def test_limits_and_epochs(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    record, table = probe(tiny_encoder, nyu, tmp_path, limit=3, train_limit=4, epochs=2.5, batch=2)
    assert len(table["rmse"]) == 3
    assert record.status == "partial"
    assert record.data["counts"] == {"images": 3, "groups": 3, "train images": 4}
    assert (record.details["steps"], record.details["epochs"]) == (5, 2.5)


def test_pictures_of_the_best_and_the_worst(tiny_encoder: Encoder, nyu: Path, tmp_path: Path) -> None:
    measure(tiny_encoder, make_job("nyuv2", "fast", **SHORT), nyu, tmp_path, artefacts=True)
    shown = sorted(p.stem for p in tmp_path.rglob("*") if p.suffix in (".jpg", ".png", ".webp"))
    assert [s for s in shown if s.startswith(("best", "worst"))] == ["best-00", "best-01", "worst-00", "worst-01"]


def test_presets_and_suites() -> None:
    assert protocol_for("nyuv2", "paper").hash == protocol_for("nyuv2", "fit3d").hash
    hashes = {protocol_for("nyuv2", p).hash for p in ("paper", "fast", "mini")}
    assert len(hashes) == 3
    paper = json.loads(json.dumps(protocol_for("nyuv2").params))
    assert (paper["steps"], paper["batch"], paper["chunk"], paper["eval_every"]) == (38_400, 16, 2, 6_400)
    chosen = {s: {c.task: c.preset for c in expand_tasks([s])}["nyuv2"] for s in ("paper", "real", "mini")}
    assert chosen == {"paper": "paper", "real": "fast", "mini": "mini"}


def test_real_frames(vit_tiny: Encoder, real_data: Path, tmp_path: Path) -> None:
    """A few real frames at their full size: pixels of Eigen's crop, and errors of the right magnitude."""
    record, table = probe(vit_tiny, real_data, tmp_path, views=1, limit=3, train_limit=3, steps=6, batch=2)
    assert (table["pixels"] <= 238_560).all()
    assert (table["pixels"] > 200_000).all()
    assert record.details["input"]["tokens"] == [30, 40]
    assert record.details["train_input"] == {"size": [416, 544], "padded": [416, 544], "tokens": [26, 34]}
    assert 0.3 < record.metrics["nyuv2/rmse"].value < 6  # type: ignore[operator]
    assert "filled" in record.data["label"]
