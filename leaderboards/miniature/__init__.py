"""Results and checkpoints of the study in miniature that are part of this project."""

from __future__ import annotations

from pathlib import Path

NAMES = ("vl", "full")
"""Checkpoints that may be shipped, in the order of tables: VL alone, and all four objectives."""


def shipped_checkpoints(root: Path = Path(__file__).parent) -> dict[str, Path]:
    """The trained miniature checkpoints of this installation, as `SiglipModel` directories; empty where it has none.

    Args:
        root: folder that holds them.
    """
    found = {name: root / name for name in NAMES}
    return {n: p for n, p in found.items() if (p / "config.json").is_file() and (p / "model.safetensors").is_file()}
