"""Random numbers for whole batches: streams keyed by (seed, epoch, key, purpose), each a pure function of its key.

Notable choices: as `mtv.draws`, but for arrays. BLAKE2b of the key starts a stream and SplitMix64 (Steele, Lea, Flood
2014: a counter times an odd constant through a 64-bit mixer) numbers it, so that the draws of a batch are a few numpy
operations; only integer arithmetic of fixed width is used, hence equal on every machine and numpy version. Draw i of a
stream does not depend on how many are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def stream(*key: int | str) -> int:
    """The start of the stream with this key: 64 bits."""
    text = "\x1f".join(f"{type(k).__name__}:{k}" for k in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def streams(seed: int, epochs: Sequence[int], keys: Sequence[str], purpose: str) -> np.ndarray:
    """uint64 [B]: the streams of samples for one purpose."""
    found = [stream(seed, epoch, key, purpose) for epoch, key in zip(epochs, keys, strict=True)]
    return np.array(found, dtype=np.uint64)


def bits(start_B: np.ndarray, count: int) -> np.ndarray:
    """The first `count` numbers of each stream: uint64 [B, count]."""
    counter_C = np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
    z = start_B[:, None] + counter_C
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


def uniforms(start_B: np.ndarray, count: int) -> np.ndarray:
    """The first `count` draws of each stream, uniform in [0, 1): float64 [B, count] with 53 random bits."""
    return (bits(start_B, count) >> np.uint64(11)) * 2.0**-53


def permutation(start: int, n: int) -> np.ndarray:
    """int64 [n]: 0 to n - 1 in the random order of a stream."""
    return np.argsort(bits(np.array([start], dtype=np.uint64), n)[0], kind="stable")
