"""Samples of a mmsegmentation data set in order, prepared ahead by worker processes, which change nothing.

One sample at a time travels between processes, so that little shared memory is needed; errors travel as text, because
exceptions lose their fields in a pipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mtv.errors import DataError, MtvError
from mtv.eval.heads.prefetch import prefetch

_AHEAD = 2
"""Samples that each worker keeps ready."""


class Samples(AbstractContextManager["Samples"]):
    """Reads batches of consecutive samples.

    Args:
        dataset: `MtvWindows` or `MtvPictures`.
        workers: processes; 0 prepares in this one.
    """

    def __init__(self, dataset: Any, workers: int) -> None:
        self._dataset = dataset
        self._workers = workers
        self._iterator: Iterator[Any] | None = None

    def read(self, first: int, count: int) -> dict[str, list[Any]]:
        """Samples `first` to `first + count - 1`, in mmsegmentation's form; the next call must go on where this ends.

        Raises:
            DataError: a picture or label map that cannot be used; names the file.
            MtvError: a worker was killed.
        """
        if self._iterator is None:
            self._iterator = iter(self._loader(first))
        try:
            samples = [next(self._iterator) for _ in range(count)]
        except RuntimeError as e:
            if not str(e).startswith("DataLoader worker (pid"):  # torch's words for a worker that is gone
                raise
            raise MtvError(
                f"a loader process died ({e})", "Often memory ran out: use fewer --workers. A rerun goes on from here."
            ) from e
        for sample in samples:
            if isinstance(sample, _Failure):
                raise DataError(sample.message, sample.hint)
        for sample in samples:
            label = sample["data_samples"].gt_sem_seg
            label.data = label.data.long()
        return {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}

    def batches(self, numbers: Iterable[int], size: int) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        """`(k, samples k * size to (k + 1) * size - 1)` for consecutive k, the next ones prepared meanwhile.

        Raises:
            DataError, MtvError: as `read`.
        """
        if self._workers:
            # Not through a thread: a process that a pool's thread has forked fails when it ends.
            yield from ((k, self.read(k * size, size)) for k in numbers)
        else:
            yield from prefetch(numbers, lambda k: self.read(k * size, size))

    def __exit__(self, *_: object) -> None:
        # Left to the garbage collector, workers would live on for an unknown time.
        getattr(self._iterator, "_shutdown_workers", lambda: None)()

    def _loader(self, first: int) -> DataLoader[Any]:
        left = len(self._dataset) - first
        workers = min(self._workers, left)
        return DataLoader(
            _Guarded(self._dataset),
            batch_size=None,
            sampler=range(first, first + left),
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else it draws from the global one
        )


@dataclass(frozen=True)
class _Failure:
    """Why there is no sample."""

    message: str
    hint: str


def _as_it_is(sample: Any) -> Any:
    return sample


class _Guarded(Dataset[Any]):
    """Gives a `_Failure` in place of an error, and labels in 8 bits, an eighth of mmsegmentation's."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            sample = self._dataset[index]
        except MtvError as e:
            return _Failure(e.message, e.hint)
        label = sample["data_samples"].gt_sem_seg
        label.data = label.data.to(torch.uint8)
        return sample
