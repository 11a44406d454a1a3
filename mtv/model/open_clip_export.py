"""A model as a directory in open_clip's layout (`protocols/pretraining.md` section 13, last bullet).

open_clip builds SigLIP's image tower from timm's list, with exact GELU, and its configuration cannot say otherwise. The
export therefore states tanh for both towers under `act_kwargs`: `mtv-eval` obeys it in both, stock open_clip in the
text tower alone. How far that moves the embeddings is measured at every export and written into its README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mtv.atomic import atomic_write, atomic_write_bytes, atomic_write_json
from mtv.encoders.checkpoint import check_finite
from mtv.errors import CheckpointError, UsageError
from mtv.model.config import ModelSize
from mtv.model.model import MtvModel
from mtv.model.tokenizer import Tokenizer

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"
STOCK_COSINE = 0.999
"""Least cosine that stock open_clip must reach."""
TANH = {"approximate": "tanh"}

TIMM_TOWERS: dict[tuple[int, int, int, int, int], str] = {
    **{(768, 12, 12, 16, s): f"vit_base_patch16_siglip_{s}" for s in (224, 256, 384, 512)},
    **{(1024, 24, 16, 16, s): f"vit_large_patch16_siglip_{s}" for s in (256, 384)},
}
"""(width, layers, heads, patch, image size) to timm's name; open_clip can build no other tower of this kind."""

_BLOCK = {"norm1": "norm1", "qkv": "attn.qkv", "proj": "attn.proj", "norm2": "norm2"}
_BLOCK |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_TEXT_BLOCK = {
    "norm1": "ln_1",
    "proj": "attn.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_SINGLE = {
    "vision.patch_weight": "visual.trunk.patch_embed.proj.weight",
    "vision.patch_bias": "visual.trunk.patch_embed.proj.bias",
    "vision.pool.probe": "visual.trunk.attn_pool.latent",
    "text.tokens": "text.token_embedding.weight",
    "text.positions": "text.positional_embedding",
}
_MODULES = {
    "vision.norm": "visual.trunk.norm",
    "vision.pool.proj": "visual.trunk.attn_pool.proj",
    "vision.pool.norm": "visual.trunk.attn_pool.norm",
    "vision.pool.mlp.fc1": "visual.trunk.attn_pool.mlp.fc1",
    "vision.pool.mlp.fc2": "visual.trunk.attn_pool.mlp.fc2",
    "text.norm": "text.ln_final",
    "text.head": "text.text_projection",
}


@dataclass(frozen=True, kw_only=True)
class StockCosines:
    """Least cosine between our embeddings and those of stock open_clip."""

    image: float
    """Over 8 noise images of the native size."""
    text: float
    """Over 8 random id sequences."""


