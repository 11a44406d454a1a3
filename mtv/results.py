"""The result record: one JSON per (model, task, protocol) and a Parquet of per-sample outcomes beside it.

Schema of `protocols/harness.md` section 3. This module knows the record and how to read it back; it imports no torch,
so `status`, `table` and `compare` answer at once. Writing belongs to `mtv.eval.store`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtv.errors import CacheError
from mtv.hashing import sha256_file
from mtv.recipes import Recipe

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One number with everything that must travel with it."""

    value: float | None
    """In `unit`; None where it is undefined (an empty bin), with n = 0."""
    unit: str
    """`percent`, `rank`, `m`, ..."""
    ci95: tuple[float, float] | None
    """95 % interval over the choice of test samples."""
    n: int
    """Rows that entered."""
    n_clusters: int
    """Independent units that entered."""
    higher_is_better: bool
    """Direction."""
    chance: float | None
    """Score of guessing, where known."""
    headline: bool
    """Whether it stands for the task."""
    recipe: dict[str, Any]
    """`Recipe.to_dict()`: recomputes the value from the sample table."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What one task says about one model. `protocols/harness.md` section 3 describes every key."""

    schema_version: int = SCHEMA_VERSION
    """Raised when a key changes meaning."""
    created: str
    """UTC, ISO 8601."""
    status: Literal["complete", "partial", "failed"]
    """`partial` for a limited or sharded run; `failed` carries `error`."""
    task: str
    """Task name, also the prefix of its metrics."""
    protocol: dict[str, Any]
    """`id, task, preset, version, hash, params, modified`."""
    model: dict[str, Any]
    """`EncoderInfo.to_dict()`."""
    data: dict[str, Any]
    """`name, split, fingerprint, content_sha256, counts, checked, verdict, label` (`subset (n of N)` or empty)."""
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    """`task/metric` to value."""
    ties: dict[str, dict[str, float]] = field(default_factory=dict)
    """Headline metric to `n_tied, lo, hi`: the value if every tie were lost or won."""
    details: dict[str, Any] = field(default_factory=dict)
    """Bookkeeping of the task: pair hash, per-class table, bin counts."""
    diagnosis: list[str] = field(default_factory=list)
    """Findings when the number looks wrong, one sentence each."""
    run: dict[str, Any] = field(default_factory=dict)
    """`suite` (that brought the task; empty for one asked for by name), `device, tower_dtype, score_dtype, tf32,
    batch_size, workers, seed, seconds, images_per_s, peak_memory_mb, cache`; a failed task has `suite` only."""
    env: dict[str, Any] = field(default_factory=dict)
    """Versions, git commit, dirty flag."""
    samples: dict[str, Any] | None = None
    """`file, sha256, rows, columns` of the per-sample table."""
    artefacts: list[str] = field(default_factory=list)
    """Pictures in the folder beside the Parquet."""
    error: dict[str, str] | None = None
    """`type, message, stage` of a failed task."""

    @property
    def headline(self) -> tuple[str, MetricValue] | None:
        """Name and value of the metric that stands for the task."""
        return next(((k, m) for k, m in self.metrics.items() if m.headline), None)

    @property
    def key(self) -> tuple[str, str, str]:
        """(model fingerprint, protocol hash, data fingerprint): the identity of the result."""
        return self.model.get("fingerprint", ""), self.protocol["hash"], self.data.get("fingerprint", "")

    @property
    def model_name(self) -> str:
        """What tables call the model: the alias, or the spec."""
        return str(self.model.get("alias") or self.model.get("spec"))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any], *, where: str = "record") -> TaskResult:
        """Inverse of `to_json`.

        Raises:
            CacheError: an unknown schema version, or keys that do not fit; names `where`.
        """
        if not isinstance(data, dict):
            raise CacheError(f"{where}: not a result record (no JSON object)")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise CacheError(f"{where}: schema version {version!r}, this mtv reads {SCHEMA_VERSION}", "Update mtv.")
        try:
            metrics = {
                k: MetricValue(**{**m, "ci95": m["ci95"] and tuple(m["ci95"])}) for k, m in data["metrics"].items()
            }
            return TaskResult(**{**data, "metrics": metrics})
        except (TypeError, KeyError) as e:
            raise CacheError(f"{where}: not a result record ({e})") from e


def read_record(path: Path) -> TaskResult:
    """Read one record.

    Raises:
        CacheError: not JSON, an unknown schema; names the file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CacheError(f"{path}: cannot be read as a result record ({e})") from e
    return TaskResult.from_json(data, where=str(path))


def samples_path(path: Path, record: TaskResult) -> Path | None:
    """Where the sample table of the record at `path` lies, or None if it has none."""
    return path.with_name(record.samples["file"]) if record.samples else None


def is_whole(path: Path, record: TaskResult, *, verify: bool = False) -> bool:
    """Whether the record's sample table is there (with `verify`: and has the recorded hash)."""
    samples = samples_path(path, record)
    if record.status == "failed" or samples is None:
        return record.status != "failed"
    if not samples.is_file() or record.samples is None:
        return False
    return not verify or sha256_file(samples) == record.samples["sha256"]


def find_records(root: Path) -> Iterator[tuple[Path, TaskResult]]:
    """Every record below `root` (`<model>/<task>/<preset>-<hash8>.json`), in a fixed order.

    Raises:
        CacheError: `root` is no directory, or a record is unreadable.
    """
    if not root.is_dir():
        raise CacheError(
            f"no result store at {root}", "Name it with --results DIR, or make one with `mtv-eval run --out DIR`."
        )
    for path in sorted(root.glob("*/*/*.json")):
        if not path.name.startswith("."):
            yield path, read_record(path)


def read_samples(path: Path, record: TaskResult) -> dict[str, Any]:
    """The per-sample table as column name to numpy array.

    Raises:
        CacheError: the table is missing or its hash differs from the record's.
    """
    from mtv.columns import read_columns

    samples = samples_path(path, record)
    if samples is None:
        bundle = (record.run.get("imported_from") or {}).get("bundle")
        origin = f"; it was imported from {bundle}" if bundle else ""
        raise CacheError(f"{path}: this result has no per-sample table{origin}", "Run the task again to have one.")
    if not is_whole(path, record, verify=True):
        raise CacheError(f"{samples}: missing, or not the table {path.name} was written with", "Run the task again.")
    return read_columns(samples)


def recipes(record: TaskResult) -> dict[str, Recipe]:
    """The recipe of every metric of the record."""
    return {name: Recipe.from_dict(m.recipe) for name, m in record.metrics.items()}
