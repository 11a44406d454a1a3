"""The two shapes of timm models: plain ViTs with one grid through all blocks, and models whose stages shrink."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.base import Tap
from mtv.encoders.records import ImageRecord
from mtv.errors import UsageError


class PlainShape:
    """A ViT: `blocks` of one width on one grid, prefix tokens, a final norm."""

    output_fmt = "NLC"

    def __init__(self, model: Any, family: str | None) -> None:
        self._model = model
        self.patch_size = int(model.feature_info[0]["reduction"])
        self.depth = len(model.blocks)
        self.width = self.embed_dim = int(model.embed_dim)
        self.dynamic = bool(getattr(model, "dynamic_img_size", False))
        self._prefix = int(model.num_prefix_tokens)
        # Prefix tokens may be registers alone; a class token always comes first.
        taps_prefix = "return_prefix_tokens" in signature(model.forward_intermediates).parameters
        self.has_class_token = getattr(model, "cls_token", None) is not None and taps_prefix
        self.pos_interp = _positions(model, self.dynamic)
        # timm pools DINOv3 by averaging only because that is the class default; the authors evaluate CLS.
        self._takes_cls = family in ("dino", "dinov2", "dinov3") and self._prefix > 0
        self.pooling = _WORDS["token"] if self._takes_cls else _pooling(model)
        # Models that pool by averaging keep their only norm behind the pool (`fc_norm`).
        norms = (getattr(model, "norm", None), getattr(model, "fc_norm", None))
        self._norm = next((n for n in norms if n is not None and not isinstance(n, nn.Identity)), None)

    def index(self, layer: int) -> int:
        """Index for timm of our layer."""
        return layer

    def check(self, images_B3HW: Tensor, norm: Tap, architecture: str) -> None:
        """Refuse a tap or a size that the model does not have."""
        if norm == "final" and self._norm is None:
            raise UsageError(f"{architecture} has no final norm; read the tap norm='none'")
        native = tuple(getattr(self._model.patch_embed, "img_size", None) or ())
        if not self.dynamic and native and tuple(images_B3HW.shape[-2:]) != native:
            raise UsageError(
                f"{architecture} takes {list(native)} pixels only, got {list(images_B3HW.shape[-2:])}",
                "Its position embeddings cannot be interpolated by timm.",
            )

    def read(self, tap: Any, norm: Tap, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Patch tokens B,H,W,D and class token B,D (None without) of one intermediate of timm, under `norm`."""
        patches_BND, prefix_BPD = tap if self.has_class_token else (tap, None)
        cls_BD = None if prefix_BPD is None else prefix_BPD[:, 0]
        if norm == "final" and self._norm is not None:
            patches_BND = self._norm(patches_BND)
            cls_BD = None if cls_BD is None else self._norm(cls_BD)
        return patches_BND.unflatten(1, grid), cls_BD

    def pool(self, final_BND: Tensor) -> Tensor:
        """B,D from normalised tokens, before any classifier."""
        if self._takes_cls:
            return final_BND[:, 0]
        out: Tensor = self._model.forward_head(final_BND, pre_logits=True)
        if out.ndim == 2:
            return out
        # `global_pool=''`: timm leaves the tokens unpooled, so the documented rule decides.
        return out[:, 0] if self._prefix else out.mean(dim=1)


