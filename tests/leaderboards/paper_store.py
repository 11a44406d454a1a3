"""Results of a made-up lattice of trained checkpoints, written by the real store: scores per sample, records from them.

Every score is drawn from the numbers that a test asks for, so that an expected value is known without the code under
test: `score(objectives, task, seed)` gives the share of right answers, or the RMSE, of a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtv.eval.store import ResultStore
from mtv.hashing import sha256_json
from mtv.recipes import Recipe
from mtv.results import TaskResult
from mtv.stats import evaluate
from mtv.training_record import TrainingRecord

ORDER = ("vl", "ssl", "ground", "depth")
PATH = (("vl",), ("vl", "ssl"), ("vl", "ssl", "ground"), ORDER)
LATTICE = (*PATH, ("vl", "ground"), ("vl", "depth"), ("vl", "ssl", "depth"), ("vl", "ground", "depth"))
KEYS = {
    "imagenet": ("top1",),
    "coco": ("t2i_r1", "i2t_r1"),
    "ade20k": ("miou",),
    "navi": ("avg_recall",),
    "spair": ("avg_recall",),
    "nyuv2": ("rmse",),
}
N = 200
Score = Callable[[tuple[str, ...], str, int], float]
"""Objectives, `task/metric`, seed to the value."""


def training(
    objectives: tuple[str, ...] = ORDER,
    *,
    seed: int = 0,
    recipe: str = "mini",
    size: str | None = None,
    samples: int = 32_000,
    samples_total: int | None = None,
    study: str = "s",
) -> TrainingRecord:
    """A training record; the recipe's hash follows from what it says."""
    size = size or {"mtv_b16_10m": "b16", "mtv_l16_50m": "l16", "mtv_b16_100m": "b16"}.get(recipe, recipe)
    return TrainingRecord(
        recipe=recipe,
        recipe_hash=sha256_json([recipe, objectives, seed, study]),
        study_hash=sha256_json([recipe, study]),
        size=size,
        objectives=objectives,
        seed=seed,
        samples=samples,
        samples_total=samples if samples_total is None else samples_total,
        data_hash="data",
    )


def hits(value: float, key: str, seed: int) -> np.ndarray:
    """N outcomes whose mean is `value` to 1 / N: right answers for per cent, errors in metres for the RMSE."""
    if key == "nyuv2/rmse":
        # Hard frames are hard for every checkpoint.
        return value * (1 + 0.3 * np.sin(np.arange(N)))
    rng = np.random.default_rng(seed + 17)
    difficulty = np.argsort(np.arange(N) + 0.15 * N * rng.standard_normal(N))
    out = np.zeros(N)
    out[difficulty[: round(value / 100 * N)]] = 1
    return out


def write(
    root: Path,
    record: TrainingRecord | None,
    scores: Mapping[str, float],
    *,
    name: str = "",
    alias: str | None = None,
    params: Mapping[str, Any] | None = None,
    label: str = "",
    preset: str = "paper",
    tables: bool = True,
    created: str = "2026-01-01T00:00:00Z",
    image: Mapping[str, Any] | None = None,
) -> None:
    """Results of one model: `task/metric` to its value; metrics of one task share a record."""
    name = name or (f"{'-'.join(record.objectives)}-s{record.seed}-{record.samples}" if record else "model")
    fingerprint = hashlib.sha256(f"{name}{record}".encode()).hexdigest()
    by_task: dict[str, dict[str, float]] = {}
    for key, value in scores.items():
        by_task.setdefault(key.split("/")[0], {})[key] = value
    for task, own in by_task.items():
        table: dict[str, np.ndarray] = {
            "sample_id": np.array([f"{task}-{k}" for k in range(N)]),
            "cluster_id": np.array([f"{task}-{k}" for k in range(N)]),
        }
        recipes = {}
        for key, value in own.items():
            column, rmse = key.split("/")[1], key == "nyuv2/rmse"
            table[column] = hits(value, key, record.seed if record else 0)
            recipes[key] = Recipe(
                kind="ratio",
                column=column,
                scale=1.0 if rmse else 100.0,
                unit="m" if rmse else "percent",
                higher_is_better=not (rmse or "absrel" in key),
                headline=True,
                describe=f"made-up {key}",
            )
        fields = {"limit": None, **(params or {})}
        ResultStore(root).write(
            TaskResult(
                created=created,
                status="complete",
                task=task,
                protocol=_protocol(task, preset, fields),
                model=_model(name, alias, fingerprint, record, image),
                data={
                    "name": task,
                    "split": "test",
                    "fingerprint": hashlib.sha256(task.encode()).hexdigest(),
                    "label": label,
                },
                metrics=evaluate(recipes, table, n_resamples=200),
            ),
            table if tables else None,
        )


def write_failure(root: Path, record: TrainingRecord, task: str, *, message: str, stage: str = "run") -> None:
    """A failed task of a checkpoint that other results know."""
    name = f"{'-'.join(record.objectives)}-s{record.seed}-{record.samples}"
    fingerprint = hashlib.sha256(f"{name}{record}".encode()).hexdigest()
    ResultStore(root).write(
        TaskResult(
            created="2026-01-01T00:00:00Z",
            status="failed",
            task=task,
            protocol=_protocol(task, "paper", {"limit": None}),
            model=_model(name, None, fingerprint, record, None),
            data={"name": task, "fingerprint": "", "label": ""},
            error={"type": "DataError", "message": message, "stage": stage},
        )
    )


def lattice(
    root: Path,
    score: Score,
    *,
    subsets: Iterable[tuple[str, ...]] = LATTICE,
    seeds: Iterable[int] = (0,),
    recipe: str = "mini",
    samples: int = 32_000,
    keys: Iterable[str] | None = None,
    **more: Any,
) -> Path:
    """A whole study; returns its store."""
    wanted = list(keys or (f"{task}/{m}" for task, metrics in KEYS.items() for m in metrics))
    for objectives in subsets:
        for seed in seeds:
            record = training(objectives, seed=seed, recipe=recipe, samples=samples)
            write(root, record, {k: score(objectives, k, seed) for k in wanted}, **more)
    return root


def additive(objectives: tuple[str, ...], key: str, seed: int) -> float:
    """A score that every objective raises by its own amount (in steps of 1 / N), and RMSE that falls."""
    extra = {"vl": 0.0, "ssl": 8.0, "ground": 4.0, "depth": 2.0}
    gain = sum(extra[o] for o in objectives) + seed
    return 0.6 - 0.01 * gain if key == "nyuv2/rmse" else 30.0 + gain


def _protocol(task: str, preset: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    digest = sha256_json({"task": task, **fields})
    return {"id": f"{task}/{preset}#{digest[:8]}", "task": task, "preset": preset, "version": 1, "hash": digest,
            "params": dict(fields), "modified": []}  # fmt: skip


def _model(
    name: str, alias: str | None, fingerprint: str, record: TrainingRecord | None, image: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "spec": f"mtv:runs/{name}",
        "alias": alias,
        "fingerprint": fingerprint,
        "random": False,
        "image": dict(image or {"size": 48}),
        "text": None,
        "training": record.to_dict() if record else None,
    }
