"""Sizes of the model and of its heads, as plain values. No torch here: recipes and light commands read this file.

* `SIZES` holds the paper's B/16 and L/16, and two sizes for CPUs; `ModelSize.with_` makes variants.
* Every check names the field. Figures: `protocols/pretraining.md` sections 1 and 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mtv.errors import UsageError

Objective = Literal["vl", "ssl", "ground", "depth"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
Conditioning = Literal["query", "token"]
TapNorm = Literal["final", "raw", "own"]

MINI_VOCABULARY = 4610
"""Ids of the built-in `mini-bpe-4096`: 2 special ones, 512 byte symbols, 4,096 merges."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image tower."""

    image_size: int
    """Side of the global view in pixels; the position table has this size."""
    patch_size: int = 16
    """Pixels per token side."""
    width: int
    """Channels D."""
    layers: int
    """Number of blocks."""
    heads: int
    """Attention heads of the blocks and of the pooling."""
    mlp_width: int
    """Hidden channels of the MLPs."""

    def __post_init__(self) -> None:
        _positive(self, "vision", ("image_size", "patch_size", "width", "layers", "heads", "mlp_width"))
        _divides(self.image_size, self.patch_size, "vision.image_size", "vision.patch_size")
        _divides(self.width, self.heads, "vision.width", "vision.heads")

    @property
    def grid(self) -> int:
        """Tokens per side at the native size."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Tokens N at the native size."""
        return self.grid**2


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower."""

    vocab_size: int = 32000
    """Rows of the token table."""
    positions: int = 64
    """Tokens per text, always; the embedding is read at the last one."""
    width: int
    """Channels D."""
    layers: int
    """Number of blocks."""
    heads: int
    """Attention heads."""
    mlp_width: int
    """Hidden channels of the MLPs."""

    def __post_init__(self) -> None:
        _positive(self, "text", ("vocab_size", "positions", "width", "layers", "heads", "mlp_width"))
        _divides(self.width, self.heads, "text.width", "text.heads")
        if self.vocab_size < 2 or self.positions < 2:
            raise UsageError(
                f"text.vocab_size={self.vocab_size} and text.positions={self.positions} must both be at least 2"
            )


@dataclass(frozen=True, kw_only=True)
class SslConfig:
    """Each of the two self-supervised heads."""

    prototypes: int = 32768
    """Prototypes K."""
    hidden: int = 2048
    """Channels of the two hidden layers."""
    bottleneck: int = 256
    """Channels C that are normalised before the prototypes."""

    def __post_init__(self) -> None:
        _positive(self, "ssl", ("prototypes", "hidden", "bottleneck"))


@dataclass(frozen=True, kw_only=True)
class PrompterConfig:
    """The box-conditioned layer of the grounding objective."""

    heads: int = 1
    """Attention heads; the parameter count does not depend on it."""
    conditioning: Conditioning = "query"
    """`query`: the box enters the query token, so it can select patches; `token`: the literal [o; l; z*], where it
    cannot (section 4.3)."""
    pe_low: float = 0.5
    """Lowest frequency of the box encoding, cycles per image."""
    pe_high: float = 16.0
    """Highest frequency, cycles per image."""
    own_scale: bool = False
    """A scale and a bias of its own instead of the pair of the image-text loss (+2 parameters)."""

    def __post_init__(self) -> None:
        _positive(self, "ground", ("heads",))
        if self.conditioning not in get_args(Conditioning):
            raise UsageError(f"ground.conditioning must be query or token, got {self.conditioning!r}")
        if not 0 < self.pe_low < self.pe_high:
            raise UsageError(f"ground.pe_low={self.pe_low} must be positive and below ground.pe_high={self.pe_high}")


@dataclass(frozen=True, kw_only=True)
class DptConfig:
    """The depth head."""

    taps: tuple[int, ...]
    """Four blocks whose outputs are read, 1-based, shallow to deep; the last one is the tower's last. A tower of
    fewer than four blocks repeats some."""
    tap_widths: tuple[int, ...]
    """Channels that each tap is projected to, shallow to deep."""
    features: int
    """Channels F of the fusion."""
    tap_norm: TapNorm = "final"
    """`final`: taps pass the tower's post LayerNorm; `raw`: as they are; `own`: one shared LayerNorm of the head."""
    final_act: bool = False
    """ReLU on the output; off, because heads with it die (section 10)."""
    out_hidden: int = 32
    """Channels before the last 1x1."""

    def __post_init__(self) -> None:
        for name in ("taps", "tap_widths"):
            object.__setattr__(self, name, tuple(int(v) for v in getattr(self, name)))
            if len(getattr(self, name)) != 4:
                raise UsageError(f"depth.{name} needs four numbers, got {getattr(self, name)}")
        _positive(self, "depth", ("features", "out_hidden"))
        if self.taps[0] < 1 or list(self.taps) != sorted(self.taps):
            raise UsageError(f"depth.taps must not fall and start at 1 or more, got {self.taps}")
        if min(self.tap_widths) < 1 or self.features % 2:
            raise UsageError(
                f"depth.tap_widths={self.tap_widths} must be positive, depth.features={self.features} even"
            )
        if self.tap_norm not in get_args(TapNorm):
            raise UsageError(f"depth.tap_norm must be final, raw or own, got {self.tap_norm!r}")


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Towers and depth head that belong together."""

    name: str
    """Key in `SIZES`, or the name of a variant."""
    vision: VisionConfig
    """Image tower."""
    text: TextConfig
    """Text tower; of the same width, since embeddings are compared without a projection of the image."""
    dpt: DptConfig
    """Depth head."""

    def __post_init__(self) -> None:
        if self.vision.width != self.text.width:
            raise UsageError(f"vision.width={self.vision.width} and text.width={self.text.width} must be equal")
        _divides(self.vision.width, 8, "vision.width", "the box encoding's 4 corners x (sin, cos)")
        if self.dpt.taps[-1] != self.vision.layers:
            raise UsageError(f"depth.taps={self.dpt.taps} must end at the last block, {self.vision.layers}")

    def with_(
        self,
        *,
        name: str | None = None,
        vision: Mapping[str, Any] | None = None,
        text: Mapping[str, Any] | None = None,
        dpt: Mapping[str, Any] | None = None,
    ) -> ModelSize:
        """A copy with some fields of its parts replaced and checked again."""
        return ModelSize(
            name=name or self.name,
            vision=replace(self.vision, **dict(vision or {})),
            text=replace(self.text, **dict(text or {})),
            dpt=replace(self.dpt, **dict(dpt or {})),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ModelSize:
        """The inverse of `to_dict`.

        Raises:
            UsageError: a field that is missing, unknown or out of range.
        """
        try:
            vision, text = VisionConfig(**value["vision"]), TextConfig(**value["text"])
            return cls(name=str(value["name"]), vision=vision, text=text, dpt=DptConfig(**value["dpt"]))
        except (KeyError, TypeError) as e:
            raise UsageError(f"model size: {e}") from e


def check_objectives(objectives: frozenset[str]) -> None:
    """Refuse an empty set or an unknown objective.

    Raises:
        UsageError: names them.
    """
    wrong = sorted(objectives - set(OBJECTIVES))
    if wrong or not objectives:
        raise UsageError(
            f"objectives: {', '.join(wrong) or 'none given'}", f"Choose from {', '.join(OBJECTIVES)}, at least one."
        )


def _positive(config: Any, group: str, fields: tuple[str, ...]) -> None:
    for name in fields:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{group}.{name} must be a positive integer, got {value!r}")


def _divides(value: int, by: int, name: str, by_name: str) -> None:
    if value % by:
        raise UsageError(f"{name}={value} must be a multiple of {by_name} ({by})")


def _tower(width: int, layers: int, heads: int) -> dict[str, int]:
    return {"width": width, "layers": layers, "heads": heads, "mlp_width": 4 * width}


def _mini_text(positions: int, **tower: int) -> TextConfig:
    return TextConfig(vocab_size=MINI_VOCABULARY, positions=positions, **tower)


SIZES: Mapping[str, ModelSize] = {
    size.name: size
    for size in (
        ModelSize(
            name="b16",
            vision=VisionConfig(image_size=224, **_tower(768, 12, 12)),
            text=TextConfig(**_tower(768, 12, 12)),
            dpt=DptConfig(taps=(3, 6, 9, 12), tap_widths=(96, 192, 384, 768), features=128),
        ),
        ModelSize(
            name="l16",
            vision=VisionConfig(image_size=256, **_tower(1024, 24, 16)),
            text=TextConfig(**_tower(1024, 24, 16)),
            dpt=DptConfig(taps=(6, 12, 18, 24), tap_widths=(256, 512, 1024, 1024), features=256),
        ),
        ModelSize(
            name="tiny",
            vision=VisionConfig(image_size=64, patch_size=8, **_tower(192, 6, 4)),
            text=_mini_text(32, **_tower(192, 4, 4)),
            dpt=DptConfig(taps=(2, 3, 5, 6), tap_widths=(24, 48, 96, 192), features=32, out_hidden=16),
        ),
        ModelSize(
            name="nano",
            vision=VisionConfig(image_size=32, patch_size=8, **_tower(64, 4, 2)),
            text=_mini_text(16, **_tower(64, 2, 2)),
            dpt=DptConfig(taps=(1, 2, 3, 4), tap_widths=(8, 16, 32, 64), features=16, out_hidden=8),
        ),
    )
}
