"""Image towers of open_clip: patch tokens of several layers, pooled embedding and global token in one pass.

Three kinds: open_clip's own VisionTransformer, timm transformers (SigLIP, PE, EVA), and everything else (ResNet,
ConvNeXt, hybrids), which has a pooled embedding alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtv.encoders.base import Features, Tap
from mtv.encoders.posembed import POS_INTERP, resize_pos_embed
from mtv.errors import UsageError


class Tower(Protocol):
    """One kind of image tower."""

    patch_size: int
    """Pixels per token side; 1 for towers without tokens."""
    depth: int
    """Blocks; 0 for towers without tokens."""
    width: int
    """Channels of the patch tokens."""
    pos_interp: str
    """How position embeddings reach other sizes."""
    pooling: str
    """What the pooled vector is, in words."""
    has_class_token: bool
    """Whether tapped layers come with a class token."""

    def forward(self, images_B3HW: Tensor, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """One pass."""
        ...


def build_tower(visual: nn.Module, *, pos_interp: str | None) -> Tower:
    """The tower that fits an open_clip `visual` module.

    Args:
        visual: `model.visual`.
        pos_interp: explicit resampling of position embeddings, or None for the library's.

    Raises:
        UsageError: `pos_interp` that this tower cannot follow.
    """
    from open_clip.transformer import VisionTransformer

    if pos_interp is not None and pos_interp not in POS_INTERP:
        raise UsageError(f"pos_interp must be one of {', '.join(POS_INTERP)}, got {pos_interp!r}")
    if isinstance(visual, VisionTransformer):
        return NativeTower(visual, pos_interp or "bicubic-antialias")
    tower: Tower = TimmTower(visual) if _is_timm_transformer(visual) else PooledTower(visual)
    if pos_interp not in (None, tower.pos_interp):
        raise UsageError(f"pos_interp={pos_interp} has no effect here: this tower resamples with {tower.pos_interp}")
    return tower


def _is_timm_transformer(visual: nn.Module) -> bool:
    from timm.layers import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    trunk = getattr(visual, "trunk", None)
    # Exact type of the patch embedding: the hybrid stems of ViTamin and MobileCLIP-B have no plain patch grid.
    return isinstance(trunk, (VisionTransformer, Eva)) and type(trunk.patch_embed) is PatchEmbed


class NativeTower:
    """open_clip's own VisionTransformer (`src/open_clip/transformer.py`): always one class token in front."""

    has_class_token = True

    def __init__(self, visual: Any, pos_interp: str) -> None:
        if visual.patch_size[0] != visual.patch_size[1]:
            raise UsageError(f"patches of {visual.patch_size} are not square")
        self._visual = visual
        self.patch_size: int = visual.patch_size[0]
        self.depth: int = len(visual.transformer.resblocks)
        self.width: int = visual.conv1.out_channels
        self.pos_interp = pos_interp
        self.pooling = self._describe()

    def _describe(self) -> str:
        visual = self._visual
        if visual.attn_pool is not None:
            return "attention pooling, first query after norm, projected; global_token is that query at embedding width"
        how = {"tok": "CLS", "avg": "mean of patch tokens"}.get(visual.pool_type)
        if how is None:
            raise UsageError(f"pool_type {visual.pool_type!r} of this open_clip tower gives no single vector")
        return f"{how} {'then' if visual.final_ln_after_pool else 'after'} final norm, projected"

    def forward(self, images_B3HW: Tensor, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """One pass; stops behind the last tapped block unless `pooled`."""
        visual = self._visual
        if norm == "final" and visual.attn_pool is not None:
            raise UsageError(
                "norm=final: this tower normalises after attention pooling only; read its tokens with norm=none"
            )
        x_BND, grid = self._embed(images_B3HW)
        tokens: dict[int, Tensor] = {}
        class_token: dict[int, Tensor] = {}
        last = self.depth - 1 if pooled else max(layers, default=-1)
        for i, block in enumerate(visual.transformer.resblocks[: last + 1]):
            x_BND = block(x_BND)
            if i in layers:
                y_BND = visual.ln_post(x_BND) if norm == "final" else x_BND
                tokens[i], class_token[i] = y_BND[:, 1:].unflatten(1, grid), y_BND[:, 0]
        if not pooled:
            return Features(tokens=tokens, pooled=None, global_token=None, class_token=class_token)
        global_BC = visual._pool(x_BND)[0]
        pooled_BD = global_BC if visual.proj is None else global_BC @ visual.proj
        return Features(tokens=tokens, pooled=pooled_BD, global_token=global_BC, class_token=class_token)

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        visual = self._visual
        x_BDHW = visual.conv1(images_B3HW)
        grid = (x_BDHW.shape[2], x_BDHW.shape[3])
        cls_B1D = visual.class_embedding.to(x_BDHW.dtype).expand(x_BDHW.shape[0], 1, -1)
        pos_1ND = visual.positional_embedding[None].to(x_BDHW.dtype)
        pos_1ND = resize_pos_embed(pos_1ND, grid, visual.grid_size, 1, self.pos_interp)
        x_BND = torch.cat([cls_B1D, x_BDHW.flatten(2).transpose(1, 2)], dim=1) + pos_1ND
        return visual.ln_pre(visual.patch_dropout(x_BND)), grid


class TimmTower:
    """A timm transformer inside open_clip's TimmModel, made to accept any multiple of its patch."""

    def __init__(self, visual: Any) -> None:
        self._visual = visual
        self._trunk = trunk = visual.trunk
        positions = [] if trunk.pos_embed is None else ["bicubic-antialias"]
        self.pos_interp = "+".join(positions + ([] if getattr(trunk, "rope", None) is None else ["rope"])) or "none"
        # Models that pool by averaging keep their only norm behind the pool (`fc_norm`).
        self._norm = next((n for n in (trunk.norm, trunk.fc_norm) if not isinstance(n, nn.Identity)), None)
        self.patch_size = int(trunk.patch_embed.patch_size[0])
        self.depth = len(trunk.blocks)
        self.width = int(trunk.embed_dim)
        how = (
            "attention pooling"
            if getattr(trunk, "attn_pool", None) is not None
            else f"timm {trunk.global_pool!r} pooling"
        )
        projected = len(visual.head) > 0 or not isinstance(trunk.head, nn.Identity)
        self.pooling = f"{how} after final norm" + (", projected" if projected else "")
        self.has_class_token = getattr(trunk, "cls_token", None) is not None
        _accept_any_size(trunk)

    def forward(self, images_B3HW: Tensor, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """One pass; stops behind the last tapped block unless `pooled`."""
        trunk = self._trunk
        if norm == "final" and layers and self._norm is None:
            raise UsageError("norm=final: this tower has no final norm; read its tokens with norm=none")
        grid = (images_B3HW.shape[2] // self.patch_size, images_B3HW.shape[3] // self.patch_size)
        rope = getattr(trunk, "rope", None)
        if rope is not None:
            # timm caches the rotary table for one grid; the table is no weight, so rebuilding it changes no hash.
            rope.update_feat_shape(list(grid))
        wanted = sorted(set(layers))
        taps: list[Tensor] = []
        class_token: dict[int, Tensor] = {}
        final_BND = trunk.forward_features(images_B3HW) if pooled and not wanted else None
        if wanted:
            result = trunk.forward_intermediates(
                images_B3HW,
                indices=wanted,
                output_fmt="NLC",
                intermediates_only=not pooled,
                stop_early=not pooled,
                return_prefix_tokens=self.has_class_token,
            )
            final_BND, taps = result if pooled else (None, result)
            normed = self._norm if norm == "final" and self._norm is not None else nn.Identity()
            if self.has_class_token:
                class_token = {i: normed(prefix_BPD[:, 0]) for i, (_, prefix_BPD) in zip(wanted, taps, strict=True)}
                taps = [t_BND for t_BND, _ in taps]
            taps = [normed(t_BND) for t_BND in taps]
        tokens = {i: t_BND.unflatten(1, grid) for i, t_BND in zip(wanted, taps, strict=True)}
        if final_BND is None:
            return Features(tokens=tokens, pooled=None, global_token=None, class_token=class_token)
        global_BC = trunk.forward_head(final_BND, pre_logits=True)
        pooled_BD = self._visual.head(trunk.head(global_BC))
        return Features(tokens=tokens, pooled=pooled_BD, global_token=global_BC, class_token=class_token)


class PooledTower:
    """A tower without a plain grid of tokens: the pooled embedding at the native size."""

    depth = 0
    has_class_token = False
    pos_interp = "none"

    def __init__(self, visual: Any) -> None:
        self._visual = visual
        size = visual.image_size
        self.patch_size = int(size[0] if isinstance(size, (tuple, list)) else size)
        trunk = getattr(visual, "trunk", visual)
        self.kind = type(trunk).__name__
        self.width = 0
        self.pooling = f"what {self.kind} pools, projected"

    def forward(self, images_B3HW: Tensor, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """One pass."""
        side = self.patch_size
        if tuple(images_B3HW.shape[2:]) != (side, side):
            raise UsageError(f"{self.kind} image towers take {side}x{side} only, got {tuple(images_B3HW.shape[2:])}")
        pooled_BD = self._visual(images_B3HW)
        if isinstance(pooled_BD, tuple):
            pooled_BD = pooled_BD[0]
        return Features(tokens={}, pooled=pooled_BD if pooled else None, global_token=pooled_BD if pooled else None)


def _accept_any_size(trunk: Any) -> None:
    """What timm's constructor does for `dynamic_img_size=True`, which open_clip does not pass on."""
    from timm.layers import Format

    trunk.dynamic_img_size = True
    trunk.patch_embed.strict_img_size = False
    trunk.patch_embed.flatten = False
    trunk.patch_embed.output_fmt = Format.NHWC
