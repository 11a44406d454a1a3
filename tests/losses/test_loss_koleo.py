"""KoLeo: tabulated values (S12), groups (S13), duplicates, and batches that are too small."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from mtv.errors import UsageError
from mtv.losses import koleo
from mtv.losses.koleo import koleo_loss


def naive(x: Tensor, group: int) -> Tensor:
    x = x / x.norm(dim=1, keepdim=True)
    total = x.new_zeros(())
    for i in range(len(x)):
        start = i // group * group
        others = [j for j in range(start, start + group) if j != i]
        nearest = max(others, key=lambda j: float((x[i] @ x[j]).detach()))
        total = total - ((x[i] - x[nearest] + 1e-8).square().sum().sqrt() + 1e-8).log()
    return total / len(x)


@pytest.mark.parametrize(("rows", "group"), [(2, 2), (12, 4), (12, 12), (30, 5)])
def test_value_and_gradient_equal_the_loop(rows: int, group: int) -> None:
    g = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 9, generator=g, dtype=torch.float64, requires_grad=True)
    ours, oracle = koleo_loss(x, group), naive(x, group)
    torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10)
    (a,), (b,) = (torch.autograd.grad(y, x) for y in (ours, oracle))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_values_of_the_table() -> None:
    assert koleo_loss(torch.eye(4, 768), 4).item() == pytest.approx(-0.3466, abs=1e-4)
    g = torch.Generator().manual_seed(0)
    assert koleo_loss(torch.randn(256, 768, generator=g), 256).item() == pytest.approx(-0.293, abs=0.003)


def test_a_duplicate_pair_is_large_and_finite() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 768, generator=g)
    x[5] = x[2]
    x.requires_grad_()
    loss = koleo_loss(x, 8)
    assert loss.item() == pytest.approx(3.5, abs=0.15)
    assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


def test_groups_are_consecutive_rows_and_do_not_meet() -> None:
    x = torch.randn(12, 16, dtype=torch.float64)
    parts = torch.stack([koleo_loss(part, 4) for part in x.split(4)])
    torch.testing.assert_close(koleo_loss(x, 4), parts.mean(), rtol=1e-12, atol=0)
    assert not torch.isclose(koleo_loss(x, 4), koleo_loss(x, 12))


def test_a_batch_that_is_no_multiple_is_one_group_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    koleo._warn_about_group.cache_clear()
    x = torch.randn(10, 16, dtype=torch.float64)
    with caplog.at_level(logging.WARNING):
        values = [koleo_loss(x, 4) for _ in range(3)]
    torch.testing.assert_close(values[0], naive(x, 10), rtol=1e-10, atol=1e-10)
    assert [("ssl.koleo_group=4" in r.message, "local batch of 10" in r.message) for r in caplog.records] == [
        (True,) * 2
    ]


@pytest.mark.parametrize(("rows", "group"), [(1, 256), (0, 4), (8, 1)])
def test_too_small_a_batch_says_so(rows: int, group: int) -> None:
    with pytest.raises(UsageError, match=rf"local batch of {rows} with ssl\.koleo_group={group}"):
        koleo_loss(torch.randn(rows, 16), group)


def test_fp32_under_autocast() -> None:
    x = torch.randn(8, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = koleo_loss(x, 8)
    assert loss.dtype == torch.float32
    assert loss.equal(koleo_loss(x.float(), 8))
