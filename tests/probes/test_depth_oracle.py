"""Head, loss and metrics together against a numpy version, and choices that must change the number (rows X1, E5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.probes.bilinear import resize_map
from mtv.probes.depth_frames import NYU_EIGEN
from mtv.probes.depth_head import DepthHead, DepthHeadConfig
from mtv.probes.depth_loss import depth_loss
from mtv.probes.depth_metrics import METRICS, flip_average, score_image, summarise, valid_mask

# --- X1: numpy, float64, in the literal order of the protocol ---------------------------------------------------------


def upsample(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear over the last two axes by one-dimensional interpolation along each."""
    for axis, n in zip((-2, -1), size, strict=True):
        old = x.shape[axis]
        places = (np.arange(n) + 0.5) * old / n - 0.5
        x = np.apply_along_axis(lambda line, p=places, k=old: np.interp(p, np.arange(k), line), axis, x)
    return x


def reference_depth(tokens: np.ndarray, token: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """B,H,W,D to B,4H,4W."""
    b, h, w, d = tokens.shape
    both = np.concatenate(
        [tokens.transpose(0, 3, 1, 2), np.broadcast_to(token[:, :, None, None], (b, d, h, w))], axis=1
    )
    logits = np.einsum("kc,bchw->bkhw", weight, upsample(both, (4 * h, 4 * w))) + bias[:, None, None]
    mass = np.maximum(logits, 0) + 0.1
    mass /= mass.sum(axis=1, keepdims=True)
    return np.einsum("bkhw,k->bhw", mass, np.linspace(0.001, 10, 256))


def reference_loss(pred: np.ndarray, depth: np.ndarray) -> float:
    losses = []
    for first in range(0, len(pred), 2):
        p, d = pred[first : first + 2], depth[first : first + 2]
        g = np.log(p[d > 0] + 0.001) - np.log(d[d > 0] + 0.001)
        losses.append(np.sqrt(g.var(ddof=1) + 0.15 * g.mean() ** 2))
    return float(np.mean(losses))


def reference_metrics(preds: np.ndarray, depths: np.ndarray) -> dict[str, float]:
    rows = []
    for pred, depth in zip(preds, depths, strict=True):
        inside = np.zeros(depth.shape, dtype=bool)
        inside[45:471, 41:601] = True
        keep = inside & (depth > 0.001) & (depth < 10)
        p, g = pred[keep], depth[keep]
        worst, e = np.maximum(p / g, g / p), np.log(p) - np.log(g)
        rows.append(
            [
                *(np.mean(worst < 1.25**k) for k in (1, 2, 3)),
                np.mean(np.abs(p - g) / g),
                np.mean((p - g) ** 2 / g),
                np.sqrt(np.mean((p - g) ** 2)),
                np.mean(np.abs(np.log10(p) - np.log10(g))),
                np.sqrt(np.mean(e**2)),
                100 * np.sqrt(np.mean(e**2) - np.mean(e) ** 2),
            ]
        )
    return dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_x1_head_loss_and_metrics(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    batch, rows, cols, width = 4, 6, 8, 12
    tokens, token = rng.normal(size=(batch, rows, cols, width)), rng.normal(size=(batch, width))
    head = DepthHead(width, seed=1)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in (head.weight, head.bias))
    head = head.to(dtype)
    expected = reference_depth(tokens, token, weight, bias)
    small = head(torch.from_numpy(tokens).to(dtype), torch.from_numpy(token).to(dtype))
    relative = 1e-12 if dtype == torch.float64 else 2e-6
    np.testing.assert_allclose(small[:, 0].detach().numpy(), expected, rtol=relative)

    depth = rng.uniform(0.3, 12, size=(batch, 480, 640)) * (rng.random((batch, 480, 640)) > 0.2)
    depth = depth.astype(np.float32).astype(np.float64)
    expected_full = upsample(expected, (480, 640))
    full = resize_map(small, (480, 640))
    target = torch.from_numpy(depth)[:, None].to(dtype)
    loss = float(depth_loss(full, target, step=100).value.detach())
    assert loss == pytest.approx(reference_loss(expected_full, depth), rel=1e-6)

    pred = full.detach()
    masks = valid_mask(target, min_depth=0.001, max_depth=10.0, box=NYU_EIGEN)
    found = summarise([score_image(p, g, m) for p, g, m in zip(pred, target, masks, strict=True)])
    for key, value in reference_metrics(expected_full, depth).items():
        # A pixel next to a threshold may count or not: 5 of a million.
        tolerance = {"abs": 5e-6} if key in ("a1", "a2", "a3") else {"rel": 1e-6}
        assert found[key] == pytest.approx(value, **tolerance), key


# --- E5: one picture through the whole evaluation ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Choices of the evaluation; the defaults are the protocol's."""

    filled: bool = False
    black_frame: bool = True
    eigen: bool = True
    flip: bool = True
    head: Callable[[DepthHead, Tensor, Tensor], Tensor] | None = None


SIZE = (240, 320)
"""Half an NYUv2 frame: all boxes keep their share."""


def scene(*, filled: bool, black_frame: bool) -> tuple[Tensor, Tensor]:
    """A picture B3HW with structure everywhere, and raw depth with holes where far and at the right."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) / 50 for n in SIZE), indexing="ij")
    picture = torch.stack([torch.sin(2 * x + c) * torch.cos(1.3 * y - c * x) for c in range(3)])[None]
    full = 1.5 + 0.8 * x + torch.sin(3 * y) ** 2
    holes = (full > 6) | ((x > 3) & (y < 0.8))
    if black_frame:
        kept = torch.zeros(SIZE, dtype=torch.bool)
        kept[4:237, 4:316] = True
        picture = torch.where(kept, picture, -2.0)
    return picture, full if filled else torch.where(holes, 0, full)


def encode(picture_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """A fixed random encoder: what a token sees of its patch, and the mean of all tokens."""
    mix = torch.randn(3 * 16 * 4, 24, generator=torch.Generator().manual_seed(5)) / 8
    patches = F.unfold(F.avg_pool2d(picture_B3HW, (1, 4)), kernel_size=(16, 4), stride=(16, 4)).transpose(1, 2)
    tokens = torch.tanh(patches @ mix).unflatten(1, (15, 20))
    return tokens, tokens.mean(dim=(1, 2))


def trained_head() -> DepthHead:
    """Weights large enough for the ReLU and the normalisation to matter."""
    head = DepthHead(24, seed=2)
    with torch.no_grad():
        head.weight.mul_(12)
        head.bias.copy_(torch.linspace(1.5, -1.5, 256))
    return head


def literal(
    head: DepthHead,
    tokens: Tensor,
    token: Tensor,
    *,
    softmax: bool = False,
    log_bins: bool = False,
    full_size_logits: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """The head step by step with torch's own operators, and the choices that other code bases make."""

    def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    both = torch.cat([tokens, token[:, None, None].expand_as(tokens)], dim=-1).permute(0, 3, 1, 2)
    logits = F.conv2d(resize(both, (60, 80)), head.weight[..., None, None], head.bias)
    logits = resize(logits, SIZE) if full_size_logits else logits
    mass = logits.softmax(1) if softmax else F.normalize(logits.relu() + 0.1, p=1, dim=1)
    centres = torch.logspace(-3, 1, 256) if log_bins else torch.linspace(0.001, 10, 256)
    return resize(torch.einsum("bkhw,k->bhw", mass, centres)[:, None].clamp(0.001, 10), SIZE)


def rmse(variant: Variant) -> float:
    picture, depth = scene(filled=variant.filled, black_frame=variant.black_frame)
    head = trained_head()
    run = variant.head or (lambda h, x, g: h.predict(x, g, SIZE))
    with torch.no_grad():
        plain, mirrored = (run(head, *encode(p)) for p in (picture, picture.flip(-1)))
    pred = flip_average(plain, mirrored) if variant.flip else plain
    mask = valid_mask(depth, min_depth=0.001, max_depth=10.0, box=NYU_EIGEN if variant.eigen else None)
    return score_image(pred[0, 0], depth, mask).values["rmse"]


PROTOCOL = Variant()


@pytest.fixture(scope="module")
def protocol_rmse() -> float:
    return rmse(PROTOCOL)


def test_e5_the_protocol_is_the_literal_head(protocol_rmse: float) -> None:
    assert rmse(replace(PROTOCOL, head=literal)) == pytest.approx(protocol_rmse, rel=1e-5)
    assert 0.3 < protocol_rmse < 10


@pytest.mark.parametrize("name", ["filled", "black_frame", "eigen", "flip"])
def test_e5_data_and_evaluation_choices_change_the_number(name: str, protocol_rmse: float) -> None:
    other = rmse(replace(PROTOCOL, **{name: not getattr(PROTOCOL, name)}))
    assert abs(other - protocol_rmse) > 1e-4 * protocol_rmse, "far more than rounding"


@pytest.mark.parametrize("name", ["softmax", "log_bins", "full_size_logits", "align_corners"])
def test_e5_head_choices_change_the_number(name: str, protocol_rmse: float) -> None:
    other = rmse(replace(PROTOCOL, head=lambda h, x, g: literal(h, x, g, **{name: True})))
    assert abs(other - protocol_rmse) > 1e-4 * protocol_rmse, "far more than rounding"


def test_e5_log_bins_are_an_option_of_the_head() -> None:
    tokens, token = encode(scene(filled=False, black_frame=True)[0])
    head = DepthHead(24, config=DepthHeadConfig(spacing="log"), seed=2)
    with torch.no_grad():
        expected = literal(head, tokens, token, log_bins=True)
        torch.testing.assert_close(head.predict(tokens, token, SIZE), expected, atol=1e-5, rtol=0)
    assert math.isclose(float(DepthHeadConfig().centres()[128]), 0.001 + 128 * 9.999 / 255)
