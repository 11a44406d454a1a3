"""A result store as plain rows: what to read, in which order, and what may stand in one column.

Records are read with the standard library; pandas is imported by `to_frame` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.errors import unknown
from mtv.results import MetricValue, TaskResult, find_records

if TYPE_CHECKING:
    import pandas as pd

TASK_ORDER = (
    "imagenet",
    "knn",
    "coco",
    "flickr30k",
    "flickr8k",
    "navi",
    "spair",
    "sevenscenes",
    "ade20k",
    "camvid",
    "nyu40",
    "nyuv2",
    "rel_nyu",
    "rel_kitti",
    "vqa",
)
RETRIEVAL = ("coco", "flickr30k", "flickr8k")
TITLES = {
    "imagenet/top1": "ImageNet zero-shot top-1",
    "knn/top1": "kNN leave-one-out",
    "coco/t2i_r1": "COCO text→image R@1",
    "coco/i2t_r1": "COCO image→text R@1",
    "flickr30k/t2i_r1": "Flickr30k text→image R@1",
    "flickr30k/i2t_r1": "Flickr30k image→text R@1",
    "flickr8k/t2i_r1": "Flickr8k text→image R@1",
    "flickr8k/i2t_r1": "Flickr8k image→text R@1",
    "navi/avg_recall": "NAVI recall, mean of 1/2/5 cm",
    "spair/avg_recall": "SPair recall@0.1, mean of vp 0/1/2",
    "sevenscenes/avg_recall": "7-Scenes recall, mean of 2/5/10 cm",
    "ade20k/miou": "ADE20k mIoU",
    "nyuv2/rmse": "NYUv2 RMSE",
    "rel_nyu/absrel_depth": "NYUv2 AbsRel",
    "rel_kitti/absrel_depth": "KITTI AbsRel",
    "vqa/score": "VQA score",
}
UNITS = {"percent": "%", "rank": "rank"}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A record and where it lies."""

    path: Path
    """JSON file; never printed, because it may hold user names."""
    record: TaskResult
    """What it says."""

    @property
    def model(self) -> tuple[str, str]:
        """(name, fingerprint): two models of one name stay two rows."""
        return self.record.model_name, str(self.record.model.get("fingerprint", ""))

    @property
    def setting(self) -> tuple[str, str]:
        """(protocol hash, data fingerprint): results share a column only if these agree."""
        return str(self.record.protocol.get("hash", "")), str(self.record.data.get("fingerprint", ""))

    @property
    def shard(self) -> str:
        """`1/4` where the result covers one shard only."""
        return str(self.record.run.get("shard") or "")

    @property
    def suite(self) -> str:
        """Suite that asked for the task; empty when it was asked for by name."""
        return str(self.record.run.get("suite") or "")

    @property
    def limit(self) -> int | None:
        """`--limit` of the protocol."""
        return self.record.protocol.get("params", {}).get("limit")

    @property
    def label(self) -> str:
        """Everything that makes the numbers less than the full test set: subset, limit, shard."""
        parts = [str(self.record.data.get("label") or "")]
        parts += [f"limit {self.limit}"] if self.limit else []
        parts += [f"shard {self.shard}"] if self.shard else []
        return ", ".join(p for p in parts if p)


def load(
    root: Path,
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    presets: Sequence[str] = (),
) -> list[Stored]:
    """All records of a store, narrowed to the given models (alias or spec), tasks and protocol presets.

    Raises:
        CacheError: no store there, or an unreadable record.
        UsageError: a name that no record bears, with the nearest spellings.
    """
    found = [Stored(path=path, record=record) for path, record in find_records(root)]
    names = {n for s in found for n in (s.record.model_name, s.record.model.get("spec")) if n}
    _check("model", models, names)
    _check("task", tasks, {s.record.task for s in found})
    _check("preset", presets, {s.record.protocol.get("preset", "") for s in found})
    return [
        s
        for s in found
        if (not models or {s.record.model_name, s.record.model.get("spec")} & set(models))
        and (not tasks or s.record.task in tasks)
        and (not presets or s.record.protocol.get("preset") in presets)
    ]


