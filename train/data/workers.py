"""Items made ahead by forked processes, in order, or here; the same items either way.

Notable choices: worker w makes items w, w + workers, ...; workers leave Ctrl-C to the training process and survive a
SIGTERM to the process group, so that this process can save first and then close them; a worker that dies is reported
by the next item, not in whatever line is running; the global random state is not touched.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from mtv.errors import MtvError, UsageError

T = TypeVar("T")

GRACE_SECONDS = 30
"""How long a worker outlives a SIGTERM that its parent does not follow by closing it."""


def in_order(
    make: Callable[[int], T], numbers: Iterable[int], *, workers: int, prefetch: int, pin: bool
) -> Generator[T, None, None]:
    """`make(number)` for every number, in order; close the generator to end the workers.

    Args:
        make: picklable results; called in a worker, or here when there are none. It must not raise: what it raises in
            a worker arrives as text.
        numbers: may be endless.
        workers: processes; 0 makes each item when it is asked for.
        prefetch: items that each worker makes ahead.
        pin: call `pin_memory()` of each item in a thread here.

    Raises:
        UsageError: workers on a system that cannot fork.
        MtvError: a worker died; from the generator.
    """
    if not workers:
        return (make(number) for number in numbers)
    if "fork" not in multiprocessing.get_all_start_methods():
        raise UsageError("data.workers needs processes that fork, which this system has not", "Set data.workers to 0.")
    loader: DataLoader[Any] = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=_as_it_is,
        worker_init_fn=_init_worker,
        multiprocessing_context="fork",
        pin_memory=pin,
        generator=torch.Generator(),  # the default would advance the global random state
    )
    previous = signal.getsignal(signal.SIGCHLD)
    items = _until_closed([iter(loader)])
    with contextlib.suppress(ValueError):  # not the main thread: then torch has not set it either
        # Torch's handler raises in whatever line is running when a worker dies; without it the next item says so.
        signal.signal(signal.SIGCHLD, previous)
    # A crash leaves the generator open: at exit, before torch and multiprocessing wait for workers nobody has closed.
    atexit.register(_close, weakref.ref(items))
    return items


def _until_closed(held: list[Iterator[T]]) -> Generator[T, None, None]:
    """The items of the only iterator in `held`, whose workers end when this does."""
    items = held.pop()
    try:
        yield from items
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
        raise MtvError(
            f"a data worker died ({e})",
            "Often memory: lower data.workers, data.prefetch or data.cache, or allow more shared memory.",
        ) from e
    finally:
        del items


def _close(items: weakref.ref[Generator[Any, None, None]]) -> None:
    if (alive := items()) is not None:
        alive.close()


class _Made(Dataset[T], Generic[T]):
    """What the data loader asks by number."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make

    def __getitem__(self, number: int) -> T:
        return self._make(number)


def _as_it_is(item: Any) -> Any:
    return item


def _init_worker(_number: int) -> None:
    # Hugging Face's tokenizers start threads, which a forked process must not; it warns unless told so.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
