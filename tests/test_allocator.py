"""Freed memory stays with the process: page faults are counted by the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_COUNT = """
import resource, sys, numpy as np
from mtv.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(20):
        held = [np.ones(1 << 20, np.uint8) for _ in range(64)]
        del held
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    def faults(mode: str) -> int:
        run = subprocess.run([sys.executable, "-c", _COUNT, mode], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults("keep") < 0.1 * faults("plain")
