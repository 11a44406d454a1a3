"""The one interface between models and everything else: a frozen encoder that turns pictures and strings into tensors.

An `Encoder` is in evaluation mode, has no gradients, and never changes after loading. Which tap is read (which block,
before or after the final norm) is always said by the caller.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mtv.encoders.records import EncoderInfo, ImageRecord
from mtv.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from mtv.encoders.depth_head import LinearDepthHead

Tap = Literal["none", "final"]
TextKind = Literal["prompt", "caption"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What one forward pass returns. All tensors are on the encoder's device and in its dtype."""

    tokens: dict[int, Tensor]
    """Block index (0-based from the first block) to patch tokens, B,H,W,D; prefix tokens (CLS, registers) removed."""
    pooled: Tensor | None
    """B,D: the image embedding that zero-shot tasks compare with text (projected where the model projects); not
    normalised. None unless asked for."""
    global_token: Tensor | None
    """B,C at the width of `tokens`: CLS after the final norm, attention-pooled vector before a projection, or the
    documented rule `info.pooling`. None unless asked for."""
    class_token: dict[int, Tensor] = field(default_factory=dict)
    """Block index to the class token behind that block, B,D, under the tap of `tokens`; empty for encoders that have
    none (`Encoder.has_class_token`)."""


class Encoder(abc.ABC):
    """A frozen vision encoder, with a text tower and a depth head where the model has them."""

    info: EncoderInfo
    patch_size: int
    """Pixels per token side."""
    depth: int
    """Number of blocks: valid layers are 0 .. depth-1, or negative from the end."""
    width: int
    """Channels of the patch tokens."""
    embed_dim: int
    """Channels of `Features.pooled` and of text embeddings."""
    has_class_token: bool = False
    """Whether tapped layers come with a class token (`Features.class_token`)."""
    fitted_depth: LinearDepthHead | None = None
    """Head on the patch tokens from `?depth_head=FILE`; models that bring a head override `forward_depth` instead."""

    @property
    @abc.abstractmethod
    def module(self) -> torch.nn.Module:
        """The underlying model (for moving it between devices and for hashing)."""

    @abc.abstractmethod
    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """`features` after its arguments were checked: layers are 0-based and the sides are multiples of the patch."""

    def features(
        self, images_B3HW: Tensor, *, layers: Sequence[int] = (), norm: Tap | None = None, pooled: bool = False
    ) -> Features:
        """One pass over normalised images of any size that is a multiple of the patch.

        Args:
            images_B3HW: normalised pixels (see `normalize`), on the encoder's device.
            layers: blocks to tap, 0-based or negative from the end; none for the pooled vector alone.
            norm: `final` applies the model's final norm to every tapped layer, `none` reads the residual stream.
                Required as soon as a layer is asked for.
            pooled: also return `pooled` and `global_token`.

        Raises:
            UsageError: a layer out of range, sides that are no multiple of the patch, `norm` left open.
        """
        self._check_sides(images_B3HW)
        if layers and norm is None:
            raise UsageError("features: name the tap, norm='final' or norm='none', whenever layers are read")
        resolved = [self.resolve_layer(i) for i in layers]
        # inference_mode tensors could not enter a head that is trained on them, so no_grad.
        with torch.no_grad():
            return self.forward_features(images_B3HW, layers=resolved, norm=norm or "none", pooled=pooled)

    def _check_sides(self, images_B3HW: Tensor) -> None:
        height, width = images_B3HW.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise UsageError(
                f"image size {height}x{width} is no multiple of patch size {self.patch_size}",
                f"Use multiples of {self.patch_size}, for example {height // self.patch_size * self.patch_size}.",
            )

    @property
    def has_depth(self) -> bool:
        """Whether the model can predict depth."""
        return self.info.depth_head is not None

    def predict_depth(self, images_B3HW: Tensor) -> Tensor:
        """Disparity or depth (`info.depth_head.kind`) of normalised images, B,h,w float32 on the encoder's device.

        The map covers the whole picture at a resolution of the head's own. The head computes in float32 whatever the
        towers' dtype.

        Args:
            images_B3HW: as for `features`.

        Raises:
            UsageError: no depth head, or a size that the model cannot take.
        """
        if not self.has_depth:
            raise UsageError(f"{self.info.spec} has no depth head", "Fit one: mtv-eval depth-head, ?depth_head=FILE.")
        self._check_sides(images_B3HW)
        with torch.no_grad():
            return self.forward_depth(images_B3HW).float()

    def forward_depth(self, images_B3HW: Tensor) -> Tensor:
        """`predict_depth` after its argument was checked; overridden where the model has a head of its own."""
        head = self.fitted_depth
        assert head is not None, f"{type(self).__name__} records a depth head but has none"
        tokens = self.features(images_B3HW, layers=(head.layer,), norm=head.norm).tokens
        return head(tokens[self.resolve_layer(head.layer)])

    def resolve_layer(self, index: int) -> int:
        """0-based block index of `index`, which may count from the end.

        Raises:
            UsageError: no such block.
        """
        if not -self.depth <= index < self.depth:
            raise UsageError(f"layer {index} does not exist: {self.info.architecture} has {self.depth} blocks")
        return index % self.depth

    @property
    def has_text(self) -> bool:
        """Whether the model can embed strings."""
        return self.info.text is not None

    def encode_text(self, strings: Sequence[str], *, kind: TextKind = "prompt", batch_size: int = 256) -> Tensor:
        """Text embeddings, float32, not normalised, in the order of `strings`, on the encoder's device.

        Cleaning (by `kind`) and tokenisation happen inside, each unique string once; batches are cut to their longest
        text where that is exact (`info.text.trim`).

        Args:
            strings: any number of texts, raw.
            kind: `prompt` or `caption`: some families clean them differently.
            batch_size: texts per forward pass at full length; shorter texts are packed up to the same token budget.

        Returns:
            N,D.

        Raises:
            UsageError: the model has no text tower.
        """
        raise UsageError(f"{self.info.spec} has no text tower; use tasks without text (knn, spair, navi, sevenscenes)")

    def transform(self, record: ImageRecord | None = None) -> Callable[[Image.Image], Tensor]:
        """PIL picture to uint8 tensor 3,S,S under `record` (the model's own by default); picklable, for workers."""
        from mtv.encoders.preprocess import ImageTransform

        return ImageTransform(record or self.info.image)

    def normalize(self, pixels_B3HW: Tensor, record: ImageRecord | None = None) -> Tensor:
        """uint8 pixels to the model's input: moved to its device, scaled to [0, 1], normalised in fp32, then cast."""
        record = record or self.info.image
        x = pixels_B3HW.to(self.device, non_blocking=True).float().div_(255)
        mean = torch.tensor(record.mean, device=x.device).view(1, 3, 1, 1)
        std = torch.tensor(record.std, device=x.device).view(1, 3, 1, 1)
        return x.sub_(mean).div_(std).to(self.dtype)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the towers."""
        return next(self.module.parameters()).dtype

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Encoder:
        """Move the towers in place and return self."""
        self.module.to(device=device, dtype=dtype)
        return self
