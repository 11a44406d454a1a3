"""Batched crops, resizing and colours against torch's and torchvision's own, image by image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import functional as TF
from torchvision.transforms import v2

import mtv.train.data.device as device_module
from mtv.train.data.canvas import DEPTH_OFFSET
from mtv.train.data.colour import blur, jitter_, turn_hue
from mtv.train.data.device import Disparity, HostBatch, LocalColours, LocalViews, make_batch
from mtv.train.data.options import ViewOptions
from mtv.train.data.plan import draw_global, draw_local
from mtv.train.data.resample import axis_weights


def pictures(n: int, size: int, seed: int = 0) -> Tensor:
    """Noise with flat and smooth patches, greys and saturated pixels: float [n, 3, size, size] in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, size, size, generator=g)
    x[:, :, : size // 3] = torch.rand(n, 3, 1, 1, generator=g)
    x[:, :, :, : size // 4] = F.interpolate(torch.rand(n, 3, 3, 3, generator=g), (size, size // 4), mode="bilinear")
    x[:, :, -2:] = torch.rand(n, 1, 2, size, generator=g)
    x[:, 0, -1], x[:, 1:, -1] = 1.0, 0.0
    return x


def host(
    n: int, *, canvas: int, size: int, local: int, disparity: int = 0, views: ViewOptions | None = None
) -> HostBatch:
    """A batch of noise with drawn crops and colours."""
    views = views or ViewOptions(local_size=local, local_crops=3, global_flip=0.5)
    rng = np.random.default_rng(0)
    at = {
        "seed": 0,
        "epochs": [0] * n,
        "keys": [f"k{i}" for i in range(n)],
        "aspect_B": np.exp(rng.uniform(-0.3, 0.3, n)),
        "canvas": canvas,
    }
    crops, (crops_M, colours) = draw_global(views, **at), draw_local(views, **at)
    T = torch.from_numpy
    maps = None
    if disparity:
        maps = Disparity(
            code_BHW=torch.randint(-32768, 32768, (n, disparity, disparity), dtype=torch.int16),
            range_B2=T(np.stack([rng.normal(size=n), rng.normal(size=n) + 5], axis=1)).float(),
            valid_B=torch.arange(n) % 3 != 1,
        )
    return HostBatch(
        keys=tuple(at["keys"]),
        canvas_BHCW=(pictures(n, canvas) * 255).round().to(torch.uint8).permute(0, 2, 1, 3).contiguous(),
        crop_B4=T(crops.box),
        flip_B=T(crops.flip),
        image_size=size,
        local=LocalViews(
            crop_BM4=T(crops_M.box),
            flip_BM=T(crops_M.flip),
            colours=LocalColours(
                factor_BM4=T(colours.factor),
                order_BM4=T(colours.order),
                grey_BM=T(colours.grey),
                sigma_BM=T(colours.sigma),
            ),
            size=local,
            longest=int(crops_M.box[..., 2:].max()),
        ),
        disparity=maps,
        labels={"text_BT": torch.zeros(n, 2, dtype=torch.int64)},
    )


def crop_and_resize(canvas_HCW: Tensor, box: Tensor, size: int, flip: bool) -> Tensor:
    """The oracle: crop, torch's antialiased bicubic in FP64, clamp; [3, size, size] in [0, 1]."""
    x, y, w, h = box.tolist()
    crop = canvas_HCW.permute(1, 0, 2)[None, :, y : y + h, x : x + w].double() / 255
    view = F.interpolate(crop, (size, size), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    return view.flip(2) if flip else view


@pytest.mark.parametrize(("canvas", "size", "local"), [(96, 64, 32), (64, 64, 16), (384, 224, 96), (48, 96, 48)])
def test_views_are_crops_resized_by_torch(canvas: int, size: int, local: int) -> None:
    views = ViewOptions(
        local_size=local, local_crops=3, global_flip=0.5, local_color_p=0.0, local_grey=0.0, local_blur=0.0
    )
    batch_in = host(5, canvas=canvas, size=size, local=local, views=views)
    batch = make_batch(batch_in)
    assert batch_in.local is not None
    assert batch.local_BMCHW is not None
    assert batch.global_BCHW.shape == (5, 3, size, size)
    for b in range(5):
        oracle = crop_and_resize(batch_in.canvas_BHCW[b], batch_in.crop_B4[b], size, bool(batch_in.flip_B[b]))
        assert (batch.global_BCHW[b].double() / 2 + 0.5 - oracle).abs().max() < 3e-6
        for m in range(3):
            crop, flip = batch_in.local.crop_BM4[b, m], bool(batch_in.local.flip_BM[b, m])
            oracle = crop_and_resize(batch_in.canvas_BHCW[b], crop, local, flip)
            assert (batch.local_BMCHW[b, m].double() / 2 + 0.5 - oracle).abs().max() < 3e-6
    assert batch_in.flip_B.any()
    assert not batch_in.flip_B.all()


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [95, 95, 1, 1], [0, 0, 96, 96], [3, 90, 90, 6], [10, 0, 2, 96]])
def test_extreme_crops(box: list[int]) -> None:
    batch_in = host(1, canvas=96, size=32, local=32)
    crop = torch.tensor([box])
    batch_in = replace(batch_in, crop_B4=crop, flip_B=torch.tensor([False]), local=None)
    view = make_batch(batch_in).global_BCHW[0].double() / 2 + 0.5
    assert (view - crop_and_resize(batch_in.canvas_BHCW[0], crop[0], 32, False)).abs().max() < 3e-6


def test_weights_of_windows_off_the_grid_are_those_of_the_definition() -> None:
    start, length, size_in, size_out = 3.3, 21.4, 30, 13
    ours = axis_weights(
        torch.tensor([start]), torch.tensor([length]), size_in=size_in, size_out=size_out, longest=30, kernel="linear"
    )[0].double()
    scale = float(torch.tensor(length)) / size_out
    centre = float(torch.tensor(start)) + scale * (np.arange(size_out) + 0.5)
    middle = np.arange(size_in) + 0.5
    weight = np.maximum(0, 1 - np.abs(middle[None] - centre[:, None]) / max(1, scale))
    weight *= (middle > start) & (middle < start + length)
    assert np.abs(ours.numpy() - weight / weight.sum(axis=1, keepdims=True)).max() < 1e-6


def test_disparity_follows_the_global_crop_with_linear_weights() -> None:
    batch_in = host(6, canvas=96, size=48, local=32, disparity=96)
    batch = make_batch(batch_in)
    assert batch_in.disparity is not None
    assert batch.depth_BHW is not None
    assert batch.depth_valid_B is not None
    assert batch.depth_valid_B.tolist() == [True, False, True, True, False, True]
    for b in range(6):
        x, y, w, h = batch_in.crop_B4[b].tolist()
        low, high = batch_in.disparity.range_B2[b].double()
        label = (batch_in.disparity.code_BHW[b].double() + DEPTH_OFFSET) / 65535 * (high - low) + low
        view = F.interpolate(label[None, None, y : y + h, x : x + w], (48, 48), mode="bilinear", antialias=True)[0, 0]
        view = view.flip(1) if batch_in.flip_B[b] else view
        expected = view if batch.depth_valid_B[b] else torch.zeros_like(view)
        assert (batch.depth_BHW[b].double() - expected).abs().max() < 2e-5


OPERATIONS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


@pytest.mark.parametrize("operation", range(4))
def test_each_colour_operation_is_torchvisions(operation: int) -> None:
    x = pictures(12, 20)
    factor = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(12, 1)
    factor[:, operation] = torch.linspace(-0.5, 0.5, 12) if operation == 3 else torch.linspace(0, 2, 12)
    order = torch.arange(4).repeat(12, 1)
    ours = jitter_(x.clone(), factor, order, torch.zeros(12, dtype=torch.bool), torch.zeros(12))
    theirs = torch.stack([OPERATIONS[operation](x[v], float(factor[v, operation])) for v in range(12)])
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("size", [16, 33, 96])
def test_blur_is_torchvisions(size: int) -> None:
    x, sigma = pictures(6, size), torch.linspace(0.1, 2, 6)
    theirs = torch.stack([TF.gaussian_blur(x[v], [9, 9], [float(sigma[v])]) for v in range(6)])
    assert (blur(x, sigma) - theirs).abs().max() < 1e-5


def test_hue_of_greys_does_not_move() -> None:
    grey = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8).expand(1, 3, 8, 8).contiguous()
    assert torch.equal(turn_hue(grey, torch.tensor([0.3])), grey)


