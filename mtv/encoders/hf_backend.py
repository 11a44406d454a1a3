"""The hf backend: SigLIP, CLIP, DINOv2, DINOv3, ViT, MAE and relatives through transformers.

Code from a repository never runs. Keys must match; optional ones are named per architecture. Tokens are read by hooks on
the blocks, so the tap means the same for every class. Text goes in as ids alone: a mask over SigLIP's padding would
change every embedding.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features, Tap, TextKind
from mtv.encoders.build import activation_of, freeze, make_info, plain
from mtv.encoders.hf_layouts import Layout, layout_of
from mtv.encoders.hf_source import PREPROCESSOR, HfFiles, find_files
from mtv.encoders.hf_text import build_text
from mtv.encoders.hf_weights import build_random, load_weights
from mtv.encoders.image_configs import image_from_hf
from mtv.encoders.options import TEXT_KEYS, reject_options
from mtv.encoders.policy import family_of, resolve_image
from mtv.encoders.posembed import POS_INTERP, resize_pos_embed
from mtv.encoders.records import EncoderInfo, ImageRecord, KeyReport
from mtv.encoders.spec import ModelSpec
from mtv.encoders.text import NO_TEXT, TextPipeline
from mtv.errors import UsageError

logger = logging.getLogger(__name__)

POOLINGS = {"cls": "CLS after the final norm", "mean": "mean of patch tokens after the final norm"}
_UNSTABLE_KEYS = ("transformers_version", "torch_dtype", "dtype", "architectures", "id2label", "label2id")


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
        tokens = {i: self._patches(self._norm(t) if norm == "final" else t, grid) for i, t in taps.items()}
        if not pooled:
            return Features(tokens=tokens, pooled=None, global_token=None)
        global_BC = self._global(out, grid)
        pooled_BD = global_BC if self._projection is None else self._projection(global_BC)
        return Features(tokens=tokens, pooled=pooled_BD, global_token=global_BC)

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


def load_hf(spec: ModelSpec, *, options: Mapping[str, Any], download: bool) -> HfEncoder:
    """Load an `hf:` spec on the CPU in fp32.

    Args:
        spec: the parsed spec.
        options: typed overrides under plain keys.
        download: allow fetching from the hub.

    Raises:
        UsageError: an architecture the backend does not know, options that cannot be followed, unresolved fields.
        CheckpointError: missing or unreadable files, keys that do not match.
    """
    files = find_files(spec, subfolder=options.get("subfolder"), download=download)
    layout = layout_of(files.config, spec.text)
    layout, pooling = _choose_pooling(layout, options)
    if not layout.has_text:
        reject_options(options, TEXT_KEYS, f"{layout.cls} has no text tower")
    config, activation_source = _configure(files, options, spec)
    if files.weights is None:
        model, keys = build_random(layout, config, seed=options.get("seed", 0)), KeyReport()
    else:
        model, keys = load_weights(layout, config, files, options)
    freeze(model)
    pos_interp = _set_pos_interp(attribute(model, layout.vision), layout, options.get("pos_interp"))
    family = _family(spec, files.config)
    image, sources = _resolve_image(files, family, options)
    _check_size(image, attribute(model, layout.vision).config, spec)
    if files.commit is not None:
        sources["weights"] = f"hub commit {files.commit}"
    text = None
    if layout.has_text and options.get("tokenizer") != NO_TEXT:
        text, text_sources = build_text(spec, files, model, family, options, download=download)
        sources |= text_sources
    info = make_info(
        spec=spec,
        adapter="hf",
        architecture=layout.cls,
        family=family or "custom",
        config=stable_config(model.config.to_dict()),
        module=model,
        vision=attribute(model, layout.vision),
        text_module=attribute(model, "text_model") if layout.has_text else None,
        activation=activation_of(attribute(model, layout.vision)),
        pos_interp=pos_interp,
        pooling=pooling,
        image=image,
        text=text.record if text else None,
        sources={**sources, "activation": activation_source},
        keys=keys,
    )
    return HfEncoder(model, layout, text, info)


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


def stable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config is architecture: no paths, versions, labels or storage dtypes, at any depth."""
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k not in _UNSTABLE_KEYS}
    return {k: stable_config(v) if isinstance(v, Mapping) else plain(v) for k, v in kept.items()}


