"""Bytes to uint8 batches: loader processes prepare small chunks ahead, this process puts them together in order.

Order and batch composition depend on the ids alone, never on the number of workers. Every worker hashes the bytes it
decodes and refuses those that are not the ones the row will be stored under.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import shutil
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mtv.errors import DataError, MtvError
from mtv.eval.datasets.base import FileRef
from mtv.eval.features.content import sample_digest
from mtv.eval.features.options import format_bytes
from mtv.eval.features.request import FeatureRequest, Preparation

log = logging.getLogger(__name__)

CHUNK = 16
"""Most pictures a worker hands over at once: all workers then share the first batch, and decoding overlaps early."""
STALL_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures of consecutive ids."""

    ids: list[str]
    """Sample ids."""
    pixels: Tensor | None
    """uint8 B,3,H,W, one per id; None when there is none."""
    error: MtvError | None = None
    """Why the sample after the last of `ids` could not be prepared; nothing follows such a batch."""


def load_sample(request: FeatureRequest, sample_id: str, digest: str) -> Tensor:
    """Read, check and prepare one sample.

    Args:
        digest: what the bytes must hash to; empty to accept any.

    Returns:
        uint8 3,H,W.

    Raises:
        DataError: unreadable, changed during the run, or not decodable; names the file.
    """
    return _prepare(request.preparation, sample_id, request.files[sample_id], digest)


def _prepare(preparation: Preparation, sample_id: str, refs: Sequence[FileRef], digest: str) -> Tensor:
    names = ", ".join(str(r.path) if r.offset is None else f"{r.path}: {r.name}" for r in refs)
    blobs = [r.read() for r in refs]
    if digest and sample_digest([hashlib.sha256(b).hexdigest() for b in blobs]) != digest:
        raise DataError(
            f"{names}: changed during the run (sample {sample_id!r})",
            "Run again once nothing writes to the data; with --verify if the file kept its size and times.",
        )
    try:
        pixels = preparation(sample_id, blobs)
    except MtvError as e:
        raise DataError(e.message if names in e.message else f"{names}: {e.message}", e.hint) from e
    except Exception as e:  # decoders raise what they like; the traceback tells a bug from a bad file
        log.error("preparing sample %r failed\n%s", sample_id, traceback.format_exc())
        raise DataError(f"{names}: sample {sample_id!r} cannot be prepared ({type(e).__name__}: {e})") from e
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
        raise DataError(
            f"{names}: {type(preparation).__name__} gave {pixels.dtype} {tuple(pixels.shape)}, not uint8 3,H,W"
        )
    return pixels


class _Chunks(Dataset[tuple[Tensor | None, int, tuple[str, str] | None]]):
    """Chunk number to (pixels, how many, error). Errors travel as text: exceptions lose their fields in a pipe."""

    def __init__(
        self, request: FeatureRequest, chunks: list[list[str]], digests: Mapping[str, str], size: tuple[int, ...],
        current_W: Tensor,
    ) -> None:  # fmt: skip
        self._preparation = request.preparation
        self._chunks = [[(i, request.files[i], digests[i]) for i in chunk] for chunk in chunks]
        self._starts = [0]
        for chunk in chunks:
            self._starts.append(self._starts[-1] + len(chunk))
        self._size = size
        self._current_W = current_W

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> tuple[Tensor | None, int, tuple[str, str] | None]:
        info = get_worker_info()
        slot = info.id if info is not None else 0
        chunk = self._chunks[index]
        pixels_B3HW = torch.empty(len(chunk), *self._size, dtype=torch.uint8)
        for n, (sample_id, refs, digest) in enumerate(chunk):
            self._current_W[slot] = self._starts[index] + n
            try:
                pixels = _prepare(self._preparation, sample_id, refs, digest)
                if pixels.shape != self._size:
                    raise DataError(
                        f"{refs[0].path}: sample {sample_id!r} is {tuple(pixels.shape)} after preparation, others are "
                        f"{tuple(self._size)}; the samples of a request must have one size"
                    )
            except MtvError as e:
                return (pixels_B3HW[:n].clone() if n else None), n, (e.message, e.hint)
            pixels_B3HW[n] = pixels
        self._current_W[slot] = -1
        return pixels_B3HW, len(chunk), None


