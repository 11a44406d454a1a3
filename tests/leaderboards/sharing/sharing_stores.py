"""Result stores of made-up models, written by the real store under real protocols, with values known beforehand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from mtv.command_line import invoke
from mtv.eval.commands.results_store import results
from mtv.eval.protocols import protocol_for
from mtv.eval.store import ResultStore
from mtv.hashing import sha256_file
from mtv.leaderboards.sharing.merge import Merged, merge
from mtv.leaderboards.sharing.settling import Prefer
from mtv.recipes import Recipe
from mtv.results import TaskResult, find_records
from mtv.stats import evaluate

N = 40
"""Samples of every made-up result."""
EARLY, LATE = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00Z"
"""Two times of making a result, in both spellings of UTC."""
RECIPES = {
    "imagenet": {"top1": Recipe(kind="ratio", column="hit", headline=True, chance=0.1)},
    "coco": {
        "t2i_r1": Recipe(kind="ratio", column="hit", headline=True),
        "i2t_r1": Recipe(kind="ratio", column="other"),
        "rsum": Recipe(kind="sum", of=("coco/t2i_r1", "coco/i2t_r1")),
    },
    "nyuv2": {"rmse": Recipe(kind="ratio", column="hit", scale=1.0, unit="m", higher_is_better=False, headline=True)},
}


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def add(
    root: Path,
    hits: int = 20,
    *,
    model: str = "vit",
    weights: str = "w",
    task: str = "imagenet",
    preset: str = "mini",
    limit: int | None = None,
    data: str = "set",
    label: str = "",
    shard: str = "",
    status: str = "",
    created: str = EARLY,
    table: bool = True,
    pictures: int = 0,
    drop: Iterable[str] = (),
    spec: str = "timm:vit_tiny_patch16_224@random?seed=0",
    env: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """One result with `hits` of N right answers; returns its record's path."""
    columns = {
        "sample_id": np.array([f"{task}-{k}" for k in range(N)]),
        "cluster_id": np.array([f"{task}-{k}" for k in range(N)]),
        "hit": (np.arange(N) < hits).astype(float),
        "other": (np.arange(N) < hits // 2).astype(float),
    }
    recipes = {f"{task}/{k}": r for k, r in RECIPES[task].items() if k not in drop}
    record = TaskResult(
        created=created,
        status=status or ("partial" if limit or shard else "complete"),  # type: ignore[arg-type]
        task=task,
        protocol=protocol_for(task, preset, {"limit": limit}).describe(preset),
        model={"spec": spec, "alias": model, "fingerprint": fingerprint(model + weights), "random": False},
        data={"name": task, "split": "val", "fingerprint": fingerprint(task + data), "label": label},
        metrics=evaluate(recipes, columns, n_resamples=50, seed=seed),
        run={"suite": "", "seed": seed, **({"shard": shard} if shard else {})},
        env=env or {"mtv": "0.1.0", "torch": "2.9.0"},
    )
    shown = [(f"best-{k:02d}", Image.new("RGB", (8, 8), (k, hits, 0))) for k in range(pictures)]
    return ResultStore(root).write(record, columns if table else None, shown)[0]


def add_failure(root: Path, *, loaded: bool, created: str = EARLY, model: str = "vit") -> Path:
    """A failed record, as the runner writes it: before the model was loaded, or before the data were opened."""
    spec = "timm:vit_tiny_patch16_224@random?seed=0"
    record = TaskResult(
        created=created,
        status="failed",
        task="imagenet",
        protocol=protocol_for("imagenet", "mini").describe("mini"),
        model={"spec": spec, "alias": model, "fingerprint": fingerprint(f"{model}w") if loaded else "unloaded"},
        data={"name": "imagenet", "fingerprint": "", "label": ""},
        error={"type": "DataError", "message": "no data", "stage": "data" if loaded else "load"},
    )
    return ResultStore(root).write(record)[0]


def merged(*sources: Path, out: Path, prefer: Prefer | None = None) -> Merged:
    return merge(sources, out, place=ResultStore(out).path_for, prefer=prefer)


def snapshot(root: Path) -> dict[str, str]:
    """Every file below `root` with the hash of its bytes."""
    return {p.relative_to(root).as_posix(): sha256_file(p) for p in sorted(root.rglob("*")) if p.is_file()}


def content(root: Path) -> dict[Any, Any]:
    """What a store says, without the names of its files: key and shard to everything else of the record."""
    out = {}
    for _, record in find_records(root):
        value = record.to_json()
        value["samples"] = record.samples and record.samples["sha256"]
        value["artefacts"] = sorted(Path(a).name for a in record.artefacts)
        key = (*record.key, str(record.run.get("shard")))
        assert key not in out
        out[key] = json.dumps(value, sort_keys=True)
    return out


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `mtv-eval results ...`, errors as the real program reports them."""
    runner = CliRunner()
    with runner.isolation() as (out, err, _):
        code = invoke(results, [str(a) for a in arguments], name="mtv-eval results")
        return code, out.getvalue().decode(), err.getvalue().decode()


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
