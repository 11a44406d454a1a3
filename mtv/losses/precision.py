"""Losses run in FP32 whatever the towers ran in: one decorator that says so at each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def in_full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` with autocast off and its half-precision tensor arguments raised to FP32; FP64 stays FP64.

    At the logits of the sigmoid losses (about -10 at the start) neighbouring BF16 numbers are 0.0625 apart.

    Note:
        FP32 products on CUDA follow `torch.set_float32_matmul_precision`; its default "highest" is meant here.
    """

    @functools.wraps(function)
    def raised(*args: P.args, **kwargs: P.kwargs) -> T:
        device = next(a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        full = cast("Callable[..., T]", function)
        with torch.autocast(device_type=device, enabled=False):
            return full(*map(_raised, args), **{name: _raised(value) for name, value in kwargs.items()})

    return raised


def unit(x: Tensor) -> Tensor:
    """Rows of length 1 along the last axis; a zero row stays zero and gets no gradient."""
    return F.normalize(x, dim=-1)


def _raised(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value
