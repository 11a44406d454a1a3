"""Training of the segmentation heads on stored windows: which windows, their labels, the loop, the choice of a head.

Labels of the windows are decoded once into a memory-mapped file, so that a step reads features and labels alone. A step
is a function of its number, so that an interrupted run ends with the same bits. Protocol page `segmentation.md`,
section 9.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtv.errors import DataError, NumericalError
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.dense_decode import read_labels
from mtv.eval.heads.frame_store import mapped_rows
from mtv.eval.heads.prefetch import prefetch
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.heads.segmentation_tap import WindowTokens
from mtv.eval.heads.segmentation_views import AugmentedPreparation, PlainPreparation, train_id
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.probes.segmentation_head import HeadConfig, LinearHead
from mtv.probes.segmentation_metric import AreaCounts
from mtv.probes.segmentation_order import batch_positions, split_held_out
from mtv.probes.segmentation_selection import held_out_areas
from mtv.probes.segmentation_stream import HeadTrainer, StreamConfig, TokenBatch

if TYPE_CHECKING:
    from mtv.eval.task import Tick

Key = tuple[str, int]
"""Picture and number of the window."""


@dataclass(frozen=True, kw_only=True)
class TrainingWindows:
    """The windows of the training pictures."""

    train: tuple[Key, ...]
    """Trained on: all windows of their pictures."""
    held_out: tuple[Key, ...]
    """Choose the head: the plain window of each picture that is held out."""

    @property
    def all(self) -> tuple[Key, ...]:
        """Both, in the order of the label store."""
        return self.train + self.held_out


def training_windows(protocol: SegmentationProtocol, pictures: Sequence[str]) -> TrainingWindows:
    """The windows of `pictures`; with a single learning rate there is nothing to choose, and none is held out.

    Raises:
        DataError: too few pictures to hold any out.
    """
    n_held = max(1, round(protocol.held_out * len(pictures))) if len(protocol.lr) > 1 else 0
    if n_held >= len(pictures):
        raise DataError(
            f"{protocol.task}: {len(pictures)} training pictures, {n_held} of them to be held out",
            f"Use more of them, or a single head: --set {protocol.task}.lr={protocol.lr[0]:g}",
        )
    left: list[int] = list(range(len(pictures)))
    held: list[int] = []
    if n_held:
        left, held = (rows.tolist() for rows in split_held_out(len(pictures), n_held, seed=protocol.seed))
    return TrainingWindows(
        train=tuple((pictures[r], n) for r in left for n in range(protocol.views)),
        held_out=tuple((pictures[r], 0) for r in held),
    )


def iterations(protocol: SegmentationProtocol, n_windows: int) -> int:
    """Iterations of the protocol over so many training windows."""
    if protocol.iters is not None:
        return protocol.iters
    assert protocol.epochs is not None, "the protocol has iters or epochs"
    return math.ceil(protocol.epochs * n_windows / protocol.batch)


@contextlib.contextmanager
def open_labels(
    folder: Path | None,
    data: SegmentationSet,
    windows: Sequence[Key],
    *,
    plain: PlainPreparation,
    augmented: AugmentedPreparation,
    tick: Tick,
) -> Iterator[np.ndarray]:
    """Labels of the windows, uint8 N,crop,crop, memory-mapped; decoded unless they lie in `folder` already.

    Args:
        folder: where the file stays until the task is done; None for a temporary folder.
        plain, augmented: what cut the pictures.

    Raises:
        DataError: a label map that cannot be used; names file and value.
        CacheError: the file cannot be written.
    """

    def row(position: int) -> np.ndarray:
        picture, number = windows[position]
        label_HW = read_labels(data, picture)
        height, width = label_HW.shape
        window = augmented.window(picture, number, label_HW) if number else plain.window(picture, (height, width))
        return window.labels(label_HW, plain.geometry.crop)

    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mtv-labels-")))
        total = len(windows)
        yield mapped_rows(place / "labels.npy", total, row, lambda n: tick("decode labels", n, total, ""))


def label_counts(labels_NHW: np.ndarray, n_classes: int) -> np.ndarray:
    """Pixels of each class in all windows, int64 C.

    Raises:
        DataError: not a single labelled pixel.
    """
    counts = np.zeros(256, np.int64)
    for label_HW in labels_NHW:
        counts += np.bincount(label_HW.ravel(), minlength=256)
    if not counts[:n_classes].any():
        raise DataError("not a single labelled pixel in the training windows", "Check the label maps.")
    return counts[:n_classes]


@dataclass(frozen=True, kw_only=True)
class WindowBatches:
    """Features and labels of training windows."""

    protocol: SegmentationProtocol
    """Batch, seed."""
    windows: TrainingWindows
    """In the order of `labels_NHW`."""
    tokens: WindowTokens
    """Features by sample id."""
    labels_NHW: np.ndarray
    """From `open_labels`, of `windows.all`."""
    device: torch.device
    """Of the heads."""

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """Tokens and labels of an iteration, on the CPU."""
        n, p = len(self.windows.train), self.protocol
        return self._at(batch_positions(step, n=n, batch=p.batch, seed=p.seed))

    def held_out(self) -> Iterator[TokenBatch]:
        """The held-out windows, in batches."""
        first, last = len(self.windows.train), len(self.windows.all)
        for start in range(first, last, self.protocol.batch):
            yield self.batch(self._at(np.arange(start, min(start + self.protocol.batch, last))))

    def batch(self, raw: tuple[Tensor, Tensor]) -> TokenBatch:
        """What was read, on the device."""
        tokens_BhwD, labels_BHW = (x.to(self.device, non_blocking=True) for x in raw)
        return TokenBatch(tokens_BhwD=tokens_BhwD, labels_BHW=labels_BHW)

    def _at(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        ids = [train_id(*self.windows.all[r]) for r in rows]
        return self.tokens.get(ids), torch.from_numpy(self.labels_NHW[rows])


def make_trainer(
    protocol: SegmentationProtocol, *, width: int, n_classes: int, n_windows: int, device: torch.device
) -> HeadTrainer:
    """The heads of a protocol, as initialised."""
    p = protocol
    config = StreamConfig(
        head=HeadConfig(width=width, n_classes=n_classes, bn=p.bn),
        iters=iterations(p, n_windows),
        lrs=p.lr,
        wd=p.wd,
        warmup=p.warmup,
        loss=p.loss,
        loss_mean=p.loss_mean,
        seed=p.seed,
    )
    return HeadTrainer(config, device=device)


def train_heads(trainer: HeadTrainer, batches: WindowBatches, *, work: Path | None, tick: Tick) -> HeadTraining:
    """All iterations, from the state in `work` where there is one.

    Returns:
        The training, with the last loss of each head in `notes["losses"]`.

    Raises:
        NumericalError: a feature, loss or gradient is not finite; names the step and the last good state.
    """
    total = trainer.config.iters
    training = HeadTraining(work, name="segmentation_heads", parts={"heads": trainer})
    first: int | None = None
    for step, raw in prefetch(training.steps(total), batches.read, batches.device):
        first = step if first is None else first
        try:
            losses = trainer.step(batches.batch(raw))
        except NumericalError as e:
            raise training.diverged(step, e.message) from e
        training.notes["losses"] = losses
        training.done(step, torch.tensor(losses).mean())
        shown = ", ".join(f"{loss:.3f}" for loss in losses)
        tick("train", step + 1 - first, total - first, f"step {step + 1} of {total}, loss {shown}")
    return training


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What training gave."""

    trainer: HeadTrainer
    """All heads."""
    training: HeadTraining
    """Last losses."""
    held_out: list[AreaCounts]
    """Counts of each head on the held-out pictures."""
    chosen: int
    """Position of the head that is scored."""
    frequent: int
    """The most frequent class of the training windows."""

    @property
    def head(self) -> LinearHead:
        """The head that is scored."""
        return self.trainer.heads[self.chosen]


def held_out_counts(trainer: HeadTrainer, batches: WindowBatches, tick: Tick) -> list[AreaCounts]:
    """Counts of every head over the held-out windows; empty without any."""
    if not batches.windows.held_out:
        return []
    tick("choose head", 0, 1, "")
    counts = held_out_areas(trainer.heads, batches.held_out())
    tick("choose head", 1, 1, "")
    return counts
