"""S8, S9 and the weight norm: self-supervised heads and the EMA teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from model_world import images, small
from torch.nn import functional as F

from mtv.errors import UsageError
from mtv.model.config import SIZES, SslConfig
from mtv.model.model import MtvModel, teacher
from mtv.model.ssl_head import SslHead


def test_the_head_equals_its_equations() -> None:
    head = small().dino_head
    assert head is not None
    g, v = head.last.parametrizations.weight.original0, head.last.parametrizations.weight.original1
    assert torch.equal(g, torch.ones(48, 1))
    with torch.no_grad():
        g.copy_(torch.rand(48, 1) + 0.5)
        x = torch.randn(5, 7, 64)
        h = F.gelu(F.linear(x, head.fc1.weight, head.fc1.bias))
        h = F.linear(F.gelu(F.linear(h, head.fc2.weight, head.fc2.bias)), head.fc3.weight, head.fc3.bias)
        z = h / h.square().sum(-1, keepdim=True).sqrt()
        weight = g * v / v.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(head.bottleneck(x), z)
        torch.testing.assert_close(head.prototypes(), weight)
        torch.testing.assert_close(head(x), z @ weight.T)
    assert float(head.bottleneck(torch.zeros(1, 64)).abs().sum()) < float("inf")


def test_gains_are_trained_and_everything_is_float32_under_autocast() -> None:
    head = small().ibot_head
    assert head is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, weight, logits = head.bottleneck(torch.randn(3, 64)), head.prototypes(), head(torch.randn(3, 64))
    assert {z.dtype, weight.dtype, logits.dtype} == {torch.float32}
    logits.square().sum().backward()
    gain = head.last.parametrizations.weight.original0
    assert gain.requires_grad
    assert float(gain.grad.abs().min()) > 0


def test_published_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in SslHead(768, SslConfig()).parameters()) == 14_717_184


def test_s8_head_on_masked_tokens_equals_mask_of_head_output() -> None:
    model = small()
    head, follower = model.ibot_head, teacher(model)
    assert head is not None
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    student_BND = model.vision.norm(model.vision(images(3, 32), mask_BN=mask, pool=False).tokens_BND)
    teacher_BND = follower.vision.norm(follower.vision(images(3, 32), pool=False).tokens_BND)
    torch.testing.assert_close(head(student_BND[mask]), head(student_BND)[mask])
    target, logits = follower.ibot_head(teacher_BND[mask]).softmax(-1), head(student_BND[mask])
    paired = -(target * logits.log_softmax(-1)).sum(-1).mean()
    permuted = -(target.roll(1, 0) * logits.log_softmax(-1)).sum(-1).mean()
    assert float((paired - permuted).abs()) > 1e-6, "rows that do not pair up must show"


def test_s9_the_teacher_starts_as_the_student() -> None:
    model = small()
    follower = teacher(model)
    student = model.state_dict()
    own = follower.state_dict()
    assert set(own) == {k for k in student if k.startswith(("vision.", "dino_head.", "ibot_head."))} - {
        "vision.mask_token"
    }
    assert all(torch.equal(value, student[name]) for name, value in own.items())
    assert not any(p.requires_grad for p in follower.parameters())
    assert not follower.training
    assert all(p.dtype == torch.float32 for p in follower.parameters())
    # memory of its own, and the student keeps its gradients
    pointers = {p.data_ptr() for p in model.parameters()}
    assert not pointers & {p.data_ptr() for p in follower.parameters()}
    assert all(p.requires_grad for p in model.parameters())
    assert model.vision.mask_token is not None


def test_s9_half_life() -> None:
    """After 115 steps towards a fixed student the distance is 0.994^115 = 0.5005 of what it was."""
    model = small()
    follower = teacher(model)
    start = copy.deepcopy(follower.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    for _ in range(115):
        follower.update_(model, 0.994)
    student = model.state_dict()
    for name, value in follower.state_dict().items():
        before, after = (student[name] - start[name]).norm(), (student[name] - value).norm()
        assert float(after / before) == pytest.approx(0.994**115, rel=1e-4)
    assert pytest.approx(0.5005, abs=1e-4) == 0.994**115


def test_s9_float32_reaches_where_bf16_stalls() -> None:
    """From 0.98 towards 1.0: bf16 stalls near 0.98, the teacher arrives (section 6)."""
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.98)
    follower = teacher(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    rounded = torch.tensor(0.98, dtype=torch.bfloat16)
    for _ in range(900):
        rounded = 0.994 * rounded + 0.006 * torch.ones((), dtype=torch.bfloat16)
    for _ in range(900):
        follower.update_(model, 0.994)
    assert float(rounded) < 0.985
    assert float(follower.vision.positions.min()) > 0.9998


def test_a_teacher_needs_ssl_and_float32() -> None:
    with pytest.raises(UsageError, match="ssl"):
        teacher(small(frozenset({"vl"})))
    with pytest.raises(UsageError, match="is not float32"):
        teacher(small().bfloat16())


def test_the_teacher_has_its_own_position_table() -> None:
    model = MtvModel(SIZES["nano"], frozenset({"ssl"}), SslConfig(prototypes=8, hidden=8, bottleneck=8))
    follower = teacher(model)
    with torch.no_grad():
        model.vision.positions.add_(1.0)
    follower.update_(model, 0.994)
    moved = follower.vision.positions - (model.vision.positions - 1.0)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.006), rtol=0, atol=1e-5)
