"""Our parts inside mmsegmentation against ours outside of it and against its own: head, loss, metric, samples, loop."""

from __future__ import annotations

import os
import random
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_files import write_camvid, write_toy_ade
from torch import nn

from mtv.encoders.base import Encoder
from mtv.errors import MtvError, NumericalError
from mtv.eval.heads.segmentation_pair import SegmentationPair, open_pair
from mtv.eval.heads.segmentation_tap import resolve_tap
from mtv.eval.heads.segmentation_views import geometry_of
from mtv.eval.mmseg import installed as door
from mtv.eval.protocols import protocol_for
from mtv.probes.segmentation_head import HeadConfig, LinearHead
from mtv.probes.segmentation_loss import pixel_loss
from mtv.probes.segmentation_metric import count_areas, score_areas, sum_areas

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # one about ops that are not compiled
    pytest.importorskip("mmseg.models", reason="mmsegmentation is not installed: pip install mtv[mmseg]")
    from mmengine.dataset import DefaultSampler, pseudo_collate
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner
    from mmengine.visualization import Visualizer
    from mmseg.evaluation import IoUMetric
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg_agreement import labelled
    from torch.utils.data import DataLoader

from mtv.eval.mmseg import config, scoring
from mtv.eval.mmseg.loading import Samples
from mtv.eval.mmseg.parts import MtvLinearHead, seeded
from mtv.eval.mmseg.training import train_head

pytestmark = [
    pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore`` is False"),
]

WIDTH, CLASSES, PATCH = 32, 20, 16


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with pictures of many sizes. Read only."""
    return write_camvid(tmp_path_factory.mktemp("camvid"))


def opened(data: Path, **fields: Any) -> tuple[Any, SegmentationPair]:
    """Protocol and pictures."""
    values = {"crop": 48, "stride": 32, "iters": 6, "batch": 4, "lr": (1e-3,), **fields}
    p: Any = protocol_for("camvid", "paper", values)
    return p, open_pair(p, data)


def setup_of(p: Any, patch: int = 8) -> config.Setup:
    return config.Setup(protocol=p, geometry=geometry_of(p, patch), iters=p.iters)


def heads(bn: bool = True, mean: str = "all") -> tuple[MtvLinearHead, LinearHead]:
    """Both forms; the weights made large, so that classes differ."""
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": mean == "valid"}
    theirs = MtvLinearHead(width=WIDTH, num_classes=CLASSES, bn=bn, seed=3, loss_decode=loss)
    ours = LinearHead(HeadConfig(width=WIDTH, n_classes=CLASSES, bn=bn), seed=3)
    assert torch.equal(theirs.conv_seg.weight, ours.conv.weight)
    assert sum(x.numel() for x in theirs.parameters()) == sum(x.numel() for x in ours.parameters())
    with torch.no_grad():
        for weight in (theirs.conv_seg.weight, ours.conv.weight):
            weight.mul_(30)
    return theirs, ours


def drawn(g: torch.Generator, batch: int = 4, ignored: float = 0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps and labels; the first picture has fewer labels than the others."""
    labels = torch.randint(0, CLASSES, (batch, 6 * PATCH, 7 * PATCH), generator=g)
    labels[torch.rand(labels.shape, generator=g) < ignored] = 255
    labels[0, : 5 * PATCH] = 255
    return torch.randn(batch, WIDTH, 6, 7, generator=g), labels


