"""Read the next batch in a thread while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetch(
    steps: Iterable[int], read: Callable[[int], T], device: torch.device | None = None
) -> Iterator[tuple[int, T]]:
    """`(step, read(step))` in order, one step ahead; `read` runs in a thread of its own, but on a CPU in the caller's.

    There a second thread that uses torch brings torch's threads a second time, and all wait for each other's cores:
    training and scoring of the depth head took a third longer.

    An error of `read` is raised when its step's turn comes.

    Args:
        device: where what is read is worked on; none if `read` does without torch: then it always has its thread.
    """
    if device is not None and device.type == "cpu":
        yield from ((step, read(step)) for step in steps)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        ahead: tuple[int, Future[T]] | None = None
        for step in steps:
            coming = step, pool.submit(read, step)
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = coming
        if ahead is not None:
            yield ahead[0], ahead[1].result()
