"""Result stores for the report, made by the real protocols, the real statistics and the real store."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtv.eval.protocols import protocol_for
from mtv.eval.store import ResultStore
from mtv.hashing import sha256_json
from mtv.recipes import Recipe
from mtv.results import TaskResult
from mtv.stats import evaluate
from mtv.training_record import TrainingRecord

N = 60
SCRIPT = "<script>alert(1)</script>"
SECRET = "/home/ada/secret-project/data/val.txt"
CHAIN = (("vl",), ("vl", "ssl"), ("vl", "ssl", "ground"), ("vl", "ssl", "ground", "depth"))
LATTICE = tuple(("vl", *added) for n in range(4) for added in itertools.combinations(("ssl", "ground", "depth"), n))

RECIPES: dict[str, dict[str, Recipe]] = {
    "imagenet": {
        "imagenet/top1": Recipe(kind="ratio", column="rank", at_most=1, headline=True, chance=25.0, describe="first"),
        "imagenet/top5": Recipe(kind="ratio", column="rank", at_most=5, describe="among <five> & fewer"),
    },
    "coco": {
        f"coco/{d}_r1": Recipe(kind="ratio", column="rank", at_most=1, where={"part": d}, headline=d == "t2i")
        for d in ("t2i", "i2t")
    },
    "navi": {
        "navi/recall_1cm": Recipe(kind="ratio", column="near"),
        "navi/recall_2cm": Recipe(kind="ratio", column="far"),
        "navi/avg_recall": Recipe(kind="average", of=("recall_1cm", "recall_2cm"), headline=True),
    },
    "spair": {"spair/avg_recall": Recipe(kind="ratio", column="hit", group="category", headline=True)},
    "ade20k": {
        "ade20k/miou": Recipe(kind="ratio", column="intersection", weight="union", group="class", headline=True)
    },
    "nyuv2": {
        "nyuv2/rmse": Recipe(kind="ratio", column="rmse", scale=1.0, unit="m", higher_is_better=False, headline=True)
    },
}


def sample_table(task: str, skill: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Outcomes of N samples in four groups; `skill` in [0, 1] is about the share that is right."""
    rng = np.random.default_rng([seed, int(1000 * skill), len(task)])
    group = np.arange(N) % 4
    ids = np.array([f"n{g:08d}/picture_{k}.JPEG" for k, g in enumerate(group)])
    right = rng.random(N) < np.clip(skill + 0.1 * (group - 1.5), 0, 1)
    base: dict[str, np.ndarray] = {"sample_id": ids, "cluster_id": ids}
    names = np.array([("attic", "kitchen", "hall", "yard")[g] for g in group])
    columns: dict[str, dict[str, np.ndarray]] = {
        "imagenet": {"label": group, "rank": np.where(right, 1, 2 + rng.integers(0, 9, N))},
        "coco": {"part": np.where(group < 2, "t2i", "i2t"), "rank": np.where(right, 1, 4)},
        "navi": {"group": names, "near": right & (rng.random(N) < 0.7), "far": right},
        "spair": {"category": names, "hit": right},
        "ade20k": {"class": group, "union": np.full(N, 20), "intersection": (20 * right * rng.random(N)).astype(int)},
        "nyuv2": {"group": names, "rmse": 1.5 - skill + 0.2 * rng.random(N)},
    }
    return {**base, **columns[task]}


def picture(kind: str, turn: int, side: int = 48) -> Image.Image:
    """A small picture that differs by kind and turn."""
    rng = np.random.default_rng([turn, len(kind)])
    return Image.fromarray(rng.integers(0, 256, (side, side + 8, 3), dtype=np.uint8))


def training_record(objectives: Sequence[str], seed: int, samples: int) -> TrainingRecord:
    """A run of 32,000 samples, measured after `samples`."""
    return TrainingRecord(
        recipe="mini",
        recipe_hash=sha256_json([objectives, seed]),
        study_hash=sha256_json("study"),
        size="mini",
        objectives=tuple(objectives),
        seed=seed,
        samples=samples,
        samples_total=32_000,
        data_hash=sha256_json("data"),
    )