@pytest.mark.parametrize("bn", [True, False])
@pytest.mark.parametrize("mean", ["all", "valid"])
def test_head_values_and_gradients_are_those_of_both_sides(bn: bool, mean: str) -> None:
    """Against our head and loss, and against mmsegmentation's own loss over the whole batch."""
    theirs, ours = heads(bn, mean)
    x, labels = drawn(torch.Generator().manual_seed(0))
    found = {}
    for name in ("mtv", "stock", "ours"):
        model: nn.Module = ours if name == "ours" else theirs
        model.train().zero_grad()
        if name == "ours":
            loss = pixel_loss(ours(x), labels, mean=mean)  # type: ignore[arg-type]
        elif name == "mtv":
            loss = theirs.loss([x], labelled(labels), {})["loss_ce"]
        else:
            loss = BaseDecodeHead.loss_by_feat(theirs, theirs([x]), labelled(labels))["loss_ce"]
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found[name] = loss.item(), sorted(gradients, key=lambda t: (t.ndim, float(t.abs().sum())))
    for name in ("stock", "ours"):
        assert found["mtv"][0] == pytest.approx(found[name][0], rel=1e-6)
        assert len(found["mtv"][1]) == len(found[name][1]) == (4 if bn else 2)
        for a, b in zip(found["mtv"][1], found[name][1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)
    theirs.eval(), ours.eval()
    if bn:
        # theirs has seen the batch twice
        ours.norm.load_state_dict(theirs.norm.state_dict())  # type: ignore[union-attr]
    assert torch.equal(theirs([x]), ours(x))


def test_a_batch_without_labels_has_no_gradient() -> None:
    theirs, _ = heads(mean="valid")
    x, labels = drawn(torch.Generator().manual_seed(0))
    loss = theirs.loss([x], labelled(torch.full_like(labels, 255)), {})["loss_ce"]
    loss.backward()
    assert loss.item() == 0
    assert not theirs.conv_seg.weight.grad.any()


@pytest.mark.parametrize("seed", range(4))
def test_both_metrics_agree(seed: int) -> None:
    """Random predictions with many ignored pixels, classes that never occur, and a picture without labels."""
    g = torch.Generator().manual_seed(seed)
    metric, stock = scoring.build_metric([str(c) for c in range(CLASSES)]), IoUMetric(iou_metrics=["mIoU"])
    stock.dataset_meta = metric.dataset_meta
    parts = []
    for number in range(5):
        _, labels = drawn(g, batch=1, ignored=1.0 if number == 2 else 0.4)
        wild = torch.randint(0, CLASSES - 3, labels.shape, generator=g)
        predicted = torch.where(torch.rand(labels.shape, generator=g) < 0.6, labels % 255 % CLASSES, wild)
        sample = {"pred_sem_seg": {"data": predicted}, "gt_sem_seg": {"data": labels}}
        for m in (metric, stock):
            m.process({}, [sample])
        parts.append(count_areas(predicted[0], labels[0], CLASSES))
    score = score_areas(sum_areas(parts, CLASSES))
    assert [a.intersection_C.tolist() for a in metric.areas] == [a.intersection_C.tolist() for a in parts]
    with door.quiet():
        figures = {k: float(v) for k, v in stock.compute_metrics(stock.results).items()}
        assert {k: float(v) for k, v in metric.compute_metrics(metric.results).items()} == figures
    for name, value in (("mIoU", score.miou), ("mAcc", score.macc), ("aAcc", score.aacc)):
        assert figures[name] == pytest.approx(value, abs=0.01)
    total = sum_areas(metric.areas, CLASSES)
    scoring.check_agreement(total, figures)
    with pytest.raises(NumericalError, match=r"mIoU is \d+\.\d{4} by our counts, and .* by mmsegmentation"):
        scoring.check_agreement(total, {**figures, "mIoU": score.miou + 0.02})
    with pytest.raises(NumericalError, match="mAcc"):
        scoring.check_agreement(total, {**figures, "mAcc": float("nan")})


def same_samples(a: dict[str, list[Any]], b: dict[str, list[Any]]) -> None:
    for x, y in zip(a["inputs"], b["inputs"], strict=True):
        assert torch.equal(x, y)
    for s, t in zip(a["data_samples"], b["data_samples"], strict=True):
        assert torch.equal(s.gt_sem_seg.data, t.gt_sem_seg.data)


def test_a_training_sample_is_a_function_of_its_number(camvid: Path) -> None:
    """Whatever was drawn before, in whichever process; the generators of the process are left alone."""
    p, pair = opened(camvid)
    windows = config.build_windows(setup_of(p), pair.train)
    assert len(windows) == 24
    state = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    with Samples(windows, 0) as samples:
        whole = [samples.read(step * 4, 4) for step in range(6)]
    assert np.array_equal(state[0], np.random.get_state()[1])
    assert state[1] == random.getstate()
    assert torch.equal(state[2], torch.get_rng_state())
    np.random.seed(1)
    with Samples(windows, 2) as samples:
        for step in (3, 4, 5):
            same_samples(samples.read(step * 4, 4), whole[step])
    assert len({x.numpy().tobytes() for batch in whole for x in batch["inputs"]}) == 24, "no sample is like another"
    other = config.build_windows(setup_of(opened(camvid, seed=1)[0]), pair.train)
    with Samples(other, 0) as samples:
        assert not torch.equal(samples.read(0, 4)["inputs"][0], whole[0]["inputs"][0])
    with seeded(5):
        a = random.random(), np.random.rand()
    with seeded(5):
        assert (random.random(), np.random.rand()) == a


class _Deadly:
    """A step that ends its process."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        os._exit(1)


def test_a_worker_that_dies_is_told(camvid: Path) -> None:
    p, pair = opened(camvid)
    windows = config.build_windows(setup_of(p), pair.train)
    windows.pipeline.transforms.append(_Deadly())
    with Samples(windows, 1) as samples, pytest.raises(MtvError, match=r"a loader process died .* exited unexpectedly"):
        samples.read(0, 4)


def test_pixels_reach_the_encoder_in_rgb_and_padded_after_normalisation(
    tiny_encoder: Encoder, camvid: Path, tmp_path: Path
) -> None:
    """T7: red is channel 0; padding is zero and has no label; labels are mapped once (void 11 to 255)."""
    p, pair = opened(camvid, scale=(0.5, 0.5), colour=0.0, flip=0.0)
    key = next(iter(pair.train.images))
    red = np.zeros((*pair.train.sizes[key][::-1], 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    object.__setattr__(pair.train.images[key], "path", tmp_path / "red.png")
    setup, tap = setup_of(p), resolve_tap(p, tiny_encoder)
    windows = config.build_windows(setup, pair.train)
    model = config.build_model(config.model_config(setup, tiny_encoder, tap, len(pair.classes)), tiny_encoder.device)
    row = list(pair.train.images).index(key)
    sample = windows.prepare_data(row)
    data = model.data_preprocessor(pseudo_collate([sample]), True)
    x_3HW, label = data["inputs"][0], data["data_samples"][0].gt_sem_seg.data[0]
    assert x_3HW.shape == (3, 48, 48)
    expected = [(v - m) / s for v, m, s in zip((1, 0, 0), tap.mean, tap.std, strict=True)]
    height, width = sample["inputs"].shape[1:]
    assert (height, width) != (48, 48)
    np.testing.assert_allclose(x_3HW[:, 0, 0].numpy(), expected, rtol=1e-5)
    assert not x_3HW[:, height:].any()
    assert not x_3HW[:, :, width:].any()
    assert bool((label[height:] == 255).all())
    assert set(label.unique().tolist()) <= {*range(len(pair.classes)), 255}
    assert bool((label[0] == 255).all()), "the top rows are void"


def test_the_loop_is_mmengines(tiny_encoder: Encoder, camvid: Path, tmp_path: Path) -> None:
    """Equal weights to the last bit after mmengine's own Runner has trained the same model on the same samples."""
    p, pair = opened(camvid, warmup=0.5)
    setup, tap = setup_of(p), resolve_tap(p, tiny_encoder)
    windows = config.build_windows(setup, pair.train)
    built = config.model_config(setup, tiny_encoder, tap, len(pair.classes))
    ours, theirs = (config.build_model(built, tiny_encoder.device) for _ in range(2))
    start = ours.decode_head.conv_seg.weight.clone()
    frozen = {k: v.clone() for k, v in tiny_encoder.module.state_dict().items()}
    with door.quiet():
        training = train_head(ours, setup, windows, work=None, tick=lambda *_: None)
    wrapper, schedulers = config.build_optimiser(setup, theirs)
    managers = (MMLogger, MessageHub, Visualizer, DefaultScope)
    before = [dict(m._instance_dict) for m in managers]
    with torch.random.fork_rng(devices=[]), seeded(0):  # it seeds the whole process
        Runner(
            model=theirs, work_dir=str(tmp_path / "runner"), log_level="ERROR", optim_wrapper=wrapper,
            param_scheduler=schedulers, train_cfg={"by_epoch": False, "max_iters": setup.iters},
            train_dataloader=DataLoader(
                windows, batch_size=p.batch, sampler=DefaultSampler(windows, shuffle=False),
                collate_fn=pseudo_collate,
            ),
            default_hooks=dict.fromkeys(("timer", "sampler_seed", "logger", "checkpoint")),
        ).train()  # fmt: skip
    for manager, kept in zip(managers, before, strict=True):
        manager._instance_dict.clear()
        manager._instance_dict.update(kept)
    assert not torch.equal(ours.decode_head.conv_seg.weight, start)
    for (name, a), b in zip(
        ours.decode_head.state_dict().items(), theirs.decode_head.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert training.notes["lr"] == 0
    assert not any(m.training for m in tiny_encoder.module.modules())
    for name, value in tiny_encoder.module.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_nothing_is_printed_logged_or_left_behind(
    camvid: Path, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """No file in the working directory, no line on stdout, no logger, no scope, no connection."""
    import logging

    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = root.level, root.handlers[:], dict(MMLogger._instance_dict), dict(DefaultScope._instance_dict)
    p, pair = opened(camvid, iters=2)
    setup, tap = setup_of(p), resolve_tap(p, tiny_encoder)
    with door.quiet():
        model = config.build_model(
            config.model_config(setup, tiny_encoder, tap, len(pair.classes)), torch.device("cpu")
        )
        train_head(model, setup, config.build_windows(setup, pair.train), work=None, tick=lambda *_: None)
        scoring.score_pictures(model, config.build_pictures(setup, pair), lambda *_: None)
        MMLogger.get_current_instance().info("not for anyone")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""
    after = root.level, root.handlers, dict(MMLogger._instance_dict), dict(DefaultScope._instance_dict)
    assert after == before


def test_toy_labels_are_mapped_once(tmp_path: Path) -> None:
    """T1: raw 0 1 2 150 become 255 0 1 149 in both pipelines, and test labels keep their size (T3)."""
    data = write_toy_ade(tmp_path)
    p: Any = protocol_for("ade20k", "paper", {"crop": 64, "iters": 1, "batch": 2})
    pair = open_pair(p, data)
    setup = setup_of(p, 16)
    with Samples(config.build_pictures(setup, pair), 0) as samples:
        label = samples.read(0, 1)["data_samples"][0].gt_sem_seg.data
    assert label.shape == (1, 80, 120)
    assert set(label.unique().tolist()) <= {0, 1, 2, 149, 255}
    with Samples(config.build_windows(setup, pair.train), 0) as samples:
        seen = torch.cat([s.gt_sem_seg.data.flatten() for s in samples.read(0, 2)["data_samples"]])
    assert set(seen.unique().tolist()) <= {0, 1, 2, 149, 255}
