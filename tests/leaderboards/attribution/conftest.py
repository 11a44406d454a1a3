"""Studies with planted effects, written by the real result store and read back as any other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtv.eval.store import ResultStore
from mtv.hashing import sha256_json
from mtv.leaderboards.frame import load
from mtv.leaderboards.study import Study, studies
from mtv.recipes import Recipe
from mtv.results import TaskResult
from mtv.stats import evaluate
from mtv.training_record import TrainingRecord

Tables = Mapping[str, Mapping[str, np.ndarray]]

RECIPES: dict[str, dict[str, Recipe]] = {
    "imagenet": {"imagenet/top1": Recipe(kind="ratio", column="rank", at_most=1, headline=True)},
    "coco": {
        f"coco/{d}_r1": Recipe(kind="ratio", column="rank", at_most=1, where={"part": d}, headline=d == "t2i")
        for d in ("t2i", "i2t")
    },
    "ade20k": {
        "ade20k/miou": Recipe(kind="ratio", column="intersection", weight="union", group="class", headline=True)
    },
    "navi": {
        "navi/recall_1cm": Recipe(kind="ratio", column="hit_1"),
        "navi/recall_2cm": Recipe(kind="ratio", column="hit_2"),
        "navi/avg_recall": Recipe(kind="average", of=("recall_1cm", "recall_2cm"), headline=True),
    },
    "nyuv2": {
        "nyuv2/rmse": Recipe(kind="ratio", column="rmse", scale=1.0, unit="m", higher_is_better=False, headline=True)
    },
}
LATTICE = tuple(("vl", *added) for n in range(4) for added in itertools.combinations(("ssl", "ground", "depth"), n))


def make_table(task: str, skill: float, *, seed: int = 0, n: int = 120) -> dict[str, np.ndarray]:
    """Outcomes of a model of that skill (0 to 1) on fixed samples, whose difficulty all models share."""
    hard, noise = np.random.default_rng(99), np.random.default_rng([seed, int(1e6 * skill)])
    ids = np.array([f"s{k:04d}" for k in range(n)], dtype=object)
    base = hard.random(n)

    def right(level: np.ndarray, ease: float = 0.0) -> np.ndarray:
        return level + noise.normal(0, 0.1, len(level)) < skill + ease

    if task == "imagenet":
        return {"sample_id": ids, "cluster_id": ids, "rank": np.where(right(base), 1, 5)}
    if task == "coco":
        level = np.concatenate([base, np.repeat(base, 5) * 0.7 + 0.3 * hard.random(5 * n)])
        return {
            "sample_id": np.concatenate([ids, np.array([f"c{k:05d}" for k in range(5 * n)], dtype=object)]),
            "cluster_id": np.concatenate([ids, np.repeat(ids, 5)]),
            "part": np.array(["i2t"] * n + ["t2i"] * (5 * n), dtype=object),
            "rank": np.where(right(level), 1, 7),
        }
    if task == "ade20k":
        union = hard.integers(50, 500, (n, 6))
        share = np.clip(skill + 0.2 * (base[:, None] - 0.5) + noise.normal(0, 0.05, (n, 6)), 0, 1)
        return {
            "sample_id": np.array([f"{i}#{c}" for i in ids for c in range(6)], dtype=object),
            "cluster_id": np.repeat(ids, 6),
            "class": np.tile(np.arange(6), n),
            "intersection": np.floor(union * share).astype(np.int64).ravel(),
            "union": union.ravel(),
        }
    if task == "navi":
        stratum = np.array([f"object{k % 4}" for k in range(n)], dtype=object)
        return {
            "sample_id": ids,
            "cluster_id": ids,
            "stratum": stratum,
            "hit_1": right(base, -0.2).astype(float),
            "hit_2": right(base).astype(float),
        }
    assert task == "nyuv2"
    rmse = 1.2 - 0.8 * skill + 0.3 * base + noise.normal(0, 0.02, n)
    return {"sample_id": ids, "cluster_id": ids, "rmse": rmse}


class StudyWriter:
    """Writes cells of studies into one result store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def cell(
        self,
        objectives: Sequence[str],
        tables: Tables,
        *,
        seed: int = 0,
        samples: int = 32_000,
        samples_total: int | None = None,
        data_hash: str = "d" * 64,
        failed: Sequence[str] = (),
        data: str = "test",
        values: Mapping[str, float] | None = None,
    ) -> None:
        """One checkpoint with one result per table; `values` overrides recorded numbers."""
        total = samples_total or samples
        training = TrainingRecord(
            recipe="mini",
            recipe_hash=sha256_json({"o": list(objectives), "s": seed, "t": total}),
            study_hash=sha256_json({"t": total}),
            size="mini",
            objectives=tuple(objectives),
            seed=seed,
            samples=samples,
            samples_total=total,
            data_hash=data_hash,
        )
        name = f"{'-'.join(objectives)}-s{seed}-n{samples}-{total}"
        model = {"spec": f"mtv:{name}", "alias": None, "fingerprint": sha256_json(name), "training": training.to_dict()}
        for task in (*tables, *failed):
            self._write(task, model, tables.get(task), data, values or {})

    def _write(
        self,
        task: str,
        model: dict[str, Any],
        table: Mapping[str, np.ndarray] | None,
        data: str,
        values: Mapping[str, float],
    ) -> None:
        metrics = evaluate(RECIPES[task], table, n_resamples=200) if table is not None else {}
        for key in set(values) & set(metrics):
            metrics[key] = metrics[key].__class__(**{**metrics[key].__dict__, "value": values[key]})
        protocol = {"id": f"{task}/mini#0", "task": task, "preset": "mini", "version": 1, "params": {}, "modified": []}
        record = TaskResult(
            created="2026-01-01T00:00:00Z",
            status="complete" if table is not None else "failed",
            task=task,
            protocol={**protocol, "hash": sha256_json(task)},
            model=model,
            data={"name": task, "split": "test", "fingerprint": sha256_json(task + data), "label": ""},
            metrics=metrics,
            error=None if table is not None else {"type": "DataError", "message": "gone", "stage": "open"},
        )
        ResultStore(self.root).write(record, table)

    def lattice(
        self,
        skills: Callable[[Sequence[str]], float],
        tasks: Sequence[str],
        *,
        seeds: Sequence[int] = (0,),
        **more: Any,
    ) -> None:
        """All eight subsets with VL."""
        for objectives, seed in itertools.product(LATTICE, seeds):
            tables = {t: make_table(t, skills(objectives), seed=seed) for t in tasks}
            self.cell(objectives, tables, seed=seed, **more)

    def study(self) -> Study:
        """The only study of the store."""
        (found,) = self.studies()
        return found

    def studies(self) -> list[Study]:
        """All of them."""
        return studies(load(self.root))


def planted(objectives: Sequence[str]) -> float:
    """Skill: SSL helps most, Ground some, Depth little; SSL and Ground overlap, Depth and Ground support each other."""
    gains = {"vl": 0.3, "ssl": 0.2, "ground": 0.12, "depth": 0.05}
    skill = sum(gains[o] for o in objectives)
    skill -= 0.06 * ({"ssl", "ground"} <= set(objectives))
    return skill + 0.06 * ({"depth", "ground"} <= set(objectives))


@pytest.fixture
def writer(tmp_path: Path) -> StudyWriter:
    """An empty store in which studies can be written."""
    return StudyWriter(tmp_path / "results")


@pytest.fixture
def table_of() -> Callable[..., dict[str, np.ndarray]]:
    """`make_table`."""
    return make_table


@pytest.fixture
def skills() -> Callable[[Sequence[str]], float]:
    """`planted`."""
    return planted


@pytest.fixture
def recipes() -> dict[str, dict[str, Recipe]]:
    """Task to its recipes."""
    return RECIPES
