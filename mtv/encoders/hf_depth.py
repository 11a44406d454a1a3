"""Depth models of transformers behind the encoder interface: their head, and features of the tower below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder
from mtv.encoders.hf_depth_layouts import DepthModel
from mtv.encoders.hf_encoder import HfEncoder, square
from mtv.encoders.hf_layouts import Layout
from mtv.encoders.hf_source import HfFiles
from mtv.encoders.records import DepthHeadRecord, EncoderInfo
from mtv.errors import UsageError


class HfDepthEncoder(HfEncoder):
    """A transformers depth model. Neck and head compute in float32 also where the tower does not.

    Args:
        layout: `depth.layout` with the pooling that was chosen.
    """

    def __init__(self, model: Any, depth: DepthModel, layout: Layout, info: EncoderInfo) -> None:
        super().__init__(model, layout, None, info)
        self._sides = depth.sides
        model.neck.register_forward_pre_hook(_in_float32)

    def forward_depth(self, images_B3HW: Tensor) -> Tensor:
        """The library's own forward pass.

        Raises:
            UsageError: sides that the library's code cannot take.
        """
        height, width = images_B3HW.shape[-2:]
        native = square(self._vision.config.image_size, "image_size")
        if self._sides != "any" and (height != width or (self._sides == "native" and height != native)):
            what = f"{native}x{native} pictures" if self._sides == "native" else "square pictures"
            raise UsageError(
                f"{self.info.spec} takes {what} only, got {height}x{width}",
                "Use resize=squash" + (" and leave the size alone." if self._sides == "native" else "."),
            )
        predicted_BHW: Tensor = self._model(pixel_values=images_B3HW).predicted_depth
        return predicted_BHW

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Encoder:
        """Move the model; only the tower changes its dtype."""
        super().to(device, dtype)
        self._model.neck.float()
        self._model.head.float()
        return self

    def _arguments(self, images_B3HW: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
        return {"output_hidden_states": True}

    def _global(self, out: Any, grid: tuple[int, int]) -> Tensor:
        last_BND = self._norm(out.hidden_states[-1])
        return last_BND[:, 0] if self._pooled == "cls" else self._patches(last_BND, grid).flatten(1, 2).mean(1)


def head_record(depth: DepthModel, files: HfFiles, options: Mapping[str, Any]) -> tuple[DepthHeadRecord, str]:
    """What the head gives and how its processor resizes, and which rule decided the kind.

    Raises:
        UsageError: `depth_kind` is neither disparity nor depth.
    """
    kind, source = options.get("depth_kind"), f"option: depth_kind={options.get('depth_kind')}"
    if kind is None:
        kind, source = depth.kind, f"family: {depth.why}"
    processor = files.preprocessor or {}
    record = DepthHeadRecord(
        kind=kind,
        floored=depth.floored,
        keep_aspect=bool(processor.get("keep_aspect_ratio", False)),
        multiple=int(processor.get("ensure_multiple_of") or 1),
    )
    return record, source


def _in_float32(neck: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    maps, *rest = args
    return [m.float() for m in maps], *rest