class StageShape:
    """A hierarchical or convolutional model: one layer, the last stage, as timm returns it without further norm."""

    output_fmt = "NCHW"
    depth = 1
    has_class_token = False
    pos_interp = "none"
    pooling = "global pooling of timm's head, before the classifier"

    def __init__(self, model: Any, image: ImageRecord) -> None:
        name = type(model).__name__
        if not hasattr(model, "forward_intermediates") or not getattr(model, "feature_info", None):
            raise UsageError(
                f"{name} offers no intermediate maps (timm forward_intermediates)", "Wrap it in a python: spec."
            )
        self._model = model
        last = model.feature_info[-1]
        self.patch_size, self.width = int(last["reduction"]), int(last["num_chs"])
        self._last = len(model.feature_info) - 1
        self.embed_dim = int(getattr(model, "head_hidden_size", 0) or model.num_features)
        self._verify(image, name)

    def _verify(self, image: ImageRecord, name: str) -> None:
        with torch.no_grad():
            probe_13HW = torch.zeros(1, 3, image.size, image.size)
            final, maps = self._forward(probe_13HW, name)
            vector_BD = self.pool(final)
        side = image.size // self.patch_size
        if tuple(maps[0].shape) != (1, self.width, side, side) or vector_BD.ndim != 2:
            raise UsageError(
                f"{name}: the last stage has shape {list(maps[0].shape)}, its pooled vector {list(vector_BD.shape)}; "
                f"expected [1, {self.width}, {side}, {side}] and [1, D]",
                "Wrap the model in a python: spec that returns a dense map.",
            )
        self.embed_dim = int(vector_BD.shape[1])

    def _forward(self, images_B3HW: Tensor, name: str) -> Any:
        try:
            return self._model.forward_intermediates(images_B3HW, indices=[self._last], output_fmt="NCHW")
        except (AssertionError, RuntimeError, ValueError) as e:
            raise UsageError(f"{name} does not take {list(images_B3HW.shape[-2:])} pixels: {e}") from e

    def index(self, layer: int) -> int:
        """Index for timm of our layer."""
        return self._last

    def check(self, images_B3HW: Tensor, norm: Tap, architecture: str) -> None:
        """Refuse a tap or a size that the model does not have."""
        if norm == "final":
            raise UsageError(f"{architecture} is read at its last stage, without a final norm; use the tap norm='none'")
        embed: Any = getattr(self._model, "patch_embed", None)
        if getattr(embed, "strict_img_size", False) and tuple(embed.img_size) != tuple(images_B3HW.shape[-2:]):
            raise UsageError(f"{architecture} takes {tuple(embed.img_size)} pixels only, got {list(images_B3HW.shape)}")

    def read(self, map_BDHW: Tensor, norm: Tap, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """B,H,W,D, without class token; `check` has refused a norm."""
        return map_BDHW.permute(0, 2, 3, 1).contiguous(), None

    def pool(self, final: Tensor) -> Tensor:
        """B,D from the last map, before any classifier."""
        out: Tensor = self._model.forward_head(final, pre_logits=True)
        return out.flatten(1)


Shape = PlainShape | StageShape


def shape_of(model: nn.Module, image: ImageRecord, family: str | None) -> Shape:
    """The shape of a frozen timm model.

    Raises:
        UsageError: a model that gives no dense map.
    """
    return PlainShape(model, family) if is_plain(model) else StageShape(model, image)


def is_plain(model: Any) -> bool:
    """Whether every block keeps the grid of the patch embedding."""
    needed = ("blocks", "patch_embed", "num_prefix_tokens", "forward_intermediates", "embed_dim")
    if not all(hasattr(model, name) for name in needed) or not isinstance(model.embed_dim, int):
        return False
    return len({f["reduction"] for f in model.feature_info}) == 1 and len(model.feature_info) == len(model.blocks)


def _positions(model: Any, dynamic: bool) -> str:
    absolute = getattr(model, "pos_embed", None) is not None
    parts = (["bicubic-antialias"] if absolute else []) + (["rope"] if getattr(model, "rope", None) is not None else [])
    if not dynamic:
        return "fixed-size"
    return "+".join(parts) or "none"


_WORDS = {"token": "CLS after the final norm", "avg": "mean of patch tokens, normalised"}


def _pooling(model: Any) -> str:
    if getattr(model, "attn_pool", None) is not None:
        return "attention pooling"
    if getattr(model, "dist_token", None) is not None:
        return "mean of CLS and distillation token after the final norm"
    rule = getattr(model, "global_pool", "") or ("token" if model.num_prefix_tokens else "avg")
    return _WORDS.get(rule, f"timm global_pool={rule}")
