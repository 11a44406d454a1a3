"""The on-disk feature store: one directory per key, append-only shards of rows, and DONE.

    <cache>/<key16>/meta.json                      the full key in clear text
                    shard-00000.safetensors ...    rows with their sample ids and digests (see shard.py)
                    DONE                           rows and SHA-256 of every shard, rewritten when a request is complete
                    used                           touched at each use
                    writer.lock                    see lock.py

Every file appears whole or not at all (mtv.atomic) and none is changed in place, so readers need no lock. A row
is addressed by (sample id, digest of the sample's bytes): a changed file is a missing row, subsets share rows with full
sets, and whatever an interrupted run finished is found again. Of equal rows the later shard wins. A damaged shard is
renamed to `.bad` and its rows are computed again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mtv.atomic import atomic_write_json
from mtv.errors import CacheError
from mtv.eval.features.lock import FileLock
from mtv.eval.features.options import ExtractOptions, format_bytes
from mtv.eval.features.shard import SUFFIX, ShardFile, read_shard, shard_number
from mtv.hashing import canonical_json, sha256_file, sha256_json

log = logging.getLogger(__name__)

META, DONE, USED = "meta.json", "DONE", "used"


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """Which rows of a request the entry holds."""

    found: dict[str, tuple[ShardFile, int]]
    """Sample id to shard and row."""
    missing: list[str]
    """Ids without a row made from these bytes, in request order."""
    stale: list[str]
    """Those of `missing` that have a row made from other bytes."""


class Store:
    """A cache directory. Entries are remembered, so that their headers are read once per process."""

    def __init__(self, directory: Path, options: ExtractOptions) -> None:
        self.directory = directory
        self._options = options
        self._entries: dict[str, Entry] = {}

    def entry(self, key: Mapping[str, Any], *, model: str = "") -> Entry:
        """The entry of a key; nothing is created on disk. `model` is its name in `cache ls`, no part of the key."""
        digest = sha256_json(dict(key))
        if digest not in self._entries:
            self._entries[digest] = Entry(self.directory / digest[:16], dict(key), self._options, model=model)
        return self._entries[digest]


class Entry:
    """One key of the store."""

    def __init__(self, directory: Path, key: dict[str, Any], options: ExtractOptions, *, model: str = "") -> None:
        self.directory = directory
        self.model = model
        self.key = key
        self.key_sha256 = sha256_json(key)
        self.damaged: dict[Path, str] = {}
        self._options = options
        self._shards: dict[Path, ShardFile] = {}
        self._index: dict[tuple[str, str], tuple[ShardFile, int]] = {}
        self._known: set[str] = set()

    @property
    def shards(self) -> list[ShardFile]:
        """Readable shards, later ones last."""
        return sorted(self._shards.values(), key=lambda s: (shard_number(s.path.name), s.path.name))

    def lookup(self, digests: Mapping[str, str]) -> Lookup:
        """Look for rows, after reading what is new on disk.

        Args:
            digests: sample id to the digest of its bytes.

        Raises:
            CacheError: meta.json names another key.
        """
        self.refresh()
        found = {i: self._index[i, d] for i, d in digests.items() if (i, d) in self._index}
        missing = [i for i in digests if i not in found]
        return Lookup(found=found, missing=missing, stale=[i for i in missing if i in self._known])

    def refresh(self) -> None:
        """Read the headers of shards that are new; note the damaged ones in `damaged`.

        Raises:
            CacheError: meta.json names another key or cannot be read.
        """
        self._check_meta()
        present = set(shard_paths(self.directory))
        changed = not self._shards.keys() <= present
        self._shards = {p: s for p, s in self._shards.items() if p in present}
        self.damaged = {p: why for p, why in self.damaged.items() if p in present}
        done = read_done(self.directory) if self._options.verify else {}
        for path in sorted(present - self._shards.keys() - self.damaged.keys()):
            changed = True
            self._admit(path, done.get(path.name))
        if changed:
            rows = [(s, r) for s in self.shards for r in range(s.rows)]
            self._index = {(s.ids[r], s.digests[r]): (s, r) for s, r in rows}
            self._known = {s.ids[r] for s, r in rows}

    def _admit(self, path: Path, done: dict[str, Any] | None) -> None:
        try:
            shard = read_shard(path)
            if shard.key_sha256 != self.key_sha256:
                raise CacheError(f"{path} is damaged: it was written for another key")
            if done is not None and (done["bytes"] != shard.bytes or done["sha256"] != sha256_file(path)):
                raise CacheError(f"{path} is damaged: its bytes differ from the hash in {DONE}")
        except CacheError as e:
            log.error("%s; its rows count as missing", e.message)
            self.damaged[path] = e.message
        else:
            self._shards[path] = shard

    def _check_meta(self) -> None:
        path = self.directory / META
        try:
            stored = json.loads(path.read_text("utf-8"))["key"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise CacheError(f"{path} cannot be read: {e}", f"Delete {self.directory} and run again.") from e
        if canonical_json(stored) != canonical_json(self.key):
            raise CacheError(
                f"{path} holds another key than the one whose hash begins with {self.directory.name}",
                f"The entry was edited or copied; delete {self.directory} and run again.",
            )

    def lock(self, writer: str = "") -> FileLock:
        """The writer's lock; writers with names of their own (`--shard i/n`) do not exclude each other."""
        name = f"writer-{writer}.lock" if writer else "writer.lock"
        return FileLock(self.directory / name, break_lock=self._options.break_lock)

    @property
    def writer(self) -> str:
        """Name of this process among concurrent writers; empty for the only one."""
        return f"s{self._options.shard[0]}of{self._options.shard[1]}" if self._options.shard else ""

    def prepare(self, needed: int) -> None:
        """Make the entry writable: directory, meta.json, damaged shards set aside, room for `needed` bytes.

        Call with the lock held, before the first forward pass.

        Raises:
            CacheError: not writable, or too little space; names the directory and the sizes.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory) as f:
                f.write(b"\0" * 4096)
                f.flush()
            free = shutil.disk_usage(self.directory).free
        except OSError as e:
            raise CacheError(
                f"cannot write to the feature cache {self.directory}: {e.strerror or e}",
                "Choose another one with --cache DIR, or make this one writable.",
            ) from e
        # Headers and file system blocks come on top of the rows.
        if (wanted := int(needed * 1.01) + (1 << 16)) > free:
            raise CacheError(
                f"the feature cache {self.directory} needs {format_bytes(wanted)}, {format_bytes(free)} are free",
                "Free some space (mtv-eval cache gc), or choose another disk with --cache DIR.",
            )
        if not (self.directory / META).exists():
            created = datetime.now(timezone.utc).isoformat(timespec="seconds")
            meta = {"key": self.key, "key_sha256": self.key_sha256, "model": self.model, "created": created}
            atomic_write_json(self.directory / META, meta)
        self.set_aside()
        self._sweep()

    def set_aside(self) -> None:
        """Rename damaged shards to `.bad`, and forget their hashes; with the lock held."""
        for path in self.damaged:
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_name(path.name + ".bad"))
                log.warning("%s set aside as %s.bad", path, path.name)
        if self.damaged:
            self.damaged = {}
            self.write_done({})

    def _sweep(self) -> None:
        """Remove the temporary files of a writer that was killed (we hold its lock)."""
        own = f".shard-{self.writer}-" if self.writer else ".shard-"
        for path in self.directory.glob(f"{own}*.tmp"):
            if self.writer or not path.name.startswith(".shard-s"):
                path.unlink(missing_ok=True)

    def next_number(self) -> int:
        """The first shard number that is not taken, damaged shards included."""
        numbers = (shard_number(p.name) for p in _listing(self.directory))
        return 1 + max((n for n in numbers if n is not None), default=-1)

    def is_done(self) -> bool:
        """Whether DONE lists exactly the shards that are there."""
        return set(read_done(self.directory)) == {p.name for p in self._shards}

    def write_done(self, hashes: Mapping[str, str]) -> None:
        """Rewrite DONE over all readable shards.

        Args:
            hashes: file name to SHA-256 of the shards just written; others come from the old DONE or are computed.
        """
        with FileLock(self.directory / "done.lock", break_lock=self._options.break_lock):
            self.refresh()
            old = read_done(self.directory)
            shards = {}
            for shard in self.shards:
                name = shard.path.name
                known = old.get(name, {})
                digest = hashes.get(name) or (known.get("sha256") if known.get("bytes") == shard.bytes else None)
                shards[name] = {"rows": shard.rows, "bytes": shard.bytes, "sha256": digest or sha256_file(shard.path)}
            total = sum(s.rows for s in self.shards)
            atomic_write_json(self.directory / DONE, {"rows": total, "shards": shards})

    def touch(self) -> None:
        """Note the time of use for `cache ls` and `cache gc`; a read-only store stays silent."""
        with contextlib.suppress(OSError):
            (self.directory / USED).touch()


def read_done(directory: Path) -> dict[str, dict[str, Any]]:
    """File name to rows, bytes and hash; empty when DONE is absent or unreadable (then nothing is vouched for)."""
    try:
        shards = json.loads((directory / DONE).read_text("utf-8"))["shards"]
        return {str(n): {"rows": s["rows"], "bytes": s["bytes"], "sha256": s["sha256"]} for n, s in shards.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        log.warning("%s cannot be read (%s); it is written anew by the next run", directory / DONE, e)
        return {}


def shard_paths(directory: Path) -> Iterator[Path]:
    """Shard files of an entry, damaged ones included, those set aside not."""
    return (p for p in _listing(directory) if p.name.endswith(SUFFIX) and shard_number(p.name) is not None)


def _listing(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as e:
        raise CacheError(f"cannot read the feature cache {directory}: {e.strerror or e}") from e
