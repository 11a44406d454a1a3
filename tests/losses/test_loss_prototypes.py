"""Chunked prototype cross-entropy against its definition, its memory, and the tabulated starts (S1, S2, S6)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtv.losses.prototypes import literal_prototype_cross_entropy, prototype_cross_entropy

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
FORMS = {"chunked": prototype_cross_entropy, "literal": literal_prototype_cross_entropy}


def rows(g: torch.Generator, n: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(n, width, generator=g, dtype=dtype), dim=-1)


def arguments(targets: int, crops: int, k: int, width: int, dtype: torch.dtype = torch.float64) -> Arguments:
    g = torch.Generator().manual_seed(targets + crops + k)
    return (
        rows(g, targets * crops, width, dtype).requires_grad_(),
        rows(g, k, width, dtype).requires_grad_(),
        rows(g, targets, width, dtype),
        rows(g, k, width, dtype),
        0.1 * torch.randn(1, k, generator=g, dtype=dtype),
        torch.rand(targets * crops, generator=g, dtype=dtype) / (targets * crops),
    )


def naive(a: Arguments, tau_s: float, tau_t: float) -> tuple[Tensor, Tensor]:
    """Loss and mean KL, row by row from the equations."""
    student, w_s, teacher, w_t, centre, weights = a
    crops = len(student) // len(teacher)
    loss, kl = weights.new_zeros(()), weights.new_zeros(())
    for r, z in enumerate(student):
        q = torch.softmax((w_t @ teacher[r // crops] - centre[0]) / tau_t, 0)
        p = torch.softmax(w_s @ z / tau_s, 0)
        loss = loss - weights[r] * (q * p.log()).sum()
        kl = kl + (q * (q / p).log()).sum() / len(student)
    return loss, kl


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("targets", "crops", "chunk"), [(1, 1, 1), (11, 1, 4), (11, 1, 100), (5, 6, 7), (5, 6, 3)])
def test_both_forms_equal_the_equations(form: str, targets: int, crops: int, chunk: int) -> None:
    a = arguments(targets, crops, k=37, width=8)
    chunks = {"chunk_rows": chunk} if form == "chunked" else {}
    loss, report = FORMS[form](*a, tau_s=0.1, tau_t=0.05, **chunks)  # type: ignore[operator]
    oracle, kl = naive(a, 0.1, 0.05)
    torch.testing.assert_close(loss, oracle, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(report.kl, kl.detach(), rtol=1e-10, atol=1e-10)
    found, wanted = (torch.autograd.grad(3 * x, a[:2]) for x in (loss, oracle))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_equal_at_the_real_size_in_fp32() -> None:
    a = arguments(targets=97, crops=1, k=32_768, width=256, dtype=torch.float32)
    loss, report = prototype_cross_entropy(*a, tau_s=0.1, tau_t=0.04, chunk_rows=40)
    wide = tuple(x.detach().double().requires_grad_(x.requires_grad) for x in a)
    exact, exact_report = literal_prototype_cross_entropy(*wide, tau_s=0.1, tau_t=0.04)  # type: ignore[arg-type]
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    for one, other in zip(torch.autograd.grad(loss, a[:2]), torch.autograd.grad(exact, wide[:2]), strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()
    for name in ("entropy", "kl", "mean_target_entropy"):
        torch.testing.assert_close(
            getattr(report, name).double(), getattr(exact_report, name), rtol=1e-4, atol=1e-4, msg=name
        )


class Largest(TorchDispatchMode):
    """Most elements of any tensor that an operator returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        here = [x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.numel = max([self.numel, *here])
        return result


@pytest.mark.parametrize(("form", "bounded"), [("chunked", True), ("literal", False)])
def test_no_tensor_of_rows_by_prototypes_is_made_or_kept(form: str, bounded: bool) -> None:
    n, k, width, chunk = 600, 500, 16, 50
    a = arguments(n, 1, k, width)
    saved: list[int] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x.untyped_storage().nbytes() // x.element_size())
        return x

    chunks = {"chunk_rows": chunk} if form == "chunked" else {}
    with Largest() as made, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss, _ = FORMS[form](*a, tau_s=0.1, tau_t=0.05, **chunks)  # type: ignore[operator]
        torch.autograd.grad(loss, a[:2])
    assert saved
    assert (made.numel <= chunk * k) == bounded
    assert (max(saved) <= max(n, k) * width) == bounded


def test_gradients_reach_gain_and_direction_of_weight_normed_prototypes() -> None:
    a = arguments(targets=6, crops=1, k=20, width=8)
    layers = [weight_norm(nn.Linear(8, 20, bias=False)).double() for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    losses = [
        prototype_cross_entropy(a[0], layers[0].weight, *a[2:], tau_s=0.1, tau_t=0.05, chunk_rows=4)[0],
        literal_prototype_cross_entropy(a[0], layers[1].weight, *a[2:], tau_s=0.1, tau_t=0.05)[0],
    ]
    for loss in losses:
        loss.backward()
    for ours, reference in zip(*(layer.parameters() for layer in layers), strict=True):
        assert ours.grad is not None
        assert ours.grad.abs().sum() > 0
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-10, atol=1e-14)


def test_two_backward_passes_and_frozen_inputs() -> None:
    """Gradient cosines between objectives run the backward pass more than once; evaluation runs none."""
    a = arguments(targets=6, crops=1, k=20, width=8)
    loss, _ = prototype_cross_entropy(*a, tau_s=0.1, tau_t=0.05, chunk_rows=4)
    first = torch.autograd.grad(loss, a[0], retain_graph=True)[0]
    assert first.equal(torch.autograd.grad(loss, a[0])[0])
    with torch.no_grad():
        value, _ = prototype_cross_entropy(*a, tau_s=0.1, tau_t=0.05, chunk_rows=4)
    assert not value.requires_grad
    assert value.equal(loss.detach())


def test_teacher_and_centre_get_no_gradient() -> None:
    a = arguments(targets=6, crops=1, k=20, width=8)
    teacher = tuple(x.clone().requires_grad_() for x in a[2:5])
    for form, chunks in (("chunked", {"chunk_rows": 4}), ("literal", {})):
        loss, _ = FORMS[form](*a[:2], *teacher, a[5], tau_s=0.1, tau_t=0.05, **chunks)  # type: ignore[operator]
        assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None, None, None)


