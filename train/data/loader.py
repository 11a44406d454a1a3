"""Batches from a global sample counter on: `Loader(...).batches(samples_seen)`.

Notable choices: the whole state is that one integer; every rank decides alone what it reads, so nothing is sent
between ranks; workers build whole micro-batches and never touch the device; workers, prefetching and interruption
change no value.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import partial

import torch

from mtv.errors import MtvError, UsageError
from mtv.shards import ShardDataset, layout
from mtv.train.data.assemble import Assembler, Report, check_bad
from mtv.train.data.batch import Batch, Needs
from mtv.train.data.cache import PixelCache
from mtv.train.data.colour import BLUR_TAPS
from mtv.train.data.device import HostBatch, make_batch
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.data.order import SampleOrder, micro_batch
from mtv.train.data.subset import Subset
from mtv.train.data.text import Tokenizer
from mtv.train.data.workers import in_order

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where in the run a micro-batch belongs."""

    start: int
    """Global counter of the first sample of its step."""
    micro: int
    """Its number in the step, 0 to accumulate - 1."""
    samples_seen: int
    """Samples of the run, over all ranks, once this step is done; what a checkpoint keeps."""
    epoch: int
    """Epoch of the first sample of its step, from 0."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Where the time went since it was last asked for."""

    seconds: float
    """Seconds for which the training process waited for batches, making views on the device included."""
    read: float
    """Seconds of all processes for reading."""
    decode: float
    """Seconds of all processes for decoding, and for views with `data.augment="worker"`."""
    transfer: float
    """The part of `seconds` for transfers and views on the device."""

    @property
    def stage(self) -> str:
        """The stage that the waiting is for: `transfer`, `read` or `decode`."""
        if self.transfer > self.seconds / 2:
            return "transfer"
        return "read" if self.read > self.decode else "decode"


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What a worker hands over. Errors travel as text: exceptions lose their fields in a pipe."""

    batch: HostBatch | Batch | None
    report: Report
    error: tuple[type[MtvError], str, str] | None = None

    def pin_memory(self) -> _Result:
        """With page-locked tensors; called by the data loader's thread."""
        batch = self.batch.pin_memory() if isinstance(self.batch, HostBatch) else self.batch
        return _Result(batch=batch, report=self.report, error=self.error)


