"""Short real runs for the tests of the loop, and what is compared between two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtv.train.recipe import Recipe
from mtv.train.recipes import get_recipe
from mtv.train.run_folder import newest_checkpoint, read_state

TIMING = ("img_s", "data_wait", "data_wait_stage", "memory_gib", "eta_s", "elapsed_s")
"""Fields of a log line that may differ between two equal runs."""


def nano(*settings: str, steps: int = 6) -> Recipe:
    """The recipe `nano` with batches of 4 and a line per step."""
    size = ["optim.global_batch=4", f"samples={4 * steps}", "log.every=1", "perf.threads=1"]
    return get_recipe("nano").set([*size, *settings])


def lines(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The log of a run, or its lines of one kind."""
    found = [json.loads(raw) for raw in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in found if kind in (None, line["kind"])]


def trajectory(run: Path) -> list[dict[str, Any]]:
    """The `step` lines without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines(run, "step")]


def weights(run: Path) -> dict[str, str]:
    """Hashes of everything that the newest checkpoint holds: towers, heads, teacher, centres, optimiser."""
    folder = newest_checkpoint(run)
    assert folder is not None
    files = read_state(folder)["files"]
    assert {"model.safetensors", "mtv_heads.safetensors", "optimizer.safetensors"} <= set(files)
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}
