"""DINO and iBOT terms: which rows meet which target and with what weight (S4, S5, S8)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import UsageError
from mtv.losses.masked_prediction import masked_index, masked_prediction_loss, masked_rows
from mtv.losses.self_distillation import self_distillation_loss

B, M, N, C, K = 5, 6, 12, 8, 30


def rows(seed: int, *shape: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, C, generator=g, dtype=torch.float64), dim=-1)


TEACHER = (rows(2, K), rows(3, B), rows(4, K), rows(5, K)[:, 0])
"""Student prototypes, teacher rows, teacher prototypes, centre."""


def cross_entropy(z_s: Tensor, w_s: Tensor, z_t: Tensor, w_t: Tensor, centre: Tensor, tau_t: float) -> Tensor:
    q = torch.softmax((w_t @ z_t - centre) / tau_t, 0)
    return -(q * torch.log_softmax(w_s @ z_s / 0.1, 0)).sum()


def dino(student_BMC: Tensor, **options: str) -> Tensor:
    w_s, z_t, w_t, centre = TEACHER
    loss, _ = self_distillation_loss(student_BMC, w_s, z_t, w_t, centre, tau_t=0.05, chunk_rows=13, **options)
    return loss


def test_every_crop_of_an_image_meets_the_target_of_that_image() -> None:
    student = rows(1, B, M).requires_grad_()
    w_s, z_t, w_t, centre = TEACHER
    terms = [cross_entropy(student[i, m], w_s, z_t[i], w_t, centre, 0.05) for i in range(B) for m in range(M)]
    oracle = torch.stack(terms).sum() / (B * M)
    torch.testing.assert_close(dino(student), oracle, rtol=1e-12, atol=0)
    (ours,), (wanted,) = (torch.autograd.grad(x, student) for x in (dino(student), oracle))
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-14)
    assert (ours.norm(dim=-1) > 0).all()  # implementations that skip equal indices leave crop 0 without gradient


def test_mean_ignores_repeats_of_a_crop_and_the_sum_counts_them() -> None:
    once = rows(1, B, 1)
    again = once.expand(B, M, C)
    torch.testing.assert_close(dino(again), dino(once), rtol=1e-12, atol=0)
    torch.testing.assert_close(dino(again, reduction="sum_crops"), 6 * dino(once), rtol=1e-12, atol=0)
    with pytest.raises(UsageError, match=r"ssl\.reduction"):
        dino(once, reduction="sum")


def test_reports_are_means_in_both_reductions() -> None:
    w_s, z_t, w_t, centre = TEACHER
    for reduction in ("mean", "sum_crops"):
        loss, report = self_distillation_loss(
            rows(1, B, M), w_s, z_t, w_t, centre, tau_t=0.05, reduction=reduction, chunk_rows=64
        )
        crops = M if reduction == "sum_crops" else 1
        torch.testing.assert_close(report.cross_entropy * crops, loss, rtol=1e-12, atol=0)


def mask_of(counts: list[int]) -> Tensor:
    g = torch.Generator().manual_seed(9)
    order = torch.rand(len(counts), N, generator=g).argsort(1).argsort(1)
    return order < torch.tensor(counts).unsqueeze(1)


@pytest.mark.parametrize("counts", [[6] * B, [6, 1, 12, 0, 3]])
def test_masked_prediction_is_the_mean_over_patches_then_images(counts: list[int]) -> None:
    mask, (w_s, _, w_t, centre) = mask_of(counts), TEACHER
    student, teacher = rows(6, B, N).requires_grad_(), rows(7, B, N)
    index = masked_index(mask)
    loss, _ = masked_prediction_loss(
        masked_rows(student, index), w_s, masked_rows(teacher, index), w_t, centre, mask, index, tau_t=0.05
    )
    oracle = torch.zeros((), dtype=torch.float64)
    for i, count in enumerate(counts):
        for j in range(N):
            if mask[i, j]:
                oracle = oracle + cross_entropy(student[i, j], w_s, teacher[i, j], w_t, centre, 0.05) / (B * count)
    torch.testing.assert_close(loss, oracle, rtol=1e-12, atol=0)
    (ours,), (wanted,) = (torch.autograd.grad(x, student) for x in (loss, oracle))
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-14)
    assert (ours[~mask] == 0).all()


def test_rows_of_teacher_and_student_pair_up() -> None:
    mask, (w_s, _, w_t, centre) = mask_of([6] * B), TEACHER
    index = masked_index(mask)
    assert masked_rows(rows(6, B, N), index).equal(rows(6, B, N)[mask])
    student, teacher = masked_rows(rows(6, B, N), index), masked_rows(rows(7, B, N), index)
    right, permuted = (
        masked_prediction_loss(student, w_s, t, w_t, centre, mask, index, tau_t=0.05)[0]
        for t in (teacher, teacher.roll(1, 0))
    )
    assert (right - permuted).abs() > 1e-3


def test_head_on_masked_tokens_equals_masked_head_output() -> None:
    mask, tokens = mask_of([6] * B), rows(6, B, N)
    head = torch.nn.Sequential(torch.nn.Linear(C, 16), torch.nn.GELU(), torch.nn.Linear(16, C)).double()
    index = masked_index(mask)
    torch.testing.assert_close(head(masked_rows(tokens, index)), masked_rows(head(tokens), index), rtol=1e-12, atol=0)


def test_half_precision_rows_are_raised_under_autocast() -> None:
    w_s, z_t, w_t, centre = (x.float() for x in TEACHER)
    student = rows(1, B, M).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, report = self_distillation_loss(student, w_s, z_t.bfloat16(), w_t, centre, tau_t=0.05)
    plain, _ = self_distillation_loss(student.float(), w_s, z_t.bfloat16().float(), w_t, centre, tau_t=0.05)
    assert loss.dtype == report.entropy.dtype == torch.float32
    assert loss.equal(plain)
