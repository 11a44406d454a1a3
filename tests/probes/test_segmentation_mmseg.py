"""Our segmentation parts against an installed mmsegmentation: resize, rate, head and loss (C2), windows (C1), IoU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtv.probes.segmentation_canvas import label_map, mean_logits
from mtv.probes.segmentation_head import HeadConfig, LinearHead
from mtv.probes.segmentation_loss import pixel_loss
from mtv.probes.segmentation_metric import count_areas, score_areas, sum_areas
from mtv.probes.segmentation_schedule import WarmupPoly
from mtv.probes.segmentation_windows import WindowGeometry, padded_size, resized_size, tile, window_geometry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # one about ops that are not compiled
    mmseg_models = pytest.importorskip("mmseg.models", reason="mmsegmentation is not installed: pip install mtv[mmseg]")
    import mmcv
    from mmengine.config import ConfigDict
    from mmengine.optim import LinearLR, PolyLR
    from mmengine.structures import PixelData
    from mmseg.evaluation import IoUMetric
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.segmentors import EncoderDecoder
    from mmseg.structures import SegDataSample

pytestmark = pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore`` is False")

WIDTH, CLASSES, PATCH = 32, 20, 16


class PlainHead(BaseDecodeHead):  # type: ignore[misc]
    """Norm and 1x1 convolution in mmseg's form."""

    def __init__(self) -> None:
        super().__init__(in_channels=WIDTH, channels=WIDTH, num_classes=CLASSES, in_index=0, dropout_ratio=0)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))


def twins() -> tuple[PlainHead, LinearHead]:
    """The same weights in both forms."""
    ours, theirs = LinearHead(HeadConfig(width=WIDTH, n_classes=CLASSES)), PlainHead()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        ours.conv.weight.mul_(30)
        assert ours.norm is not None
        ours.norm.weight.uniform_(0.5, 2, generator=g)
        ours.norm.bias.normal_(generator=g)
    theirs.norm.load_state_dict(ours.norm.state_dict())
    theirs.conv_seg.load_state_dict(ours.conv.state_dict())
    return theirs, ours


def sample(label_HW: torch.Tensor, **meta: Any) -> SegDataSample:
    data = SegDataSample(metainfo=meta)
    data.gt_sem_seg = PixelData(data=label_HW[None].long())
    return data


def drawn_labels(height: int, width: int, g: torch.Generator, ignored: float = 0.25) -> torch.Tensor:
    label = torch.randint(0, CLASSES, (height, width), generator=g)
    label[torch.rand(height, width, generator=g) < ignored] = 255
    return label


def test_c2_loss_gradients_and_statistics_are_equal() -> None:
    theirs, ours = twins()
    g = torch.Generator().manual_seed(2)
    for _ in range(2):
        x = torch.randn(4, WIDTH, 6, 7, generator=g)
        labels = [drawn_labels(6 * PATCH, 7 * PATCH, g) for _ in range(4)]
        for model in (theirs, ours):
            model.train().zero_grad()
        loss = theirs.loss([x], [sample(y) for y in labels], {})["loss_ce"]
        loss.backward()
        value = pixel_loss(ours(x), torch.stack(labels))
        value.backward()
        assert value.item() == pytest.approx(loss.item(), rel=1e-6)
        assert torch.equal(ours.conv.weight.grad, theirs.conv_seg.weight.grad)  # type: ignore[arg-type]
        assert torch.equal(ours.conv.bias.grad, theirs.conv_seg.bias.grad)  # type: ignore[union-attr, arg-type]
        assert ours.norm is not None
        for (name, p), q in zip(ours.norm.named_parameters(), theirs.norm.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad), name  # type: ignore[arg-type]
        for (name, p), q in zip(ours.norm.named_buffers(), theirs.norm.buffers(), strict=True):
            assert torch.equal(p, q), name


