"""Makes a miniature world on disk: every set in its layout, in parallel, resumable, verified.

    make_world(Path("mini"), WorldSpec(), scale="small")

What is whole stays: chunks whose files have the recorded sizes and hashes are not made again, so a second call with the
same arguments only reads, a killed one goes on, and a deleted or damaged file costs its chunk.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtv.atomic import atomic_write_bytes
from mtv.errors import CacheError, UsageError, unknown
from mtv.miniworld.folder import FileEntry, SetFolder
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.base import Layout, Row
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.manifest import (
    MANIFEST,
    Record,
    World,
    chunk_file,
    claim,
    finish_file,
    locked,
    read_record,
    refuse_foreign,
    set_manifest,
    sweep,
    world_manifest,
    write_record,
)
from mtv.miniworld.pool import ChunkJob, run_jobs
from mtv.miniworld.readme import set_readme, world_readme
from mtv.miniworld.spec import SceneRequest, WorldSpec

log = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")
CHUNK_PIXELS = 1 << 24
"""A chunk holds no more pixels than this, so that its truth stays below 200 MB."""
Progress = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, remark)."""


@dataclass(frozen=True, kw_only=True)
class MadeSet:
    """What became of one set."""

    name: str
    """Set."""
    counts: dict[str, int]
    """Counts, as in the manifest."""
    chunks: int
    """All of its chunks."""
    made: int
    """Chunks that were made now; the others were whole."""
    repaired: tuple[str, ...]
    """Files that were recorded before but missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """One set and what is left to do."""

    layout: Layout
    """The set."""
    jobs: list[ChunkJob]
    """All of its chunks."""
    todo: list[ChunkJob]
    """Those without a record, or with missing or damaged files."""
    repaired: tuple[str, ...]
    """Files that were recorded but are missing or damaged."""
    whole: bool
    """Nothing is left to do."""


def make_world(
    out: Path,
    spec: WorldSpec,
    *,
    scale: str = "small",
    sets: Sequence[str] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[MadeSet]:
    """Make a world, or what of it is missing.

    Args:
        out: its folder; may hold this world, whole or in part, but no other.
        spec: seed, size, options.
        scale: key of `SCALES`.
        sets: keys of `LAYOUTS`; None for all. Sets that are in the folder already and not named are left alone.
        workers: processes; None for min(8, cores). The files do not depend on it.
        device: `cpu` or `cuda`.
        progress: called while files are verified and scenes are made.

    Returns:
        One entry per set, in the order of `LAYOUTS`.

    Raises:
        UsageError: unknown names, no such device, or another world in the folder; names the arguments that differ.
        CacheError: the folder cannot be written, the disk is full, or another process writes to it; nothing is lost.
    """
    names = _checked(scale, sets, workers, device)
    tell = progress or (lambda stage, done, total, remark: None)
    world = World(spec=spec, scale_name=scale, scale=SCALES[scale], device=device)
    refuse_foreign(out, names)
    with locked(out):
        claim(out, world)
        plans = _plans(out, world, names, tell)
        for plan in _run(plans, workers or default_workers(), tell):
            _finish(out, world, plan)
        ends = _seal(out, world)
    return [
        MadeSet(
            name=plan.layout.name,
            counts=ends[plan.layout.name].counts,
            chunks=len(plan.jobs),
            made=len(plan.todo),
            repaired=plan.repaired,
        )
        for plan in plans
    ]


def default_workers() -> int:
    """min(8, cores)."""
    return min(8, os.cpu_count() or 1)


def _checked(scale: str, sets: Sequence[str] | None, workers: int | None, device: str) -> list[str]:
    """Names of the sets in the order of `LAYOUTS`."""
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    for name in sets or ():
        if name not in LAYOUTS:
            raise unknown("set", name, LAYOUTS)
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}")
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UsageError("device cuda: torch sees no GPU here", "Use --device cpu.")
    return [name for name in LAYOUTS if sets is None or name in sets]


def chunk_length(layout: Layout, requests: Sequence[SceneRequest], world: World) -> int:
    """Scenes per chunk: as the layout has it, fewer where the pictures are large."""
    largest = max(request.width * request.height for request in requests)
    return max(1, min(layout.chunk_length(world.scale), CHUNK_PIXELS // largest))


def chunk_jobs(out: Path, world: World, layout: Layout) -> list[ChunkJob]:
    """All chunks of a set."""
    requests = layout.requests(world.spec, world.scale)
    length = chunk_length(layout, requests, world)
    slices = [tuple(requests[start : start + length]) for start in range(0, len(requests), length)]
    return [ChunkJob(out=out, world=world, set=layout.name, number=i, requests=s) for i, s in enumerate(slices)]


def _plans(out: Path, world: World, names: Sequence[str], tell: Progress) -> list[_Plan]:
    """Compare what is there with what was recorded."""
    jobs = {name: chunk_jobs(out, world, LAYOUTS[name]) for name in names}
    done, total = 0, sum(map(len, jobs.values()))
    plans = []
    for name in names:
        todo, repaired = list[ChunkJob](), list[str]()
        for job in jobs[name]:
            record = read_record(chunk_file(out, name, job.number), world.key(name))
            damaged = record.damaged(out / name) if record else []
            repaired += damaged
            if record is None or damaged:
                todo.append(job)
            done += 1
            tell("verify", done, total, name)
        end = read_record(finish_file(out, name), world.key(name))
        repaired += (lost := end.damaged(out / name) if end else [])
        for file in repaired:
            log.warning("%s/%s is missing or damaged; it is made again", name, file)
        whole = end is not None and not lost and not todo
        if not whole:
            sweep(out / name)
        plans.append(_Plan(layout=LAYOUTS[name], jobs=jobs[name], todo=todo, repaired=tuple(repaired), whole=whole))
    return plans


def _run(plans: Sequence[_Plan], workers: int, tell: Progress) -> Iterator[_Plan]:
    """Make what is missing; yields each set that has to be finished when all of its chunks are there."""
    yield from (plan for plan in plans if not plan.todo and not plan.whole)
    by_name = {plan.layout.name: plan for plan in plans}
    left = {plan.layout.name: len(plan.todo) for plan in plans}
    jobs = [job for plan in plans for job in plan.todo]
    done, total, started = 0, sum(len(job.requests) for job in jobs), time.monotonic()
    if jobs:
        tell("scenes", 0, total, "")
    for job in run_jobs(jobs, workers=workers):
        done += len(job.requests)
        tell("scenes", done, total, f"{job.set}, {done / (time.monotonic() - started):.0f} images/s")
        left[job.set] -= 1
        if not left[job.set]:
            yield by_name[job.set]


def _finish(out: Path, world: World, plan: _Plan) -> None:
    """Annotation files, README and manifest of a set whose chunks are all there; its record last."""
    layout, name = plan.layout, plan.layout.name
    rows: list[Row] = []
    files: dict[str, FileEntry] = {}
    for job in plan.jobs:
        record = read_record(chunk_file(out, name, job.number), world.key(name))
        if record is None:
            raise CacheError(f"{chunk_file(out, name, job.number)}: vanished while the set was made", "Run it again.")
        rows += record.rows
        files |= record.files
    folder = SetFolder(out / name)
    counts = layout.finish(rows, folder, spec=world.spec, scale=world.scale)
    folder.write("README.md", set_readme(layout, world, counts))
    folder.write(MANIFEST, set_manifest(world, name, counts, {**files, **folder.files}))
    write_record(finish_file(out, name), Record(key=world.key(name), rows=[], files=folder.files, counts=counts))


def _seal(out: Path, world: World) -> dict[str, Record]:
    """Manifest and README of the world, written only where they differ; the records of all sets that are whole."""
    found = {name: read_record(finish_file(out, name), world.key(name)) for name in LAYOUTS}
    ends = {name: record for name, record in found.items() if record is not None}
    for path, data in (
        (out / MANIFEST, world_manifest(world, ends)),
        (out / "README.md", world_readme(world, {LAYOUTS[name]: end.counts for name, end in ends.items()})),
    ):
        if not path.is_file() or path.read_bytes() != data:
            atomic_write_bytes(path, data)
    return ends
