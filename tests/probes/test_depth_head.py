"""The depth head against its literal form (rows H1 to H6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes.bilinear import bilinear_weights
from mtv.probes.depth_expectation import expected_depth
from mtv.probes.depth_head import DepthHead, DepthHeadConfig, check_token_grid, token_grid
from mtv.probes.depth_loss import depth_loss
from mtv.probes.resample import patch_padding

PAPER = DepthHeadConfig()


def tokens(batch: int, rows: int, cols: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, rows, cols, width, generator=g), torch.randn(batch, width, generator=g)


def literal_logits(head: DepthHead, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
    """Concatenate, upsample 2 D channels, convolve: B,K,4H,4W."""
    b, h, w, d = tokens_BHWD.shape
    both = torch.cat([tokens_BHWD.permute(0, 3, 1, 2), global_BD[:, :, None, None].expand(b, d, h, w)], dim=1)
    up = F.interpolate(both, scale_factor=4, mode="bilinear", align_corners=False)
    return F.conv2d(up, head.weight[:, :, None, None], head.bias)


def literal_depth(logits_BKHW: Tensor, floor: float = 0.1) -> Tensor:
    weights = torch.relu(logits_BKHW) + floor
    weights = weights / weights.sum(dim=1, keepdim=True)
    bins = torch.linspace(0.001, 10, 256, dtype=logits_BKHW.dtype)
    return torch.einsum("bkhw,k->bhw", weights, bins)[:, None]


def fast_logits(head: DepthHead, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
    """Upsampled logits B,K,4H,4W of the head's own order of things."""
    small_BHWK = head.token_logits(tokens_BHWD, global_BD)
    rows, cols = (bilinear_weights(n, 4 * n).float() for n in small_BHWK.shape[1:3])
    return torch.einsum("yh,bhwk,xw->bkyx", rows, small_BHWK, cols)


def bins_depth(logits_BHWK: Tensor, floor: float = 0.1) -> Tensor:
    return expected_depth(logits_BHWK, PAPER.centres(), floor=floor, upsample=1)


def one_logit(k: int, value: float, floor: float = 0.1) -> float:
    logits = torch.zeros(1, 1, 1, 256)
    logits[..., k] = value
    return float(bins_depth(logits, floor))


def test_h1_zero_logits_give_the_middle_of_the_range() -> None:
    head = DepthHead(24)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    depth = head(*tokens(2, 5, 7, 24))
    assert depth.shape == (2, 1, 20, 28)
    torch.testing.assert_close(depth, torch.full_like(depth, 5.0005), atol=1e-6, rtol=0)


def test_h2_weight_of_one_bin() -> None:
    assert one_logit(255, 25.4) == pytest.approx(7.490447, abs=2e-6)
    assert one_logit(0, 1000) == pytest.approx(0.125793, abs=1e-6)
    assert one_logit(0, 1000, floor=0.001) == pytest.approx(0.002280, abs=1e-6)
    # 25.4 + 0.1 is as much as all other bins together.
    weights = torch.full((256,), 0.1)
    weights[255] += 25.4
    assert float(weights[255] / weights.sum()) == pytest.approx(0.5, abs=1e-6)
    assert one_logit(7, -1000) == pytest.approx(5.0005, abs=1e-6)


def test_bins() -> None:
    centres = PAPER.centres()
    assert (len(centres), float(centres[0]), float(centres[-1])) == (256, 0.001, 10.0)
    assert centres.diff().tolist() == pytest.approx([0.0392118] * 255, abs=1e-7)
    log = DepthHeadConfig(spacing="log").centres().numpy()
    np.testing.assert_allclose(log, np.geomspace(0.001, 10, 256), rtol=1e-12)


def largest_gap(fast: Sequence[Tensor], slow: Sequence[Tensor]) -> float:
    """Largest relative difference of two lists of gradients, by norm and by largest entry."""
    gaps = [float((a - b).norm() / b.norm()) for a, b in zip(fast, slow, strict=True)]
    return max(*gaps, *(float((a - b).abs().max() / b.abs().max()) for a, b in zip(fast, slow, strict=True)))


