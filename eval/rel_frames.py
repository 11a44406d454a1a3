"""Frames of a depth set as the relative-depth protocols see them: crop, scored pixels, input size, pixels.

Frames are read ahead by threads (decoders release the interpreter), a few batches at a time: memory does not grow with
the set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.encoders.preprocess import FILTERS
from mtv.encoders.records import ImageRecord
from mtv.errors import DataError
from mtv.eval.datasets.base import DepthSet
from mtv.eval.datasets.dense_decode import read_depth_metres
from mtv.eval.datasets.images import open_exif
from mtv.eval.preparations import statistics_of
from mtv.eval.protocols_rel import RelDepthProtocol, RelKittiProtocol, RelNyuProtocol
from mtv.probes.depth_frames import KITTI_EIGEN, KITTI_FRAME, KITTI_GARG, NYU_EIGEN, FrameBox, bottom_crop, scale_length
from mtv.probes.depth_metrics import valid_mask

KITTI_RAW = (375, 1242)
"""Frame of which `crop=share` takes the share that the crop in pixels has."""
THREADS = 4
AHEAD = 32
"""Frames read ahead, about 0.1 GB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthFrame:
    """One picture with its truth, cropped."""

    id: str
    """Sample id."""
    group: str
    """Scene or drive."""
    rgb_HW3: np.ndarray
    """uint8."""
    depth_HW: Tensor
    """float32 metres, 0 where unknown."""
    valid_HW: Tensor
    """bool: the pixels that are scored."""

    @property
    def size(self) -> tuple[int, int]:
        """(Height, width)."""
        height, width = self.depth_HW.shape
        return height, width


def score_box(protocol: RelDepthProtocol) -> FrameBox | None:
    """Scored part of the cropped frame; None for all of it."""
    match protocol:
        case RelNyuProtocol(mask="eigen"):
            return NYU_EIGEN
        case RelKittiProtocol(mask="eigen"):
            return KITTI_EIGEN
        case RelKittiProtocol(mask="garg"):
            return KITTI_GARG
    return None


def crop_window(size: tuple[int, int], protocol: RelDepthProtocol) -> tuple[slice, slice]:
    """Rows and columns that are kept of a frame of (height, width) `size`.

    Raises:
        DataError: the frame is smaller than the crop.
    """
    if not isinstance(protocol, RelKittiProtocol) or protocol.crop == "none":
        return slice(0, size[0]), slice(0, size[1])
    if protocol.crop == "pixels":
        return bottom_crop(size)
    height, width = (scale_length(n, s, full) for n, s, full in zip(KITTI_FRAME, size, KITTI_RAW, strict=True))
    return bottom_crop(size, (height, width))


def cropped_size(size: tuple[int, int], protocol: RelDepthProtocol) -> tuple[int, int]:
    """(Height, width) that is kept of a frame of (height, width) `size`."""
    rows, cols = crop_window(size, protocol)
    return rows.stop - rows.start, cols.stop - cols.start


def read_frame(dataset: DepthSet, image_id: str, protocol: RelDepthProtocol) -> DepthFrame:
    """Decode and crop one picture and its truth.

    Raises:
        DataError: unreadable, or smaller than the crop; names the file.
    """
    item, ref = dataset.items[image_id], dataset.images[image_id]
    rgb_HW3 = np.asarray(open_exif(ref.read(), name=ref.name))
    depth_HW = torch.from_numpy(read_depth_metres(item.depth, dataset.depth_encoding))
    if rgb_HW3.shape[:2] != depth_HW.shape:
        raise DataError(f"{ref.name}: {rgb_HW3.shape[:2]} pixels, its depth map {tuple(depth_HW.shape)}")
    try:
        window = crop_window(rgb_HW3.shape[:2], protocol)
        depth_HW = depth_HW[window].contiguous()
        box = score_box(protocol)
        valid_HW = valid_mask(depth_HW, min_depth=protocol.min_depth, max_depth=protocol.max_depth, box=box)
    except DataError as e:
        hint = "Smaller frames: --set rel_kitti.crop=share." if isinstance(protocol, RelKittiProtocol) else e.hint
        raise DataError(f"{ref.name}: {e.message}", hint) from e
    return DepthFrame(id=image_id, group=item.group, rgb_HW3=rgb_HW3[window], depth_HW=depth_HW, valid_HW=valid_HW)


def frames(dataset: DepthSet, ids: Sequence[str], protocol: RelDepthProtocol) -> Iterator[DepthFrame]:
    """Frames in the order of `ids`, read ahead.

    Raises:
        DataError: as `read_frame`, after the frames before it were given out.
    """
    waiting: deque[Future[DepthFrame]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for image_id in ids:
                waiting.append(pool.submit(read_frame, dataset, image_id, protocol))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def input_record(encoder: Encoder, protocol: RelDepthProtocol) -> ImageRecord:
    """The encoder's image record with the protocol's size and statistics."""
    record = encoder.info.image if protocol.size is None else encoder.info.image.with_(size=protocol.size)
    mean, std = statistics_of(protocol.statistics, record)
    return record.with_(mean=mean, std=std)


def input_size(size: tuple[int, int], encoder: Encoder, protocol: RelDepthProtocol) -> tuple[int, int]:
    """(Height, width) of the model's input for a cropped frame of (height, width) `size`."""
    side = input_record(encoder, protocol).size
    head = encoder.info.depth_head
    if protocol.resize == "short_side":
        return _proportional(size, side / min(size), encoder.patch_size)
    if protocol.resize == "model" and head is not None and head.keep_aspect:
        # The processor takes the side that changes least as the one to fit.
        scale = min((side / length for length in size), key=lambda s: abs(1 - s))
        return _proportional(size, scale, head.multiple)
    return side, side


def _proportional(size: tuple[int, int], scale: float, multiple: int) -> tuple[int, int]:
    height, width = (max(multiple, round(scale * length / multiple) * multiple) for length in size)
    return height, width


def model_input(frame: DepthFrame, size: tuple[int, int], record: ImageRecord) -> Tensor:
    """uint8 3,size: the frame resized with the record's filter, antialiased."""
    picture = Image.fromarray(np.ascontiguousarray(frame.rgb_HW3))
    if size != frame.size:
        picture = picture.resize((size[1], size[0]), FILTERS[record.filter])
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())
