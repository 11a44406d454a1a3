"""Care of a cache directory: what is in it, is it intact, what may go. Imports no torch.

Nothing is ever deleted except by `collect_garbage`, and that leaves alone what a process is writing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.errors import CacheError
from mtv.eval.features.lock import FileLock, is_held
from mtv.eval.features.options import GIB
from mtv.eval.features.shard import ShardFile, read_shard
from mtv.eval.features.store import DONE, META, USED, read_done, shard_paths
from mtv.hashing import sha256_file, sha256_json

log = logging.getLogger(__name__)

_TRASH = ".trash-"


@dataclass(frozen=True, kw_only=True)
class EntryInfo:
    """One entry as `cache ls` shows it."""

    name: str
    """First 16 hex digits of the key's hash: the directory's name."""
    path: Path
    """The directory."""
    kind: str
    """`image`, `text` or `classifier`."""
    model: str
    """Spec of the model; for text the architecture."""
    data: str
    """Data set name; empty for text."""
    outputs: tuple[str, ...]
    """Names of the tensors of a row."""
    rows: int
    """Distinct sample ids."""
    superseded: int
    """Rows of which a later one has the same id: files that changed."""
    bytes: int
    """Size of all files."""
    complete: bool
    """DONE lists exactly the shards that are there."""
    damaged: int
    """Shards that cannot be read or were set aside."""
    busy: bool
    """A process is writing to it."""
    last_use: float
    """Seconds since the epoch."""
    key: dict[str, Any]
    """The full key."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `cache verify` found in one entry."""

    name: str
    """Name of the entry."""
    shards: int
    """Shards whose bytes agree with DONE."""
    unlisted: int
    """Readable shards that DONE does not list: an extraction was interrupted, or is running."""
    problems: tuple[str, ...]
    """One sentence per damaged file; a run that needs the rows computes them again (with --verify for wrong bytes)."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What `cache gc` removes, or would."""

    path: Path
    """Directory or file."""
    bytes: int
    """Its size."""
    reason: str
    """Why, in words."""


def list_entries(cache_dir: Path) -> list[EntryInfo]:
    """All entries, the most recently used first.

    Raises:
        CacheError: no such directory.
    """
    entries = [_describe(d) for d in _directories(cache_dir)]
    return sorted(entries, key=lambda e: (-e.last_use, e.name))


def verify_entries(cache_dir: Path) -> list[Verdict]:
    """Read every shard and compare its hash with DONE; changes nothing.

    Raises:
        CacheError: no such directory.
    """
    return [_verify(d) for d in _directories(cache_dir)]


def collect_garbage(
    cache_dir: Path,
    older_than_days: float | None = None,
    max_size_gb: float | None = None,
    dry_run: bool = False,
    *,
    now: float | None = None,
) -> list[Removal]:
    """Remove entries not used for some days, then the longest unused ones until the rest fits; and debris in any case.

    Debris are temporary files of killed writers and shards set aside as damaged. Entries that a process writes to stay.

    Args:
        cache_dir: the cache directory.
        older_than_days: remove entries last used longer ago.
        max_size_gb: size in GiB that the remaining entries may have together.
        dry_run: only say what would go.
        now: the present, seconds since the epoch.

    Returns:
        What was, or would be, removed.

    Raises:
        CacheError: no such directory, or something cannot be removed.
    """
    now = time.time() if now is None else now
    entries = list_entries(cache_dir)
    doomed: dict[str, tuple[EntryInfo, str]] = {}
    for e in entries:
        days = (now - e.last_use) / 86400
        if older_than_days is not None and days > older_than_days:
            doomed[e.name] = (e, f"not used for {days:.0f} days")
    left = [e for e in entries if e.name not in doomed]
    total = sum(e.bytes for e in left)
    for e in reversed(left):
        if max_size_gb is None or total <= max_size_gb * GIB:
            break
        if not e.busy:
            doomed[e.name] = (e, f"the cache is larger than {max_size_gb:g} GB")
            total -= e.bytes
    removed = [r for e, why in doomed.values() if (r := _remove_entry(e, why, dry_run)) is not None]
    return removed + [r for r in _debris(cache_dir, set(doomed)) if _remove_debris(r, dry_run)]