@pytest.mark.parametrize(("rows", "cols"), [(26, 34), (30, 40)])
def test_h3_logits_equal_concat_upsample_convolve(rows: int, cols: int) -> None:
    head = DepthHead(768, seed=3)
    x = tokens(1, rows, cols, 768)
    with torch.no_grad():
        slow, fast = literal_logits(head, *x), fast_logits(head, *x)
        assert float(slow.std()) > 0.3, "logits of a realistic size"
        assert float((fast - slow).abs().max()) < 1e-5
        assert float((head(*x) - literal_depth(slow)).abs().max()) < 1e-5


@pytest.mark.parametrize(("rows", "cols"), [(26, 34), (30, 40)])
def test_h3_gradients_equal_concat_upsample_convolve(rows: int, cols: int) -> None:
    head = DepthHead(64, seed=3)
    x = tokens(2, rows, cols, 64)
    leaves = [head.weight, head.bias]
    g = torch.Generator().manual_seed(9)
    pull = torch.randn(2, 256, 4 * rows, 4 * cols, generator=g)
    logits = fast_logits(head, *x), literal_logits(head, *x)
    assert largest_gap(*(torch.autograd.grad((each * pull).sum(), leaves) for each in logits)) < 1e-5

    # Away from the kink of the ReLU: a single sign among 7 million that rounding turned changed a gradient by 6e-4.
    with torch.no_grad():
        head.bias.copy_(torch.where(torch.arange(256) % 3 == 0, 6.0, -6.0))
    on = fast_logits(head, *x).detach() > 0
    assert torch.equal(on, (torch.arange(256) % 3 == 0)[:, None, None].expand_as(on))
    target = 0.5 + 9 * torch.rand(2, 1, 4 * rows, 4 * cols, generator=g)
    depths = head(*x), literal_depth(literal_logits(head, *x))
    assert largest_gap(*(torch.autograd.grad(depth_loss(d, target, step=100).value, leaves) for d in depths)) < 1e-5


def test_h3_in_float64_the_two_forms_agree_to_rounding() -> None:
    head = DepthHead(32, config=DepthHeadConfig(floor=0.001)).double()
    x = [t.double().requires_grad_() for t in tokens(3, 4, 6, 32)]
    leaves = [head.weight, head.bias, *x]
    depths = head(*x), literal_depth(literal_logits(head, *x), floor=0.001)
    torch.testing.assert_close(*depths, atol=1e-12, rtol=0)
    pull = torch.randn(depths[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert largest_gap(*(torch.autograd.grad((d * pull).sum(), leaves) for d in depths)) < 1e-11


def test_h4_relu_before_the_upsampling_is_another_head() -> None:
    head = DepthHead(192)
    x = tokens(2, 26, 34, 192)
    small = literal_logits(head, *x)[:, :, ::4, ::4]
    early = literal_depth(F.interpolate(torch.relu(small), scale_factor=4, mode="bilinear"))
    assert float((early - head(*x)).detach().abs().max()) > 0.01


def test_h5_patch_14_padding() -> None:
    assert [patch_padding(side, 14) for side in (416, 544, 480, 640)] == [(2, 2), (1, 1), (5, 5), (2, 2)]
    assert token_grid((416, 544), 14) == (30, 39)
    assert token_grid((480, 640), 14) == (35, 46)
    assert token_grid((416, 544), 16) == (26, 34)
    assert token_grid((480, 640), 16) == (30, 40)
    check_token_grid(torch.zeros(1, 30, 39, 4), size=(416, 544), patch=14)
    with pytest.raises(UsageError, match="26x34 tokens do not fit a 416x544 picture with patch 14"):
        check_token_grid(torch.zeros(1, 26, 34, 4), size=(416, 544), patch=14)


@pytest.mark.parametrize("width", [384, 768, 1024])
def test_h6_any_width(width: int) -> None:
    head = DepthHead(width)
    assert sorted(head.state_dict()) == ["bias", "weight"]
    assert head.weight.shape == (256, 2 * width)
    x = tokens(1, 3, 4, width)
    torch.testing.assert_close(head(*x), literal_depth(literal_logits(head, *x)), atol=1e-5, rtol=0)


def test_the_global_token_matters() -> None:
    head = DepthHead(64)
    x, g = tokens(1, 3, 4, 64)
    assert float((head(x, g) - head(x, -g)).detach().abs().max()) > 0.01


def test_initialisation_is_torchs_default_and_seeded() -> None:
    conv = torch.nn.Conv2d(2 * 192, 256, 1)
    head = DepthHead(192, seed=5)
    bound = 1 / math.sqrt(2 * 192)
    for mine, torchs in ((head.weight, conv.weight), (head.bias, conv.bias)):
        assert torchs is not None
        assert float(torchs.detach().abs().max()) <= bound
        assert 0.95 * bound < float(mine.detach().abs().max()) <= bound
        assert float(mine.detach().std()) == pytest.approx(float(torchs.detach().std()), rel=0.15)
        assert abs(float(mine.detach().mean())) < 0.15 * bound
    again, other = DepthHead(192, seed=5), DepthHead(192, seed=6)
    assert torch.equal(head.weight, again.weight)
    assert torch.equal(head.bias, again.bias)
    assert not torch.equal(head.weight, other.weight)


def test_the_callers_precision_does_not_reach_the_head() -> None:
    head = DepthHead(128)
    x = tokens(2, 6, 7, 128)
    plain = head(*x)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lowered = head(*x)
    finally:
        torch.set_float32_matmul_precision(before)
    assert lowered.dtype == torch.float32
    assert torch.equal(lowered, plain)


def test_half_precision_tokens_are_read_in_the_precision_of_the_weights() -> None:
    head = DepthHead(64)
    x, g = tokens(1, 3, 4, 64)
    assert torch.equal(head(x.half(), g.half()), head(x.half().float(), g.half().float()))


def test_predict_resizes_and_keeps_no_graph() -> None:
    head = DepthHead(64)
    x, g = tokens(2, 35, 46, 64)
    found = head.predict(x, g, (480, 640))
    assert found.shape == (2, 1, 480, 640)
    assert not found.requires_grad
    assert 0.001 <= float(found.min()) < float(found.max()) <= 10
    squeezed = F.interpolate(head(x, g), size=(480, 640), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, squeezed, atol=1e-5, rtol=0)


def test_gradient_is_right_and_images_do_not_mix() -> None:
    centres = torch.linspace(0.1, 10, 5, dtype=torch.float64)
    x = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: expected_depth(t, centres, floor=0.1, upsample=3), x)
    shuffled = x.detach().permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0).requires_grad_()
    depths = [expected_depth(t, centres, floor=0.1, upsample=4) for t in (x, shuffled)]
    assert torch.equal(*depths), "strides do not matter"
    gradients = [torch.autograd.grad((d[1] ** 2).sum(), t)[0] for d, t in zip(depths, (x, shuffled), strict=True)]
    assert torch.equal(*gradients)
    assert gradients[0][[0, 2]].abs().max() == 0
    assert gradients[0][1].abs().max() > 0


