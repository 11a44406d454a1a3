"""Which features the segmentation probe reads, and the token maps of its windows by sample id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtv.eval.features.api import FeatureSet
from mtv.eval.preparations import Triple, statistics_of
from mtv.eval.protocols_dense import SegmentationProtocol

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder


@dataclass(frozen=True, kw_only=True)
class SegmentationTap:
    """A protocol's tap, resolved for one encoder. Pixels are normalised with the encoder's own statistics."""

    layers: tuple[int, ...]
    """Blocks, 0-based."""
    norm: str
    """`final` or `none`."""
    concat_global: bool
    """The global token is appended to every patch token."""
    mean: Triple
    """Of pixels in [0, 1]."""
    std: Triple
    """Of pixels in [0, 1]."""

    def request(self) -> dict[str, Any]:
        """The fields of a `FeatureRequest` that say what is read."""
        return {
            "layers": self.layers,
            "norm": self.norm,
            "global_token": self.concat_global,
            "mean": self.mean,
            "std": self.std,
        }

    def width(self, encoder: Encoder) -> int:
        """Channels that the head reads."""
        return encoder.width * (len(self.layers) + self.concat_global)

    def tokens(self, features: FeatureSet, ids: Sequence[str]) -> Tensor:
        """Float32 B,h,w,D of samples of one window size, on the CPU."""
        maps = [features.stack(ids, f"layer{i}") for i in self.layers]
        if self.concat_global:
            global_BD = features.stack(ids, "global")
            maps.append(global_BD[:, None, None].expand(*maps[0].shape[:3], -1))
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=-1)


def resolve_tap(protocol: SegmentationProtocol, encoder: Encoder) -> SegmentationTap:
    """The tap of a protocol on an encoder.

    Raises:
        UsageError: no such block.
    """
    mean, std = statistics_of("model", encoder.info.image)
    return SegmentationTap(
        layers=tuple(encoder.resolve_layer(i) for i in protocol.layers),
        norm=protocol.tap,
        concat_global=protocol.concat_global,
        mean=mean,
        std=std,
    )


def describe_tap(tap: SegmentationTap, encoder: Encoder) -> dict[str, Any]:
    """What the result records about the features."""
    return {
        "layers": list(tap.layers),
        "tap": tap.norm,
        "global_token": encoder.info.pooling if tap.concat_global else None,
        "mean": list(tap.mean),
        "std": list(tap.std),
        "patch_size": encoder.patch_size,
        "width": tap.width(encoder),
        "pos_interp": encoder.info.pos_interp,
    }


class WindowTokens:
    """Token maps by sample id, whichever of several requests brought them.

    Args:
        sets: features of the requests.
        tap: what was stored.
    """

    def __init__(self, sets: Sequence[FeatureSet], tap: SegmentationTap) -> None:
        self._sets = sets
        self._tap = tap

    def get(self, ids: Sequence[str]) -> Tensor:
        """Float32 B,h,w,D on the CPU, in the order of `ids`, whose windows have one size.

        Raises:
            UsageError: an id of no request.
        """
        tokens_BhwD: Tensor | None = None
        groups: dict[int, list[int]] = {}
        for place, sample_id in enumerate(ids):
            owner = next((k for k, s in enumerate(self._sets) if sample_id in s), 0)
            groups.setdefault(owner, []).append(place)
        for owner, places in groups.items():
            part = self._tap.tokens(self._sets[owner], [ids[p] for p in places])
            if len(groups) == 1:
                return part
            if tokens_BhwD is None:
                tokens_BhwD = part.new_empty(len(ids), *part.shape[1:])
            tokens_BhwD[places] = part
        assert tokens_BhwD is not None, "there is at least one id"
        return tokens_BhwD
