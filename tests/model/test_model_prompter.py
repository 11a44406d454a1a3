"""G3 to G5 and the box encoding: the Prompter against whole encoder layers of torch."""

from __future__ import annotations

import math

import pytest
import torch
from model_world import boxes, small
from torch import Tensor, nn
from torch.nn import functional as F

from mtv.errors import UsageError
from mtv.model.config import PrompterConfig
from mtv.model.init import init_block
from mtv.model.prompter import Prompter, box_encoding

WIDTH = 64
NAMES = {"norm1": "norm1", "norm2": "norm2", "self_attn.out_proj": "proj", "linear1": "mlp.fc1", "linear2": "mlp.fc2"}


def prompter(dtype: torch.dtype = torch.float64, **config: object) -> Prompter:
    torch.manual_seed(0)
    out = Prompter(WIDTH, 128, PrompterConfig(**config))  # type: ignore[arg-type]
    with torch.no_grad():
        init_block(out.layer)
        out.query.normal_(std=0.5)
        out.layer.qkv.weight.mul_(2.0)
        for parameter in out.layer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return out.to(dtype)


def whole_layer(p: Prompter) -> nn.TransformerEncoderLayer:
    """torch's own pre-LN layer with the same weights."""
    layer = nn.TransformerEncoderLayer(
        WIDTH,
        p.config.heads,
        128,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate="tanh"),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    own = p.layer.state_dict()
    state = {f"{a}.{k}": own[f"{b}.{k}"] for a, b in NAMES.items() for k in ("weight", "bias")}
    state |= {f"self_attn.in_proj_{k}": own[f"qkv.{k}"] for k in ("weight", "bias")}
    layer.load_state_dict(state)
    return layer


def literal(p: Prompter, layer: nn.Module, tokens_BND: Tensor, boxes_BR4: Tensor) -> Tensor:
    """One pass of the whole layer per region."""
    out = []
    for region in range(boxes_BR4.shape[1]):
        code_BD = box_encoding(boxes_BR4[:, region], WIDTH, 0.5, 16.0)
        first = [p.query + code_BD] if p.config.conditioning == "query" else [p.query.expand_as(code_BD), code_BD]
        sequence = torch.cat([torch.stack(first, 1), tokens_BND], dim=1)
        out.append(F.normalize(layer(sequence)[:, 0], dim=-1))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("conditioning", ["query", "token"])
def test_g5_shared_keys_equal_the_whole_layer(heads: int, conditioning: str) -> None:
    p = prompter(heads=heads, conditioning=conditioning)
    tokens = torch.randn(3, 25, WIDTH, dtype=torch.float64, requires_grad=True)
    regions = boxes(3, 4, dtype=torch.float64)
    layer = whole_layer(p)
    ours, theirs = p(tokens, regions), literal(p, layer, tokens, regions)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weight = torch.randn_like(ours)
    got = torch.autograd.grad((ours * weight).sum(), [tokens, p.query, *p.layer.parameters()])
    expected = torch.autograd.grad((theirs * weight).sum(), [tokens, p.query, *matched(p, layer)])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    assert all(float(g.abs().sum()) > 0 for g in got)


def matched(p: Prompter, layer: nn.Module) -> list[nn.Parameter]:
    """Parameters of torch's layer in the order of ours."""
    theirs = dict(layer.named_parameters())
    swapped = {ours: name for name, ours in NAMES.items()}
    order = [n.rsplit(".", 1) for n, _ in p.layer.named_parameters()]
    return [theirs[f"self_attn.in_proj_{k}" if m == "qkv" else f"{swapped[m]}.{k}"] for m, k in order]


def test_g3_swapped_boxes_swap_the_outputs() -> None:
    p = prompter()
    tokens, regions = torch.randn(2, 16, WIDTH, dtype=torch.float64), boxes(2, 2, dtype=torch.float64)
    out, swapped = p(tokens, regions), p(tokens, regions.flip(1))
    torch.testing.assert_close(out.flip(1), swapped, rtol=0, atol=1e-14)
    assert float((out[:, 0] - out[:, 1]).detach().abs().max()) > 1e-3


@pytest.mark.parametrize(("conditioning", "selects"), [("query", True), ("token", False)])
def test_g3_only_a_box_in_the_query_selects_patches(conditioning: str, selects: bool) -> None:
    """Shares among the patches: different between boxes, or (literal) the same up to a factor."""
    p = prompter(conditioning=conditioning)
    tokens, regions = torch.randn(1, 16, WIDTH, dtype=torch.float64), boxes(1, 2, dtype=torch.float64)
    shares = []
    for region in range(2):
        rows = p.rows(regions)[0, region]
        normed = p.layer.norm1(torch.cat([rows, tokens[0]]))
        q, k, _ = p.layer.qkv(normed).chunk(3, dim=-1)
        attention = (q[:1] @ k.T / math.sqrt(WIDTH)).softmax(-1)[0, len(rows) :]
        shares.append(attention / attention.sum())
    assert (float((shares[0] - shares[1]).detach().abs().max()) > 1e-3) == selects
    if not selects:
        torch.testing.assert_close(shares[0], shares[1], rtol=0, atol=1e-14)


def test_g4_regions_do_not_leak() -> None:
    p = prompter()
    tokens, regions = torch.randn(2, 16, WIDTH, dtype=torch.float64), boxes(2, 4, dtype=torch.float64)
    changed = regions.clone()
    changed[:, 1] = torch.tensor([0.3, 0.1, 0.4, 0.9], dtype=torch.float64)
    before, after = p(tokens, regions), p(tokens, changed)
    assert torch.equal(before[:, [0, 2, 3]], after[:, [0, 2, 3]])
    assert float((before[:, 1] - after[:, 1]).detach().abs().max()) > 1e-3


def test_box_encoding() -> None:
    code = box_encoding(boxes(5, 3, dtype=torch.float64), 768, 0.5, 16.0)
    torch.testing.assert_close(code.square().sum(-1), torch.full((5, 3), 384.0, dtype=torch.float64))
    # 4 coordinates x (sin, cos) x frequencies 0.5, 1, 2, 4, 8, 16
    x0 = box_encoding(torch.tensor([[[0.25, 0.5, 0.75, 1.0]]], dtype=torch.float64), 48, 0.5, 16.0)[0, 0, :12]
    angles = [2 * math.pi * f * 0.25 for f in (0.5, 1, 2, 4, 8, 16)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(x0, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_result_is_float32_and_normalised_under_autocast() -> None:
    p = small().prompter
    assert p is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = p(torch.randn(2, 16, 64), boxes(2, 3))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(2, 3))
    exact = p(torch.randn(2, 16, 64), boxes(2, 3))
    assert exact.isfinite().all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"ground\.heads=5 does not divide the width 64"):
        prompter(heads=5)
