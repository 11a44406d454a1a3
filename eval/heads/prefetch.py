"""Read the next batch in a thread while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(steps: Iterable[int], read: Callable[[int], T]) -> Iterator[tuple[int, T]]:
    """`(step, read(step))` in order, one step ahead; `read` runs in one thread of its own.

    An error of `read` is raised when its step's turn comes.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        ahead: tuple[int, Future[T]] | None = None
        for step in steps:
            coming = step, pool.submit(read, step)
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = coming
        if ahead is not None:
            yield ahead[0], ahead[1].result()
