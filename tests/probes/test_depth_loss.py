"""The loss of the depth probe against closed forms and a loop (rows L1 to L6)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes.depth_loss import DepthLossConfig, depth_loss

FULL, WARM = 100, 99


def maps(*values: float) -> Tensor:
    """One image of one pixel per value."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def with_gap(*gaps: float) -> tuple[Tensor, Tensor]:
    """Prediction and depth 1 whose log gaps are given."""
    return (1.001 * maps(*gaps).exp() - 0.001), maps(*[1.0] * len(gaps))


def value(pred: Tensor, depth: Tensor, step: int = FULL, chunk: int = 2) -> float:
    return float(depth_loss(pred, depth, step=step, config=DepthLossConfig(chunk=chunk)).value)


def batch(n: int, seed: int = 0, holes: float = 0.3, size: tuple[int, int] = (20, 24)) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    depth = 0.5 + 9 * torch.rand(n, 1, *size, generator=g, dtype=torch.float64)
    pred = depth * (0.3 * torch.randn(n, 1, *size, generator=g, dtype=torch.float64)).exp()
    return pred, depth * (torch.rand(n, 1, *size, generator=g) > holes)


def naive(pred: np.ndarray, depth: np.ndarray, step: int) -> tuple[float, int]:
    """Chunks of two images one after the other; numpy's variance."""
    losses, skipped = [], 0
    for first in range(0, len(pred), 2):
        p, d = pred[first : first + 2].ravel(), depth[first : first + 2].ravel()
        g = np.log(p[d > 0] + 1e-3) - np.log(d[d > 0] + 1e-3)
        if len(g) < 2:
            skipped += 1
            continue
        losses.append(math.sqrt((step >= 100) * np.var(g, ddof=1) + 0.15 * np.mean(g) ** 2))
    return float(np.mean(losses)) if losses else 0.0, skipped


def test_l1_twice_the_depth() -> None:
    pred, depth = maps(2, 2), maps(1, 1)
    assert value(pred, depth) == pytest.approx(0.268261, abs=1e-6)
    assert value(pred, depth, step=WARM) == pytest.approx(0.268261, abs=1e-6)


def test_l2_variance_is_unbiased() -> None:
    pred, depth = with_gap(0.1, -0.1)
    assert value(pred, depth) == pytest.approx(0.141421, abs=1e-6)
    assert value(pred, depth, step=WARM) == pytest.approx(0, abs=1e-12)


def test_l3_chunks_are_not_pooled() -> None:
    pred, depth = with_gap(0.1, 0.1, 0.3, 0.3)
    assert value(pred, depth, chunk=4) == pytest.approx(0.139044, abs=1e-6)
    assert value(pred, depth) == pytest.approx(0.077460, abs=1e-6)


@pytest.mark.parametrize("step", [WARM, FULL])
def test_l4_one_device_equals_eight(step: int) -> None:
    pred, depth = batch(16)
    whole = pred.clone().requires_grad_()
    depth_loss(whole, depth, step=step).value.backward()
    parts = pred.clone().requires_grad_()
    for first in range(0, 16, 2):  # each device: its own two images; gradients are averaged
        (depth_loss(parts[first : first + 2], depth[first : first + 2], step=step).value / 8).backward()
    assert whole.grad is not None
    assert parts.grad is not None
    torch.testing.assert_close(whole.grad, parts.grad, rtol=1e-12, atol=1e-18)
    pooled = pred.clone().requires_grad_()
    depth_loss(pooled, depth, step=step, config=DepthLossConfig(chunk=16)).value.backward()
    assert pooled.grad is not None
    assert float((pooled.grad - whole.grad).norm() / whole.grad.norm()) > 0.01, "one variance over 16 is another loss"


def test_l5_invalid_depth_is_ignored() -> None:
    pred, depth = batch(4)
    pred.requires_grad_()
    depth_loss(pred, depth, step=FULL).value.backward()
    assert pred.grad is not None
    assert float(pred.grad[depth == 0].abs().max()) == 0
    assert float(pred.grad[depth > 0].abs().min()) > 0
    moved = torch.where(depth == 0, 7.0, pred.detach())
    assert value(moved, depth) == pytest.approx(value(pred.detach(), depth), rel=1e-12)
    negative = torch.where(depth == 0, -1.0, depth)
    assert value(pred.detach(), negative) == value(pred.detach(), depth)
    far = torch.where(depth == 0, 50.0, depth)
    assert value(pred.detach(), far) > 1.1 * value(pred.detach(), depth), "depth has no upper bound"


