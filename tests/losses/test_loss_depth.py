"""Depth losses: tabulated values (D1-D6, D8), naive forms with sorting, ties, flat maps and missing labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mtv.errors import UsageError
from mtv.losses.depth import depth_loss, gradient_matching, ssi_trim, trimmed


def naive_normal(x: Tensor) -> Tensor:
    flat = x.flatten()
    centred = x - flat.sort().values[(flat.numel() - 1) // 2]
    return centred / centred.abs().mean().clamp(min=1e-6)


def naive_trim(p: Tensor, d: Tensor) -> Tensor:
    residual = (naive_normal(p) - naive_normal(d)).abs().flatten().sort().values
    return residual[: int(0.9 * residual.numel() + 1e-9)].sum() / (2 * residual.numel())


def naive_gradient(e: Tensor) -> Tensor:
    total = e.new_zeros(())
    for k in range(4):
        c = e[:: 2**k, :: 2**k]
        total = total + ((c[:, 1:] - c[:, :-1]).abs().sum() + (c[1:] - c[:-1]).abs().sum()) / c.numel()
    return total


def naive_fit(p: Tensor, d: Tensor) -> Tensor:
    columns = torch.stack([p.flatten(), torch.ones_like(p.flatten())], 1)
    return (columns @ (torch.linalg.pinv(columns) @ d.flatten())).view_as(p)


def ramp(size: int) -> Tensor:
    return torch.linspace(0, 1, size).expand(1, size, size)


@pytest.mark.parametrize("shape", [(3, 5), (16, 12), (37, 64), (1, 1), (1, 9)])
@pytest.mark.parametrize("space", ["normalised", "ls"])
def test_value_and_gradient_equal_the_sorted_form(shape: tuple[int, int], space: str) -> None:
    g = torch.Generator().manual_seed(sum(shape))
    p, d = (torch.randn(4, *shape, generator=g, dtype=torch.float64) for _ in range(2))
    p.requires_grad_()
    valid = torch.tensor([True, False, True, True])
    ours, _ = depth_loss(p, d, valid, gm_space=space)
    terms = []
    for i in (0, 2, 3):
        error = naive_fit(p[i], d[i]) - d[i] if space == "ls" else naive_normal(p[i]) - naive_normal(d[i])
        terms.append(naive_trim(p[i], d[i]) + 2 * naive_gradient(error))
    oracle = torch.stack(terms).mean()
    torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-12)
    if shape != (1, 1):  # one pixel has no spread: its gradient is a convention
        (a,), (b,) = (torch.autograd.grad(x, p) for x in (ours, oracle))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("size", "gm"), [(224, 0.5222), (256, 0.4584)])
def test_a_ramp_against_its_negative(size: int, gm: float) -> None:
    assert ssi_trim(-ramp(size), ramp(size)).item() == pytest.approx(0.8100, abs=1e-4)
    assert gradient_matching(-ramp(size), ramp(size)).item() == pytest.approx(gm, abs=1e-4)


def test_a_ramp_against_the_other_axis() -> None:
    assert ssi_trim(ramp(224).mT, ramp(224)).item() == pytest.approx(0.509, abs=5e-4)


def test_scale_and_shift_of_the_prediction_do_not_matter_but_the_sign_does() -> None:
    d = torch.rand(2, 64, 64).cumsum(1)
    everywhere = torch.ones(2, dtype=torch.bool)
    assert depth_loss(3 * d + 5, d, everywhere)[0].item() < 1e-4
    assert depth_loss(3 * d.double() + 5, d.double(), everywhere)[0].item() < 1e-12
    assert depth_loss(-d, d, everywhere)[0].item() > 0.5


def test_outliers_are_trimmed_in_their_own_image_only() -> None:
    d = ramp(224).repeat(2, 1, 1)
    p = d.clone()
    picks = torch.randperm(224 * 224, generator=torch.Generator().manual_seed(0))[: 224 * 224 // 20]
    d[0].view(-1)[picks] = 50.0
    found = ssi_trim(p, d)
    assert found[0].item() == pytest.approx(0.38, abs=0.01)
    assert found[1].item() == 0


def test_independent_noise() -> None:
    g = torch.Generator().manual_seed(0)
    p, d = torch.randn(2, 8, 224, 224, generator=g)
    assert ssi_trim(p, d).mean().item() == pytest.approx(0.524, abs=0.01)
    assert gradient_matching(p, d).mean().item() == pytest.approx(15.6, abs=0.3)


@pytest.mark.parametrize(("pixels", "kept"), [(1, 0), (10, 9), (224 * 224, 45_158), (256 * 256, 58_982)])
def test_exactly_the_smallest_count_even_with_ties(pixels: int, kept: int) -> None:
    g = torch.Generator().manual_seed(0)
    error = torch.randint(1, 5, (2, 1, pixels), generator=g).double().requires_grad_()
    oracle = error.flatten(1).sort(1).values[:, :kept].sum(1) / (2 * pixels)
    torch.testing.assert_close(trimmed(error), oracle, rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(trimmed(error).sum(), error)
    assert ((slope > 0).sum(-1) == kept).all()


@pytest.mark.parametrize("space", ["normalised", "ls"])
@pytest.mark.parametrize("flat", ["prediction", "target", "both"])
def test_flat_maps_are_finite(space: str, flat: str) -> None:
    p, d = torch.rand(2, 1, 32, 32)
    p = torch.full_like(p, 0.3) if flat != "target" else p
    d = torch.full_like(d, 0.7) if flat != "prediction" else d
    p.requires_grad_()
    loss, _ = depth_loss(p, d, torch.ones(1, dtype=torch.bool), gm_space=space)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, p)[0]).all()


@pytest.mark.parametrize("content", [0.0, 7.0, float("nan"), float("inf")])
def test_invalid_labels_count_for_nothing_whatever_they_hold(content: float) -> None:
    p, d = torch.rand(2, 4, 32, 32)
    p.requires_grad_()
    valid = torch.tensor([True, False, True, False])
    d[1], d[3] = content, content
    loss, report = depth_loss(p, d, valid)
    alone, alone_report = depth_loss(p[valid], d[valid], valid[valid])
    torch.testing.assert_close(loss, alone)
    assert (report.images, report.share.item(), alone_report.share.item()) == (2, 0.5, 1.0)
    torch.testing.assert_close(report.ssi_trim + 2 * report.gradient_matching, loss.detach())
    slope = torch.autograd.grad(loss, p)[0]
    assert (slope[~valid] == 0).all()
    torch.testing.assert_close(slope, torch.autograd.grad(alone, p)[0])


def test_no_valid_label_is_zero_with_a_gradient_path() -> None:
    p = torch.rand(2, 8, 8, requires_grad=True)
    loss, report = depth_loss(p, torch.full((2, 8, 8), float("nan")), torch.zeros(2, dtype=torch.bool))
    assert loss == report.images == report.share == 0
    assert (torch.autograd.grad(loss, p)[0] == 0).all()


def test_unknown_space_is_refused() -> None:
    with pytest.raises(UsageError, match=r"depth\.gm_space"):
        depth_loss(torch.rand(1, 8, 8), torch.rand(1, 8, 8), torch.ones(1, dtype=torch.bool), gm_space="raw")


def test_fp32_under_autocast() -> None:
    p, d = torch.rand(2, 2, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = depth_loss(p, d, torch.ones(2, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.equal(depth_loss(p.float(), d.float(), torch.ones(2, dtype=torch.bool))[0])