class Loader:
    """Local batches of one rank.

    Args:
        dataset: the corpus, opened with the label sets that `needs` asks for.
        data: which samples, and by how many processes.
        views: how views are drawn.
        needs: what the active objectives ask for; nothing else is made.
        image_size: side of the global view.
        patch_size: side of a patch.
        seed: seed of the run.
        tokenizer: captions and names to tokens.
        global_batch: samples per step over all ranks and micro-batches.
        accumulate: micro-batches per step.
        rank: this process.
        world: number of processes.
        device: where batches are needed.

    Attributes:
        subset: the samples of the run; its length is that of an epoch.
        bad: damaged samples that were replaced: index in the corpus to what is wrong.

    Raises:
        UsageError: sizes that do not divide, or labels that the data set was opened without.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        *,
        data: DataOptions,
        views: ViewOptions,
        needs: Needs,
        image_size: int,
        patch_size: int,
        seed: int,
        tokenizer: Tokenizer,
        global_batch: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(dataset, views, needs, image_size=image_size, patch_size=patch_size)
        micro_batch(0, 0, global_batch=global_batch, accumulate=accumulate, rank=rank, world=world)
        self.data = data
        self.global_batch, self.accumulate, self.rank, self.world = global_batch, accumulate, rank, world
        self.device = torch.device(device)
        self.subset = Subset.of(dataset, limit=data.limit, seed=data.subset_seed)
        self.bad: dict[int, str] = {}
        cache = None
        if data.cache:
            depth = data.depth_canvas if needs.depth else None
            cache = PixelCache(limit=data.cache, samples=len(self.subset), canvas=data.canvas, depth_canvas=depth)
        self._assemble = Assembler(
            dataset,
            SampleOrder(self.subset, seed=seed, block_shards=data.block_shards),
            data=data,
            views=views,
            needs=needs,
            image_size=image_size,
            patch_size=patch_size,
            seed=seed,
            tokenizer=tokenizer,
            cache=cache,
        )
        self._waits = Waits(seconds=0.0, read=0.0, decode=0.0, transfer=0.0)

    def batches(
        self, samples_seen: int = 0, *, stop: int | None = None
    ) -> Generator[tuple[Batch, Position], None, None]:
        """Micro-batches from a point of the run on; close the generator to end the workers.

        Args:
            samples_seen: samples of the run before the first step.
            stop: no step that would pass this many samples is begun; None goes on for ever.

        Raises:
            DataError: more than `data.max_bad` damaged samples.
            MtvError: a worker died.
        """
        numbers: Iterable[int] = itertools.count()
        if stop is not None:
            numbers = range(max(0, stop - samples_seen) // self.global_batch * self.accumulate)
        made = in_order(
            partial(self._make, samples_seen),
            numbers,
            workers=self.data.workers,
            prefetch=self.data.prefetch,
            pin=self.device.type == "cuda",
        )
        with contextlib.closing(made) as results:
            for number in itertools.count():
                start = time.perf_counter()
                result = next(results, None)
                if result is None:
                    return
                arrived = time.perf_counter()
                batch = self._accept(result)
                self._note(result.report, waited=time.perf_counter() - start, transfer=time.perf_counter() - arrived)
                first = samples_seen + number // self.accumulate * self.global_batch
                yield (
                    batch,
                    Position(
                        start=first,
                        micro=number % self.accumulate,
                        samples_seen=first + self.global_batch,
                        epoch=first // len(self.subset),
                    ),
                )

    def take_waits(self) -> Waits:
        """What was waited for since this was last called."""
        taken, self._waits = self._waits, Waits(seconds=0.0, read=0.0, decode=0.0, transfer=0.0)
        return taken

    def _make(self, samples_seen: int, number: int) -> _Result:
        """Build micro-batch `number` after `samples_seen`; runs in a worker, or here without workers."""
        step, micro = divmod(number, self.accumulate)
        counters = micro_batch(
            samples_seen + step * self.global_batch,
            micro,
            global_batch=self.global_batch,
            accumulate=self.accumulate,
            rank=self.rank,
            world=self.world,
        )
        try:
            host, report = self._assemble(counters)
        except MtvError as e:
            return _Result(batch=None, report=Report(), error=(type(e), e.message, e.hint))
        if self.data.augment == "device":
            return _Result(batch=host, report=report)
        start = time.perf_counter()
        batch = make_batch(host)
        report.decode += time.perf_counter() - start
        return _Result(batch=batch, report=report)

    def _accept(self, result: _Result) -> Batch:
        """The batch on the device; bad samples are named once.

        Raises:
            MtvError: what the worker met, or too many bad samples.
        """
        if result.error is not None:
            kind, message, hint = result.error
            raise kind(message, hint)
        for index, message in result.report.bad.items():
            if index not in self.bad:
                self.bad[index] = message
                log.warning("bad sample %d of at most %d replaced: %s", len(self.bad), self.data.max_bad, message)
        check_bad(self.bad, self.data.max_bad)
        assert result.batch is not None
        if isinstance(result.batch, Batch):
            return result.batch.to(self.device, non_blocking=True)
        return make_batch(result.batch, self.device)

    def _note(self, report: Report, *, waited: float, transfer: float) -> None:
        before = self._waits
        self._waits = Waits(
            seconds=before.seconds + waited,
            read=before.read + report.read,
            decode=before.decode + report.decode,
            transfer=before.transfer + transfer,
        )


def _check(dataset: ShardDataset, views: ViewOptions, needs: Needs, *, image_size: int, patch_size: int) -> None:
    if image_size % patch_size:
        raise UsageError(f"image size {image_size} is no multiple of the patch size {patch_size}")
    if needs.locals and (views.local_size % patch_size or views.local_size < BLUR_TAPS):
        raise UsageError(
            f"views.local_size is {views.local_size}; it must be a multiple of the patch size {patch_size} and at "
            f"least {BLUR_TAPS}"
        )
    kinds = {layout.label_kind(name) for name in dataset.labels}
    for needed, kind in ((needs.depth, layout.DEPTH), (needs.regions, layout.REGIONS)):
        if needed and kind not in kinds:
            raise UsageError(
                f"{dataset.root} was opened without a {kind} label set, but an objective needs one",
                f"Known label sets there: {', '.join(dataset.info.labels) or 'none'}.",
            )
