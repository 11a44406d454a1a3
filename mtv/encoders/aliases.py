"""Short names for the models that papers compare most. No torch here: `mtv-eval ls models` prints this table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Alias:
    """One row of the table."""

    name: str
    """What the user types."""
    spec: str
    """What it stands for."""
    params_m: float
    """Parameters of the whole model (towers, no classification head), millions."""
    size: int
    """Native input side in pixels."""
    patch: int
    """Pixels per token side."""
    has_text: bool
    """Whether zero-shot tasks can run."""
    source: str
    """Where the weights are published: hub repository, or library and tag."""
    note: str
    """One line for the listing."""


def _row(
    name: str, spec: str, params_m: float, size: int, patch: int, has_text: bool, source: str, note: str
) -> tuple[str, Alias]:
    row = Alias(
        name=name, spec=spec, params_m=params_m, size=size, patch=patch, has_text=has_text, source=source, note=note
    )
    return name, row


_OC = "open_clip:"
_MTV = "Becomebright/MTV"
_DINOV2 = "dinov2.lvd142m"

ALIASES: dict[str, Alias] = dict(
    [
        _row("clip-b32", f"{_OC}ViT-B-32-quickgelu/openai", 151.3, 224, 32, True, "OpenAI", "CLIP ViT-B/32"),
        _row("clip-b16", f"{_OC}ViT-B-16-quickgelu/openai", 149.6, 224, 16, True, "OpenAI", "CLIP ViT-B/16"),
        _row("clip-l14", f"{_OC}ViT-L-14-quickgelu/openai", 427.6, 224, 14, True, "OpenAI", "CLIP ViT-L/14"),
        _row("siglip-b16", f"{_OC}ViT-B-16-SigLIP/webli", 203.2, 224, 16, True, "Google, WebLI", "SigLIP B/16"),
        _row("siglip-l16", f"{_OC}ViT-L-16-SigLIP-256/webli", 652.2, 256, 16, True, "Google, WebLI", "SigLIP L/16"),
        _row("siglip2-b16", f"{_OC}ViT-B-16-SigLIP2/webli", 375.2, 224, 16, True, "Google, WebLI", "SigLIP2 B/16"),
        _row("siglip2-l16", f"{_OC}ViT-L-16-SigLIP2-256/webli", 881.5, 256, 16, True, "Google, WebLI", "SigLIP2 L/16"),
        _row("mtv-b16", f"hf:{_MTV}-base-patch16-224", 203.2, 224, 16, True, f"{_MTV} (hub)", "MTV B/16, 100M"),
        _row("mtv-l16", f"hf:{_MTV}-large-patch16-256", 652.2, 256, 16, True, f"{_MTV} (hub)", "MTV L/16, 100M"),
        _row("dino-b16", "timm:vit_base_patch16_224.dino", 85.8, 224, 16, False, "Meta", "DINO ViT-B/16"),
        _row("mae-b16", "timm:vit_base_patch16_224.mae", 85.8, 224, 16, False, "Meta", "MAE ViT-B/16"),
        _row("mae-l16", "timm:vit_large_patch16_224.mae", 303.3, 224, 16, False, "Meta", "MAE ViT-L/16"),
        _row("dinov2-b14", f"timm:vit_base_patch14_{_DINOV2}", 86.6, 518, 14, False, "Meta, LVD-142M", "DINOv2 B/14"),
        _row("dinov2-l14", f"timm:vit_large_patch14_{_DINOV2}", 304.4, 518, 14, False, "Meta, LVD-142M", "DINOv2 L/14"),
    ]
)
