"""Bytes to pixels, one class per kind of task. Each is a small picklable value: loader workers carry it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtv.encoders.preprocess import ImageTransform, decode_rgb
from mtv.encoders.records import ImageRecord
from mtv.errors import DataError
from mtv.eval.datasets.images import open_exif, read_depth_png
from mtv.eval.features.request import Preparation
from mtv.probes.navi_prepare import GRID, SIDE, PreparedItem, downsample_for_cache, prepare_navi, prepare_rgbd
from mtv.probes.resample import Mode, image_tensor, white_square

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RecordPreparation(Preparation):
    """The model's own resize, as its image record says."""

    image: ImageRecord
    """Size, resize rule, interpolation."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,S,S."""
        return ImageTransform(self.image)(named(sample_id, lambda: decode_rgb(blobs[0])))

    def record(self) -> dict[str, Any]:
        """The image record without mean and std, which act after the pixels (but fill the border)."""
        fields = self.image.to_dict()
        if self.image.resize != "border":
            fields = {k: v for k, v in fields.items() if k not in ("mean", "std")}
        return {"kind": "record", **fields}


@dataclass(frozen=True, kw_only=True)
class SquarePreparation(Preparation):
    """SPair: white padding at the bottom or right to a square, antialiased bicubic to `size`."""

    size: int
    """Side in pixels."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,S,S."""
        return white_square(named(sample_id, lambda: decode_rgb(blobs[0])), self.size)

    def record(self) -> dict[str, Any]:
        """Key fields."""
        return {"kind": "white_square", "size": self.size, "filter": "bicubic", "back_end": "pil"}


@dataclass(frozen=True, kw_only=True)
class NaviCamera:
    """What the object crop needs to know of one photo besides its bytes."""

    focal: float
    """Focal length in pixels of the full-resolution photo."""
    size: tuple[int, int]
    """Width, height of the full-resolution photo after EXIF transposition."""
    downsampled: bool
    """Whether the bytes are the 1024-px copies."""


@dataclass(frozen=True, kw_only=True)
class NaviPreparation(Preparation):
    """NAVI: centre crop, object crop from the depth map, `size` x `size`. Blobs: photo, depth PNG."""

    mode: Mode
    """`probe3d` or `centered`."""
    size: int = SIDE
    """Side in pixels."""
    grid: int = GRID
    """Matching cells per side."""
    cameras: Mapping[str, NaviCamera]
    """Per sample id."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,S,S."""
        rgb = np.asarray(open_exif(blobs[0], name=sample_id))
        return self.item(sample_id, rgb, blobs[1]).image

    def item(self, sample_id: str, rgb_HW3: np.ndarray | None, depth_png: bytes) -> PreparedItem:
        """The prepared item; without `rgb_HW3` only its geometry is meaningful (scoring needs no colours)."""
        camera = self.cameras[sample_id]
        depth_HW = read_depth_png(depth_png, "navi_disparity", name=sample_id)
        rgb = np.zeros((*depth_HW.shape, 3), np.uint8) if rgb_HW3 is None else rgb_HW3
        _same_size(sample_id, rgb, depth_HW)
        if self.mode == "probe3d" and not camera.downsampled:
            rgb, depth_HW = downsample_for_cache(rgb, depth_HW, jpeg_roundtrip=rgb_HW3 is not None)
        return prepare_navi(
            rgb,
            depth_HW,
            focal_full=camera.focal,
            full_size=(camera.size[1], camera.size[0]),
            mode=self.mode,
            size=self.size,
            grid=self.grid,
            name=sample_id,
        )

    def record(self) -> dict[str, Any]:
        """Key fields, without the grid, which leaves the pixels alone; which copy of a photo was read shows in its
        digest."""
        return {"kind": "navi", "mode": self.mode, "size": self.size, "jpeg_roundtrip": self.mode == "probe3d"}


@dataclass(frozen=True, kw_only=True)
class FramePreparation(Preparation):
    """Posed RGB-D: the whole frame. Blobs: picture alone (its depth does not change the pixels)."""

    intrinsics: Mapping[str, tuple[float, float, float, float]]
    """fx, fy, cx, cy per sample id."""

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        """uint8 3,H,W."""
        return image_tensor(named(sample_id, lambda: decode_rgb(blobs[0])))

    def item(self, sample_id: str, depth_png: bytes) -> PreparedItem:
        """Geometry of the frame: points of the matching grid, validity, focal length."""
        fx, fy, cx, cy = self.intrinsics[sample_id]
        depth_HW = read_depth_png(depth_png, "millimetres", name=sample_id)
        blank = np.zeros((*depth_HW.shape, 3), np.uint8)
        return prepare_rgbd(blank, depth_HW, focal=(fx, fy), centre=(cx, cy), name=sample_id)

    def record(self) -> dict[str, Any]:
        """Key fields."""
        return {"kind": "whole_frame"}


def named(sample_id: str, read: Callable[[], Any]) -> Any:
    """Run `read`, putting the sample's id in front of a data error."""
    try:
        return read()
    except DataError as e:
        raise DataError(f"{sample_id}: {e.message}", e.hint or "Copy the file again, or leave it out.") from e


def _same_size(sample_id: str, rgb_HW3: np.ndarray, depth_HW: np.ndarray) -> None:
    if rgb_HW3.shape[:2] != depth_HW.shape:
        raise DataError(
            f"{sample_id}: the photo is {rgb_HW3.shape[1]}x{rgb_HW3.shape[0]} but its depth map "
            f"{depth_HW.shape[1]}x{depth_HW.shape[0]}",
            "Photo and depth must come from the same copy of the data set.",
        )


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Triple = tuple[float, float, float]


def statistics_of(choice: Literal["imagenet", "model"], image: ImageRecord) -> tuple[Triple, Triple]:
    """`mean` and `std` of a request under the protocol's choice."""
    if choice == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    return image.mean, image.std
