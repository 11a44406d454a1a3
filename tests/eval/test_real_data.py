"""The small real data sets end to end: a trained model beats a random one, and every table says what it is made of.

Skipped, visibly, where the data are absent (see the fixture `real_data`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from run_helpers import Answer, make_job, make_runner, stored

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.results import TaskResult

Cli = Callable[..., Answer]
NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One feature cache for the module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(real_data: Path) -> Encoder:
    weights = real_data / "weights" / f"{NAME}.safetensors"
    if not weights.is_file():
        pytest.skip(f"real weights not found at {weights}")
    return load(f"timm:{NAME}@{weights}")


@pytest.fixture(scope="module")
def untrained() -> Encoder:
    return load(f"timm:{NAME}@random?seed=0")


def results(encoder: Encoder, data: Path, out: Path, cache: Path, **jobs: Mapping[str, Any]) -> dict[str, TaskResult]:
    """Tasks with their fields; none may fail."""
    chosen = [make_job(task.partition("_")[0], **dict(fields)) for task, fields in jobs.items()]
    runner = make_runner(data, out, cache=cache, batch_size=16, n_resamples=2000)
    runner.open(chosen)
    runner.run_model(encoder, chosen)
    assert not runner.failures, runner.failures
    return dict(zip(jobs, runner.results, strict=True))


def interval(record: TaskResult, name: str) -> tuple[float, float, float]:
    """Lower end, value, upper end."""
    metric = record.metrics[name]
    assert metric.value is not None
    assert metric.ci95 is not None
    return metric.ci95[0], metric.value, metric.ci95[1]


def test_a_trained_model_beats_a_random_one(
    trained: Encoder, untrained: Encoder, real_data: Path, tmp_path: Path, caches: Path
) -> None:
    """Beyond both intervals, on keypoint transfer and on nearest neighbours; the random one is labelled so."""
    jobs = {
        "knn": {"data": "spair"},
        "spair": {"size": 400, "mode": "centered", "statistics": "model", "limit": 40},
    }
    good = results(trained, real_data, tmp_path, caches, **jobs)
    poor = results(untrained, real_data, tmp_path, caches, **jobs)
    for name in ("knn/top1", "spair/pck_point@0.10"):
        task = name.partition("/")[0]
        assert interval(good[task], name)[0] > interval(poor[task], name)[2], name
    assert interval(good["knn"], "knn/top1")[1] > 70
    assert 10 < interval(good["spair"], "spair/pck_point@0.10")[1] < 60
    assert poor["knn"].model["random"] is True
    assert good["knn"].model["random"] is False
    assert good["spair"].status == "partial"
    assert good["spair"].data["counts"]["pairs"] == 40
    assert len(stored(tmp_path)) == 4


def test_text_tasks_run_on_the_real_sets(two_tower: Encoder, real_data: Path, tmp_path: Path, caches: Path) -> None:
    """A random two-tower model: near chance, diagnosed, and labelled as the subset that it is."""
    found = results(
        two_tower, real_data, tmp_path, caches,
        imagenet={"templates": "one", "limit": 100},
        coco={"limit": 20},
        coco_val={"split": "val2017", "limit": 20},
        flickr8k={"limit": 20},
    )  # fmt: skip
    assert found["imagenet"].data["label"] == "sample, not val (1000 of 50000)"
    assert found["imagenet"].details["n_candidates"] == 1000
    assert found["imagenet"].data["counts"] == {"images": 100, "classes": 1000}
    assert found["imagenet"].diagnosis
    for task, label in (("coco", "of 5000)"), ("coco_val", "of 5000)"), ("flickr8k", "no split file: 1000 of 8091")):
        record = found[task]
        assert label in record.data["label"], task
        assert record.data["counts"]["images"] == 20
        assert record.data["counts"]["captions"] >= 100
        assert record.metrics[f"{record.task}/t2i_r1"].chance == pytest.approx(5.0)
        lo, value, hi = interval(record, f"{record.task}/t2i_r10")
        assert lo <= value <= hi
    # The mini Karpathy file holds the same pictures as the mini val2017; the protocols still differ.
    assert found["coco"].protocol["hash"] != found["coco_val"].protocol["hash"]


def test_posed_frames_run_on_the_real_set(trained: Encoder, real_data: Path, tmp_path: Path, caches: Path) -> None:
    found = results(trained, real_data, tmp_path, caches, sevenscenes={"limit": 2})["sevenscenes"]
    assert found.data["label"] == "subset (40 of 43000)"
    assert found.details["n_pairs"] == 2
    assert found.metrics["sevenscenes/recall_10cm"].n == 2


def test_tables_of_real_results_are_labelled(
    cli: Cli, two_tower: Encoder, real_data: Path, tmp_path: Path, caches: Path
) -> None:
    results(two_tower, real_data, tmp_path / "out", caches, coco={"limit": 20}, flickr8k={"limit": 20})
    table = cli("table", "--results", tmp_path / "out", "--format", "md", "--published", "none")
    assert table.code == 0
    assert table.out.count("limit 20") >= 2
    assert "of 5000), limit 20" in table.out


def test_the_check_knows_what_the_real_sets_are(cli: Cli, real_data: Path) -> None:
    answer = cli("data", "check", "--data", real_data, "--json")
    verdicts = {r["name"]: (r["verdict"], r["label"]) for r in json.loads(answer.out)}
    assert answer.code == 0
    assert verdicts["imagenet"] == ("ok-but", "sample, not val (1000 of 50000)")
    for name in ("coco", "flickr8k", "spair", "sevenscenes"):
        assert verdicts[name][0] == "ok-but", name
        assert " of " in verdicts[name][1]
    assert verdicts["navi"][0] == "missing"
