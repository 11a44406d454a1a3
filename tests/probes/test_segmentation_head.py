"""The linear head: size, initialisation, folding of the norm (C4), and its form on normalised tokens (T10)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mtv.errors import UsageError
from mtv.probes.segmentation_head import HeadConfig, LinearHead, fold_norm


def trained_head(width: int = 64, n_classes: int = 30, *, bn: bool = True, seed: int = 0) -> LinearHead:
    """A head with statistics, scale, shift and bias far from their initial values."""
    g = torch.Generator().manual_seed(seed)
    head = LinearHead(HeadConfig(width=width, n_classes=n_classes, bn=bn), seed=seed)
    with torch.no_grad():
        head.conv.weight.mul_(10)
        assert head.conv.bias is not None
        head.conv.bias.normal_(generator=g)
        if head.norm is not None:
            head.norm.weight.uniform_(0.3, 2, generator=g)
            head.norm.bias.normal_(generator=g)
            head.norm.running_mean.normal_(generator=g)  # type: ignore[union-attr]
            head.norm.running_var.uniform_(0.1, 4, generator=g)  # type: ignore[union-attr]
    return head


@pytest.mark.parametrize(
    ("width", "bn", "parameters"),
    [(768, True, 116_886), (1024, True, 155_798), (768, False, 115_350), (1024, False, 153_750)],
)
def test_t10_linear_and_initialised(width: int, bn: bool, parameters: int) -> None:
    head = LinearHead(HeadConfig(width=width, n_classes=150, bn=bn))
    assert sum(p.numel() for p in head.parameters()) == parameters
    weight = head.conv.weight.detach()
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert float(weight.mean()) == pytest.approx(0, abs=1e-4)
    assert not head.conv.bias.any()  # type: ignore[union-attr]
    assert (head.norm is not None) == bn
    if head.norm is not None:
        assert (head.norm.eps, head.norm.momentum, head.norm.affine) == (1e-5, 0.1, True)
    # Linear in evaluation mode: f(a x + (1 - a) y) = a f(x) + (1 - a) f(y).
    head = trained_head(width, 150, bn=bn).double().eval()
    x, y = torch.randn(2, 1, width, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(0.3 * x + 0.7 * y), 0.3 * head(x) + 0.7 * head(y), atol=1e-10, rtol=0)


def test_seeds() -> None:
    config = HeadConfig(width=32, n_classes=5)
    before = torch.random.get_rng_state()
    heads = [LinearHead(config, seed=s) for s in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is not touched"
    assert torch.equal(heads[0].conv.weight, heads[1].conv.weight)
    assert not torch.equal(heads[0].conv.weight, heads[2].conv.weight)


@pytest.mark.parametrize("bn", [True, False])
def test_c4_folded_norm_gives_the_same_logits(bn: bool) -> None:
    head = trained_head(768, 150, bn=bn).eval()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    folded = fold_norm(head)
    x = torch.randn(2, 768, 9, 9, generator=torch.Generator().manual_seed(2))
    expected = head(x).detach()
    assert float(expected.std()) > 1
    got = folded(x).detach()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert float((got - expected).abs().max()) < 2e-5 * float(expected.abs().max())
    assert folded.norm is None
    assert not folded.training
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_running_statistics_serve_at_test_time() -> None:
    """T11: folding a head in training mode does not take the batch's statistics."""
    head = trained_head().train()
    x = 5 + 3 * torch.randn(4, 64, 6, 6, generator=torch.Generator().manual_seed(3))
    folded = fold_norm(head)(x)
    torch.testing.assert_close(folded, head.eval()(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bn", [True, False])
def test_linear_form_and_its_gradients(bn: bool) -> None:
    head = trained_head(bn=bn).double().train()
    x = torch.randn(3, 64, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    target = torch.randint(0, 30, (3, 5, 7), generator=torch.Generator().manual_seed(5))
    F.cross_entropy(head(x), target).backward()
    expected = [p.grad.clone() for p in head.parameters()]  # type: ignore[union-attr]
    head.zero_grad()
    plain = F.batch_norm(x, None, None, training=True) if bn else x
    logits_BhwC = F.linear(plain.permute(0, 2, 3, 1), *head.linear())
    F.cross_entropy(logits_BhwC.permute(0, 3, 1, 2), target).backward()
    for p, gradient in zip(head.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-12, rtol=0)


def test_fields_are_checked() -> None:
    with pytest.raises(UsageError, match="width"):
        HeadConfig(width=0, n_classes=3)
    for n in (0, 256):
        with pytest.raises(UsageError, match="n_classes must be 1 to 255"):
            HeadConfig(width=8, n_classes=n)