def iter_batches(
    request: FeatureRequest,
    ids: Sequence[str],
    digests: Mapping[str, str],
    *,
    size: tuple[int, ...],
    batch_size: int,
    workers: int,
    pin: bool = False,
    stall_s: float = STALL_SECONDS,
) -> Generator[Batch]:
    """Batches of consecutive ids, prepared ahead by `workers` processes.

    A sample that fails ends the iteration with a batch that holds what came before it and the error.

    Args:
        request: files and preparation.
        ids: samples in order.
        digests: id to the digest its bytes must have; empty strings accept any.
        size: 3,H,W of every sample.
        batch_size: ids per batch.
        workers: loader processes; 0 prepares in this one.
        pin: page-lock batches for copying to a GPU.
        stall_s: report after waiting this long for a picture, naming the files in work.
    """
    chunks = _chunked(ids, batch_size, workers)
    workers, ahead = _workers_that_fit(workers, chunks, size, batch_size)
    current_W = torch.full((max(1, workers),), -1, dtype=torch.int64).share_memory_()
    loader = DataLoader(
        _Chunks(request, chunks, digests, size, current_W),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
    )
    names = [request.files[i][0] for i in ids]
    iterator = iter(loader)
    try:
        with _Watch(names, current_W, stall_s) as watch:
            yield from _assemble(watch.iterate(iterator), ids, batch_size, size, pin)
    finally:
        # Left to the garbage collector, the workers of a failed request would live on for an unknown time.
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _assemble(
    chunks: Iterator[tuple[Tensor | None, int, tuple[str, str] | None]],
    ids: Sequence[str], batch_size: int, size: tuple[int, ...], pin: bool,
) -> Iterator[Batch]:  # fmt: skip
    for start in range(0, len(ids), batch_size):
        wanted = list(ids[start : start + batch_size])
        pixels_B3HW = torch.empty(len(wanted), *size, dtype=torch.uint8, pin_memory=pin)
        have = 0
        while have < len(wanted):
            pixels, n, failure = next(chunks)
            if pixels is not None:
                pixels_B3HW[have : have + n] = pixels
            have += n
            if failure is not None:
                yield Batch(ids=wanted[:have], pixels=pixels_B3HW[:have] if have else None, error=DataError(*failure))
                return
        yield Batch(ids=wanted, pixels=pixels_B3HW)


def _chunked(ids: Sequence[str], batch_size: int, workers: int) -> list[list[str]]:
    """Ids cut into chunks that do not cross batches, small enough that all workers start at once."""
    length = max(1, min(CHUNK, batch_size, math.ceil(len(ids) / (4 * max(1, workers)))))
    batches = [ids[b : b + batch_size] for b in range(0, len(ids), batch_size)]
    return [list(batch[c : c + length]) for batch in batches for c in range(0, len(batch), length)]


def _workers_that_fit(workers: int, chunks: list[list[str]], size: tuple[int, ...], batch_size: int) -> tuple[int, int]:
    """Workers and chunks ahead of each: two batches ahead where shared memory holds them, else fewer."""
    workers = min(workers, len(chunks))
    if workers == 0:
        return 0, 0
    length = len(chunks[0])
    ahead = max(2, math.ceil(2 * batch_size / (length * workers)))
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return workers, ahead
    one = length * math.prod(size)
    slots = int(shutil.disk_usage(shm).free * 0.8) // one  # chunks being filled count too, hence the -1 below
    if slots < 2 * workers:
        log.warning(
            "/dev/shm has room for %d chunks of %s only: %d instead of %d loader processes (docker: --shm-size)",
            slots, format_bytes(one), slots // 2, workers,
        )  # fmt: skip
        workers = slots // 2
    return workers, max(1, min(ahead, slots // workers - 1)) if workers else 0


class _Watch(contextlib.AbstractContextManager["_Watch"]):
    """Says which files the workers are on when a picture is long in coming, and when one of them dies."""

    def __init__(self, names: Sequence[FileRef], current_W: Tensor, stall_s: float) -> None:
        self._names = names
        self._current_W = current_W
        self._stall_s = stall_s
        self._waiting: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mtv-loader-watch", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def iterate(
        self, chunks: Iterator[tuple[Tensor | None, int, tuple[str, str] | None]]
    ) -> Iterator[tuple[Tensor | None, int, tuple[str, str] | None]]:
        """The chunks, with the time spent waiting watched."""
        while True:
            self._waiting = time.monotonic()
            try:
                chunk = next(chunks)
            except StopIteration:
                return
            except RuntimeError as e:  # torch: a worker was killed
                raise MtvError(
                    f"a loader process died ({e}); in work: {self._files()}",
                    "Often memory ran out: use fewer --workers. What was finished is kept; a rerun continues there.",
                ) from e
            finally:
                self._waiting = None
            yield chunk

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._stall_s / 4)):
            since = self._waiting
            if since is not None and time.monotonic() - since >= self._stall_s:
                log.warning("the loader has given nothing for %.0f s; in work: %s", self._stall_s, self._files())
                self._waiting = time.monotonic()

    def _files(self) -> str:
        rows = [int(r) for r in self._current_W if r >= 0]
        return ", ".join(
            str(self._names[r].path) if self._names[r].offset is None else self._names[r].name for r in rows
        )