def test_no_rows_is_zero_with_a_gradient_path() -> None:
    a = arguments(targets=0, crops=1, k=20, width=8)
    loss, report = prototype_cross_entropy(*a, tau_s=0.1, tau_t=0.05, chunk_rows=4)
    assert loss == 0
    assert report.kl == 0
    assert (torch.autograd.grad(loss, a[1])[0] == 0).all()


def test_rows_that_do_not_pair_up_are_refused() -> None:
    a = arguments(targets=5, crops=1, k=20, width=8)
    with pytest.raises(ValueError, match="5 student rows cannot share 4 targets"):
        prototype_cross_entropy(*a[:2], a[2][:4], *a[3:], tau_s=0.1, tau_t=0.05, chunk_rows=4)


def test_values_at_the_start_with_32768_prototypes() -> None:
    g = torch.Generator().manual_seed(0)
    k, width, n = 32_768, 256, 128
    w, z, other = rows(g, k, width, torch.float32), rows(g, n, width, torch.float32), rows(g, n, width, torch.float32)
    near = F.normalize(0.8 * z + 0.6 * other, dim=-1)  # the crop of a fresh network: cosine 0.8 to the teacher's view
    for tau_t, entropy in ((0.04, 9.20), (0.07, 10.00)):
        losses = {}
        for name, student in (("same", z), ("near", near), ("independent", other)):
            a = (student, w, z, w, torch.zeros(1, k), torch.full((n,), 1 / n))
            loss, report = prototype_cross_entropy(*a, tau_s=0.1, tau_t=tau_t, chunk_rows=64)
            assert report.entropy.item() == pytest.approx(entropy, abs=0.02)
            losses[name] = loss.item()
        assert 9.60 < losses["same"] < losses["near"] < 10.55
        # independent logits of variance 1 / C over tau_s^2: ln K + 1 / (2 C tau_s^2)
        assert losses["independent"] == pytest.approx(math.log(k) + 1 / (2 * width * 0.01), abs=0.01)


def test_kl_is_zero_for_equal_logits_and_temperatures_and_never_negative() -> None:
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        z, w = rows(g, 16, 32, torch.float32), rows(g, 300, 32, torch.float32)
        a = (z, w, z, w, torch.zeros(1, 300), torch.full((16,), 1 / 16))
        _, report = prototype_cross_entropy(*a, tau_s=0.07, tau_t=0.07, chunk_rows=5)
        assert 0 <= report.kl.item() < 2e-6


def test_both_collapses_show_in_the_report() -> None:
    k, width, n = 32_768, 16, 8
    g = torch.Generator().manual_seed(0)
    z, weights, centre = rows(g, n, width), torch.full((n,), 1 / n).double(), torch.zeros(k).double()
    flat = rows(g, 1, width).expand(k, width)
    loss, report = prototype_cross_entropy(z, flat, z, flat, centre, weights, tau_s=0.1, tau_t=0.04, chunk_rows=8)
    for value in (loss, report.entropy, report.mean_target_entropy):
        assert value.item() == pytest.approx(math.log(k), abs=1e-6)
    single = torch.zeros(k, width).double()
    single[7] = 1e3 * z[0]
    same = z[:1].expand(n, width)
    _, report = prototype_cross_entropy(same, flat, same, single, centre, weights, tau_s=0.1, tau_t=0.04, chunk_rows=8)
    assert report.entropy.item() == pytest.approx(0, abs=1e-9)
    assert report.mean_target_entropy.item() == pytest.approx(0, abs=1e-9)