def test_drawn_local_views_are_torchvisions_chain() -> None:
    """Crop, flip, jitter in the drawn order, grey, blur, one image at a time on floats."""
    batch_in = host(40, canvas=96, size=32, local=32)
    batch, local = make_batch(batch_in), batch_in.local
    assert local is not None
    assert batch.local_BMCHW is not None
    worst = 0.0
    for b in range(40):
        for m in range(3):
            view = crop_and_resize(batch_in.canvas_BHCW[b], local.crop_BM4[b, m], 32, bool(local.flip_BM[b, m])).float()
            for operation in local.colours.order_BM4[b, m].tolist():
                view = OPERATIONS[operation](view, float(local.colours.factor_BM4[b, m, operation]))
            if local.colours.grey_BM[b, m]:
                view = TF.rgb_to_grayscale(view, 3)
            if local.colours.sigma_BM[b, m] > 0:
                view = TF.gaussian_blur(view, [9, 9], [float(local.colours.sigma_BM[b, m])])
            worst = max(worst, float((batch.local_BMCHW[b, m] / 2 + 0.5 - view).abs().max()))
    assert worst < 2 / 255 / 10


def test_the_usual_uint8_pipeline_differs_by_its_rounding() -> None:
    """It rounds and clips after each axis: at most two levels on anything smoother than noise."""
    smooth = F.interpolate(torch.rand(20, 3, 9, 9), (96, 96), mode="bicubic", align_corners=False).clamp(0, 1)
    canvas_B3HW = (smooth * 255).round().to(torch.uint8)
    batch_in = replace(host(20, canvas=96, size=64, local=32), canvas_BHCW=canvas_B3HW.transpose(1, 2).contiguous())
    batch = make_batch(batch_in)
    for b in range(20):
        x, y, w, h = batch_in.crop_B4[b].tolist()
        bicubic = v2.InterpolationMode.BICUBIC
        view = v2.functional.resized_crop(canvas_B3HW[b], y, x, h, w, [64, 64], bicubic, antialias=True)
        view = view.flip(2) if batch_in.flip_B[b] else view
        assert ((batch.global_BCHW[b] / 2 + 0.5) * 255 - view).abs().max() <= 2


