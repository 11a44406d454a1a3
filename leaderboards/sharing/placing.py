"""One result into a store: sample table, pictures, record, in this order, each atomic and checked against its hash.

A merge that is killed leaves files without a record, which nobody reads; the next merge writes them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mtv.atomic import atomic_write, atomic_write_json
from mtv.errors import CacheError
from mtv.hashing import sha256_file, sha256_json
from mtv.leaderboards.sharing.entries import Entry
from mtv.results import TaskResult, read_record, samples_path

Place = Callable[[TaskResult], Path]
"""Where a store puts a record: `mtv.eval.store.ResultStore.path_for`."""


def put(entry: Entry, place: Place) -> tuple[Path, list[str]]:
    """Write a result with all its files.

    Args:
        entry: what to write; its files are only read.
        place: of the target store.

    Returns:
        The path of the record, and the pictures that the source no longer has.

    Raises:
        CacheError: the disk is full, or the table changed while it was copied; what stood there before is intact but
            for its own table and pictures.
    """
    target = target_of(entry, place)
    _keep_previous(target)
    record = entry.record
    missing: list[str] = []
    if entry.path is not None:
        record, missing = _copy_files(entry.path, record, target)
    atomic_write_json(target, record.to_json())
    return target, missing


def target_of(entry: Entry, place: Place) -> Path:
    """The path of the record in the target; its own name where another result, or a damaged file, has the place."""
    path = place(entry.record)
    if entry.shard:
        path = path.with_name(f"{path.stem}-shard{entry.shard.replace('/', 'of')}.json")
    if _free(path, entry):
        return path
    return path.with_name(f"{path.stem}-{sha256_json(entry.identity)[:8]}.json")


def _free(path: Path, entry: Entry) -> bool:
    if not path.exists():
        return True
    try:
        record = read_record(path)
    except CacheError:
        return False
    return Entry(name="", record=record, path=path, rank=0).identity == entry.identity


def _keep_previous(target: Path) -> None:
    """Keep a result that is about to be replaced as `.prev`, as `run --force` does; a failure is not worth it."""
    if target.exists() and read_record(target).status != "failed":
        atomic_write(target.with_name(f"{target.name}.prev"), lambda p: shutil.copyfile(target, p))


def retire(path: Path) -> None:
    """Take a result out of the target whose place another one took: rename it to `.prev`, remove a failure."""
    if read_record(path).status == "failed":
        path.unlink()
    else:
        path.replace(path.with_name(f"{path.name}.prev"))


def _copy_files(source: Path, record: TaskResult, target: Path) -> tuple[TaskResult, list[str]]:
    if record.samples is not None and (table := samples_path(source, record)) is not None:
        own = target.with_suffix(".samples.parquet")
        _copy_checked(table, own, str(record.samples["sha256"]))
        record = replace(record, samples={**record.samples, "file": own.name})
    artefacts, missing = [], []
    for name in record.artefacts:
        picture, own = source.parent / name, target.with_suffix("") / Path(name).name
        if picture.is_file():
            atomic_write(own, lambda p, picture=picture: shutil.copyfile(picture, p))  # type: ignore[misc]
        else:
            missing.append(name)
        artefacts.append(f"{own.parent.name}/{own.name}")
    return replace(record, artefacts=artefacts), missing


def _copy_checked(source: Path, target: Path, sha256: str) -> None:
    def copy(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        if sha256_file(temporary) != sha256:
            raise CacheError(f"{source.name} changed while it was copied", "Run the merge again.")

    atomic_write(target, copy)
