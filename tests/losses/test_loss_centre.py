"""The centre follows the mean teacher logits, once per optimiser step (S3, S10, S11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mtv.losses.centre import Centre, mean_logits

K, C = 32_768, 256


def test_mean_of_logits_from_the_mean_row() -> None:
    z, w = F.normalize(torch.randn(64, C), dim=-1), F.normalize(torch.randn(K, C), dim=-1)
    exact = (z.double() @ w.double().T).mean(0)
    torch.testing.assert_close(mean_logits(z.mean(0), w).double(), exact, rtol=0, atol=1e-7)


def test_constant_logits_are_approached_geometrically_from_zero() -> None:
    z, w = F.normalize(torch.randn(1, C), dim=-1), F.normalize(torch.randn(K, C), dim=-1)
    logits = z @ w.T
    centre = Centre(K, C)
    assert (centre.value == 0).all()  # what the loss of the first step uses
    for n in range(1, 6):
        centre.observe(z.expand(7, C))
        centre.update(w)
        torch.testing.assert_close(centre.value, (1 - 0.9**n) * logits, rtol=1e-5, atol=1e-7)


def test_micro_batches_are_one_step_and_a_skipped_step_is_none() -> None:
    z, w = torch.randn(10, 8), torch.randn(30, 8)
    whole, parts = Centre(30, 8), Centre(30, 8)
    whole.observe(z)
    whole.update(w)
    parts.observe(torch.randn(5, 8))
    parts.discard()
    parts.observe(z[:3])  # unequal on purpose: rows count, not micro-batches
    parts.observe(z[3:])
    parts.update(w)
    torch.testing.assert_close(parts.value, whole.value)
    torch.testing.assert_close(whole.value[0], 0.1 * (z @ w.T).mean(0))


def test_every_step_follows_its_own_rows_only() -> None:
    w, first, second = torch.randn(30, 8), torch.randn(4, 8), torch.randn(6, 8)
    centre = Centre(30, 8)
    for rows in (first, second):
        centre.observe(rows)
        centre.update(w)
    expected = 0.09 * (first @ w.T).mean(0) + 0.1 * (second @ w.T).mean(0)
    torch.testing.assert_close(centre.value[0], expected)


def test_an_update_without_rows_keeps_the_centre() -> None:
    centre = Centre(30, 8)
    centre.value.fill_(2.0)
    centre.update(torch.randn(30, 8))
    assert (centre.value == 2).all()


def test_only_the_centre_is_in_the_checkpoint_and_comes_back_equal() -> None:
    centre = Centre(30, 8)
    centre.observe(torch.randn(4, 8))
    centre.update(torch.randn(30, 8))
    state = centre.state_dict()
    assert {name: tuple(x.shape) for name, x in state.items()} == {"value": (1, 30)}
    other = Centre(30, 8)
    other.load_state_dict(state)
    assert other.value.equal(centre.value)
    assert not list(centre.parameters())


def test_half_precision_rows_are_summed_in_fp32() -> None:
    z, w = F.normalize(torch.randn(20_000, 8) + 3, dim=-1).bfloat16(), torch.randn(30, 8)
    centre = Centre(30, 8)
    with torch.autocast("cpu", torch.bfloat16):
        centre.observe(z)
        centre.update(w)
    assert centre.value.dtype == torch.float32
    torch.testing.assert_close(centre.value[0], 0.1 * (z.float() @ w.T).mean(0), rtol=1e-4, atol=1e-5)