def _describe(directory: Path) -> EntryInfo:
    key = _key(directory)
    shards, problems = _shards(directory)
    ids = [i for s in shards for i in s.ids]
    files = [f for f in directory.iterdir() if f.is_file()]
    stats = {f: f.stat() for f in files}
    last_use = max(
        (stats[f].st_mtime for f in files if f.name in (USED, DONE, META)), default=directory.stat().st_mtime
    )
    return EntryInfo(
        name=directory.name,
        path=directory,
        kind=str(key.get("kind", "unknown")),
        model=str(_meta(directory).get("model") or key.get("architecture", "unknown")),
        data=str(key.get("data", "")),
        outputs=tuple(shards[-1].outputs) if shards else (),
        rows=len(set(ids)),
        superseded=len(ids) - len(set(ids)),
        bytes=sum(s.st_size for s in stats.values()),
        complete=bool(shards) and not problems and set(read_done(directory)) == {s.path.name for s in shards},
        damaged=len(problems) + sum(f.name.endswith(".bad") for f in files),
        busy=_busy(directory),
        last_use=last_use,
        key=key,
    )


def _verify(directory: Path) -> Verdict:
    shards, problems = _shards(directory)
    done, intact, unlisted = read_done(directory), 0, 0
    meta_hash = sha256_json(_key(directory))
    if not meta_hash.startswith(directory.name):
        problems.append(f"{directory / META} does not hold the key of {directory.name}")
    for shard in shards:
        listed = done.get(shard.path.name)
        if shard.key_sha256 != meta_hash:
            problems.append(f"{shard.path} was written for another key")
        elif listed is None:
            unlisted += 1
        elif listed["sha256"] != sha256_file(shard.path):
            problems.append(f"{shard.path}: its bytes differ from the hash in {DONE}")
        else:
            intact += 1
    names = {s.path.name for s in shards} | {p.name for p in shard_paths(directory)}
    problems += [f"{directory / n} is listed in {DONE} but absent" for n in sorted(set(done) - names)]
    return Verdict(name=directory.name, shards=intact, unlisted=unlisted, problems=tuple(problems))


def _shards(directory: Path) -> tuple[list[ShardFile], list[str]]:
    shards, problems = [], []
    for path in sorted(shard_paths(directory)):
        try:
            shards.append(read_shard(path))
        except CacheError as e:
            problems.append(e.message)
    return shards, problems


def _key(directory: Path) -> dict[str, Any]:
    key = _meta(directory).get("key")
    return key if isinstance(key, dict) else {}


def _meta(directory: Path) -> dict[str, Any]:
    try:
        meta = json.loads((directory / META).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _directories(cache_dir: Path) -> list[Path]:
    try:
        found = sorted(cache_dir.iterdir())
    except OSError as e:
        raise CacheError(
            f"cannot read the feature cache {cache_dir}: {e.strerror or e}", "Name it with --cache DIR."
        ) from e
    return [d for d in found if d.is_dir() and len(d.name) == 16 and set(d.name) <= set("0123456789abcdef")]


def _busy(directory: Path) -> bool:
    return any(is_held(p) for p in directory.glob("writer*.lock"))


def _remove_entry(entry: EntryInfo, reason: str, dry_run: bool) -> Removal | None:
    """Take all its locks, move it out of the way in one step, then delete."""
    removal = Removal(path=entry.path, bytes=entry.bytes, reason=reason)
    if dry_run:
        return None if entry.busy else removal
    trash = entry.path.with_name(f"{_TRASH}{entry.name}-{os.getpid()}")
    with contextlib.ExitStack() as stack:
        for path in {entry.path / "writer.lock", *entry.path.glob("writer-*.lock")}:
            lock = FileLock(path)
            if not lock.acquire(wait=False):
                log.info("%s is being written to; it stays", entry.path)
                return None
            stack.callback(lock.release)
        try:
            entry.path.rename(trash)
            shutil.rmtree(trash)
        except OSError as e:
            raise CacheError(f"cannot remove {entry.path}: {e.strerror or e}") from e
    return removal


def _debris(cache_dir: Path, gone: set[str]) -> Iterator[Removal]:
    for path in sorted(cache_dir.glob(f"{_TRASH}*")):
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        yield Removal(path=path, bytes=size, reason="left by an interrupted clean-up")
    for directory in _directories(cache_dir):
        if directory.name in gone or _busy(directory):
            continue
        for path in sorted(directory.iterdir()):
            if path.name.endswith((".tmp", ".bad")):
                reason = "left by a killed writer" if path.suffix == ".tmp" else "damaged"
                yield Removal(path=path, bytes=path.stat().st_size, reason=reason)


def _remove_debris(removal: Removal, dry_run: bool) -> bool:
    if not dry_run:
        try:
            shutil.rmtree(removal.path) if removal.path.is_dir() else removal.path.unlink(missing_ok=True)
        except OSError as e:
            raise CacheError(f"cannot remove {removal.path}: {e.strerror or e}") from e
    return True
