"""What the ranks of a job tell each other about failures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mtv.collectives import world_size
from mtv.errors import MtvError

T = TypeVar("T")


def from_all(value: T) -> list[T]:
    """The value of every rank, in rank order. All ranks must call."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """Memory that ran out and ranks that are gone become errors with a remedy.

    Raises:
        MtvError: names this rank.
    """
    # Not from the process group, which may never have come about.
    own, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        yield
    except torch.OutOfMemoryError as e:
        raise MtvError(
            f"rank {own} is out of memory: {str(e).splitlines()[0]}",
            "Raise optim.accumulate, set perf.checkpoint_blocks=true, or use more processes.",
        ) from e
    except RuntimeError as e:
        if world == 1 or not _is_connection(e):
            raise
        raise MtvError(
            f"rank {own} lost another rank of the job: {str(e).splitlines()[0][:160]}",
            "The log of that rank, or torchrun's report, says which and why; the same command, started again, goes on "
            "from the last checkpoint.",
        ) from e


def _is_connection(e: RuntimeError) -> bool:
    text = str(e).lower()
    return isinstance(e, dist.DistError) or any(w in text for w in ("connection", "gloo", "nccl", "timed out"))