def test_parts_and_batch_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_in = host(7, canvas=72, size=48, local=24, disparity=40)
    whole = make_batch(batch_in)
    monkeypatch.setattr(device_module, "CPU_PART", 3)
    parts = make_batch(batch_in)
    for name in ("global_BCHW", "local_BMCHW", "depth_BHW"):
        assert (getattr(whole, name) - getattr(parts, name)).abs().max() < 1e-5


def test_views_are_fp32_and_carry_no_gradient_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = make_batch(host(2, canvas=48, size=32, local=16, disparity=24))
    assert batch.local_BMCHW is not None
    assert batch.depth_BHW is not None
    for tensor in (batch.global_BCHW, batch.local_BMCHW, batch.depth_BHW):
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad
    plain = make_batch(host(2, canvas=48, size=32, local=16))
    assert torch.equal(plain.global_BCHW, batch.global_BCHW)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(make_batch(host(2, canvas=48, size=32, local=16)).global_BCHW, plain.global_BCHW)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_makes_the_same_views() -> None:
    batch_in = host(16, canvas=384, size=224, local=96, disparity=192)
    cpu, gpu = make_batch(batch_in), make_batch(batch_in, "cuda").to("cpu")
    for name in ("global_BCHW", "local_BMCHW", "depth_BHW"):
        assert (getattr(cpu, name) - getattr(gpu, name)).abs().max() < 2e-4
