"""Training frames decoded once: uint8 pictures and 16-bit depth after the fixed crop, memory-mapped.

Files are written front to back and appear whole, so a killed run leaves no half of one, and a full disk is an error
and no crash. On the full set they take 17.5 GB (pictures) and 11.7 GB (depth).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mtv.atomic import atomic_write
from mtv.encoders.preprocess import decode_rgb
from mtv.errors import DataError
from mtv.eval.datasets.base import DepthSet
from mtv.eval.datasets.dense_decode import read_depth_metres
from mtv.eval.features.options import usable_cores
from mtv.eval.preparations import named
from mtv.probes.depth_frames import TrainFrame

if TYPE_CHECKING:
    from torch import Tensor

    from mtv.eval.task import Tick

_PER_METRE = 1000
_AHEAD = 64
"""Rows that may be in memory while a file is made."""


class FrameStore:
    """Cropped frames of a depth set by row, in the order of `DepthSet.images`. Made by `open_frames`."""

    def __init__(self, depth_NHW: np.ndarray, rgb_NHW3: np.ndarray | None) -> None:
        self._depth_NHW = depth_NHW
        self._rgb_NHW3 = rgb_NHW3

    def __len__(self) -> int:
        return len(self._depth_NHW)

    def millimetres(self, row: int) -> np.ndarray:
        """uint16 H,W; 0 where there is no depth."""
        return np.asarray(self._depth_NHW[row])

    def depth(self, rows: Sequence[int]) -> Tensor:
        """float32 B,1,H,W metres; 0 where there is none."""
        return metres(np.stack([self.millimetres(r) for r in rows]))

    def pictures(self, rows: Sequence[int]) -> Tensor:
        """uint8 B,3,H,W."""
        if self._rgb_NHW3 is None:
            raise AssertionError("this store was opened without pictures")
        return torch.from_numpy(np.stack([self._rgb_NHW3[r] for r in rows])).permute(0, 3, 1, 2).contiguous()

    def median(self) -> float:
        """Median of all valid depth in metres: the best constant answer under absolute error.

        Raises:
            DataError: no frame has any depth.
        """
        counts = np.zeros(1 << 16, dtype=np.int64)
        for row in range(len(self)):
            counts += np.bincount(self.millimetres(row).ravel(), minlength=1 << 16)
        counts[0] = 0
        if not counts.any():
            raise DataError("no training frame has any depth", "Copy the depth maps again.")
        up_to = np.cumsum(counts)
        low, high = (int(np.searchsorted(up_to, rank)) for rank in ((up_to[-1] + 1) // 2, up_to[-1] // 2 + 1))
        return (low + high) / 2 / _PER_METRE


def metres(codes_BHW: np.ndarray) -> Tensor:
    """uint16 millimetres B,H,W as float32 metres B,1,H,W."""
    return torch.from_numpy(codes_BHW.astype(np.float32) / _PER_METRE)[:, None]


@contextlib.contextmanager
def open_frames(
    folder: Path | None, data: DepthSet, frame: TrainFrame, *, pictures: bool, tick: Tick
) -> Iterator[FrameStore]:
    """Decode what is not decoded yet, and map it.

    Args:
        folder: where the files stay for the next run; None for a temporary folder.
        pictures: whether the pictures are needed too, or depth alone.
        tick: progress.

    Raises:
        DataError: a frame that cannot be decoded; names the file.
        CacheError: the files cannot be written.
    """
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mtv-frames-")))
        items = list(data.items.values())

        def depth_of(row: int) -> np.ndarray:
            depth_HW = read_depth_metres(items[row].depth, data.depth_encoding)[frame.window]
            return np.rint(depth_HW * _PER_METRE).astype(np.uint16)

        def rgb_of(row: int) -> np.ndarray:
            ref = data.images[items[row].id]
            return np.asarray(named(ref.name, lambda: decode_rgb(ref.read())))[frame.window]

        total = len(items)
        depth_NHW = mapped_rows(place / "depth.npy", total, depth_of, lambda n: tick("decode depth", n, total, ""))
        rgb_NHW3 = None
        if pictures:
            rgb_NHW3 = mapped_rows(place / "rgb.npy", total, rgb_of, lambda n: tick("decode", n, total, ""))
        yield FrameStore(depth_NHW, rgb_NHW3)


def mapped_rows(path: Path, n: int, row: Callable[[int], np.ndarray], done: Callable[[int], None]) -> np.ndarray:
    """The array at `path`, memory-mapped; made first of `n` rows of one shape and dtype, if it is not there.

    Args:
        row: makes a row; called in several threads.
        done: called with the number of rows made.

    Raises:
        CacheError: the file cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as f, ThreadPoolExecutor(max_workers=min(8, usable_cores())) as pool:
            # In pieces, because a pool works ahead of a slow disk without bound.
            pieces = (range(n)[start : start + _AHEAD] for start in range(0, n, _AHEAD))
            for i, array in enumerate(array for piece in pieces for array in pool.map(row, piece)):
                if i == 0:
                    descr = np.lib.format.dtype_to_descr(array.dtype)
                    header = {"descr": descr, "fortran_order": False, "shape": (n, *array.shape)}
                    np.lib.format.write_array_header_1_0(f, header)
                f.write(np.ascontiguousarray(array).tobytes())
                done(i + 1)

    if not path.exists():
        atomic_write(path, write)
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array
