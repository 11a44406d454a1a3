"""A transformers model behind the encoder interface: taps, pooling and position embeddings of its image tower."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features, Tap, TextKind
from mtv.encoders.hf_layouts import Layout
from mtv.encoders.posembed import POS_INTERP, resize_pos_embed
from mtv.encoders.records import EncoderInfo
from mtv.encoders.text import TextPipeline
from mtv.errors import UsageError


class HfEncoder(Encoder):
    """A transformers model."""

    def __init__(self, model: Any, layout: Layout, text: TextPipeline | None, info: EncoderInfo) -> None:
        self._model = model
        self._layout = layout
        self._pooled = layout.pooled
        self.text = text
        self.info = info
        self._vision = attribute(model, layout.vision)
        self._blocks = attribute(self._vision, layout.blocks)
        self._norm = attribute(self._vision, layout.norm)
        self._projection = attribute(model, layout.projection) if layout.projection else None
        config = self._vision.config
        self.patch_size = square(config.patch_size, "patch_size")
        self.depth = len(self._blocks)
        self.width = int(config.hidden_size)
        self.has_class_token = layout.pooled == "cls"
        self.embed_dim = text.embed_dim if text else _projected_width(self._projection, self.width)

    @property
    def module(self) -> nn.Module:
        """The transformers model."""
        return self._model

    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """Tapped tokens and, when `pooled`, the image embedding that the library compares with text."""
        grid = (images_B3HW.shape[2] // self.patch_size, images_B3HW.shape[3] // self.patch_size)
        taps: dict[int, Tensor] = {}
        handles = [self._blocks[i].register_forward_hook(_keep(taps, i)) for i in set(layers)]
        try:
            out = self._vision(pixel_values=images_B3HW, **self._arguments(images_B3HW, grid))
        finally:
            for handle in handles:
                handle.remove()
        if norm == "final":
            taps = {i: self._norm(t_BND) for i, t_BND in taps.items()}
        tokens = {i: self._patches(t_BND, grid) for i, t_BND in taps.items()}
        class_token = {i: t_BND[:, 0] for i, t_BND in taps.items()} if self.has_class_token else {}
        if not pooled:
            return Features(tokens=tokens, pooled=None, global_token=None, class_token=class_token)
        global_BC = self._global(out, grid)
        pooled_BD = global_BC if self._projection is None else self._projection(global_BC)
        return Features(tokens=tokens, pooled=pooled_BD, global_token=global_BC, class_token=class_token)

    def encode_text(self, strings: Sequence[str], *, kind: TextKind = "prompt", batch_size: int = 256) -> Tensor:
        """Text embeddings N,D, float32, not normalised (see `Encoder.encode_text`)."""
        if self.text is None:
            return super().encode_text(strings, kind=kind, batch_size=batch_size)
        return self.text.encode(strings, kind=kind, batch_size=batch_size, device=self.device)

    def _arguments(self, images_B3HW: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._layout.cls not in ("Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel"):
            arguments["interpolate_pos_encoding"] = True
        if self._layout.cls == "ViTMAEModel":
            # Rising noise sorts to the identity: with nothing masked, the encoder sees the patches in order.
            count = grid[0] * grid[1]
            arguments["noise"] = torch.arange(count, device=images_B3HW.device).float().expand(len(images_B3HW), -1)
        return arguments

    def _patches(self, tokens_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens_BND[:, tokens_BND.shape[1] - grid[0] * grid[1] :].unflatten(1, grid)

    def _global(self, out: Any, grid: tuple[int, int]) -> Tensor:
        if self._pooled == "head":
            return out.pooler_output
        last_BND = out.last_hidden_state
        if self._layout.cls.startswith("CLIP"):
            # CLIP's tower returns the residual stream; every other one returns normalised tokens.
            last_BND = self._norm(last_BND)
        return last_BND[:, 0] if self._pooled == "cls" else self._patches(last_BND, grid).flatten(1, 2).mean(1)


def attribute(module: Any, path: str) -> Any:
    """`module.a.b` for the path `a.b`; the module itself for an empty one."""
    return operator.attrgetter(path)(module) if path else module


def square(value: Any, name: str) -> int:
    """One side of a size that may be written as a pair.

    Raises:
        UsageError: the sides differ.
    """
    sides = {int(v) for v in (value if isinstance(value, (tuple, list)) else [value])}
    if len(sides) != 1:
        raise UsageError(f"{name} {value} is not square", "Wrap the model in a python: spec.")
    return sides.pop()


def set_pos_interp(vision: Any, layout: Layout, wish: str | None) -> str:
    """Put one resampling of position embeddings in place of the library's; the default is what the library does."""
    if layout.pos_interp not in POS_INTERP:
        if wish is not None:
            raise UsageError(f"pos_interp={wish} has no effect here: {layout.cls} uses {layout.pos_interp}")
        return layout.pos_interp
    mode = wish or layout.pos_interp
    if mode not in POS_INTERP:
        raise UsageError(f"pos_interp must be one of {', '.join(POS_INTERP)}, got {mode!r}")
    vision.embeddings.interpolate_pos_encoding = functools.partial(_interpolate, vision, mode)
    return mode


def _interpolate(vision: Any, mode: str, embeddings: Tensor, height: int, width: int) -> Tensor:
    table = getattr(vision.embeddings, "position_embedding", None)
    pos_1ND = vision.embeddings.position_embeddings if table is None else table.weight[None]
    patch = square(vision.config.patch_size, "patch_size")
    side = square(vision.config.image_size, "image_size") // patch
    return resize_pos_embed(
        pos_1ND, (height // patch, width // patch), (side, side), pos_1ND.shape[1] - side * side, mode
    )


def _keep(taps: dict[int, Tensor], index: int) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        taps[index] = output[0] if isinstance(output, tuple) else output

    return hook


def _projected_width(projection: Any, width: int) -> int:
    return width if projection is None else int(projection.out_features)