def export_open_clip(model: MtvModel, directory: Path, *, tokenizer: Tokenizer) -> StockCosines:
    """Write the export and measure it in stock open_clip.

    Args:
        model: with a text tower; without a wrapper around it.
        directory: made when it does not exist.
        tokenizer: the run's.

    Raises:
        UsageError: no text tower, or an image tower that timm does not have.
        CheckpointError: weights that are not finite, or embeddings that leave open_clip too different.
        CacheError: a file cannot be written.
    """
    config = open_clip_config(model.size)
    state = open_clip_state(model)
    check_finite(state, WEIGHTS)
    cosines = _measure(model, config["model_cfg"], state)
    if min(cosines.image, cosines.text) < STOCK_COSINE:
        raise CheckpointError(
            f"open_clip export: cosine to stock open_clip is {cosines.image:.5f} (image), {cosines.text:.5f} (text), "
            f"at least {STOCK_COSINE} is needed",
            "These activations are outside the range where exact and tanh GELU agree; export --to hf instead.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory)
    atomic_write_json(directory / CONFIG, config)
    atomic_write_bytes(directory / "README.md", _readme(model.size, cosines).encode())
    atomic_write(directory / WEIGHTS, lambda p: save_file(state, p, metadata={"format": "pt"}))
    return cosines


def open_clip_config(size: ModelSize) -> dict[str, Any]:
    """`open_clip_config.json`.

    Raises:
        UsageError: an image tower that timm does not have.
    """
    vision, text = size.vision, size.text
    key = (vision.width, vision.layers, vision.heads, vision.patch_size, vision.image_size)
    if key not in TIMM_TOWERS or vision.mlp_width != 4 * vision.width:
        known = ", ".join(sorted(TIMM_TOWERS.values()))
        raise UsageError(
            f"open_clip export: no timm tower has width {vision.width}, {vision.layers} layers, {vision.heads} heads, "
            f"MLP {vision.mlp_width}, patch {vision.patch_size} and {vision.image_size} px (known: {known})",
            "Export in SiglipModel form instead: --to hf.",
        )
    words = {
        "context_length": text.positions,
        "vocab_size": text.vocab_size,
        # Only says that there are tokenizer files: both loaders then read those in the directory.
        "hf_tokenizer_name": "tokenizer.json",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        "mlp_ratio": text.mlp_width / text.width,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": TANH,
    }
    image = {"timm_model_name": TIMM_TOWERS[key], "timm_model_pretrained": False, "timm_pool": "map"}
    image |= {"timm_proj": "none", "image_size": vision.image_size, "act_kwargs": TANH}
    model_cfg = {"embed_dim": text.width, "init_logit_bias": -10, "custom_text": True}
    return {
        "model_cfg": {**model_cfg, "vision_cfg": image, "text_cfg": words},
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def open_clip_state(model: MtvModel) -> dict[str, Tensor]:
    """The towers under open_clip's names, float32, contiguous, on the CPU.

    Raises:
        UsageError: the model has no text tower.
    """
    if model.text is None:
        raise UsageError("open_clip export: this run has no text tower", "Export in SiglipModel form: --to hf.")
    state = {k: v.detach().float().cpu() for k, v in model.state_dict().items()}
    out = {theirs: state[ours] for ours, theirs in _SINGLE.items()}
    out["visual.trunk.pos_embed"] = state["vision.positions"][None]
    out["logit_scale"], out["logit_bias"] = state["log_scale"].reshape(()), state["bias"].reshape(())
    width = model.size.vision.width
    for kind in ("weight", "bias"):
        out |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for ours, theirs in _MODULES.items()}
        fused = state[f"vision.pool.qkv.{kind}"]
        out[f"visual.trunk.attn_pool.q.{kind}"] = fused[:width]
        out[f"visual.trunk.attn_pool.kv.{kind}"] = fused[width:]
        for i in range(model.size.vision.layers):
            names = _BLOCK.items()
            out |= {f"visual.trunk.blocks.{i}.{b}.{kind}": state[f"vision.blocks.{i}.{a}.{kind}"] for a, b in names}
        for i in range(model.size.text.layers):
            ours, theirs = f"text.blocks.{i}", f"text.transformer.resblocks.{i}"
            out |= {f"{theirs}.{b}.{kind}": state[f"{ours}.{a}.{kind}"] for a, b in _TEXT_BLOCK.items()}
            out[f"{theirs}.attn.in_proj_{kind}"] = state[f"{ours}.qkv.{kind}"]
    return {k: v.clone().contiguous() for k, v in out.items()}


@torch.no_grad()
def _measure(model: MtvModel, config: Mapping[str, Any], state: dict[str, Tensor]) -> StockCosines:
    """Our embeddings against a model that open_clip's own classes build from the same files."""
    from open_clip.model import CustomTextCLIP

    arguments = {k: v for k, v in config.items() if k != "custom_text"}
    # Its constructor draws weights; an export in the middle of a run must not move the run's streams.
    with torch.random.fork_rng(devices=[]):
        stock = CustomTextCLIP(**arguments).eval()
    stock.load_state_dict(state)
    side, text = model.size.vision.image_size, model.size.text
    generator = torch.Generator().manual_seed(0)
    images_B3HW = torch.randn(8, 3, side, side, generator=generator)
    ids_BT = torch.randint(0, text.vocab_size, (8, text.positions), generator=generator)
    device = next(model.parameters()).device
    assert model.text is not None
    ours_image = model.vision(images_B3HW.to(device)).pooled_BD.cpu()
    ours_text = model.text(ids_BT.to(device)).cpu()
    return StockCosines(
        image=float(F.cosine_similarity(ours_image, stock.encode_image(images_B3HW), dim=-1).min()),
        text=float(F.cosine_similarity(ours_text, stock.encode_text(ids_BT), dim=-1).min()),
    )


def _readme(size: ModelSize, cosines: StockCosines) -> str:
    return f"""# MTV {size.name} for open_clip

```python
model, preprocess = open_clip.create_model_from_pretrained("local-dir:THIS_DIRECTORY")
tokenizer = open_clip.get_tokenizer("local-dir:THIS_DIRECTORY")
```

The towers were trained with GELU in its tanh approximation. Stock open_clip runs the image tower with exact GELU, so
its embeddings differ slightly from the trained ones. Measured at export, least cosine over 8 noise images and 8 random
texts:

| tower | cosine to the trained model |
|---|---|
| image | {cosines.image:.7f} |
| text | {cosines.text:.7f} |

`mtv-eval` reads this directory as `open_clip:THIS_DIRECTORY` with tanh in both towers, as `vision_cfg.act_kwargs` says.
"""
