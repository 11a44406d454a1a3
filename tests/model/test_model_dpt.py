"""D7 and the depth head against the order of operations in which it was published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from model_world import NANO, images, lively, small
from torch import Tensor, nn
from torch.nn import functional as F

from mtv.errors import UsageError
from mtv.model.config import SIZES
from mtv.model.dpt import DptHead, depth_autocast, set_convolution_precision


def published(head: DptHead, taps: list[Tensor], grid: tuple[int, int], out_hw: tuple[int, int]) -> Tensor:
    """Fusion as in the paper's source: the 1x1 after the upsampling."""

    def unit(u: Any, x: Tensor) -> Tensor:
        return x + u.conv2(F.relu(u.conv1(F.relu(x))))

    def up(x: Tensor, size: tuple[int, ...]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    maps = []
    for tap, project, resize, reduce in zip(taps, head.projects, head.resizes, head.reduces, strict=True):
        picture = tap.permute(0, 2, 1).reshape(len(tap), -1, *grid).contiguous()
        maps.append(reduce(resize(project(picture))))
    f: Any = head.fusions
    path = f[3].project(up(unit(f[3].unit, maps[3]), maps[2].shape[2:]))
    for i in (2, 1, 0):
        size = maps[i - 1].shape[2:] if i else tuple(2 * s for s in maps[0].shape[2:])
        path = f[i].project(up(unit(f[i].unit, path + unit(f[i].skip_unit, maps[i])), size))
    return head.out3(F.relu(head.out2(up(head.out1(path), out_hw))))[:, 0]


@pytest.mark.parametrize(("grid", "out_hw"), [((4, 4), (32, 32)), ((5, 3), (40, 24)), ((4, 4), (48, 20))])
def test_the_head_equals_the_published_order(grid: tuple[int, int], out_hw: tuple[int, int]) -> None:
    head = lively(small()).dpt
    assert head is not None
    head = head.double()
    taps = [torch.randn(2, grid[0] * grid[1], 64, dtype=torch.float64) for _ in range(4)]
    ours = head(taps, grid, out_hw)
    assert ours.shape == (2, *out_hw)
    torch.testing.assert_close(ours, published(head, taps, grid, out_hw), rtol=0, atol=1e-12)
    assert ours.std() > 1e-3


def test_a_tower_of_one_block_repeats_its_tap() -> None:
    size = NANO.with_(vision={"layers": 1}, dpt={"taps": (1, 1, 1, 1)})
    model = lively(small(size=size))
    assert model.dpt is not None
    with torch.no_grad():
        out = model.vision(images(2, 32), taps=size.dpt.taps)
        expected = published(model.dpt, [model.vision.norm(out.tokens_BND)] * 4, (4, 4), (32, 32))
        torch.testing.assert_close(model.predict_disparity(out, (32, 32)), expected, rtol=0, atol=1e-5)


def test_stage_sizes_at_the_papers_shape() -> None:
    size = SIZES["b16"]
    with torch.device("meta"):
        head = DptHead(768, size.dpt)
        sides: list[int] = []
        for module in (*head.resizes, *head.fusions):
            module.register_forward_hook(lambda m, a, out: sides.append(out.shape[-1]))
        out = head([torch.empty(1, 196, 768)] * 4, (14, 14), (224, 224))
    assert sides == [56, 28, 14, 7, 14, 28, 56, 112]
    assert out.shape == (1, 224, 224)


def test_d7_everything_is_float32_in_fp32_mode() -> None:
    model = small()
    assert model.dpt is not None
    set_convolution_precision("fp32")
    seen: dict[str, set[torch.dtype]] = {}
    for name, module in model.dpt.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(
                lambda m, a, out, n=name: seen.setdefault(n, set()).update({a[0].dtype, out.dtype})
            )
    model.vision.norm.register_forward_hook(lambda m, a, out: seen.setdefault("norm", set()).add(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.vision(images(2, 32), taps=NANO.dpt.taps, pool=False)
        rough = replace(out, taps={k: v.bfloat16() for k, v in out.taps.items()})
        assert model.predict_disparity(rough, (32, 32), precision="fp32").dtype == torch.float32
    # 4 projections, 3 resizes, 4 reductions, 4 fusions of 1 + 2 or 4, 3 of the output, and the norm
    assert len(seen) == 4 + 3 + 4 + (3 + 5 * 3) + 3 + 1
    assert set().union(*seen.values()) == {torch.float32}
    assert not torch.backends.cudnn.allow_tf32


def test_bf16_mode_keeps_the_last_layer_wide() -> None:
    model = small()
    assert model.dpt is not None
    inputs: dict[str, torch.dtype] = {}
    model.dpt.out2.register_forward_hook(lambda m, a, out: inputs.update(out2=out.dtype))
    model.dpt.out3.register_forward_hook(lambda m, a, out: inputs.update(out3=a[0].dtype))
    out = model.vision(images(2, 32), taps=NANO.dpt.taps, pool=False)
    rough = model.predict_disparity(out, (32, 32), precision="bf16")
    assert inputs == {"out2": torch.bfloat16, "out3": torch.float32}
    exact = model.predict_disparity(out, (32, 32), precision="fp32")
    assert rough.dtype == torch.float32
    assert float((rough - exact).detach().abs().max()) < 0.1 * float(exact.detach().std()) + 0.02


def test_the_flag_follows_the_precision_and_contradictions_are_refused() -> None:
    try:
        set_convolution_precision("tf32")
        assert torch.backends.cudnn.allow_tf32
        with pytest.raises(UsageError, match="TF32 convolutions are on"), depth_autocast("fp32", "cuda"):
            pass
        with depth_autocast("fp32", "cpu"):
            pass
        with pytest.raises(UsageError, match=r"depth\.precision must be one of fp32, tf32, bf16, got 'fp8'"):
            set_convolution_precision("fp8")  # type: ignore[arg-type]
    finally:
        set_convolution_precision("fp32")


@pytest.mark.parametrize("tap_norm", ["final", "raw", "own"])
def test_tap_norms(tap_norm: str) -> None:
    model = lively(small(frozenset({"depth"}), size=NANO.with_(dpt={"tap_norm": tap_norm})))
    assert model.dpt is not None
    out = model.vision(images(2, 32), taps=NANO.dpt.taps, pool=False)
    norm = {"final": model.vision.norm, "raw": nn.Identity(), "own": model.dpt.tap_norm}[tap_norm]
    assert norm is not None
    expected = published(model.dpt, [norm(out.taps[t]) for t in (1, 2, 3, 4)], (4, 4), (32, 32))
    torch.testing.assert_close(model.predict_disparity(out, (32, 32)), expected, rtol=0, atol=1e-5)


def test_counts_of_the_options() -> None:
    def count(**changes: Any) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in DptHead(768, replace(SIZES["b16"].dpt, **changes)).parameters())

    assert count() == 10_595_137
    assert count(tap_norm="own") == 10_595_137 + 1_536
    assert count(final_act=True) == 10_595_137


def test_no_final_activation_unless_asked_for() -> None:
    taps = [torch.randn(4, 16, 64) for _ in range(4)]
    head = small().dpt
    assert head is not None
    with torch.no_grad():
        assert head.out3.bias is not None
        head.out3.bias.fill_(-5.0)
    assert float(head(taps, (4, 4), (32, 32)).detach().max()) < 0
    floored = DptHead(64, replace(NANO.dpt, final_act=True))
    floored.load_state_dict(head.state_dict())
    assert float(floored(taps, (4, 4), (32, 32)).detach().abs().max()) == 0
