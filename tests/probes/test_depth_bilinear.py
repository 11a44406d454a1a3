"""Bilinear products against torch's interpolation and numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.probes.bilinear import bilinear_weights, resize_map


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 200))
def test_weights_are_linear_interpolation_with_border(n_in: int, n_out: int) -> None:
    values = np.random.default_rng(n_in).normal(size=n_in)
    places = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    expected = np.interp(places, np.arange(n_in), values)
    weights = bilinear_weights(n_in, n_out)
    np.testing.assert_allclose((weights @ torch.from_numpy(values)).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(weights.sum(1).numpy(), 1, atol=1e-15)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ((26, 34), (104, 136)),
        ((35, 46), (140, 184)),
        ((104, 136), (416, 544)),
        ((224, 224), (352, 1216)),
        ((9, 7), (4, 5)),
    ],
)
def test_equals_torch(small: tuple[int, int], large: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *small, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, size=large, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize_map(x, large), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(resize_map(x.float(), large).double(), expected, atol=2e-6, rtol=0)


def test_gradients_equal_torch() -> None:
    x = torch.randn(2, 1, 26, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = torch.randn(2, 1, 104, 136, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad((F.interpolate(x, size=(104, 136), mode="bilinear") * weight).sum(), x)[0]
    found = torch.autograd.grad((resize_map(x, (104, 136)) * weight).sum(), x)[0]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_same_size_is_the_identity_and_empty_is_refused() -> None:
    x = torch.randn(1, 1, 5, 6)
    assert torch.equal(resize_map(x, (5, 6)), x)
    with pytest.raises(UsageError, match="5 to 0"):
        resize_map(x, (0, 6))
