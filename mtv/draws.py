"""Counter-based random streams: every draw is a function of a key, never of what was drawn elsewhere.

A stream is named by a key such as (seed, split, index, "camera"), so adding a draw to one stream moves no other, and
scenes, augmentations and masks come out the same in any order, subset and number of processes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of random draws keyed by strings and integers: BLAKE2b of the key and a counter, 53 bits per draw.

    >>> Draws(0, "train", 7).uniform(0, 1) == Draws(0, "train", 7).uniform(0, 1)
    True
    """

    def __init__(self, *key: int | str) -> None:
        self.key = key
        self._hash = blake2b("\x1f".join(f"{type(k).__name__}:{k}" for k in key).encode())
        self._blocks = 0
        self._buffer: list[float] = []

    def child(self, *key: int | str) -> Draws:
        """The stream whose key continues this one's; independent of what this one has drawn."""
        return Draws(*self.key, *key)

    def _next(self) -> float:
        if not self._buffer:
            block = self._hash.copy()
            block.update(struct.pack("<xQ", self._blocks))
            self._blocks += 1
            self._buffer = [(word >> 11) * 2.0**-53 for word in struct.unpack("<8Q", block.digest())]
        return self._buffer.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self._next()

    def integer(self, low: int, high: int) -> int:
        """Uniform integer in [low, high)."""
        return min(high - 1, low + int((high - low) * self._next()))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._next() < probability

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        """Normal draw (Box-Muller)."""
        radius = math.sqrt(-2 * math.log(1 - self._next()))
        return mean + std * radius * math.cos(2 * math.pi * self._next())

    def choice(self, items: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `items`, uniformly or by weight."""
        if weights is None:
            return items[self.integer(0, len(items))]
        mark = self._next() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            mark -= weight
            if mark < 0:
                return item
        return items[-1]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order."""
        return self.shuffled(items)[:count]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order (Fisher-Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.integer(0, i + 1)
            out[i], out[j] = out[j], out[i]
        return out

    def seed32(self) -> int:
        """An integer in [0, 2^32) for hashes on the device."""
        return self.integer(0, 1 << 32)
