"""The result store: `OUT/<model>/<task>/<preset>-<hash8>.json`, its per-sample Parquet and pictures, all atomic.

Order of writing: samples, pictures, record. A record without its sample table is incomplete and is made again. File
names are a convenience; the key inside (model fingerprint, protocol hash, data fingerprint) decides.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.atomic import atomic_write, atomic_write_json
from mtv.errors import CacheError
from mtv.hashing import sha256_file
from mtv.results import TaskResult, is_whole, read_record

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

log = logging.getLogger(__name__)


def slug(text: str) -> str:
    """A file name that a person recognises: letters, digits, `.`, `_`, `-`; at most 80 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:80] or "model"


class ResultStore:
    """Results below one directory.

    Args:
        root: created when the first result is written.

    Raises:
        CacheError: `root` is a file, or its file system refuses writing (checked by `check_writable`).
    """

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise CacheError(f"--out {root}: is a file, not a directory")
        self.root = root

    def check_writable(self) -> None:
        """Write and remove a small file, so that hours of work are not lost to a read-only or full disk."""
        probe = self.root / ".write-test"
        try:
            atomic_write(probe, lambda p: p.write_bytes(b"x" * 4096))
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def directory(self, model: Mapping[str, Any], task: str) -> Path:
        """Folder of a model's results for a task; the model part carries eight digits of its fingerprint."""
        name = slug(str(model.get("alias") or model.get("spec")))
        return self.root / f"{name}-{str(model.get('fingerprint', ''))[:8]}" / task

    def find(self, key: tuple[str, str, str], model: Mapping[str, Any], task: str) -> tuple[Path, TaskResult] | None:
        """The stored result with exactly this key, or None. An unreadable record is reported and does not count."""
        folder = self.directory(model, task)
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                record = read_record(path)
            except CacheError as e:
                log.warning("%s; it will be made again", e.message)
                continue
            if record.key == key:
                return path, record
        return None

    def complete(
        self, key: tuple[str, str, str], model: Mapping[str, Any], task: str, *, content: str, verify: bool = True
    ) -> tuple[Path, TaskResult] | None:
        """The stored result if nothing has to be computed: right key, same bytes of data, its own sample table.

        `verify` compares the table's hash: a run that was killed between writing a new table and its record leaves a
        table that the old record does not describe.
        """
        found = self.find(key, model, task)
        if found is None or found[1].status == "failed" or not is_whole(*found, verify=verify):
            return None
        if found[1].data.get("content_sha256") != content:
            log.warning(
                "%s: files of the data set changed since %s was made; it will be made again", task, found[0].name
            )
            return None
        return found

    def in_the_way(self, record: TaskResult) -> Path | None:
        """The result that writing a failure would destroy: where it would go, or under its key; None if there is none.

        A failure before the data were opened has no data fingerprint, so its place may hold a result.
        """
        path = self.path_for(record)
        with contextlib.suppress(CacheError):
            if path.exists() and read_record(path).status != "failed":
                return path
        found = self.find(record.key, record.model, record.task)
        return found[0] if found is not None and found[1].status != "failed" else None

    def forget_failures(self, model: Mapping[str, Any]) -> None:
        """Remove the failed records of a model; a folder that is then empty goes too."""
        for folder in sorted(self.directory(model, "x").parent.glob("*")):
            for path in folder.glob("*.json"):
                with contextlib.suppress(CacheError):
                    if read_record(path).status == "failed":
                        path.unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            self.directory(model, "x").parent.rmdir()

    def path_for(self, record: TaskResult) -> Path:
        """Where `record` goes: its plain name, or one with the data fingerprint if another data set's result has it."""
        folder = self.directory(record.model, record.task)
        plain = folder / f"{record.protocol['preset']}-{record.protocol['hash'][:8]}.json"
        if plain.exists():
            with contextlib.suppress(CacheError):
                other = read_record(plain)
                if other.key[2] and record.key[2] and other.key[2] != record.key[2]:
                    return plain.with_name(f"{plain.stem}-{record.key[2][:8]}.json")
        return plain

    def write(
        self,
        record: TaskResult,
        table: Mapping[str, np.ndarray] | None = None,
        pictures: Iterable[tuple[str, Image.Image]] = (),
        *,
        keep_previous: bool = False,
    ) -> tuple[Path, TaskResult]:
        """Write a result durably; returns its path and the record with the names of what lies beside it.

        Args:
            record: without `samples` and `artefacts`; they are filled in here.
            table: per-sample columns, all of one length.
            pictures: name and picture, saved as small WebP.
            keep_previous: keep an existing record as `.prev`.

        Raises:
            CacheError: full disk or missing permission; names the file. Everything written earlier is intact.
        """
        path = self.path_for(record)
        previous = path.with_name(path.name + ".prev")
        if keep_previous and path.exists():
            atomic_write(previous, lambda p: shutil.copyfile(path, p))
        if table is not None:
            record = replace(record, samples=self._write_samples(path, table))
        record = replace(record, artefacts=[self._write_picture(path, name, image) for name, image in pictures])
        atomic_write_json(path, record.to_json())
        return path, record

    def _write_samples(self, path: Path, table: Mapping[str, np.ndarray]) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = path.with_suffix(".samples.parquet")
        columns = pa.table({name: pa.array(values) for name, values in table.items()})
        atomic_write(target, lambda p: pq.write_table(columns, p, compression="zstd"))
        return {
            "file": target.name,
            "sha256": sha256_file(target),
            "rows": columns.num_rows,
            "columns": list(columns.column_names),
        }

    def _write_picture(self, path: Path, name: str, image: Image.Image) -> str:
        target = path.with_suffix("") / f"{slug(name)}.webp"
        atomic_write(target, lambda p: image.convert("RGB").save(p, format="WEBP", quality=80, method=2))
        return f"{target.parent.name}/{target.name}"
