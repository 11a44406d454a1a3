"""Small models whose every weight matters, shared by the tests of this folder."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from mtv.model.config import OBJECTIVES, SIZES, ModelSize, PrompterConfig, SslConfig
from mtv.model.model import MtvModel
from mtv.model.tokenizer import Tokenizer, load_tokenizer

NANO = SIZES["nano"]
SMALL_SSL = SslConfig(prototypes=48, hidden=32, bottleneck=16)
FULL = frozenset(OBJECTIVES)
TEXTS = [
    "A Photo of a red-chair!",
    "sea_waves  & two cups",
    "",
    "a very long caption of " * 20,
    "caf\u00e9 M\u00fcnchen 42",
]


def small(objectives: frozenset[str] = FULL, *, size: ModelSize = NANO, seed: int = 0, **prompter: Any) -> MtvModel:
    return MtvModel(size, objectives, SMALL_SSL, PrompterConfig(**prompter), seed=seed)


def lively(model: MtvModel, *, sharpen: float = 1.5) -> MtvModel:
    """Zero biases, unit norms and near-uniform attention would hide swapped parts."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
            if "qkv.weight" in name:
                parameter[: 2 * len(parameter) // 3].mul_(sharpen)
    return model.eval()


@cache
def mini(positions: int = 16) -> Tokenizer:
    return load_tokenizer("mini-bpe-4096", positions=positions)


def boxes(batch: int, regions: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    corners = torch.rand(batch, regions, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    low, high = corners.min(2).values, corners.max(2).values
    return torch.cat([low, high + 0.05], dim=-1)


def images(batch: int, side: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
