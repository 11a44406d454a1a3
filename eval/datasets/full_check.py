"""`data check --full`: decode every picture, read every other file, and hash the bytes.

What decoding means for a file that is no picture, the data set says (`Dataset.checks`): depth and label maps have to
hold what their headers promise.

The outcome is kept in a cache folder as `<quick fingerprint>.json`, together with a digest of names, sizes and
modification times: it is reused only while no file has changed. Nothing is ever written into the data root.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mtv.atomic import atomic_write_json
from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import CheckReport, ContentCheck, Dataset, FileRef
from mtv.eval.datasets.common import IMAGE_SUFFIXES, some
from mtv.hashing import sha256_lines

SCHEMA = 1
BATCH = 64
"""Files per piece of work."""
IN_PROCESS = 512
"""Up to so many files one process is faster than starting others, which import torch first."""


@dataclass(frozen=True, kw_only=True)
class FullOutcome:
    """What decoding everything found."""

    fingerprint: str
    """The quick fingerprint that it belongs to."""
    full_fingerprint: str
    """SHA-256 over the quick fingerprint and the SHA-256 of every file's bytes, sorted by kind and id."""
    state: str
    """Digest of names, sizes and modification times when it was made."""
    files: int
    """Files read."""
    undecodable: tuple[str, ...]
    """`name: reason` of each broken file."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    key: str
    ref: FileRef
    image: bool
    check: ContentCheck | None = None


def full_check(
    dataset: Dataset,
    *,
    data: Path,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """The quick report of `dataset`, extended by decoding every file.

    Args:
        dataset: an opened data set.
        data: the data root, which the cache must not lie in.
        cache: folder for outcomes; None keeps none.
        workers: processes; None for min(8, cores).
        progress: called with (files done, files in all).

    Returns:
        The report with `checked="full"` and the fingerprint that includes the bytes; `wrong` when a file is broken.

    Raises:
        UsageError: `cache` lies inside the data root.
    """
    if cache is not None and cache.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"cache folder {cache} lies inside the data root {data}", "Choose a folder elsewhere.")
    outcome = stored_outcome(dataset, cache) if cache is not None else None
    if outcome is None:
        outcome = _run(dataset, workers, progress)
        if cache is not None:
            atomic_write_json(_path(cache, dataset), {"schema": SCHEMA, **asdict(outcome)})
    return _extend(dataset.report, outcome)


def stored_outcome(dataset: Dataset, cache: Path) -> FullOutcome | None:
    """The kept outcome of an earlier full check; None when there is none, or a file has changed since."""
    try:
        content = json.loads(_path(cache, dataset).read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            return None
        outcome = FullOutcome(**{**content, "undecodable": tuple(content["undecodable"])})
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None  # a cache entry that cannot be read is made again
    return outcome if outcome.state == _state(_jobs(dataset)) else None


def _path(cache: Path, dataset: Dataset) -> Path:
    return cache / f"{dataset.report.fingerprint}.json"


def _extend(report: CheckReport, outcome: FullOutcome) -> CheckReport:
    report = replace(report, checked="full", fingerprint=outcome.full_fingerprint)
    if not outcome.undecodable:
        return report
    broken = f"{len(outcome.undecodable)} of {outcome.files} files cannot be decoded: {some(outcome.undecodable, 20)}"
    return replace(
        report,
        verdict="wrong",
        problems=(broken, *report.problems),
        repair="Copy these files again from the archive, then repeat the check.",
    )


def _jobs(dataset: Dataset) -> list[_Job]:
    images = [_Job(key=f"image\t{i}", ref=ref, image=True) for i, ref in dataset.images.items()]
    extra = [
        _Job(key=f"extra\t{i}", ref=ref, image=False, check=dataset.checks.get(i))
        for i, ref in dataset.extra_files.items()
    ]
    return images + extra


def _state(jobs: Sequence[_Job]) -> str:
    stats: dict[Path, str] = {}
    for path in {job.ref.path for job in jobs}:
        try:
            s = path.stat()
            stats[path] = f"{s.st_size}\t{s.st_mtime_ns}"
        except OSError:
            stats[path] = "absent"
    return sha256_lines(sorted(f"{j.key}\t{j.ref.name}\t{stats[j.ref.path]}" for j in jobs))


def _run(dataset: Dataset, workers: int | None, progress: Callable[[int, int], None] | None) -> FullOutcome:
    jobs = _jobs(dataset)
    state = _state(jobs)
    hashes: list[str] = []
    undecodable: list[str] = []
    done = 0
    for batch in _checked(jobs, workers or min(8, os.cpu_count() or 1)):
        for key, name, digest, error in batch:
            hashes.append(f"{key}\t{digest}")
            if error:
                undecodable.append(f"{name}: {error}")
        done += len(batch)
        if progress is not None:
            progress(done, len(jobs))
    quick = dataset.report.fingerprint
    return FullOutcome(
        fingerprint=quick,
        full_fingerprint=sha256_lines([quick, *sorted(hashes)]),
        state=state,
        files=len(jobs),
        undecodable=tuple(sorted(undecodable)),
    )


_Result = tuple[str, str, str, str]
"""Key, name, SHA-256 of the bytes, error or empty."""


def _checked(jobs: Sequence[_Job], workers: int) -> Iterator[list[_Result]]:
    batches: Iterable[Sequence[_Job]] = [jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH)]
    if workers == 1 or len(jobs) <= IN_PROCESS:
        yield from map(_check_batch, batches)
        return
    # spawn: a fork of a process that runs torch threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_check_batch, batches)


def _check_batch(jobs: Sequence[_Job]) -> list[_Result]:
    return [_check(job) for job in jobs]


def _check(job: _Job) -> _Result:
    digest = ""
    try:
        content = job.ref.read()
        digest = hashlib.sha256(content).hexdigest()
        _decode(job, content)
    except DataError as e:
        return job.key, job.ref.name, digest, e.message.removeprefix(f"{job.ref.name}: ")
    return job.key, job.ref.name, digest, ""


def _decode(job: _Job, content: bytes) -> None:
    if job.image:
        from mtv.encoders.preprocess import decode_rgb

        decode_rgb(content)
    elif job.check is not None:
        job.check(content, name=job.ref.name)
    elif job.ref.name.lower().endswith(IMAGE_SUFFIXES):
        _load(content)
    elif not content:
        raise DataError("empty file (0 bytes)")


def _load(content: bytes) -> None:
    """Decode without conversion: depth maps are 16-bit."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except Exception as e:  # decoders raise whatever their parser stumbled over
        raise DataError(f"no readable image: {(str(e) or type(e).__name__).splitlines()[0]}") from e
