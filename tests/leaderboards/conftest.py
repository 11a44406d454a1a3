"""A result store with the true schema, written as the runner writes it: JSON record, Parquet of samples beside it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtv.hashing import sha256_file, sha256_json
from mtv.recipes import Recipe
from mtv.results import MetricValue, TaskResult

sys.path.insert(0, str(Path(__file__).parent))  # for paper_store

PERCENT = Recipe(kind="ratio", column="rank", at_most=1, headline=True, describe="share of first ranks")
WriteResult = Callable[..., Path]


def metric(
    value: float | None, lo: float | None = None, hi: float | None = None, *, n: int = 1000, recipe: Recipe = PERCENT
) -> MetricValue:
    """One value with an interval chosen by hand, so that renderings do not depend on random numbers."""
    return MetricValue(
        value=value,
        unit=recipe.unit,
        ci95=None if lo is None or hi is None else (lo, hi),
        n=n if value is not None else 0,
        n_clusters=n if value is not None else 0,
        higher_is_better=recipe.higher_is_better,
        chance=recipe.chance,
        headline=recipe.headline,
        recipe=recipe.to_dict(),
    )


@pytest.fixture
def write_result(tmp_path: Path) -> WriteResult:
    """Write one record (and its samples); returns the path of the JSON."""

    def write(
        model: str,
        task: str,
        metrics: Mapping[str, MetricValue],
        *,
        table: Mapping[str, np.ndarray] | None = None,
        spec: str | None = None,
        weights: str = "w",
        random: bool = False,
        preset: str = "paper",
        params: Mapping[str, Any] | None = None,
        label: str = "",
        data: str = "full",
        status: str = "complete",
        error: dict[str, str] | None = None,
        created: str = "2026-01-01T00:00:00Z",
        ties: Mapping[str, dict[str, float]] | None = None,
        diagnosis: list[str] | None = None,
        image: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        store: str = "results",
    ) -> Path:
        fields = {
            "limit": None,
            "split": {"imagenet": "val", "coco": "karpathy-test"}.get(task, "test"),
            **(params or {}),
        }
        protocol_hash = sha256_json({"task": task, **fields})
        fingerprint = hashlib.sha256(f"{model}{weights}".encode()).hexdigest()
        folder = tmp_path / store / f"{model}-{fingerprint[:8]}" / task
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{preset}-{protocol_hash[:8]}-{hashlib.sha256(data.encode()).hexdigest()[:8]}.json"
        samples = None
        if table is not None:
            parquet = path.with_suffix(".samples.parquet")
            pq.write_table(pa.table({k: pa.array(v) for k, v in table.items()}), parquet)
            rows = len(next(iter(table.values())))
            samples = {"file": parquet.name, "sha256": sha256_file(parquet), "rows": rows, "columns": list(table)}
        record = TaskResult(
            created=created,
            status=status,  # type: ignore[arg-type]
            task=task,
            protocol={
                "id": f"{task}/{preset}#{protocol_hash[:8]}",
                "task": task,
                "preset": preset,
                "version": 1,
                "hash": protocol_hash,
                "params": fields,
                "modified": [],
            },
            model={
                "spec": spec or f"timm:{model}",
                "alias": model,
                "fingerprint": fingerprint,
                "random": random,
                "image": image or {},
                "text": None,
            },
            data={
                "name": task,
                "split": fields["split"],
                "fingerprint": hashlib.sha256(f"{task}{data}".encode()).hexdigest(),
                "label": label,
            },
            metrics=dict(metrics),
            ties=dict(ties or {}),
            diagnosis=diagnosis or [],
            run=dict(run or {}),
            samples=samples,
            error=error,
        )
        path.write_text(json.dumps(record.to_json()), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_metric() -> Callable[..., MetricValue]:
    """`metric`, for test modules."""
    return metric


@pytest.fixture
def store(write_result: WriteResult, tmp_path: Path) -> Path:
    """Three models, five tasks, with everything that a table must be able to say."""
    rmse = Recipe(kind="ratio", column="e", scale=1, unit="m", higher_is_better=False, headline=True)
    top1 = Recipe(kind="ratio", column="rank", at_most=1, headline=True, chance=0.1, describe="top-1 accuracy")
    t2i = Recipe(kind="ratio", column="rank", at_most=1, where={"part": "t2i"}, headline=True)
    i2t = Recipe(kind="ratio", column="rank", at_most=1, where={"part": "i2t"})
    average = Recipe(kind="average", of=("recall_1cm", "recall_2cm", "recall_5cm"), headline=True)
    paper = {"captions": "all", "prefix": ""}
    squash, crop = {"resize": "squash"}, {"resize": "crop"}

    def coco(t: MetricValue, i: MetricValue) -> dict[str, MetricValue]:
        return {"coco/t2i_r1": t, "coco/i2t_r1": i}

    write_result(
        "mtv-b16",
        "imagenet",
        {"imagenet/top1": metric(69.52, 69.12, 69.92, n=50_000, recipe=top1)},
        params={"templates": "openai80"},
        created="2026-01-02T00:00:00Z",
        ties={"imagenet/top1": {"n_tied": 12, "lo": 69.5, "hi": 69.54}},
        image=squash,
    )
    write_result(
        "mtv-b16",
        "coco",
        coco(metric(41.3, 40.1, 42.6, recipe=t2i), metric(57.04, 55.7, 58.4, recipe=i2t)),
        params=paper,
        label="subset (79 of 5000)",
        created="2026-01-02T00:00:00Z",
        image=squash,
    )
    write_result(
        "mtv-b16", "nyuv2", {"nyuv2/rmse": metric(0.4691, 0.452, 0.489, recipe=rmse)}, created="2026-01-02T00:00:00Z"
    )
    write_result(
        "mtv-b16",
        "spair",
        {},
        status="failed",
        error={"type": "DataError", "message": "SPair-71k: 17 of 18 classes | see `data check`\nlong", "stage": "open"},
        created="2026-01-02T00:00:00Z",
    )
    write_result(
        "clip-b16",
        "imagenet",
        {"imagenet/top1": metric(68.34, 67.93, 68.75, n=50_000, recipe=top1)},
        params={"templates": "openai80"},
        image=crop,
    )
    write_result(
        "clip-b16",
        "coco",
        coco(metric(33.1, 31.9, 34.3, recipe=t2i), metric(57.0, 55.6, 58.3, recipe=i2t)),
        params=paper,
        label="subset (79 of 5000)",
        image=crop,
    )
    write_result("clip-b16", "navi", {"navi/avg_recall": metric(37.4, 36.5, 38.3, recipe=average)})
    write_result("clip-b16", "nyuv2", {"nyuv2/rmse": metric(0.6034, 0.5812, 0.6401, recipe=rmse)})
    write_result("clip-b16", "spair", {"spair/avg_recall": metric(15.9, 14.9, 16.9)}, params={"limit": 100})
    write_result(
        "tiny_vit",
        "imagenet",
        {"imagenet/top1": metric(0.11, 0.05, 0.31, n=50_000, recipe=top1)},
        params={"templates": "openai80"},
        random=True,
        created="2026-01-03T00:00:00Z",
        diagnosis=["Below 3 x chance.", "Predicts 4 of 1000 classes."],
    )
    write_result(
        "tiny_vit",
        "navi",
        {"navi/avg_recall": metric(None, recipe=average)},
        random=True,
        created="2026-01-03T00:00:00Z",
    )
    return tmp_path / "results"
