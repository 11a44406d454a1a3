"""Which features the depth probe reads: block, norm, statistics, and what stands in for the global token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mtv.eval.preparations import Triple, statistics_of
from mtv.eval.protocols_dense import NyuProtocol
from mtv.probes.depth_head import token_grid
from mtv.probes.resample import patch_padding

if TYPE_CHECKING:
    from torch import Tensor

    from mtv.encoders.base import Encoder, Features


@dataclass(frozen=True, kw_only=True)
class DepthTap:
    """A protocol's tap, resolved for one encoder."""

    layer: int
    """Block, 0-based."""
    norm: Literal["none", "final"]
    """Tap of patch and global token."""
    class_token: bool
    """The global token is the class token; else the pooled vector, which some encoders take after their final norm
    whatever the tap."""
    mean: Triple
    """Of pixels in [0, 1]."""
    std: Triple
    """Of pixels in [0, 1]."""

    @property
    def outputs(self) -> tuple[str, str]:
        """Names of patch and global token among a sample's stored features."""
        return f"layer{self.layer}", f"cls{self.layer}" if self.class_token else "global"

    def request(self) -> dict[str, Any]:
        """The fields of a `FeatureRequest` that say what is read."""
        return {
            "layers": (self.layer,),
            "norm": self.norm,
            "class_token": self.class_token,
            "global_token": not self.class_token,
            "mean": self.mean,
            "std": self.std,
            "pad_to_patch": True,
        }

    def of(self, features: Features) -> tuple[Tensor, Tensor | None]:
        """Patch tokens B,H,W,D and global token B,D of a forward pass made with this tap."""
        return features.tokens[self.layer], (
            features.class_token.get(self.layer) if self.class_token else features.global_token
        )


def resolve_tap(protocol: NyuProtocol, encoder: Encoder) -> DepthTap:
    """The tap of a protocol on an encoder.

    Raises:
        UsageError: no such block.
    """
    automatic: Literal["none", "final"] = "none" if encoder.has_class_token else "final"
    statistics: Literal["imagenet", "model"] = "model" if protocol.image_stats == "native" else "imagenet"
    mean, std = statistics_of(statistics, encoder.info.image)
    return DepthTap(
        layer=encoder.resolve_layer(protocol.layer),
        norm=automatic if protocol.feat_norm == "auto" else protocol.feat_norm,
        class_token=encoder.has_class_token,
        mean=mean,
        std=std,
    )


def describe_tap(tap: DepthTap, encoder: Encoder) -> dict[str, Any]:
    """What the result records about the features."""
    return {
        "layer": tap.layer,
        "feat_norm": tap.norm,
        "global_token": "class token" if tap.class_token else encoder.info.pooling,
        "mean": list(tap.mean),
        "std": list(tap.std),
        "patch_size": encoder.patch_size,
        "width": encoder.width,
        "pos_interp": encoder.info.pos_interp,
    }


def describe_input(size: tuple[int, int], patch: int) -> dict[str, list[int]]:
    """(height, width) of what the encoder gets, before and after patch padding, and its tokens."""
    padded = [side + sum(patch_padding(side, patch)) for side in size]
    return {"size": list(size), "padded": padded, "tokens": list(token_grid(size, patch))}