def _choose_pooling(layout: Layout, options: Mapping[str, Any]) -> tuple[Layout, str]:
    from dataclasses import replace

    wish = options.get("pooling")
    if wish is not None and (layout.pooled == "head" or layout.projection):
        raise UsageError(f"pooling={wish} has no effect here: {layout.cls} pools by itself")
    if wish is not None and wish not in POOLINGS:
        raise UsageError(f"pooling must be cls or mean, got {wish!r}")
    if wish == "cls" and layout.cls == "IJepaModel":
        raise UsageError("pooling=cls: IJepaModel has no class token; use mean")
    layout = layout if wish is None else replace(layout, pooled=wish)
    words = POOLINGS.get(layout.pooled, "attention pooling over tokens after the final norm")
    return layout, words + (", projected" if layout.projection else "")


def _configure(files: HfFiles, options: Mapping[str, Any], spec: ModelSpec) -> tuple[Any, str]:
    """The config object, with an explicit activation put in, and the source of the activation."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(files.directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UsageError(f"{spec.text}: config.json is not usable: {str(e).splitlines()[0]}") from e
    if config.model_type == "vit_mae":
        config.mask_ratio = 0.0
    if "quick_gelu" not in options:
        return config, "config: config.json"
    if config.model_type not in ("clip", "clip_vision_model"):
        raise UsageError(
            f"quick_gelu has no effect here: {config.model_type} models name their activation in config.json"
        )
    for part in (config, getattr(config, "vision_config", None), getattr(config, "text_config", None)):
        if hasattr(part, "hidden_act"):
            part.hidden_act = "quick_gelu" if options["quick_gelu"] else "gelu"
    return config, f"option: quick_gelu={str(options['quick_gelu']).lower()}"


def _family(spec: ModelSpec, config: Mapping[str, Any]) -> str | None:
    """Structure first; the name decides only between lineages that share one."""
    by_type = family_of(str(config["model_type"]))
    by_name = family_of(spec.name)
    if by_type == "siglip":
        if (config.get("text_config") or {}).get("vocab_size") == 256000 or by_name == "siglip2":
            return "siglip2"
        return "mtv" if by_name == "mtv" else "siglip"
    if by_type == "vit" and by_name in ("dino", "mae"):
        return by_name
    return by_type


def _resolve_image(
    files: HfFiles, family: str | None, options: Mapping[str, Any]
) -> tuple[ImageRecord, dict[str, str]]:
    vision = files.config.get("vision_config") or files.config
    native = vision.get("image_size")
    return resolve_image(
        option=options,
        config=image_from_hf(files.preprocessor) if files.preprocessor else None,
        config_name=PREPROCESSOR,
        tag=None,
        tag_name="",
        family=family,
        native_size=square(native, "image_size") if native is not None else None,
    )


def _check_size(image: ImageRecord, config: Any, spec: ModelSpec) -> None:
    patch = square(config.patch_size, "patch_size")
    if image.size % patch:
        raise UsageError(
            f"{spec.text}: image.size {image.size} is no multiple of patch size {patch}",
            f"Use for example ?size={image.size // patch * patch}.",
        )


def _set_pos_interp(vision: Any, layout: Layout, wish: str | None) -> str:
    """Put one resampling of position embeddings in place of the library's; the default is what the library does."""
    if layout.pos_interp == "rope":
        if wish is not None:
            raise UsageError(f"pos_interp={wish} has no effect here: {layout.cls} uses rotary positions")
        return "rope"
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
