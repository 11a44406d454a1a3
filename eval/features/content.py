"""What the files of a data set hold: SHA-256 of their bytes, remembered like git's index remembers them.

A file whose size, mtime and ctime are unchanged is not read again; every other one is. A file touched within the last
seconds is hashed but not remembered, because a second change could leave the same time stamp.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mtv.atomic import atomic_write_bytes
from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef, fingerprint_of
from mtv.eval.features.lock import FileLock
from mtv.eval.features.options import Progress, no_progress, usable_cores
from mtv.hashing import sha256_lines, sha256_text

log = logging.getLogger(__name__)

_RACY_NS = 2_000_000_000
_SAVE_SECONDS = 60.0

_State = tuple[int, int, int, int, int]
"""Size, mtime_ns, ctime_ns of the file; offset and length of the tar member (-1 for a plain file)."""
_Index = dict[str, tuple[_State, str]]


def sample_digest(file_digests: Sequence[str]) -> str:
    """Digest of a sample made of several files: SHA-256 over the SHA-256 of each."""
    return sha256_lines(file_digests)


def content_sha256(digests: Mapping[str, str]) -> str:
    """One hash of a whole set: over the sorted (sample id, digest)."""
    return fingerprint_of(digests.items())


class ContentIndex:
    """Remembered hashes, one JSON file per data root under `<cache>/content/`.

    Args:
        cache_dir: the cache directory; the data root is never written to.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.directory = cache_dir / "content"
        self._loaded: dict[str, _Index] = {}

    def digests(
        self, files: Mapping[str, Sequence[FileRef]], *, verify: bool = False, progress: Progress | None = None
    ) -> dict[str, str]:
        """Digest of every sample, in the order of `files`.

        Args:
            files: sample id to its files.
            verify: read every file, whatever its time stamps say.
            progress: called with stage `hash`.

        Raises:
            DataError: a file cannot be read.
            CacheError: the index cannot be written.
        """
        by_root: dict[str, dict[str, FileRef]] = {}
        places: dict[str, list[tuple[str, str]]] = {}
        for sample_id, refs in files.items():
            places[sample_id] = [(_root(ref), ref.name) for ref in refs]
            for ref, (root, name) in zip(refs, places[sample_id], strict=True):
                by_root.setdefault(root, {})[name] = ref
        known = {r: self._digests_of_root(r, refs, verify, progress or no_progress) for r, refs in by_root.items()}
        return {i: sample_digest([known[root][name] for root, name in place]) for i, place in places.items()}

    def _digests_of_root(self, root: str, refs: dict[str, FileRef], verify: bool, progress: Progress) -> dict[str, str]:
        index = self._load(root)
        states = dict(_states(refs))
        result = {}
        if not verify:
            result = {n: index[n][1] for n, s in states.items() if n in index and index[n][0] == s}
        todo = [n for n in refs if n not in result]
        fresh: _Index = {}
        saved = time.monotonic()
        for done, (name, digest) in enumerate(_hash_all([(n, refs[n]) for n in todo]), 1):
            known = index.get(name)
            if known is not None and known[0] == states[name] and known[1] != digest:
                log.warning("%s: the bytes changed although size and times did not; using what is there now", name)
            result[name] = digest
            if time.time_ns() - max(states[name][1:3]) > _RACY_NS:
                fresh[name] = (states[name], digest)
            progress("hash", done, len(todo), name)
            if time.monotonic() - saved > _SAVE_SECONDS:
                self._save(root, fresh)
                fresh, saved = {}, time.monotonic()
        if fresh:
            self._save(root, fresh)
        return result

    def _path(self, root: str) -> Path:
        return self.directory / f"{sha256_text(root)[:16]}.json"

    def _load(self, root: str) -> _Index:
        if root not in self._loaded:
            self._loaded[root] = _read(self._path(root))
        return self._loaded[root]

    def _save(self, root: str, fresh: _Index) -> None:
        """Merge into what is on disk now: another process may have added to it."""
        path = self._path(root)
        with FileLock(path.with_suffix(".lock")):
            merged = {**_read(path), **fresh}
            rows = {n: [*state, digest] for n, (state, digest) in merged.items()}
            atomic_write_bytes(path, json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode("utf-8"))
        self._loaded[root] = merged


def _root(ref: FileRef) -> str:
    """Data root of a file: its path without the name, which for a tar member continues inside the archive."""
    path = str(ref.path)
    name = ref.name if ref.offset is None else ref.name[: ref.name.find(ref.path.name) + len(ref.path.name)]
    return path[: -len(name)] if path.replace(os.sep, "/").endswith(name) else path


def _states(refs: Mapping[str, FileRef]) -> Iterator[tuple[str, _State]]:
    archives: dict[Path, os.stat_result] = {}
    for name, ref in refs.items():
        try:
            stat = archives.get(ref.path) or ref.path.stat()
        except OSError as e:
            raise DataError(f"{ref.path}: cannot be read ({e.strerror or e})") from e
        if ref.offset is not None:
            archives[ref.path] = stat
        offset, length = (-1, -1) if ref.offset is None else (ref.offset, ref.size or 0)
        yield name, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, offset, length)


def _hash_all(refs: Sequence[tuple[str, FileRef]]) -> Iterator[tuple[str, str]]:
    """Hash in threads (hashlib and reads release the GIL), in order."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * usable_cores())) as pool:
        yield from pool.map(lambda item: (item[0], hashlib.sha256(item[1].read()).hexdigest()), refs)


def _read(path: Path) -> _Index:
    """The stored index. A damaged one is dropped: it only saves time."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        return {str(n): ((int(r[0]), int(r[1]), int(r[2]), int(r[3]), int(r[4])), str(r[5])) for n, r in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, IndexError, KeyError, AttributeError) as e:
        log.warning("%s is damaged (%s); the files are hashed again", path, e)
        return {}
