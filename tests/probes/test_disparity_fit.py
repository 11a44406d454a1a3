"""Ridge regression of disparity: against a written-out system, its invariances, and a planted map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mtv.errors import NumericalError, UsageError
from mtv.probes.disparity_fit import DisparityFit

WIDTH = 5


def pictures(n: int = 3, *, size: tuple[int, int] = (24, 36), seed: int = 0) -> list[tuple[torch.Tensor, ...]]:
    """Tokens 4 x 6, depth in metres, valid pixels."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(n):
        tokens = torch.randn(4, 6, WIDTH, generator=g) * torch.tensor([1.0, 10.0, 0.1, 3.0, 1.0])
        depth = 0.5 + 5 * torch.rand(*size, generator=g)
        out.append((tokens, depth, torch.rand(*size, generator=g) < 0.7))
    return out


def fitted(items: list[tuple[torch.Tensor, ...]], ridge: float = 0.1) -> tuple[torch.Tensor, float]:
    fit = DisparityFit(WIDTH)
    for tokens, depth, valid in items:
        assert fit.add(tokens, depth, valid)
    return fit.solve(ridge)


def naive(items: list[tuple[torch.Tensor, ...]], ridge: float) -> np.ndarray:
    """One row per pixel (frames are below 64 rows, so blocks are pixels), weighted least squares with a penalty."""
    rows, targets = [], []
    for tokens, depth, valid in items:
        up = F.interpolate(tokens.double().permute(2, 0, 1)[None], depth.shape, mode="bilinear", align_corners=False)
        x = up[0].permute(1, 2, 0)[valid].numpy()
        y = (1 / depth.double())[valid].numpy()
        share = np.sqrt(1 / len(y))
        rows.append((x - x.mean(0)) * share)
        targets.append((y - y.mean()) / y.std() * share)
    a, b = np.concatenate(rows), np.concatenate(targets)
    penalty = np.diag(np.sqrt(ridge * (a**2).sum(0)))
    return np.linalg.lstsq(np.concatenate([a, penalty]), np.concatenate([b, np.zeros(WIDTH)]), rcond=None)[0]


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_the_solution_is_that_of_the_written_out_system(ridge: float) -> None:
    items = pictures()
    weight, _ = fitted(items, ridge)
    np.testing.assert_allclose(weight.numpy(), naive(items, ridge), rtol=1e-5, atol=1e-8)


def test_scale_and_shift_of_a_picture_do_not_matter() -> None:
    """Depth in other units, a constant added to all tokens of a picture, disparity shifted: the same weights."""
    items = pictures()
    weight, _ = fitted(items)
    units = [(t, d * (1 + k), v) for k, (t, d, v) in enumerate(items)]
    moved = [(t + 7 * k, d, v) for k, (t, d, v) in enumerate(items)]
    shifted = [(t, 1 / (1 / d + k), v) for k, (t, d, v) in enumerate(items)]
    for other in (units, moved, shifted):
        torch.testing.assert_close(fitted(other)[0], weight, rtol=1e-4, atol=1e-7)


def test_channels_of_any_scale_are_punished_alike() -> None:
    items = pictures()
    factors = torch.tensor([1.0, 100.0, 1e-3, 7.0, 1.0])
    weight, _ = fitted(items)
    scaled, _ = fitted([(t * factors, d, v) for t, d, v in items])
    torch.testing.assert_close(scaled * factors, weight, rtol=1e-4, atol=1e-7)


def test_a_planted_map_is_found_and_predictions_are_centred() -> None:
    g = torch.Generator().manual_seed(1)
    items = []
    for _ in range(4):
        tokens = torch.randn(64, 80, WIDTH, generator=g)
        disparity = 0.3 + 0.02 * (3 * tokens[..., 1] - tokens[..., 4])
        items.append((tokens, 1 / disparity, torch.ones(64, 80, dtype=torch.bool)))
    weight, bias = fitted(items, 1e-6)
    torch.testing.assert_close(weight / weight[1], torch.tensor([0, 1, 0, 0, -1 / 3]), atol=1e-3, rtol=0)
    mean = sum(float((t @ weight + bias).mean()) for t, _, _ in items)
    assert mean == pytest.approx(0, abs=1e-4)


def test_large_frames_are_averaged_in_blocks() -> None:
    """The same scene at twice 64 rows, each pixel repeated: the same weights."""
    (tokens, depth, valid), *_ = pictures(1, size=(64, 96))
    big = depth.repeat_interleave(2, 0).repeat_interleave(2, 1), valid.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(fitted([(tokens, *big)])[0], fitted([(tokens, depth, valid)])[0])


def test_what_cannot_enter() -> None:
    (tokens, depth, valid), *_ = pictures(1)
    fit = DisparityFit(WIDTH)
    assert not fit.add(tokens, depth, torch.zeros_like(valid))
    assert not fit.add(tokens, torch.full_like(depth, 2.0), valid)
    assert fit.n == 0
    with pytest.raises(UsageError, match="no picture with varied valid depth"):
        fit.solve(0.1)
    with pytest.raises(UsageError, match="width 5"):
        fit.add(tokens[..., :4], depth, valid)
    with pytest.raises(NumericalError, match="NaN"):
        fit.add(tokens * float("nan"), depth, valid)
    assert fit.add(tokens, depth, valid)
    with pytest.raises(UsageError, match="ridge must be positive"):
        fit.solve(0)


@pytest.mark.parametrize("constant", [0.0, 1.0, -300.0])
def test_a_constant_channel_changes_nothing(constant: float) -> None:
    items = pictures()
    padded = [(torch.cat([t[..., :4], torch.full((4, 6, 1), constant)], -1), d, v) for t, d, v in items]
    narrow = DisparityFit(4)
    for tokens, depth, valid in items:
        narrow.add(tokens[..., :4], depth, valid)
    weight, bias = fitted(padded)
    torch.testing.assert_close(weight[:4], narrow.solve(0.1)[0])
    assert abs(float(weight[4]) * max(abs(constant), 1.0)) < 0.1
    assert np.isfinite(bias)
