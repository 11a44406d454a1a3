"""Keep freed memory in the process: large tensors come and go, and glibc would hand each back to the system at once.

Every return costs a page fault per 4 KiB when the next tensor is made; for the renderer that was a sixth of its time
(`tests/benchmarks/bench_miniworld.py`).
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 << 20
"""glibc refuses a larger threshold for separate mappings."""


def keep_freed_memory(limit: int = 512 << 20) -> bool:
    """Let this process keep up to `limit` bytes that it has freed, for its next allocations.

    Costs at most that much resident memory. Does nothing where the C library is not glibc.

    Args:
        limit: bytes, under 2 GiB.

    Returns:
        Whether the C library took the setting.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, limit))
