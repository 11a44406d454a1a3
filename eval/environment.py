"""What a number was made with: library versions, git commit, device, peak memory."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "numpy", "pillow", "mtv")


def versions() -> dict[str, Any]:
    """Versions of python and of every library that can move a number, and the project's own commit."""
    out: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = None
    return {**out, **_git()}


def _git() -> dict[str, Any]:
    """Commit and dirty flag of the checkout this package runs from; empty for an installed wheel."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return {"git_commit": None, "git_dirty": None}

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def peak_memory_mb(device: str) -> dict[str, float]:
    """Highest resident memory of this process so far and, on a GPU, of its allocator; megabytes."""
    scale = 1 / 1024 if sys.platform != "darwin" else 1 / 1024**2
    out = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale, 1)}
    if device.startswith("cuda"):
        import torch

        out["device"] = round(torch.cuda.max_memory_allocated(device) / 1024**2, 1)
    return out


def hardware(device: str) -> str:
    """Name of the processor or GPU that ran the towers."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return name
