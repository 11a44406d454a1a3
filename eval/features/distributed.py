"""Several processes, one result: torchrun ranks that split the missing rows, and `--shard i/n` over machines.

Ranks talk through gloo, about names and errors only; features travel through the store. Whatever one rank raises is
raised on all, so that no rank waits for a dead one.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import mtv.errors
from mtv.errors import MtvError, UsageError
from mtv.hashing import sha256_text

log = logging.getLogger(__name__)

T = TypeVar("T")
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class DistContext:
    """This process among its peers. Every method is collective: all ranks call it in the same order."""

    rank: int = 0
    """0 .. world-1."""
    world: int = 1
    """Number of processes."""
    group: Any = None
    """gloo group; None for the default one."""

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's part: every world-th item. Not collective."""
        return list(items[self.rank :: self.world])

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in rank order, on all ranks."""
        if self.world == 1:
            return [value]
        import torch.distributed as td

        values: list[Any] = [None] * self.world
        td.all_gather_object(values, value, group=self.group)
        return values

    def together(self, work: Callable[[], T]) -> list[T]:
        """Run `work` on every rank and return all results on all ranks.

        Raises:
            MtvError: what the first failing rank raised, on every rank; the failing rank keeps its traceback.
        """
        if self.world == 1:
            return [work()]
        value, error = _attempt(work)
        answers = self.gather((value, _pack(error, self.rank)))
        if error is not None:
            raise error
        for _, packed in answers:
            if packed is not None:
                raise _unpack(packed)
        return [v for v, _ in answers]  # type: ignore[misc]

    def on_rank0(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 alone and return its result on all ranks.

        Raises:
            MtvError: what rank 0 raised, on every rank.
        """
        if self.world == 1:
            return work()
        import torch.distributed as td

        value, error = _attempt(work) if self.rank == 0 else (None, None)
        box: list[Any] = [(value, _pack(error, 0))]
        td.broadcast_object_list(box, src=0, group=self.group)
        if error is not None:
            raise error
        value, packed = box[0]
        if packed is not None:
            raise _unpack(packed)
        return value


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as e:  # it is raised again once the other ranks know
        return None, e


def _pack(error: Exception | None, rank: int) -> tuple[str, str, str] | None:
    """Class name, message and hint: what another process needs to raise the same."""
    if error is None:
        return None
    if isinstance(error, MtvError):
        return type(error).__name__, error.message, error.hint
    return "MtvError", f"rank {rank} failed: {type(error).__name__}: {error}", "Its own log has the traceback."


def _unpack(packed: tuple[str, str, str]) -> MtvError:
    name, message, hint = packed
    kind = getattr(mtv.errors, name, MtvError)
    return kind(message, hint)


@functools.cache
def dist_context() -> DistContext:
    """The processes that torchrun started (`WORLD_SIZE` > 1), joined through gloo on the first call; else one process.

    Raises:
        UsageError: the environment announces several processes but not how to reach them.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world <= 1:
        return DistContext()
    import torch.distributed as td

    if not td.is_available():
        raise UsageError(f"WORLD_SIZE={world}, but this torch was built without torch.distributed")
    if td.is_initialized():
        return DistContext(
            rank=td.get_rank(), world=td.get_world_size(), group=td.new_group(backend="gloo", timeout=_TIMEOUT)
        )
    absent = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if absent:
        raise UsageError(f"WORLD_SIZE={world} is set but {', '.join(absent)} is not", "Start with torchrun.")
    # A rank may extract for hours before the next one hears of it, so nothing short of days is a timeout.
    td.init_process_group("gloo", timeout=_TIMEOUT)
    # Left to the destructors of a process that ends, gloo's threads may still run and abort it, after all is done.
    atexit.register(_leave)
    log.info("rank %d of %d", td.get_rank(), world)
    return DistContext(rank=td.get_rank(), world=td.get_world_size())


def _leave() -> None:
    import torch.distributed as td

    if td.is_initialized():
        td.destroy_process_group()


def shard_filter(ids: Iterable[str], i: int, n: int) -> list[str]:
    """The ids of share `i` of `n` (0-based), by hash of the id, so that every id is in exactly one share whatever the
    order.

    Raises:
        UsageError: not 0 <= i < n.
    """
    if not 0 <= i < n:
        raise UsageError(f"--shard {i}/{n}: shares are counted 0/{n} .. {n - 1}/{n}")
    return [s for s in ids if int(sha256_text(s), 16) % n == i]