def put(
    root: Path,
    model: str,
    task: str,
    skill: float = 0.5,
    *,
    spec: str = "",
    preset: str = "mini",
    fields: Mapping[str, Any] | None = None,
    data: str = "d",
    details: Mapping[str, Any] | None = None,
    pictures: int = 0,
    side: int = 48,
    error: str = "",
    training: TrainingRecord | None = None,
    created: str = "2026-02-03T04:05:06+00:00",
    random: bool = False,
    seed: int = 0,
    **more: Any,
) -> Path:
    """Write one result through the store; returns the path of its record."""
    protocol = protocol_for(task, preset, dict(fields or {})).describe(preset)
    record = TaskResult(
        created=created,
        status="failed" if error else "partial" if (fields or {}).get("limit") else "complete",
        task=task,
        protocol=protocol,
        model={
            "spec": spec or f"timm:{model}",
            "alias": model,
            "architecture": "ViT",
            "fingerprint": hashlib.sha256(f"{model}{training}".encode()).hexdigest(),
            "random": random,
            "params_m": 5.5,
            "image": {"size": 96, "resize": "crop"},
            "text": None,
            "sources": {"image.size": "config: vit", **more.pop("sources", {})},
            "training": training.to_dict() if training else None,
        },
        data={
            "name": task,
            "split": "test",
            "fingerprint": hashlib.sha256(f"{task}{data}".encode()).hexdigest(),
            "counts": {"images": N},
            "label": "",
        },
        metrics={} if error else evaluate(RECIPES[task], sample_table(task, skill, seed), n_resamples=100),
        details=dict(details or {}),
        run={
            "device": "cpu",
            "hardware": "A processor",
            "tower_dtype": "float32",
            "batch_size": 32,
            "seed": 0,
            "images_per_s": 123.4,
            "peak_memory_mb": {"host": 1722.6},
            "cache": {"hits": 7, "misses": 53, "stale": 0},
            "seconds": {"load_model": 1.25, "extract": 2.5, "score": 0.5},
        },
        env={"python": "3.11.7", "torch": "2.15.0", "mtv": "0.1.0", "git_commit": "f2d9a528" + 32 * "0"},
        error={"type": "DataError", "message": error, "stage": "open"} if error else None,
    )
    images = [(f"{kind}-{k:02d}", picture(kind, k, side)) for kind in ("best", "worst") for k in range(pictures)]
    store = ResultStore(root)
    return store.write(record, None if error else sample_table(task, skill, seed), images)[0]


def make_store(root: Path) -> None:
    """Four models, five tasks; a hostile name, a failure, a partial result, pictures and tables of categories."""
    for k, model in enumerate(("vit-good", "vit-bad", SCRIPT)):
        skill, spec = 0.8 - 0.25 * k, f"timm:vit_{k}@random?seed={k}"
        put(root, model, "imagenet", skill, pictures=2, spec=spec)
        put(root, model, "navi", skill, pictures=1, spec=spec)
        per_class = {c: {"recall": 10.0 * k + n, "pairs": n} for n, c in enumerate(("mug", "lamp", "<b>"))}
        put(
            root,
            model,
            "spair",
            skill,
            details={"per_class": per_class, "grid": 7},
            spec=f"timm:vit_{k}@random?seed={k}",
        )
        put(root, model, "nyuv2", skill, spec=spec)
    put(
        root,
        "vit-good",
        "coco",
        error=f'no file: {SECRET} "><img src=x onerror=alert(2)>',
        spec="timm:vit_0@random?seed=0",
    )
    put(root, "limited", "imagenet", 0.6, fields={"limit": 30})


def make_study(root: Path) -> None:
    """The whole lattice with two seeds, and four runs of it half way, on four tasks of the paper."""
    gain = {"vl": 0.3, "ssl": 0.15, "ground": 0.1, "depth": 0.05}
    ends = [(o, seed, 32_000) for o in LATTICE for seed in (0, 1)]
    for objectives, seed, samples in [*ends, *((o, 0, 16_000) for o in CHAIN)]:
        skill = sum(gain[o] for o in objectives) * (0.7 if samples < 32_000 else 1.0)
        name = f"{'-'.join(objectives)}-s{seed}-{samples}"
        for task in ("imagenet", "coco", "navi", "nyuv2"):
            put(
                root,
                name,
                task,
                skill,
                spec=f"mtv:{name}",
                training=training_record(objectives, seed, samples),
                seed=seed,
            )
