"""Which windows a head sees at which iteration, and which images are held out: functions of the seed, without state.

Nothing needs to be stored to resume: the batch of an iteration follows from its number. Protocol `segmentation`,
section 9.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtv.errors import UsageError

IntArray = npt.NDArray[np.int64]


def split_held_out(n: int, held_out: int, *, seed: int = 0) -> tuple[IntArray, IntArray]:
    """Positions to train on and positions held out, each ascending.

    Args:
        n: images, in an order that does not depend on the machine (sorted ids).
        held_out: how many of them to hold out, 1 to n - 1.

    Raises:
        UsageError: `held_out` out of range.
    """
    if not 1 <= held_out < n:
        raise UsageError(f"held_out must be 1 to {n - 1} (images - 1), got {held_out}")
    order = np.random.default_rng([seed, n]).permutation(n).astype(np.int64)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def batch_positions(iteration: int, *, n: int, batch: int, seed: int = 0) -> IntArray:
    """The windows of one iteration, ascending, so that a memory-mapped store is read forwards.

    The windows come from an endless row of permutations of all `n`, one per epoch; a batch may span two epochs.

    Args:
        iteration: 0-based.
        n: windows to train on.
        batch: windows per iteration.

    Returns:
        int64 `batch` positions 0 .. n-1.

    Raises:
        UsageError: a number out of range.
    """
    if iteration < 0 or n < 1 or batch < 1:
        raise UsageError(f"need iteration >= 0, n >= 1, batch >= 1; got {iteration}, {n}, {batch}")
    first, stop = iteration * batch, (iteration + 1) * batch
    epochs = range(first // n, (stop - 1) // n + 1)
    row = np.concatenate([np.random.default_rng([seed, epoch]).permutation(n) for epoch in epochs])
    return np.sort(row[first - epochs.start * n :][:batch]).astype(np.int64)