@pytest.mark.parametrize(("width", "height"), [(160, 120), (150, 128), (200, 90), (300, 70), (90, 200), (97, 131)])
def test_c1_sliding_prediction_is_equal(width: int, height: int) -> None:
    geometry = WindowGeometry(patch=PATCH, crop=96, stride=64)
    theirs, ours = twins()
    g = torch.Generator().manual_seed(width)
    patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
    model = EncoderDecoder.__new__(EncoderDecoder)
    nn.Module.__init__(model)
    model.backbone, model.decode_head = nn.Sequential(patches, _AsList()), theirs
    model.align_corners, model.out_channels = False, CLASSES
    model.test_cfg = ConfigDict(mode="slide", crop_size=(96, 96), stride=(64, 64))
    model.eval()
    ours.eval()

    content = resized_size(height, width, geometry)
    full = padded_size(*content, PATCH)
    image = torch.randn(1, 3, *full, generator=g)
    label = drawn_labels(height, width, g)
    padding = [0, full[1] - content[1], 0, full[0] - content[0]]
    meta = {"ori_shape": (height, width), "img_shape": full, "pad_shape": full, "padding_size": padding}
    windows = tile(*full, geometry)
    with torch.no_grad():
        canvas = model.slide_inference(image, [dict(meta)])[0]
        predicted = model.predict(image, [sample(label, **meta)])[0].pred_sem_seg.data[0]
        crops = [image[:, :, w.top : w.top + w.height, w.left : w.left + w.width] for w in windows]
        logits = [ours(patches(crop))[0] for crop in crops]
    assert torch.equal(mean_logits(windows, logits), canvas)
    got = label_map(windows, logits, content=content, size=(height, width))
    assert torch.equal(got.long(), predicted)
    a, b = count_areas(got, label, CLASSES), count_areas(predicted, label, CLASSES)
    assert a.intersection_C.tolist() == b.intersection_C.tolist()
    assert a.predicted_C.tolist() == b.predicted_C.tolist()
    assert a.labelled_C.tolist() == b.labelled_C.tolist()


class _AsList(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


def test_iou_metric_agrees() -> None:
    """Fixture B: areas equal, mIoU equal unrounded, 43.63 as it prints."""
    rng = np.random.default_rng(7)
    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": [str(c) for c in range(150)]}
    parts = []
    for _ in range(5):
        y, u = rng.integers(0, 30, (160, 240)), rng.random((160, 240))
        q, v = rng.integers(0, 40, (160, 240)), rng.random((160, 240))
        label, predicted = torch.from_numpy(np.where(v < 0.1, 255, y)), torch.from_numpy(np.where(u < 0.7, y, q))
        metric.process({}, [{"pred_sem_seg": {"data": predicted[None]}, "gt_sem_seg": {"data": label[None]}}])
        parts.append(count_areas(predicted, label, 150))
        intersection, union, p, g = (x.numpy() for x in metric.results[-1])
        assert np.array_equal(intersection, parts[-1].intersection_C)
        assert np.array_equal(union, parts[-1].union_C)
        assert np.array_equal(p, parts[-1].predicted_C)
        assert np.array_equal(g, parts[-1].labelled_C)
    score = score_areas(sum_areas(parts, 150))
    intersection, union = (sum(r[k].double() for r in metric.results) for k in (0, 1))
    assert float(np.nanmean((intersection / union).numpy())) * 100 == score.miou
    printed = metric.compute_metrics(metric.results)
    assert float(printed["mIoU"]) == pytest.approx(43.63, abs=1e-5)
    for key, value in (("mIoU", score.miou), ("mAcc", score.macc), ("aAcc", score.aacc)):
        assert float(printed[key]) == pytest.approx(value, abs=0.0051)


@pytest.mark.parametrize("patch", [14, 16])
def test_resize_rule_is_mmcvs(patch: int) -> None:
    geometry = window_geometry(patch)
    for width, height in np.random.default_rng(0).integers(1, 4000, (20_000, 2)).tolist():
        if max(width, height) > 1000 * min(width, height):
            continue  # mmcv would give a side of 0
        theirs = mmcv.image.rescale_size((width, height), (geometry.long_side, geometry.crop))
        assert resized_size(height, width, geometry) == theirs[::-1]


@pytest.mark.parametrize(("iters", "warmup"), [(400, 15), (60, 3)])
def test_learning_rate_is_mmengines(iters: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=4e-5)
    schedulers = [
        LinearLR(optimizer, start_factor=1e-6, begin=0, end=warmup, by_epoch=False),
        PolyLR(optimizer, power=1.0, eta_min=0.0, begin=warmup, end=iters, by_epoch=False),
    ]
    schedule = WarmupPoly(iters=iters, warmup=warmup)
    for t in range(iters):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(4e-5 * schedule.factor(t), rel=1e-6, abs=1e-16), t
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