def _check(kind: str, wanted: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in wanted:
        if name not in known:
            raise unknown(f"{kind} in this result store", name, known)


def model_order(records: Sequence[Stored]) -> list[tuple[str, str]]:
    """Models by their first result's time, then by name."""
    first: dict[tuple[str, str], str] = {}
    for s in records:
        first[s.model] = min(first.get(s.model, s.record.created), s.record.created)
    return sorted(first, key=lambda m: (first[m], m))


def model_labels(records: Sequence[Stored]) -> dict[tuple[str, str], str]:
    """What tables call each model: its name, with the fingerprint where two share it, and `random init` where it is."""
    models = {s.model: s.record for s in records}
    names = [name for name, _ in models]
    out = {}
    for (name, fingerprint), record in models.items():
        label = f"{name} [{fingerprint[:8]}]" if names.count(name) > 1 else name
        out[name, fingerprint] = f"{label} (random init)" if record.model.get("random") else label
    return out


def suites(records: Sequence[Stored]) -> list[str]:
    """Suites that asked for any of the results, by name."""
    return sorted({s.suite for s in records if s.suite})


def task_order(records: Sequence[Stored], more: Iterable[str] = ()) -> list[str]:
    """The tasks that occur, in the fixed order of the project; tasks of other packages follow by name.

    Args:
        records: results.
        more: tasks without a result that are to be listed too.
    """
    tasks = {s.record.task for s in records} | set(more)
    return [t for t in TASK_ORDER if t in tasks] + sorted(tasks - set(TASK_ORDER))


def headline_keys(task: str, records: Sequence[Stored]) -> list[str]:
    """Metrics of `task` that get a column: both directions for retrieval, else what the records call headline."""
    if task in RETRIEVAL:
        return [f"{task}/t2i_r1", f"{task}/i2t_r1"]
    return list(
        dict.fromkeys(k for s in records if s.record.task == task for k in metrics_of(s.record) if _headline(s, k))
    )


def _headline(stored: Stored, key: str) -> bool:
    return metrics_of(stored.record)[key].headline


def metrics_of(record: TaskResult) -> dict[str, MetricValue]:
    """Metrics under their full `task/metric` name."""
    return {full_key(record.task, k): m for k, m in record.metrics.items()}


def full_key(task: str, metric: str) -> str:
    """`metric` with its task prefix."""
    return metric if metric.startswith(f"{task}/") else f"{task}/{metric}"


def title_of(key: str, metric: MetricValue | None) -> str:
    """Column heading: the metric in words, its unit and, where less is better, an arrow."""
    title = TITLES.get(key) or key.replace("/", " ")
    unit = f" [{UNITS.get(metric.unit, metric.unit)}]" if metric else ""
    return f"{title}{unit}{'' if metric is None or metric.higher_is_better else ' ↓'}"


def differences(a: TaskResult, b: TaskResult) -> list[str]:
    """The fields in which protocol and data of two results differ, as `field: a vs b`."""
    out = [
        f"{k}: {_show(x, 'none')} vs {_show(y, 'none')}"
        for k, x, y in _differing(a.protocol.get("params"), b.protocol.get("params"))
    ]
    if a.protocol.get("version") != b.protocol.get("version"):
        out.append(f"metric version: {a.protocol.get('version')} vs {b.protocol.get('version')}")
    if a.protocol.get("hash") != b.protocol.get("hash") and not out:
        out.append(f"protocol hash: {_short(a.protocol.get('hash'))} vs {_short(b.protocol.get('hash'))}")
    if a.data.get("fingerprint") == b.data.get("fingerprint"):
        return out
    named = [
        f"data {k}: {_show(x, 'full set')} vs {_show(y, 'full set')}"
        for k, x, y in _differing(a.data, b.data)
        if k in ("name", "split", "label")
    ]
    print_a, print_b = (_short(r.data.get("fingerprint")) for r in (a, b))
    return [*out, *named, f"data fingerprint: {print_a} vs {print_b}"]


def _differing(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    x, y = flatten(a or {}), flatten(b or {})
    return [(k, x.get(k), y.get(k)) for k in dict.fromkeys([*x, *y]) if x.get(k) != y.get(k)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names."""
    out: dict[str, Any] = {}
    for k, v in values.items():
        out.update(flatten(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v})
    return out


def _show(value: Any, empty: str) -> str:
    if isinstance(value, str) and len(value) == 64:
        return _short(value)
    return empty if value in ("", None) else str(value)


def _short(value: Any) -> str:
    return str(value)[:8]


def rows(records: Sequence[Stored]) -> list[dict[str, Any]]:
    """One flat record per (model, task, metric), in table order; a failed task gives one without a metric."""
    order = {m: k for k, m in enumerate(model_order(records))}
    tasks = {t: k for k, t in enumerate(task_order(records))}
    labels = model_labels(records)
    out = []
    for s in sorted(records, key=lambda s: (order[s.model], tasks[s.record.task], s.record.created)):
        for key, metric in metrics_of(s.record).items() or [("", None)]:
            out.append(row(s, labels[s.model], key, metric))
    return out


def row(stored: Stored, label: str, key: str, metric: MetricValue | None) -> dict[str, Any]:
    """One number with everything that must travel with it, as plain values."""
    r, lo_hi = stored.record, metric.ci95 if metric else None
    return {
        "model": label,
        "kind": "measured",
        "spec": r.model.get("spec"),
        "model_fingerprint": r.model.get("fingerprint"),
        "task": r.task,
        "metric": key,
        "value": metric.value if metric else None,
        "lo": lo_hi[0] if lo_hi else None,
        "hi": lo_hi[1] if lo_hi else None,
        "unit": metric.unit if metric else "",
        "n": metric.n if metric else None,
        "n_clusters": metric.n_clusters if metric else None,
        "headline": metric.headline if metric else None,
        "higher_is_better": metric.higher_is_better if metric else None,
        "chance": metric.chance if metric else None,
        "protocol": r.protocol.get("id"),
        "protocol_hash": r.protocol.get("hash"),
        "data_fingerprint": r.data.get("fingerprint"),
        "label": stored.label,
        "status": r.status,
        "note": "" if r.error is None else f"{r.error.get('type')}: {r.error.get('message')}",
    }


def to_frame(records: Sequence[Stored]) -> pd.DataFrame:
    """`rows` as a pandas frame; needs pandas, which nothing else here imports."""
    import pandas as pd

    return pd.DataFrame(rows(records))