def test_nan_is_not_hidden() -> None:
    logits = torch.zeros(2, 2, 2, 256)
    logits[1, 0, 0, 7] = math.nan
    found = bins_depth(logits.requires_grad_())
    assert found.isnan().flatten(1).any(1).tolist() == [False, True]
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isnan().flatten(1).any(1).tolist() == [False, True]


def test_extreme_logits_stay_inside_the_range() -> None:
    logits = torch.zeros(1, 1, 2, 256)
    logits[0, 0, 0, 0] = logits[0, 0, 1, 255] = 3e30
    assert bins_depth(logits).flatten().tolist() == pytest.approx([0.001, 10.0], rel=1e-6)


def test_wrong_widths_are_named() -> None:
    head = DepthHead(384)
    x, g = tokens(2, 3, 4, 768)
    with pytest.raises(UsageError, match=r"width 384: got patch tokens \(2, 3, 4, 768\)"):
        head(x, g)
    x, g = tokens(2, 3, 4, 384)
    for bad in (g[:, :200], g[:1]):
        with pytest.raises(UsageError, match="global tokens"):
            head(x, bad)
    with pytest.raises(UsageError, match="width must be at least 1"):
        DepthHead(0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("bins", 1), ("min_depth", 0.0), ("max_depth", 0.0005), ("max_depth", math.nan), ("floor", 0.0), ("upsample", 0)],
)
def test_bad_fields_are_named(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        DepthHeadConfig(**{field: value})  # type: ignore[arg-type]


def test_bad_spacing_is_named() -> None:
    with pytest.raises(UsageError, match="spacing 'cubic'"):
        DepthHeadConfig(spacing="cubic")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gradients_repeat_bit_by_bit() -> None:
    head = DepthHead(768).cuda()
    x, g = (t.cuda() for t in tokens(4, 26, 34, 768))
    runs = [torch.autograd.grad(head(x, g).square().sum(), [head.weight, head.bias]) for _ in range(3)]
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
