"""Device and dtype of the towers, from the words of the command line."""

from __future__ import annotations

import torch

from mtv.errors import UsageError, unknown

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """The tower dtype; fp32 for None.

    Raises:
        UsageError: another word, or a dtype that no tower can use.
    """
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype):
        if dtype not in DTYPES.values():
            raise UsageError(f"dtype {dtype} is no tower dtype; use one of {', '.join(DTYPES)}")
        return dtype
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return DTYPES[dtype]


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device.

    Raises:
        UsageError: no such device in this machine or this torch.
    """
    try:
        resolved = torch.device(device)
    except RuntimeError as e:
        raise UsageError(f"unknown device {device!r}: {str(e).splitlines()[0]}", "Use cpu, cuda or cuda:0.") from e
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise UsageError(f"device {device} does not exist: torch sees {count} CUDA devices", "Use --device cpu.")
    return resolved
