"""What a made world remembers of itself: which world it is, what each chunk wrote, and the manifests that users read.

    <out>/manifest.json                 world, sets, counts
    <out>/<set>/manifest.json           world, counts, size and SHA-256 of every file of the set
    <out>/.make/world.json              which world this folder holds; another one is refused
    <out>/.make/<set>/00000.json        one finished chunk: rows for `Layout.finish`, files with size and hash
    <out>/.make/<set>/finish.json       the files of `Layout.finish`, README and manifest; written last

Nothing here depends on the time, the machine or the code's location, so equal worlds have equal bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mtv.atomic import atomic_write_bytes
from mtv.errors import CacheError, UsageError
from mtv.hashing import sha256_json
from mtv.miniworld.folder import FileEntry, files_from_json, files_to_json
from mtv.miniworld.layouts.base import Row
from mtv.miniworld.layouts.encode import json_bytes
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import WorldSpec

VERSION = 2
"""Raise it when the same spec gives other files: worlds of different versions never mix in one folder."""
MAKE = ".make"
MANIFEST = "manifest.json"
_TEMPORARY = (".tmp", ".part")


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that determines the files."""

    spec: WorldSpec
    """Seed, size, options."""
    scale_name: str
    """Name of the scale."""
    scale: Scale
    """Counts."""
    device: str
    """`cpu` or `cuda`: pictures agree bit for bit on one kind of device only."""
    version: int = VERSION
    """Version of the generator."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, one per argument."""
        spec = asdict(self.spec)
        return {**spec, "scale": self.scale_name, "device": self.device, "version": self.version}

    def key(self, name: str) -> str:
        """Content key of a set: equal keys, equal files."""
        return sha256_json([self.as_dict(), asdict(self.scale), name])


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a finished chunk, or the end of a set, has written."""

    key: str
    """`World.key` of the set."""
    rows: list[Row]
    """Rows of a chunk's scenes; empty for the end of a set."""
    files: dict[str, FileEntry]
    """Path below the set's folder to what the file must be."""
    counts: dict[str, int]
    """Counts of the whole set; empty for a chunk."""

    def damaged(self, folder: Path) -> list[str]:
        """Names of files that are missing or have other bytes, sorted."""
        return [name for name, entry in sorted(self.files.items()) if not entry.matches(folder / name)]


def chunk_file(out: Path, name: str, number: int) -> Path:
    """Record of a chunk."""
    return out / MAKE / name / f"{number:05d}.json"


def finish_file(out: Path, name: str) -> Path:
    """Record of the end of a set."""
    return out / MAKE / name / "finish.json"


def write_record(path: Path, record: Record) -> None:
    """Write a record with a hash of itself. Raises CacheError when the disk is full."""
    # counts as pairs, because sorted JSON would lose their order
    counts = [[what, number] for what, number in record.counts.items()]
    body = {"key": record.key, "rows": record.rows, "files": files_to_json(record.files), "counts": counts}
    atomic_write_bytes(path, json_bytes({"body": body, "sha256": sha256_json(body)}))


def read_record(path: Path, key: str) -> Record | None:
    """The record, or None where it is missing, damaged, or of another world."""
    try:
        content = json.loads(path.read_bytes())
        body = content["body"]
        if content["sha256"] != sha256_json(body) or body["key"] != key:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Record(key=key, rows=body["rows"], files=files_from_json(body["files"]), counts=dict(body["counts"]))


def refuse_foreign(out: Path, names: Sequence[str]) -> None:
    """Check that `out` has no folder of these sets that make-mini did not make; writes nothing.

    Raises:
        UsageError: it has; names the sets.
    """
    foreign = [] if _world_file(out).is_file() else [name for name in names if (out / name).exists()]
    if foreign:
        raise UsageError(
            f"{out}: {', '.join(foreign)} there already, but not made by make-mini", "Choose another folder with --out."
        )


def claim(out: Path, world: World) -> None:
    """Make `out` the folder of this world, or check that it is.

    Raises:
        UsageError: it holds another world; names the arguments that differ, or the counts that its scale had.
        CacheError: it cannot be written, or what it remembers cannot be read.
    """
    path, wanted = _world_file(out), {"world": world.as_dict(), "scale": asdict(world.scale)}
    if not path.is_file():
        atomic_write_bytes(path, json_bytes(wanted, indent=1))
        return
    there = _read_world(path)
    for part, values in wanted.items():
        had = there.get(part, {})
        differing = [f"{k} {had.get(k)!r} instead of {v!r}" for k, v in values.items() if had.get(k) != v]
        if differing:
            raise UsageError(f"{out} holds another world: {', '.join(differing)}", "Choose another folder with --out.")


def _world_file(out: Path) -> Path:
    return out / MAKE / "world.json"


def _read_world(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise CacheError(f"{path}: cannot be read ({e})", "Delete the folder and make the world again.") from e
    if not isinstance(content, dict):
        raise CacheError(f"{path}: not a JSON object", "Delete the folder and make the world again.")
    return content


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from writing to `out`; the kernel frees the lock when this process dies.

    Raises:
        CacheError: the folder cannot be created, or another process writes to it.
    """
    path = out / MAKE / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise CacheError(f"cannot write to {out}: {e.strerror or e}", "Choose another folder with --out.") from e
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CacheError(f"another process writes to {out}", "Wait until it is done, or stop it.") from None
        yield
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process has left behind."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(_TEMPORARY):
                (Path(place) / name).unlink(missing_ok=True)


def set_manifest(world: World, name: str, counts: Mapping[str, int], files: Mapping[str, FileEntry]) -> bytes:
    """`<set>/manifest.json`."""
    content = {
        "set": name,
        "generator": "mtv.miniworld",
        "world": world.as_dict(),
        "content_key": world.key(name),
        "counts": dict(counts),
        "files": {k: {"size": files[k].size, "sha256": files[k].sha256} for k in sorted(files)},
    }
    return json_bytes(content, indent=1)


def world_manifest(world: World, records: Mapping[str, Record]) -> bytes:
    """`<out>/manifest.json`: the sets that are whole."""
    sets = {
        name: {
            "content_key": record.key,
            "counts": record.counts,
            "manifest_sha256": record.files[MANIFEST].sha256,
        }
        for name, record in records.items()
    }
    scale = {f.name: getattr(world.scale, f.name) for f in fields(world.scale)}
    content = {"generator": "mtv.miniworld", "world": world.as_dict(), "scale": scale, "sets": sets}
    return json_bytes(content, indent=1)
