"""Reading a result store that may be damaged: every whole result, and the name of everything that is not.

`mtv.results.find_records` stops at the first unreadable file, which is right for a table; a merge goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mtv.errors import CacheError
from mtv.leaderboards.sharing.checks import is_name, is_sha256, moment
from mtv.results import TaskResult, is_whole

UNLOADED = "unloaded"
"""Stands for the fingerprint of a model that could not be loaded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One whole result and where it came from. Two entries are equal only if they are the same object."""

    name: str
    """`STORE/MODEL/TASK/FILE`, or the place in a bundle: what messages call it; never an absolute path."""
    record: TaskResult
    """What it says."""
    path: Path | None
    """Its JSON file; None for a result that came without files."""
    rank: int
    """0 for the store that is written to, then the sources in their order."""

    @property
    def shard(self) -> str:
        """`1/4` where the result covers one shard only."""
        return str(self.record.run.get("shard") or "")

    @property
    def identity(self) -> tuple[str, ...]:
        """What a store holds at most once: key and shard; the spec too for a model that was never loaded."""
        fingerprint = self.record.model.get("fingerprint", "")
        spec = str(self.record.model.get("spec", "")) if fingerprint == UNLOADED else ""
        return (*self.record.key, self.shard, spec)

    @property
    def has_samples(self) -> bool:
        """Whether its per-sample table came with it."""
        return self.record.samples is not None


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """Something that is not a whole result."""

    name: str
    """As `Entry.name`."""
    reason: str
    """What is wrong, in words."""


def store_labels(roots: Sequence[Path]) -> list[str]:
    """What messages call each store: as typed, an absolute path by its last component; numbered where two agree."""
    names = [root.name if root.is_absolute() else root.as_posix() for root in roots]
    return [n if names.count(n) == 1 else f"{n} ({names[:k].count(n) + 1})" for k, n in enumerate(names)]


def scan(root: Path, *, label: str, rank: int) -> tuple[list[Entry], list[Damaged]]:
    """All whole results below `root` in a fixed order, and everything else that looks like one.

    Args:
        root: result store.
        label: what messages call it.
        rank: its place in the order of preference.

    Raises:
        CacheError: `root` is no directory.
    """
    if not root.is_dir():
        raise CacheError(f"no result store at {root}", "Name folders that `mtv-eval run --out DIR` wrote.")
    entries: list[Entry] = []
    damaged: list[Damaged] = []
    for path in sorted(root.glob("*/*/*.json")):
        if path.name.startswith("."):
            continue
        name = f"{label}/{path.relative_to(root).as_posix()}"
        try:
            entries.append(Entry(name=name, record=_read(path), path=path, rank=rank))
        except CacheError as e:
            damaged.append(Damaged(name=name, reason=e.message))
    return entries, damaged


def _read(path: Path) -> TaskResult:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CacheError(f"cannot be read ({getattr(e, 'strerror', None) or e})") from e
    if not isinstance(data, dict):
        raise CacheError("not a result record")
    record = TaskResult.from_json(data, where="the record")
    if problem := _unusable(record):
        raise CacheError(problem)
    if not is_whole(path, record, verify=True) and record.status != "failed":
        raise CacheError("its sample table is missing, or not the one it was written with")
    return record


def _unusable(record: TaskResult) -> str:
    """Why a record cannot be given a place in a store, or an empty string; its names become folders and files."""
    return _wrong_names(record) or _wrong_content(record)


def _wrong_names(record: TaskResult) -> str:
    parts = {"protocol": record.protocol, "model": record.model, "data": record.data, "run": record.run}
    parts["samples"] = {} if record.samples is None else record.samples
    if wrong := [k for k, v in parts.items() if not isinstance(v, dict)]:
        return f"{wrong[0]} is not an object"
    failed = record.status == "failed"
    names = {"task": record.task, "protocol.preset": record.protocol.get("preset")}
    hashes: dict[str, tuple[Any, tuple[str, ...]]] = {
        "protocol.hash": (record.protocol.get("hash"), ()),
        "model.fingerprint": (record.model.get("fingerprint"), (UNLOADED,) if failed else ()),
        "data.fingerprint": (record.data.get("fingerprint"), ("",) if failed else ()),
    }
    if record.samples is not None:
        hashes["samples.sha256"] = (record.samples.get("sha256"), ())
    for field, name in names.items():
        if not is_name(str(name)):
            return f"{field} {name!r} is no name"
    for field, (value, other) in hashes.items():
        if value not in other and not is_sha256(str(value)):
            return f"{field} is no SHA-256"
    return ""


def _wrong_content(record: TaskResult) -> str:
    try:
        moment(record.created)
    except (TypeError, ValueError):
        return f"created {record.created!r} is not an ISO 8601 time"
    for name, m in record.metrics.items():
        if m.value is not None and (isinstance(m.value, bool) or not isinstance(m.value, (int, float))):
            return f"metrics[{name}].value {m.value!r} is not a number"
    files = [str(record.samples.get("file", ""))] if record.samples is not None else []
    if any(not _inside(f, depth=1) for f in files) or any(not _inside(str(a), depth=2) for a in record.artefacts):
        return "samples or artefacts lie outside its folder"
    return ""


def _inside(name: str, *, depth: int) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) == depth and ".." not in parts and not name.startswith("/") and "\\" not in name
