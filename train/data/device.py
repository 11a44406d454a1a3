"""From a `HostBatch` (canvases and drawn numbers) to a `Batch` (views), on the CPU or a GPU with the same code.

Notable choices: views are made in parts that stay in the processor's cache on a CPU and in one go on a GPU; everything
is FP32, whatever autocast the caller uses; nothing waits for the device; a view has the values it would have if its
sample were alone in the batch, up to the rounding of the matrix product.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mtv.train.data.batch import Batch
from mtv.train.data.canvas import DEPTH_OFFSET, DEPTH_STEPS
from mtv.train.data.colour import jitter_
from mtv.train.data.resample import Kernel, axis_weights, resample_canvas, resample_map

CPU_PART = 32
"""Images whose views are made together on a CPU."""


@dataclass(frozen=True, kw_only=True)
class LocalColours:
    """Photometry of local views. Stays in CPU memory: which views an operation concerns is decided there."""

    factor_BM4: Tensor
    """float32: brightness, contrast, saturation, hue."""
    order_BM4: Tensor
    """int64: order of these four."""
    grey_BM: Tensor
    """bool."""
    sigma_BM: Tensor
    """float32: blur in pixels; 0 = none."""


@dataclass(frozen=True, kw_only=True)
class LocalViews:
    """What local views are made of."""

    crop_BM4: Tensor
    """int64: left, top, width, height in canvas pixels."""
    flip_BM: Tensor
    """bool."""
    colours: LocalColours
    """Jitter, grey and blur."""
    size: int
    """Side of a view."""
    longest: int
    """No crop is wider or higher, in canvas pixels."""


@dataclass(frozen=True, kw_only=True)
class Disparity:
    """Decoded disparity labels."""

    code_BHW: Tensor
    """int16 [B, D, D], see `canvas.decode_depth`."""
    range_B2: Tensor
    """float32: label units of code 0 and of the largest code."""
    valid_B: Tensor
    """bool."""


@dataclass(frozen=True, kw_only=True)
class HostBatch:
    """A local batch in CPU memory, before views are made."""

    keys: tuple[str, ...]
    """Sample keys."""
    canvas_BHCW: Tensor
    """uint8 [B, C, 3, C]: rows, channels, columns."""
    crop_B4: Tensor
    """int64: left, top, width, height of the global crop in canvas pixels."""
    flip_B: Tensor
    """bool: mirrored global views."""
    image_size: int
    """Side of the global view."""
    local: LocalViews | None
    """Local views, where needed."""
    disparity: Disparity | None
    """Disparity, where needed."""
    labels: dict[str, Tensor]
    """Fields of `Batch` that are ready: tokens, boxes, masks."""

    def pin_memory(self) -> HostBatch:
        """The batch in page-locked memory, for transfers that do not block."""
        return _map(self, lambda t: t.pin_memory())

    def to(self, device: torch.device) -> HostBatch:
        """The batch on a device; the transfer does not block where memory is page-locked."""
        return _map(self, lambda t: t.to(device, non_blocking=True))


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor below it changed, except colours."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: _map(v, change) for k, v in value.items()}
    if isinstance(value, (HostBatch, LocalViews, Disparity)):
        return replace(value, **{f.name: _map(getattr(value, f.name), change) for f in fields(value)})
    return value


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Products in true FP32, whatever precision the run asks for its own."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.no_grad()
def make_batch(host: HostBatch, device: torch.device | str = "cpu") -> Batch:
    """Make all views of a batch on `device`."""
    device = torch.device(device)
    host = host.to(device)
    with torch.autocast(device.type, enabled=False), _full_precision():
        global_BCHW, local_BMCHW = _images(host, part=CPU_PART if device.type == "cpu" else len(host.keys))
        depth_BHW = None if host.disparity is None else _depth(host, host.disparity)
    return Batch(
        keys=host.keys,
        global_BCHW=global_BCHW,
        local_BMCHW=local_BMCHW,
        depth_BHW=depth_BHW,
        depth_valid_B=None if host.disparity is None else host.disparity.valid_B,
        **host.labels,
    )


def _images(host: HostBatch, *, part: int) -> tuple[Tensor, Tensor | None]:
    """Global and local views, normalised, `part` images at a time."""
    B, C = host.canvas_BHCW.shape[:2]
    device = host.canvas_BHCW.device
    global_BCHW = torch.empty(B, 3, host.image_size, host.image_size, device=device)
    local_BMCHW = None
    if host.local is not None:
        size, M = host.local.size, host.local.crop_BM4.shape[1]
        local_BMCHW = torch.empty(B, M, 3, size, size, device=device)
    crop_B14, flip_B1 = host.crop_B4[:, None], host.flip_B[:, None]
    rows_B1, columns_B1 = _weights(crop_B14, flip_B1, size_in=C, size_out=host.image_size, longest=C)
    for start in range(0, B, part):
        at = slice(start, start + part)
        canvas = host.canvas_BHCW[at].float().mul_(1 / 255)
        views = resample_canvas(canvas, rows_B1[at], columns_B1[at])[:, 0]
        torch.clamp(views, 0, 1, out=global_BCHW[at]).sub_(0.5).mul_(2)
        if host.local is not None and local_BMCHW is not None:
            _locals(canvas, host.local, at, out=local_BMCHW[at])
    return global_BCHW, local_BMCHW


def _locals(canvas_BHCW: Tensor, local: LocalViews, at: slice, *, out: Tensor) -> None:
    """Local views of some images, normalised, into `out`."""
    rows, columns = _weights(
        local.crop_BM4[at],
        local.flip_BM[at],
        size_in=canvas_BHCW.shape[1],
        size_out=local.size,
        longest=local.longest,
    )
    torch.clamp(resample_canvas(canvas_BHCW, rows, columns), 0, 1, out=out)
    colours = local.colours
    jitter_(
        out.flatten(0, 1),
        colours.factor_BM4[at].flatten(0, 1),
        colours.order_BM4[at].flatten(0, 1),
        colours.grey_BM[at].flatten(),
        colours.sigma_BM[at].flatten(),
    )
    out.sub_(0.5).mul_(2)


def _weights(
    crop_BV4: Tensor,
    flip_BV: Tensor,
    *,
    size_in: int,
    size_out: int,
    longest: float,
    stretch: float = 1.0,
    kernel: Kernel = "cubic",
) -> tuple[Tensor, Tensor]:
    """Row and column weights [B, V, O, I] of crops given in canvas pixels, on an input `stretch` times the canvas."""
    B, V = flip_BV.shape
    left, top, width, height = (crop_BV4.reshape(-1, 4).double() * stretch).unbind(1)
    # Both axes in one call; only columns are mirrored.
    weights = axis_weights(
        torch.cat([top, left]),
        torch.cat([height, width]),
        size_in=size_in,
        size_out=size_out,
        longest=longest,
        kernel=kernel,
        flip_V=torch.cat([torch.zeros_like(flip_BV), flip_BV]).flatten(),
    )
    rows, columns = weights.reshape(2, B, V, size_out, size_in).unbind(0)
    return rows, columns


def _depth(host: HostBatch, disparity: Disparity) -> Tensor:
    """Disparity of the global views, in label units; 0 where it is not valid."""
    D, C = disparity.code_BHW.shape[1], host.canvas_BHCW.shape[1]
    unit_BHW = (disparity.code_BHW.float() + DEPTH_OFFSET) / DEPTH_STEPS
    rows, columns = _weights(
        host.crop_B4[:, None],
        host.flip_B[:, None],
        size_in=D,
        size_out=host.image_size,
        longest=D,
        stretch=D / C,
        kernel="linear",
    )
    view_BHW = resample_map(unit_BHW, rows[:, 0], columns[:, 0])
    low_B, high_B = disparity.range_B2.unbind(1)
    depth_BHW = view_BHW * (high_B - low_B)[:, None, None] + low_B[:, None, None]
    return torch.where(disparity.valid_B[:, None, None], depth_BHW, 0.0)
