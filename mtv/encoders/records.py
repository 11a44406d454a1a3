"""What is known about a model's input and depth head, field by field, and where each field came from.

No torch here: `mtv-eval ls` and the protocol hash read these records.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from mtv.errors import UsageError
from mtv.training_record import TrainingRecord

Resize = Literal["crop", "squash", "border"]
Filter = Literal["bicubic", "bilinear", "nearest"]
Cleaning = Literal["none", "lower", "clip", "canonicalize"]
DepthKind = Literal["disparity", "depth"]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """How a picture becomes the model's input. Part of every feature key."""

    size: int
    """Side of the square input in pixels."""
    mean: tuple[float, float, float]
    """Per-channel mean of values in [0, 1], RGB."""
    std: tuple[float, float, float]
    """Per-channel standard deviation of values in [0, 1], RGB."""
    resize: Resize
    """`crop`: shorter side to floor(size / crop_pct), centre crop; `squash`: both sides to size; `border`: longer side
    to size, padded with the mean colour."""
    crop_pct: float = 1.0
    """Share of the resized shorter side that the centre crop keeps; 1 for all but some timm models."""
    filter: Filter = "bicubic"
    """Interpolation of the resize, antialiased."""
    back_end: Literal["pil"] = "pil"
    """Library that resizes: results differ between libraries by up to 13 grey levels."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise UsageError(f"image.{name} needs three numbers, got {getattr(self, name)}")
        if not isinstance(self.size, int) or self.size < 1:
            raise UsageError(f"image.size must be a positive integer, got {self.size!r}")
        if min(self.std) <= 0:
            raise UsageError(f"image.std must be positive, got {self.std}")
        if not 0 < self.crop_pct <= 1:
            raise UsageError(f"image.crop_pct must be in (0, 1], got {self.crop_pct}")
        if self.resize not in ("crop", "squash", "border"):
            raise UsageError(f"image.resize must be crop, squash or border, got {self.resize!r}")
        if self.filter not in ("bicubic", "bilinear", "nearest"):
            raise UsageError(f"image.filter must be bicubic, bilinear or nearest, got {self.filter!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for canonical JSON."""
        return asdict(self)

    def with_(self, **changes: Any) -> ImageRecord:
        """A copy with some fields replaced and checked again."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class TextRecord:
    """How a string becomes token ids. Part of every text feature key."""

    cleaning: Cleaning
    """Cleaning of prompts (classification)."""
    caption_cleaning: Cleaning
    """Cleaning of captions (retrieval); differs from `cleaning` for SigLIP2."""
    tokenizer: str
    """Name of the vocabulary and a hash of it, never a path."""
    length: int
    """Context length in tokens; longer text is cut so that EOS stays last."""
    bos: int | None
    """Id put first, or none."""
    eos: int
    """Id put last."""
    pad: int
    """Id that fills up to `length`, on the right."""
    causal: bool
    """Causal attention and pooling at EOT: the condition for exact trimming."""
    trim: bool
    """Whether batches are cut to their longest text; verified on probe strings at load time."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for canonical JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class DepthHeadRecord:
    """What `Encoder.predict_depth` gives, and how the model's own preprocessing resizes pictures for it."""

    kind: DepthKind
    """`disparity`: larger is nearer, up to scale and shift; `depth`: larger is farther, metres or up to scale and
    shift."""
    floored: bool = False
    """Ends in a ReLU, so that a 0 only says `at most`: a fit to the truth leaves such pixels out."""
    keep_aspect: bool = False
    """The model's processor scales one side to `image.size` and keeps the picture's proportions; else both sides."""
    multiple: int = 1
    """Sides after the processor's resize are multiples of this."""
    fitted_on: str = ""
    """Data that a head of ours was fitted on, printed beside every number; empty for a head that came with the
    model."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(DepthKind):
            raise UsageError(f"depth_head.kind must be disparity or depth, got {self.kind!r}")
        if isinstance(self.multiple, bool) or not isinstance(self.multiple, int) or self.multiple < 1:
            raise UsageError(f"depth_head.multiple must be a positive integer, got {self.multiple!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for canonical JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """What strict loading found. Both lists are empty unless an option or the adapter names the keys as optional."""

    missing: tuple[str, ...] = ()
    """Parameters of the model that the file does not hold (left at their initialisation)."""
    unexpected: tuple[str, ...] = ()
    """Entries of the file that the model has no place for (ignored)."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Which rule decided a field: `option`, `config`, `tag` or `family` (in that precedence), with the evidence."""

    rule: Literal["option", "config", "tag", "family"]
    """The rule that won."""
    evidence: str
    """File name, tag or family that supplied the value."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.evidence}"


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """Everything about a loaded model that a result record stores (`protocols/harness.md` section 3, `model`)."""

    spec: str
    """The spec string as resolved, without machine-specific directories."""
    alias: str | None
    """Alias under which the user asked for it."""
    adapter: str
    """Backend: open_clip, timm, hf, mtv, python."""
    architecture: str
    """The backend's name of the architecture."""
    family: str
    """Policy family: clip, siglip, siglip2, dinov2, vit, ... or `custom`."""
    random: bool
    """True when the weights are a random initialisation; labelled so everywhere."""
    weights_sha256: str
    """Hash over the sorted (name, shape, dtype, bytes) of the state dict: equal for .pt and .safetensors."""
    fingerprint: str
    """Hash over architecture, weights, image and text record: the model's identity in every key."""
    params_m: float
    """Parameters, millions."""
    params_by_tower: dict[str, float]
    """Millions of parameters of `vision` and `text`."""
    activation: str
    """MLP activation: gelu, quick_gelu, gelu_tanh, swiglu ..."""
    pos_interp: str
    """How position embeddings are resampled to other sizes, e.g. `bicubic-antialias`."""
    pooling: str
    """What `Features.pooled` is, in words (CLS after norm, attention pooling, mean of patch tokens ...)."""
    image: ImageRecord
    """Input policy."""
    text: TextRecord | None
    """Text policy, none for encoders without a text tower."""
    sources: dict[str, str]
    """Field name (`image.mean`, `text.cleaning`, `activation`) to the rule that decided it."""
    keys: KeyReport = field(default_factory=KeyReport)
    """Missing and unexpected keys."""
    depth_head: DepthHeadRecord | None = None
    """Depth head, none for encoders without one."""
    training: TrainingRecord | None = None
    """Which run of `mtv-train` made the weights; none for models from elsewhere."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values in the schema of the result record."""
        return asdict(self)
