"""Decoded canvases in memory, shared by the processes of a rank.

Notable choices: one anonymous mapping made before the workers fork, so that all of them fill and read it without a
copy or a lock; a sample has a fixed slot, and what does not fit is decoded each time (with a fresh order in every
epoch no policy of replacement does better); pages that nobody wrote take no memory. Two workers that decode the same
sample write the same bytes.
"""

from __future__ import annotations

import mmap

import numpy as np

from mtv.errors import UsageError
from mtv.train.data.canvas import Pixels

_EMPTY, _IMAGE, _IMAGE_AND_DEPTH = 0, 1, 2


class PixelCache:
    """Slots for the first samples of a subset.

    Args:
        limit: bytes that canvases may take.
        samples: samples of the subset.
        canvas: canvas side.
        depth_canvas: disparity side; None when no disparity is read.

    Raises:
        UsageError: more memory than the system gives.
    """

    def __init__(self, *, limit: int, samples: int, canvas: int, depth_canvas: int | None) -> None:
        image = canvas * canvas * 3
        depth = 0 if depth_canvas is None else depth_canvas * depth_canvas * 2
        self.slots = min(samples, limit // (image + depth))
        n = self.slots
        try:
            memory = mmap.mmap(-1, max(1, n * (1 + image + depth)))
        except OSError as e:
            raise UsageError(f"data.cache is {limit} bytes, which the system refuses ({e.strerror or e})") from e
        self._canvas_NHCW = np.frombuffer(memory, np.uint8, n * image).reshape(n, canvas, 3, canvas)
        self._state_N = np.frombuffer(memory, np.uint8, n, offset=n * image)
        self._depth_NHW: np.ndarray | None = None
        if depth_canvas is not None:
            rest = np.frombuffer(memory, np.uint8, n * depth, offset=n * (image + 1))
            self._depth_NHW = rest.reshape(n, depth_canvas, depth_canvas * 2).view(np.int16)

    def get(self, slot: int) -> Pixels | None:
        """What the slot holds; None when it is empty or does not exist. The arrays are views: read only."""
        if slot >= self.slots or self._state_N[slot] == _EMPTY:
            return None
        with_depth = self._depth_NHW is not None and self._state_N[slot] == _IMAGE_AND_DEPTH
        depth_HW = self._depth_NHW[slot] if with_depth and self._depth_NHW is not None else None
        return Pixels(canvas_HCW=self._canvas_NHCW[slot], depth_HW=depth_HW)

    def put(self, slot: int, pixels: Pixels) -> None:
        """Keep the arrays of a sample, where its slot exists."""
        if slot >= self.slots:
            return
        self._canvas_NHCW[slot] = pixels.canvas_HCW
        state = _IMAGE
        if pixels.depth_HW is not None and self._depth_NHW is not None:
            self._depth_NHW[slot] = pixels.depth_HW
            state = _IMAGE_AND_DEPTH
        self._state_N[slot] = state  # last: whoever sees it set finds the pixels