@pytest.mark.parametrize("step", [WARM, FULL])
def test_l5_perfect_prediction_has_a_finite_gradient(step: int) -> None:
    _, depth = batch(4, holes=0)
    pred = depth.clone().requires_grad_()
    loss = depth_loss(pred, depth, step=step)
    loss.value.backward()
    assert pred.grad is not None
    assert float(loss.value.detach()) == 0
    assert float(pred.grad.abs().max()) == 0
    near = (depth.float() * (1 + 1e-7)).requires_grad_()  # some pixels are off by one unit in the last place
    depth_loss(near, depth.float(), step=step).value.backward()
    assert near.grad is not None
    assert bool(torch.isfinite(near.grad).all())


def test_l5_empty_chunks_are_skipped_and_counted() -> None:
    pred, depth = batch(6)
    depth[2:4] = 0
    pred.requires_grad_()
    loss = depth_loss(pred, depth, step=FULL)
    loss.value.backward()
    assert int(loss.skipped) == 1
    rest = [0, 1, 4, 5]
    assert float(loss.value.detach()) == pytest.approx(value(pred.detach()[rest], depth[rest]), rel=1e-12)
    assert pred.grad is not None
    assert bool(torch.isfinite(pred.grad).all())
    assert float(pred.grad[2:4].abs().max()) == 0
    depth[2, 0, 3, 3] = 1.0  # one pixel has no variance either
    assert int(depth_loss(pred.detach(), depth, step=FULL).skipped) == 1
    depth[3, 0, 3, 3] = 1.0
    assert int(depth_loss(pred.detach(), depth, step=FULL).skipped) == 0
    nothing = depth_loss(pred, torch.zeros_like(depth), step=FULL)
    assert (float(nothing.value.detach()), int(nothing.skipped)) == (0, 3)
    nothing.value.backward()


def test_l6_the_first_hundred_steps_leave_the_variance_out() -> None:
    pred, depth = with_gap(0.1, -0.3)
    warm = math.sqrt(0.15) * 0.1
    full = math.sqrt(0.08 + 0.15 * 0.01)
    found = [value(pred, depth, step=step) for step in (0, 99, 100, 38_399)]  # steps 1, 100, 101, 38,400
    assert found == pytest.approx([warm, warm, full, full], rel=1e-9)
    later = depth_loss(pred, depth, step=7, config=DepthLossConfig(warmup_steps=7))
    assert float(later.value) == pytest.approx(full)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**31), st.floats(0, 1), st.integers(0, 200), st.integers(1, 4))
def test_equals_a_loop(chunks: int, seed: int, holes: float, step: int, side: int) -> None:
    pred, depth = batch(2 * chunks, seed, holes, (side, side))
    loss = depth_loss(pred, depth, step=step)
    expected, skipped = naive(pred.numpy(), depth.numpy(), step)
    assert float(loss.value) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert int(loss.skipped) == skipped


def test_float32_at_full_size() -> None:
    pred, depth = batch(4, size=(416, 544))
    expected, _ = naive(pred.numpy(), depth.numpy(), FULL)
    found = depth_loss(pred.float(), depth.float(), step=FULL).value
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_gradient_is_right() -> None:
    pred, depth = batch(4, size=(3, 3))
    for step in (WARM, FULL):
        assert torch.autograd.gradcheck(lambda p, s=step: depth_loss(p, depth, step=s).value, pred.requires_grad_())


@pytest.mark.parametrize("step", [WARM, FULL])
def test_a_nan_prediction_is_not_hidden(step: int) -> None:
    pred, depth = batch(4, holes=0)
    pred[3, 0, 1, 1] = math.nan
    assert math.isnan(value(pred, depth, step=step))


def test_wrong_shapes_are_named() -> None:
    pred, depth = batch(4)
    with pytest.raises(UsageError, match=r"prediction \(4, 1, 20, 24\), target \(4, 1, 10, 24\)"):
        depth_loss(pred, depth[:, :, ::2], step=0)
    for n in (0, 3):
        with pytest.raises(UsageError, match=f"a batch of {n} images is no multiple"):
            depth_loss(pred[:n], depth[:n], step=0)
    for field, bad in (("chunk", 0), ("mean_weight", 0.0), ("epsilon", 0.0), ("warmup_steps", -1)):
        with pytest.raises(UsageError, match=field):
            DepthLossConfig(**{field: bad})  # type: ignore[arg-type]
