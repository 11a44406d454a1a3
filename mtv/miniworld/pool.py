"""Chunks to files: on the CPU every process does whole chunks, on a GPU one process renders and the others do the rest.

Notable choices: processes are spawned (a fork of a process that runs torch threads can hang) and use one thread each;
a finished chunk is recorded by the process that wrote it, so a kill loses only the chunks in work; processes end when
their parent dies; pictures in memory are bounded by a few chunks whatever the size of the world.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from mtv.allocator import keep_freed_memory
from mtv.errors import CacheError
from mtv.miniworld.compose import make_scene
from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.base import Shot
from mtv.miniworld.manifest import Record, World, chunk_file, write_record
from mtv.miniworld.scene import Scene
from mtv.miniworld.spec import SceneRequest

RENDERED_PIXELS = 1 << 21
"""Pixels that are handed to the renderer together on the CPU; about 20 MB of truth."""
AHEAD = 2
"""Chunks in flight per process."""


@dataclass(frozen=True, kw_only=True)
class ChunkJob:
    """One chunk to make."""

    out: Path
    """The world's root."""
    world: World
    """The world."""
    set: str
    """Layout."""
    number: int
    """Which chunk of it."""
    requests: tuple[SceneRequest, ...]
    """Its scenes."""

    def shots(self, frames: Iterable[Frame]) -> Iterator[Shot]:
        """Its scenes with their pictures."""
        for request, frame in zip(self.requests, frames, strict=True):
            yield Shot(spec=self.world.spec, scale=self.world.scale, request=request, frame=frame)


def run_jobs(jobs: Sequence[ChunkJob], *, workers: int) -> Iterator[ChunkJob]:
    """Make chunks; yields each when it is written and recorded, in any order.

    Raises:
        MtvError: the first that occurs; chunks that were yielded stay.
    """
    if not jobs:
        return
    device = jobs[0].world.device
    if device == "cpu" and (workers == 1 or len(jobs) == 1):
        with _one_thread():
            for job in jobs:
                make_chunk(job)
                yield job
        return
    if device != "cpu":
        yield from _on_device(jobs, workers, device)
        return
    with _pool(min(workers, len(jobs)), _start_rendering) as pool:
        waiting = iter(jobs)
        running = {pool.submit(make_chunk, job): job for job in islice(waiting, AHEAD * workers)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                yield running.pop(future)
                running |= {pool.submit(make_chunk, job): job for job in islice(waiting, 1)}


def make_chunk(job: ChunkJob) -> None:
    """Compose, render on the CPU, write and record one chunk; only a part of its pictures is in memory."""
    from mtv.miniworld.render import render

    def frames() -> Iterator[Frame]:
        for batch in _batches([make_scene(job.world.spec, request) for request in job.requests]):
            yield from render(batch, device="cpu")

    _write(job, frames())


def compose_chunk(job: ChunkJob) -> bytes:
    """Descriptions of the scenes of a chunk, pickled: the rendering process hands these bytes on as they are."""
    return pickle.dumps([make_scene(job.world.spec, request) for request in job.requests], protocol=5)


def write_rendered(job: ChunkJob, scenes: bytes, truths: Sequence[dict[str, Any]]) -> None:
    """Write and record a chunk that was rendered elsewhere.

    Args:
        job: the chunk.
        scenes: from `compose_chunk`.
        truths: fields of the frames, without the scenes.
    """
    _write(job, (Frame(scene=s, **truth) for s, truth in zip(pickle.loads(scenes), truths, strict=True)))


def _write(job: ChunkJob, frames: Iterable[Frame]) -> None:
    folder = SetFolder(job.out / job.set)
    rows = LAYOUTS[job.set].write_chunk(job.number, job.shots(frames), folder)
    record = Record(key=job.world.key(job.set), rows=rows, files=folder.files, counts={})
    write_record(chunk_file(job.out, job.set, job.number), record)


def _batches(scenes: Sequence[Scene]) -> Iterator[list[Scene]]:
    batch: list[Scene] = []
    pixels = 0
    for scene in scenes:
        batch.append(scene)
        pixels += scene.camera.width * scene.camera.height
        if pixels >= RENDERED_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _on_device(jobs: Sequence[ChunkJob], workers: int, device: str) -> Iterator[ChunkJob]:
    """Scenes from the pool, pictures from this process, files by the pool."""
    from mtv.miniworld.render import render

    with _pool(workers, _start_plain) as pool:
        waiting = iter(jobs)
        composing = deque((job, pool.submit(compose_chunk, job)) for job in islice(waiting, AHEAD * workers))
        writing: dict[Future[None], ChunkJob] = {}
        while composing:
            job, composed = composing.popleft()
            scenes = composed.result()
            truths = [_truth(frame) for frame in render(pickle.loads(scenes), device=device)]
            writing[pool.submit(write_rendered, job, scenes, truths)] = job
            composing.extend((after, pool.submit(compose_chunk, after)) for after in islice(waiting, 1))
            yield from _written(writing, keep=AHEAD * workers)
        yield from _written(writing, keep=0)


def _truth(frame: Frame) -> dict[str, Any]:
    """The fields of a frame but the scene, which its writer has already."""
    return {f.name: getattr(frame, f.name) for f in fields(frame) if f.name != "scene"}


def _written(writing: dict[Future[None], ChunkJob], *, keep: int) -> Iterator[ChunkJob]:
    """Chunks that are done; waits while more than `keep` are not."""
    while writing:
        done = wait(writing, timeout=None if len(writing) > keep else 0, return_when=FIRST_COMPLETED).done
        if not done:
            return
        for future in done:
            future.result()
            yield writing.pop(future)


@contextlib.contextmanager
def _pool(workers: int, start: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=start)
    try:
        yield pool
    except BrokenProcessPool as e:
        raise CacheError(
            "a worker process died, probably for want of memory",
            "Give fewer --workers; what was written before is intact, and a rerun continues there.",
        ) from e
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_plain() -> None:
    """Leave Ctrl-C to the parent, and end when it has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _start_rendering() -> None:
    import torch

    _start_plain()
    torch.set_num_threads(1)
    keep_freed_memory()
    gc.collect()
    gc.freeze()  # the modules live as long as the process: no use to visit them in every collection


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As many threads as a worker process has, then as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
