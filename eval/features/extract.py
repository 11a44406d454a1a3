"""The extraction loop: uint8 batches in, rows out, one forward pass per picture.

While the model works on one batch, the loader prepares the next ones, and on a GPU the rows of the batch before are
copied and checked. Nothing here may change a number: TF32 and autocast are off, a batch that does not fit is halved.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.encoders.records import ImageRecord
from mtv.errors import MtvError, NumericalError, UsageError
from mtv.eval.features.distributed import DistContext
from mtv.eval.features.loader import Batch, iter_batches, load_sample
from mtv.eval.features.options import Clock, ExtractOptions, Throttle
from mtv.eval.features.request import FeatureRequest
from mtv.eval.features.rows import Block
from mtv.probes.precision import fp32_matmul

log = logging.getLogger(__name__)

FP16_OVERFLOW = 65520.0
"""The smallest magnitude that rounds to infinity in fp16."""


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """Rows on their way to the CPU."""

    ids: list[str]
    outputs: dict[str, Tensor]
    """Output name to rows in the storage dtype."""
    peaks: dict[str, Tensor]
    """Output name to the largest magnitude of each row, NaN where one is inside."""
    ready: Callable[[], None]
    """Returns once the copies have arrived."""


@dataclass(kw_only=True)
class Extraction:
    """One request on one encoder; `blocks` computes the rows of any of its ids."""

    request: FeatureRequest
    encoder: Encoder
    options: ExtractOptions
    digests: Mapping[str, str]
    clock: Clock
    progress: Throttle
    dist: DistContext
    _limit: int = field(default=0, init=False)

    def blocks(self, ids: list[str]) -> Generator[Block]:
        """Rows of `ids` in order, a block per forward pass.

        Raises:
            DataError: a picture that cannot be used; what came before it has been yielded.
            NumericalError: NaN, infinity or fp16 overflow, naming the first sample.
        """
        if not ids:
            return
        with self.clock.phase("load"):
            size = tuple(load_sample(self.request, ids[0], self.digests[ids[0]]).shape)
        batch_size = self.options.batch_size or auto_batch_size(self.encoder.device, size)
        self._limit = batch_size
        self.clock.note_batch(batch_size)
        batches = iter_batches(
            self.request,
            ids,
            self.digests,
            size=size,
            batch_size=batch_size,
            workers=self.options.n_workers,
            pin=self.encoder.device.type == "cuda",
        )
        with closing(batches):
            yield from self._pipeline(self._timed(batches, len(ids)))

    def _timed(self, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        """Book waiting for pictures as `load`, everything else as `extract`, and report."""
        before, started, done, waited = self.clock.stats, time.perf_counter(), 0, 0.0
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            wait = time.perf_counter() - start
            waited += wait
            self.clock.spend("load", wait)
            if batch is None:
                break
            start = time.perf_counter()
            yield batch
            self.clock.spend("extract", time.perf_counter() - start)
            done += len(batch.ids)
            elapsed = max(time.perf_counter() - started, 1e-9)
            if self.dist.rank == 0:
                # Ranks have equal shares, so rank 0 speaks for all.
                n = min(self.dist.world * done, self.dist.world * total)
                rate = f"{self.dist.world * done / elapsed:.1f} images/s, waiting for data {waited / elapsed:.0%}"
                self.progress("extract", n, self.dist.world * total, rate)
        log.debug("%s: %s", self.request.data, self.clock.stats - before)

    def _pipeline(self, batches: Iterator[Batch]) -> Iterator[Block]:
        """Start forward pass k before the rows of pass k-1 are waited for; whatever happens, pass k-1 is not lost."""
        launched = self._launch(batches)
        pending: _Pending | None = None
        while True:
            failure: BaseException | None = None
            begun = None
            try:
                begun = next(launched, None)
            except BaseException as e:  # raised again below, once the rows on their way are out
                failure = e
            if pending is not None:
                yield self._finish(pending)
            if failure is not None:
                raise failure
            if begun is None:
                return
            pending = begun

    def _launch(self, batches: Iterator[Batch]) -> Iterator[_Pending]:
        for batch in batches:
            yield from self._forward(batch)
            if batch.error is not None:
                raise batch.error

    def _forward(self, batch: Batch) -> Iterator[_Pending]:
        """Forward passes over a batch, in pieces of at most the largest size that fits."""
        start = 0
        while batch.pixels is not None and start < len(batch.ids):
            stop = min(start + self._limit, len(batch.ids))
            try:
                begun = self._start(batch.ids[start:stop], batch.pixels[start:stop])
            except (RuntimeError, MemoryError) as e:
                if not is_out_of_memory(e):
                    raise
                self._halve(stop - start, batch.ids[start], e)
                del e
                free_memory(self.encoder.device)
                continue
            start = stop
            yield begun

    def _halve(self, n: int, first_id: str, e: BaseException) -> None:
        if n == 1:
            raise MtvError(
                f"out of memory on the single picture {first_id!r} of {self.request.data}",
                "Use a smaller model or picture size, another device, or less of this one for other programs.",
            ) from e
        self._limit = n // 2
        self.clock.note_batch(self._limit)
        log.warning("out of memory with %d pictures; going on with %d per forward pass", n, self._limit)

    def _start(self, ids: list[str], pixels_B3HW: Tensor) -> _Pending:
        """Launch one forward pass and the copies of its rows."""
        request, encoder = self.request, self.encoder
        record = encoder.info.image.with_(mean=request.mean, std=request.std)
        with fp32_matmul():
            x_B3HW = prepare_pixels(encoder, pixels_B3HW, record, pad=request.pad_to_patch)
            features = encoder.features(
                x_B3HW,
                layers=request.layers,
                norm=request.norm if request.layers else None,
                pooled=request.pooled or request.global_token,
            )
        wanted: dict[str, Tensor | None] = {f"layer{i}": features.tokens[i] for i in request.layers}
        if request.class_token:
            wanted |= {f"cls{i}": features.class_token.get(i) for i in request.layers}
        if request.pooled:
            wanted["pooled"] = features.pooled
        if request.global_token:
            wanted["global"] = features.global_token
        outputs, peaks = {}, {}
        for name, rows in wanted.items():
            if rows is None:
                raise UsageError(f"{encoder.info.spec} gives no {name} vector, which {request.data} asks for")
            lo_B, hi_B = rows.flatten(1).float().aminmax(dim=1)
            half = name.startswith("layer") and request.storage == "fp16"
            outputs[name] = rows.to(torch.float16 if half else torch.float32).contiguous()
            peaks[name] = torch.maximum(-lo_B, hi_B)
        return _to_cpu(ids, outputs, peaks)

    def _finish(self, pending: _Pending) -> Block:
        """Wait for the copies and check them."""
        pending.ready()
        for name, peak_B in pending.peaks.items():
            half = pending.outputs[name].dtype == torch.float16
            for sample_id, peak in zip(pending.ids, peak_B.tolist(), strict=True):
                if not peak < (FP16_OVERFLOW if half else float("inf")):
                    raise _bad_value(self.request, self.encoder, sample_id, name, peak)
        return Block(ids=pending.ids, tensors=pending.outputs)


def prepare_pixels(encoder: Encoder, pixels_B3HW: Tensor, record: ImageRecord, *, pad: bool) -> Tensor:
    """uint8 to normalised input on the device; `pad` adds zeros (the mean colour) on all sides up to the next
    multiple of the patch, an odd pixel at the right and the bottom."""
    x_B3HW = encoder.normalize(pixels_B3HW, record)
    height, width = x_B3HW.shape[-2:]
    dh, dw = -height % encoder.patch_size, -width % encoder.patch_size
    if pad and (dh or dw):
        x_B3HW = F.pad(x_B3HW, (dw // 2, dw - dw // 2, dh // 2, dh - dh // 2))
    return x_B3HW


def auto_batch_size(device: torch.device, size: tuple[int, ...]) -> int:
    """Pictures per forward pass: 32 at 224 x 224 on the CPU, 256 on an accelerator, fewer for larger pictures."""
    base = 32 if device.type == "cpu" else 256
    return max(1, min(4 * base, base * 224 * 224 // (size[-2] * size[-1])))


def is_out_of_memory(e: BaseException) -> bool:
    """Whether torch ran out of memory: its own exception on accelerators, a plain RuntimeError on the CPU."""
    if isinstance(e, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(e).lower()
    return "not enough memory" in text or "can't allocate memory" in text or "cuda out of memory" in text


def free_memory(device: torch.device) -> None:
    """Give cached blocks back after a failed pass."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _to_cpu(ids: list[str], outputs: dict[str, Tensor], peaks: dict[str, Tensor]) -> _Pending:
    device = next(iter(outputs.values())).device
    if device.type != "cuda":
        move = {k: v.cpu() for k, v in outputs.items()}, {k: v.cpu() for k, v in peaks.items()}
        return _Pending(ids=ids, outputs=move[0], peaks=move[1], ready=lambda: None)
    # Copies to the CPU land in pinned memory and are only there once the event has passed.
    moved = {k: v.to("cpu", non_blocking=True) for k, v in outputs.items()}
    moved_peaks = {k: v.to("cpu", non_blocking=True) for k, v in peaks.items()}
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return _Pending(ids=ids, outputs=moved, peaks=moved_peaks, ready=event.synchronize)


def _bad_value(request: FeatureRequest, encoder: Encoder, sample_id: str, name: str, peak: float) -> NumericalError:
    if peak - peak == 0:  # finite
        return NumericalError(
            f"{name} of sample {sample_id!r} of {request.data} reaches {peak:.4g}, more than fp16 can hold (65504)",
            "Store tokens in full precision: --set <task>.storage=fp32",
        )
    return NumericalError(
        f"{name} of sample {sample_id!r} of {request.data} is not finite ({encoder.info.spec}, {request.tower_dtype})",
        "Check the weights, the normalisation and the tower's dtype (fp16 overflows where bf16 and fp32 do not).",
    )
