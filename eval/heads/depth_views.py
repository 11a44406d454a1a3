"""What the depth probe looks at: the geometry of a training frame, its fixed views, and the mirrored test picture.

A view is a function of (seed, picture, number of the view), so a stored feature map can be paired with its depth later.
Sample ids are `<picture>@v<number>` for views and `<picture>@plain`, `<picture>@mirror` for whole test pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtv.draws import Draws
from mtv.encoders.preprocess import decode_rgb
from mtv.eval.features.request import Preparation
from mtv.eval.preparations import named
from mtv.eval.protocols_dense import NyuProtocol
from mtv.probes.depth_frames import NYU_FRAME, FrameBox, TrainFrame, train_frame
from mtv.probes.resample import image_tensor

if TYPE_CHECKING:
    from torch import Tensor


def box_of(corners: Sequence[int]) -> FrameBox:
    """A box of the protocol: first row, end row, first column, end column on a frame of 480 x 640."""
    top, bottom, left, right = corners
    return FrameBox(frame=NYU_FRAME, rows=(top, bottom), cols=(left, right))


def frame_of(protocol: NyuProtocol, size: tuple[int, int]) -> TrainFrame:
    """Training geometry for frames of (width, height) `size`, as data sets give it.

    Raises:
        DataError: the frame is too small.
    """
    height, width = protocol.random_crop
    return train_frame((size[1], size[0]), box=box_of(protocol.train_box), crop=(height, width))


@dataclass(frozen=True, kw_only=True)
class View:
    """Part of a frame that has had the fixed crop."""

    top: int
    """First row."""
    left: int
    """First column."""
    flip: bool
    """Whether the part is mirrored left to right."""

    def cut(self, x_HW: np.ndarray, frame: TrainFrame) -> np.ndarray:
        """The view of a cropped picture or depth map; rows and columns are the first two axes."""
        height, width = frame.output
        part = x_HW[self.top : self.top + height, self.left : self.left + width]
        return part[:, ::-1] if self.flip else part


def view_of(frame: TrainFrame, *, seed: int, picture: str, number: int) -> View:
    """View `number` of a picture: 0 is the centred crop, odd ones are mirrored."""
    most = frame.max_offset
    if number == 0:
        return View(top=most[0] // 2, left=most[1] // 2, flip=False)
    draws = Draws("depth_view", seed, picture, number)
    top, left = (draws.integer(0, m + 1) for m in most)
    return View(top=top, left=left, flip=number % 2 == 1)


def view_id(picture: str, number: int) -> str:
    """Sample id of a view."""
    return f"{picture}@v{number}"


@dataclass(frozen=True, kw_only=True)
class ViewPreparation(Preparation):
    """Fixed crop and view of a training frame."""

    frame: TrainFrame
    """Geometry of all frames."""
    seed: int
    """Seed of the views."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,h,w."""
        picture, _, number = sample_id.rpartition("@v")
        view = view_of(self.frame, seed=self.seed, picture=picture, number=int(number))
        rgb_HW3 = np.asarray(named(sample_id, lambda: decode_rgb(blobs[0])))[self.frame.window]
        return image_tensor(view.cut(rgb_HW3, self.frame))

    def record(self) -> dict[str, Any]:
        """Key fields."""
        (rows, cols), output = self.frame.window, self.frame.output
        box = [rows.start, rows.stop, cols.start, cols.stop]
        return {"kind": "depth_view", "seed": self.seed, "box": box, "crop": list(output)}


PLAIN, MIRROR = "@plain", "@mirror"
"""What follows the picture's id in sample ids of the test set."""


@dataclass(frozen=True, kw_only=True)
class MirrorPreparation(Preparation):
    """The whole picture, mirrored left to right where the sample id says so."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,H,W."""
        rgb_HW3 = np.asarray(named(sample_id, lambda: decode_rgb(blobs[0])))
        return image_tensor(rgb_HW3[:, ::-1] if sample_id.endswith(MIRROR) else rgb_HW3)

    def record(self) -> dict[str, Any]:
        """Key fields."""
        return {"kind": "whole_or_mirror"}
