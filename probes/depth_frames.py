"""Which part of a depth frame counts: training crop, scored boxes, KITTI's bottom crop (protocol `depth`, 3.1, 4, 5.1).

Boxes are corners in the original frame. On a frame of another size they keep their share of each side, rounded to the
nearest pixel, so that miniature frames run through the same code and the original ones get the published numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtv.errors import DataError, UsageError

Window = tuple[slice, slice]
"""Rows and columns; indexes the last two axes of a picture or depth map."""


def scale_length(length: int, side: int, reference: int) -> int:
    """`length` pixels of a side of `reference` pixels, on a side of `side` pixels; halves round up, in integers."""
    return (2 * length * side + reference) // (2 * reference)


@dataclass(frozen=True, kw_only=True)
class FrameBox:
    """A rectangle in a frame of known size."""

    frame: tuple[int, int]
    """(height, width) of the frame in which the corners are given."""
    rows: tuple[int, int]
    """First row, and the row after the last."""
    cols: tuple[int, int]
    """First column, and the column after the last."""

    def __post_init__(self) -> None:
        for name, side in zip(("rows", "cols"), self.frame, strict=True):
            first, stop = getattr(self, name)
            if not 0 <= first < stop <= side:
                raise UsageError(f"box.{name} must lie in a frame of {self.frame}, got {(first, stop)}")

    def on(self, size: tuple[int, int]) -> Window:
        """The rectangle in a frame of (height, width) `size`.

        Raises:
            DataError: the frame is so small that nothing is left.
        """
        corners = [
            [scale_length(corner, side, reference) for corner in pair]
            for pair, side, reference in zip((self.rows, self.cols), size, self.frame, strict=True)
        ]
        if any(first >= stop for first, stop in corners):
            raise DataError(f"a frame of {size[0]}x{size[1]} pixels is too small for the scored or trained part of it")
        return slice(*corners[0]), slice(*corners[1])


NYU_FRAME = (480, 640)
NYU_TRAIN = FrameBox(frame=NYU_FRAME, rows=(45, 472), cols=(43, 608))
"""What training reads: 427 x 565, inside the white border of the labelled set."""
NYU_EIGEN = FrameBox(frame=NYU_FRAME, rows=(45, 471), cols=(41, 601))
"""Scored pixels of NYUv2: 426 x 560."""
KITTI_FRAME = (352, 1216)
KITTI_EIGEN = FrameBox(frame=KITTI_FRAME, rows=(117, 321), cols=(43, 1172))
"""Scored pixels of the cropped KITTI frame: 204 x 1129."""
KITTI_GARG = FrameBox(frame=KITTI_FRAME, rows=(143, 349), cols=(43, 1172))
"""Garg's box on the cropped KITTI frame: 206 x 1129."""
NYU_RANDOM_CROP = (416, 544)
"""(height, width) of the random crop of training."""


@dataclass(frozen=True, kw_only=True)
class TrainFrame:
    """Sizes of one training frame on its way to the encoder, before patch padding."""

    window: Window
    """Fixed crop of the frame as stored."""
    cropped: tuple[int, int]
    """(height, width) after the fixed crop: 427 x 565."""
    output: tuple[int, int]
    """(height, width) of the random crop: 416 x 544."""

    @property
    def max_offset(self) -> tuple[int, int]:
        """Largest first row and column of the random crop: 11, 21."""
        return self.cropped[0] - self.output[0], self.cropped[1] - self.output[1]


def train_frame(
    size: tuple[int, int], *, box: FrameBox = NYU_TRAIN, crop: tuple[int, int] = NYU_RANDOM_CROP
) -> TrainFrame:
    """Training geometry of frames of (height, width) `size`.

    Args:
        box: the fixed crop.
        crop: (height, width) of the random crop, in pixels of the frame of `box`.

    Raises:
        DataError: the frame is too small.
    """
    window = box.on(size)
    cropped = window[0].stop - window[0].start, window[1].stop - window[1].start
    scaled = (scale_length(n, side, full) for n, side, full in zip(crop, size, box.frame, strict=True))
    height, width = (min(n, room) for n, room in zip(scaled, cropped, strict=True))
    if min(height, width) < 1:
        raise DataError(f"a frame of {size[0]}x{size[1]} pixels is too small to train on")
    return TrainFrame(window=window, cropped=cropped, output=(height, width))


def bottom_crop(size: tuple[int, int], crop: tuple[int, int] = KITTI_FRAME) -> Window:
    """The crop of a KITTI frame: its lowest rows, its middle columns; for picture and depth, before the model.

    Args:
        size: (height, width) of the frame.
        crop: (height, width) to keep. Frames of the miniature world need a smaller one.

    Raises:
        DataError: the frame is smaller than the crop.
    """
    top, spare = size[0] - crop[0], size[1] - crop[1]
    if min(top, spare) < 0:
        raise DataError(
            f"a frame of {size[0]}x{size[1]} pixels is smaller than the crop of {crop[0]}x{crop[1]}",
            "KITTI frames have about 375x1242 pixels; give smaller frames a smaller crop.",
        )
    left = spare // 2
    return slice(top, top + crop[0]), slice(left, left + crop[1])
