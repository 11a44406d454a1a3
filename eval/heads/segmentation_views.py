"""Windows of the segmentation probe as samples of the feature provider: ids, geometry, and bytes to pixels.

Training windows are `<picture>@v<number>`, 0 at the scale of the test and the others augmented; test windows are
`<picture>@w<number>`, in the order of `tile`. Padding gets the mean colour rounded to 8 bits, which the normalisation
turns into almost zero. Protocol page `segmentation.md`, sections 4, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtv.encoders.preprocess import decode_rgb
from mtv.eval.datasets.dense_decode import LabelCheck
from mtv.eval.features.request import Preparation
from mtv.eval.heads.segmentation_augment import TrainWindow, augmented_window, plain_window, resize_picture
from mtv.eval.preparations import named
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.hashing import sha256_json
from mtv.probes.resample import image_tensor
from mtv.probes.segmentation_windows import Window, WindowGeometry, padded_size, resized_size, tile, window_geometry

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
"""(height, width)."""
_BACK_END = "cv2 bilinear"


def geometry_of(protocol: SegmentationProtocol, patch: int) -> WindowGeometry:
    """Effective crop and stride for an encoder.

    Raises:
        UsageError: a crop that is no multiple of the patch, a stride out of range.
    """
    return window_geometry(patch, crop=protocol.crop, stride=protocol.stride, largest=protocol.base)


def fill_of(mean: Sequence[float]) -> tuple[int, int, int]:
    """The mean colour in 8 bits."""
    red, green, blue = (round(255 * m) for m in mean)
    return red, green, blue


@dataclass(frozen=True, kw_only=True)
class EvalGrid:
    """How one test picture is cut."""

    size: Size
    """The picture's own size."""
    resized: Size
    """After resizing."""
    padded: Size
    """After padding to multiples of the patch."""
    windows: tuple[Window, ...]
    """Over the padded picture, of one size."""

    @property
    def window(self) -> Size:
        """Size of the windows."""
        return self.windows[0].height, self.windows[0].width


def eval_grid(size: Size, geometry: WindowGeometry, infer: Literal["slide", "whole"]) -> EvalGrid:
    """The windows of a picture of `size`."""
    resized = resized_size(*size, geometry)
    padded = padded_size(*resized, geometry.patch)
    return EvalGrid(size=size, resized=resized, padded=padded, windows=tuple(tile(*padded, geometry, infer)))


def train_id(picture: str, number: int) -> str:
    """Sample id of a training window."""
    return f"{picture}@v{number}"


def eval_id(picture: str, number: int) -> str:
    """Sample id of a test window."""
    return f"{picture}@w{number}"


@dataclass(frozen=True, kw_only=True)
class PlainPreparation(Preparation):
    """Training windows at the scale of the test. Blobs: picture."""

    geometry: WindowGeometry
    """Crop."""
    seed: int
    """Of their positions."""
    fill: tuple[int, int, int]
    """Padding colour."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,crop,crop."""
        rgb_HW3 = np.asarray(named(sample_id, lambda: decode_rgb(blobs[0])))
        window = self.window(sample_id.rpartition("@v")[0], rgb_HW3.shape[:2])
        return image_tensor(window.picture(rgb_HW3, self.geometry.crop, self.fill))

    def window(self, picture: str, size: Size) -> TrainWindow:
        """Where the window of a picture of `size` lies."""
        return plain_window(picture, resized_size(*size, self.geometry), crop=self.geometry.crop, seed=self.seed)

    def record(self) -> dict[str, Any]:
        """Key fields."""
        return {
            "kind": "segmentation_plain", "crop": self.geometry.crop, "seed": self.seed, "fill": list(self.fill),
            "back_end": _BACK_END,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AugmentedPreparation(Preparation):
    """Training windows with all augmentations. Blobs: picture, label map (which the choice of the crop reads)."""

    geometry: WindowGeometry
    """Crop."""
    protocol: SegmentationProtocol
    """Seed and ranges."""
    raw_to_train: np.ndarray
    """Values of label maps, as in `SegmentationSet`."""
    sizes: Mapping[str, tuple[int, int]]
    """Picture id to width, height."""
    fill: tuple[int, int, int]
    """Padding colour."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,crop,crop."""
        picture, _, number = sample_id.rpartition("@v")
        rgb_HW3 = np.asarray(named(sample_id, lambda: decode_rgb(blobs[0])))
        check = LabelCheck(raw_to_train=self.raw_to_train, size=self.sizes[picture])
        label_HW = check.decode(blobs[1], name=f"label map of {picture}")
        window = self.window(picture, int(number), label_HW)
        return image_tensor(window.picture(rgb_HW3, self.geometry.crop, self.fill))

    def window(self, picture: str, number: int, label_HW: np.ndarray) -> TrainWindow:
        """Window `number` of a picture."""
        return augmented_window(picture, number, label_HW, crop=self.geometry.crop, protocol=self.protocol)

    def record(self) -> dict[str, Any]:
        """Key fields."""
        names = ("seed", "scale", "cat_max", "flip", "colour", "brightness", "contrast", "saturation", "hue")
        drawn = {name: getattr(self.protocol, name) for name in names}
        return {
            "kind": "segmentation_augmented", "crop": self.geometry.crop, **drawn,
            "labels": sha256_json(self.raw_to_train.tolist()), "fill": list(self.fill), "back_end": _BACK_END,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvalPreparation(Preparation):
    """Windows of test pictures, all of one size. Blobs: picture."""

    geometry: WindowGeometry
    """Crop, stride, patch."""
    infer: Literal["slide", "whole"]
    """Windows, or the whole picture as one."""
    window: Size
    """Size of the windows of this request."""
    fill: tuple[int, int, int]
    """Padding colour."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,h,w."""
        number = int(sample_id.rpartition("@w")[2])
        rgb_HW3 = np.asarray(named(sample_id, lambda: decode_rgb(blobs[0])))
        grid = eval_grid(rgb_HW3.shape[:2], self.geometry, self.infer)
        padded_HW3 = np.empty((*grid.padded, 3), np.uint8)
        padded_HW3[:] = self.fill
        padded_HW3[: grid.resized[0], : grid.resized[1]] = resize_picture(rgb_HW3, grid.resized)
        w = grid.windows[number]
        return image_tensor(padded_HW3[w.top : w.top + w.height, w.left : w.left + w.width])

    def record(self) -> dict[str, Any]:
        """Key fields."""
        g = self.geometry
        return {
            "kind": "segmentation_test", "crop": g.crop, "stride": g.stride, "patch": g.patch, "infer": self.infer,
            "window": list(self.window), "fill": list(self.fill), "back_end": _BACK_END,
        }  # fmt: skip
