"""Results as `model-index`, the part of a model card's metadata from which a hub shows evaluation results.

Form: huggingface/hub-docs `modelcard.md`, and `huggingface_hub.repocard_data`. Notable choices:

* `verified` is never written: the hub sets it for results that it made itself.
* Tools that regroup entries by task, dataset, config, split and revision do not look at `args`. So `config` carries
  preset, protocol hash and data fingerprint in short: two protocols or two data sets never become one entry.
* `revision` stays away, because it means a commit of a hub's repository; the data fingerprint stands in `args`.
* Dataset types are this project's names: results come from the original files, not from a hub's copy of them. A subset,
  or another set in the same layout (the miniature world), has a type of its own and never stands beside the full set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.frame import Stored, headline_keys, metrics_of, task_order, title_of
from mtv.results import MetricValue

SEGMENTATION, RETRIEVAL = ("image-segmentation", "Linear segmentation"), ("image-text-retrieval", "Zero-shot retrieval")
MATCHING, DEPTH = ("keypoint-matching", "Correspondence of frozen features"), ("depth-estimation", "Depth")
TASKS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "imagenet": (("zero-shot-image-classification", "Zero-shot classification"), ("imagenet-1k", "ImageNet-1k")),
    "knn": (("image-classification", "Nearest neighbours of frozen features"), ("imagenet-1k", "ImageNet-1k")),
    "coco": (RETRIEVAL, ("coco-karpathy", "COCO, Karpathy split")),
    "flickr30k": (RETRIEVAL, ("flickr30k", "Flickr30k")),
    "flickr8k": (RETRIEVAL, ("flickr8k", "Flickr8k")),
    "navi": (MATCHING, ("navi", "NAVI")),
    "spair": (MATCHING, ("spair-71k", "SPair-71k")),
    "sevenscenes": (MATCHING, ("7-scenes", "7-Scenes")),
    "ade20k": (SEGMENTATION, ("ade20k", "ADE20k")),
    "camvid": (SEGMENTATION, ("camvid", "CamVid")),
    "nyu40": (SEGMENTATION, ("nyu40", "NYUv2, 40 classes")),
    "nyuv2": (DEPTH, ("nyuv2", "NYUv2")),
    "rel_nyu": (DEPTH, ("nyuv2", "NYUv2")),
    "rel_kitti": (DEPTH, ("kitti", "KITTI")),
    "vqa": (("visual-question-answering", "Visual question answering"), ("vqa", "MMVP, CV-Bench, RealWorldQA")),
}
"""Task to (type, name) of the card's task and of its dataset; any other task is `image-feature-extraction`."""
TYPES = {
    "top1": "accuracy",
    "miou": "mean_iou",
    "rmse": "rmse",
    "t2i_r1": "recall_at_1",
    "i2t_r1": "recall_at_1",
    "avg_recall": "recall",
    "absrel_depth": "abs_rel",
    "absrel_depth_ls": "abs_rel",
}
"""Last part of the metric to the card's metric type; any other metric is its own type."""


def model_index(records: Sequence[Stored], name: str, *, source_url: str | None = None) -> dict[str, Any]:
    """The headline metrics of one model as model-card metadata.

    Args:
        records: results of one model.
        name: of the model on the card.
        source_url: where the results can be looked up.

    Returns:
        `{"model-index": [{"name", "results": [...]}]}`.

    Raises:
        UsageError: no result has a headline value.
    """
    results = []
    for task in task_order(records):
        for stored in sorted((s for s in records if s.record.task == task), key=lambda s: (s.setting, s.shard)):
            of = metrics_of(stored.record)
            metrics = [_metric(k, of[k], stored) for k in headline_keys(task, [stored]) if k in of]
            if found := [m for m in metrics if m["value"] is not None]:
                source = {"source": {"name": "mtv-eval", "url": source_url}} if source_url else {}
                results.append({**_about(stored), "metrics": found, **source})
    if not results:
        raise UsageError(f"{name} has no headline value to put on a model card")
    return {"model-index": [{"name": name, "results": results}]}


def _about(stored: Stored) -> dict[str, Any]:
    record = stored.record
    task, dataset = TASKS.get(
        record.task,
        (("image-feature-extraction", record.task), (str(record.data.get("name")), record.data.get("name"))),
    )
    params = record.protocol.get("params", {})
    if record.task == "knn" and params.get("data") == "spair":
        dataset = TASKS["spair"][1]
    split, fingerprint = record.data.get("split"), str(record.data["fingerprint"])
    shard = f"-shard{stored.shard.replace('/', 'of')}" if stored.shard else ""
    return {
        "task": {"type": task[0], "name": task[1]},
        "dataset": {
            "type": f"{dataset[0]}-layout" if stored.label else dataset[0],
            "name": f"{dataset[1]} layout: {stored.label}" if stored.label else dataset[1],
            "config": f"{record.protocol['preset']}-{record.protocol['hash'][:8]}-{fingerprint[:8]}{shard}",
            **({"split": str(split)} if split else {}),
            "args": {"fingerprint": fingerprint, **({"label": stored.label} if stored.label else {})},
        },
    }


def _metric(key: str, metric: MetricValue, stored: Stored) -> dict[str, Any]:
    last = key.split("/")[-1]
    return {
        "type": TYPES.get(last, last),
        "value": metric.value,
        "name": title_of(key, metric),
        "args": {
            "metric": key,
            "unit": metric.unit,
            "ci95": list(metric.ci95) if metric.ci95 else None,
            "samples": metric.n,
            "protocol": stored.record.protocol["id"],
            "protocol_hash": stored.record.protocol["hash"],
        },
    }
