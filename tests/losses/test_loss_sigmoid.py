"""Sigmoid image-text loss: closed-form values at the start (V1-V3, V5), the naive sum, and half precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.losses.sigmoid import contrastive_logits, sigmoid_loss

START = {"log_scale": torch.tensor([math.log(10)]), "bias": torch.tensor([-10.0])}


def naive(v: Tensor, t: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    total = v.new_zeros(())
    for i in range(len(v)):
        for j in range(len(t)):
            cosine = v[i] @ t[j] / (v[i].norm() * t[j].norm())
            logit = log_scale.exp() * cosine + bias
            total = total - F.logsigmoid(logit if i == j else -logit).sum()
    return total / len(v)


@pytest.mark.parametrize("rows", [1, 2, 13])
def test_value_and_gradients_equal_the_double_sum(rows: int) -> None:
    g = torch.Generator().manual_seed(rows)
    v, t = (torch.randn(rows, 7, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    s, b = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.7, -2.0))
    ours, oracle = sigmoid_loss(v, t, s, b), naive(v, t, s, b)
    torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10)
    for a, o in zip(*(torch.autograd.grad(x, (v, t, s, b)) for x in (ours, oracle)), strict=True):
        torch.testing.assert_close(a, o, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("rows", "value"), [(256, 10.012), (4096, 10.186), (8192, 10.372)])
def test_orthogonal_images_and_texts_start_at_the_tabulated_value(rows: int, value: float) -> None:
    v, t = torch.eye(2).unsqueeze(1).expand(2, rows, 2)
    assert sigmoid_loss(v, t, **START).item() == pytest.approx(value, abs=1e-3)


def test_the_printed_sign_of_the_bias_would_start_at_81910() -> None:
    v, t = torch.eye(2).unsqueeze(1).expand(2, 8192, 2)
    assert sigmoid_loss(v, t, START["log_scale"], -START["bias"]).item() == pytest.approx(81_910, abs=1)


def test_matched_pairs_of_unit_cosine() -> None:
    assert sigmoid_loss(torch.eye(256), torch.eye(256), **START).item() == pytest.approx(0.7047, abs=1e-4)


def test_the_stored_scale_is_a_logarithm() -> None:
    logits = contrastive_logits(torch.eye(1), torch.eye(1), START["log_scale"], torch.zeros(1))
    assert START["log_scale"].item() == pytest.approx(2.302585, abs=1e-6)
    assert logits.item() == pytest.approx(10.0, abs=1e-5)


def test_logits_stay_fp32_under_autocast_and_from_half_precision_inputs() -> None:
    v, t = torch.randn(2, 8, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.bfloat16  # autocast is really on
        assert contrastive_logits(v, t, **START).dtype == torch.float32
        loss = sigmoid_loss(v, t, **START)
    assert loss.dtype == torch.float32
    assert loss.equal(sigmoid_loss(v.float(), t.float(), **START))


def test_length_of_the_features_does_not_matter() -> None:
    v, t = torch.randn(2, 8, 16, dtype=torch.float64)
    pair = {name: x.double() for name, x in START.items()}
    torch.testing.assert_close(sigmoid_loss(v, t, **pair), sigmoid_loss(3 * v, t / 7, **pair), rtol=1e-12, atol=0)


def test_a_well_matched_pair_keeps_its_small_gradient() -> None:
    """In FP32 the form softplus(a) - a loses the gradient sigmoid(-a) of a matched pair at a = 20 altogether."""
    bias = torch.tensor([-10.0], requires_grad=True)
    one = torch.eye(1)
    (slope,) = torch.autograd.grad(sigmoid_loss(one, one, torch.tensor([math.log(30)]), bias), bias)
    assert slope.item() == pytest.approx(-1 / (1 + math.exp(20)), rel=1e-4)
