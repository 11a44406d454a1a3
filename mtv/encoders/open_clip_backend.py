"""The open_clip backend: contrastive models by architecture and tag, local file, or directory.

open_clip's own loader ties preprocessing and activation to the tag and falls back to CLIP's for a local file; here both
are resolved by the project's precedence, and the weights are loaded strictly. Nothing pickled is executed: OpenAI's
TorchScript archives are refused, because opening one runs its code; the same weights exist as safetensors under the
tag.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features, Tap, TextKind
from mtv.encoders.build import activation_of, freeze, make_info
from mtv.encoders.checkpoint import load_strict, read_state_dict
from mtv.encoders.image_configs import image_from_open_clip
from mtv.encoders.open_clip_source import CONFIG_NAME, Source, resolve_source
from mtv.encoders.open_clip_text import build_text, text_tower
from mtv.encoders.open_clip_vision import PooledTower, Tower, build_tower
from mtv.encoders.options import reject_options
from mtv.encoders.policy import resolve_image
from mtv.encoders.records import EncoderInfo, ImageRecord, KeyReport
from mtv.encoders.spec import ModelSpec
from mtv.encoders.text import NO_TEXT, TextPipeline
from mtv.errors import CheckpointError, UsageError

logger = logging.getLogger(__name__)

OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")
# The bias of the sigmoid loss takes no part in a cosine; buffers of positions were saved by old transformers versions.
OPTIONAL_MISSING = ("logit_bias",)
OPTIONAL_UNEXPECTED = ("logit_bias", "*.position_ids", "attn_mask", "text.attn_mask")
TANH = {"approximate": "tanh"}


class OpenClipEncoder(Encoder):
    """A contrastive model built by open_clip."""

    def __init__(self, model: Any, tower: Tower, text: TextPipeline | None, info: EncoderInfo, embed_dim: int) -> None:
        self._model = model
        self._tower = tower
        self.text = text
        self.info = info
        self.patch_size = tower.patch_size
        self.depth = tower.depth
        self.width = tower.width
        self.embed_dim = embed_dim
        self.has_class_token = tower.has_class_token

    @property
    def module(self) -> nn.Module:
        """The open_clip model."""
        return self._model

    def resolve_layer(self, index: int) -> int:
        """0-based block index; towers without a grid of tokens have none.

        Raises:
            UsageError: no such block, or no blocks at all.
        """
        if isinstance(self._tower, PooledTower):
            raise UsageError(
                f"{self.info.architecture} has no patch tokens: its {self._tower.kind} tower pools only",
                "Dense tasks (spair, navi, ade20k, ...) need a ViT.",
            )
        return super().resolve_layer(index)

    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """Tapped tokens and, when `pooled`, what `encode_image` returns (not normalised)."""
        return self._tower.forward(images_B3HW, layers, norm, pooled)

    def encode_text(self, strings: Sequence[str], *, kind: TextKind = "prompt", batch_size: int = 256) -> Tensor:
        """Text embeddings N,D, float32, not normalised (see `Encoder.encode_text`)."""
        if self.text is None:
            return super().encode_text(strings, kind=kind, batch_size=batch_size)
        return self.text.encode(strings, kind=kind, batch_size=batch_size, device=self.device)


def load_open_clip(spec: ModelSpec, *, options: Mapping[str, Any], download: bool) -> OpenClipEncoder:
    """Load an `open_clip:` spec on the CPU in fp32.

    Args:
        spec: the parsed spec.
        options: typed overrides under plain keys.
        download: allow fetching from the hub.

    Raises:
        UsageError: unknown names, options that cannot be followed, unresolved fields.
        CheckpointError: missing or unreadable files, keys that do not match, contradicting evidence.
    """
    reject_options(options, ("pooling", "subfolder"), "open_clip fixes it with the architecture")
    source = resolve_source(spec, download=download)
    quick_gelu, activation_source = resolve_activation(spec, source, options)
    source.config["quick_gelu"] = quick_gelu
    model = build_model(source.config, seed=options.get("seed", 0), spec=spec)
    if source.config["vision_cfg"].get("act_kwargs") == TANH:
        _set_tanh(model.visual)
    keys = _load_weights(model, source, options, quick_gelu)
    freeze(model)
    tower = build_tower(model.visual, pos_interp=options.get("pos_interp"))
    image, image_sources = _resolve_image(spec, source, model, options)
    _check_size(image, tower, source.architecture)
    text, text_sources = None, dict[str, str]()
    if options.get("tokenizer") != NO_TEXT:
        text, text_sources = build_text(spec, source, model, options, download=download)
    info = make_info(
        spec=spec,
        adapter="open_clip",
        architecture=source.architecture,
        family=source.family or "custom",
        config=source.config,
        module=model,
        vision=model.visual,
        text_module=_text_only(model),
        activation=_activation_name(model, tower),
        pos_interp=tower.pos_interp,
        pooling=tower.pooling,
        image=image,
        text=text.record if text else None,
        sources={**image_sources, **text_sources, "activation": activation_source},
        keys=keys,
    )
    return OpenClipEncoder(model, tower, text, info, int(source.config["embed_dim"]))


def resolve_activation(spec: ModelSpec, source: Source, options: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether QuickGELU is used, and which rule said so (protocol 5.2): option, config, tag, architecture name.

    open_clip itself builds plain GELU for `ViT-B-16` with tag `openai` and only warns; here the tag's entry is forced.
    """
    named = bool(source.config.get("quick_gelu", False))
    if "quick_gelu" in options:
        decided, why = bool(options["quick_gelu"]), f"option: quick_gelu={str(options['quick_gelu']).lower()}"
    elif source.owns_config:
        decided, why = named, f"config: {CONFIG_NAME}"
    elif source.tag is not None and source.tag.get("quick_gelu"):
        decided, why = True, f"tag: {spec.tag}"
    else:
        decided, why = named, f"family: architecture name {source.architecture}"
    if source.weights is not None and source.tag is None:
        logger.info("%s: activation %s (%s)", spec.public, "quick_gelu" if decided else "gelu", why)
    return decided, why


def build_model(config: Mapping[str, Any], *, seed: int, spec: ModelSpec) -> Any:
    """An open_clip model from its configuration, seeded random weights, nothing fetched for its towers.

    Raises:
        CheckpointError: the configuration names a Hugging Face text tower whose own configuration is not cached.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    config = {**config, "vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])}
    custom = bool(config.pop("custom_text", False)) or bool(config["text_cfg"].get("hf_model_name"))
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    kind: Any = CLIP if not custom else CoCa if "multimodal_cfg" in config else CustomTextCLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return kind(**config)
        except OSError as e:
            raise CheckpointError(
                f"{spec.text}: text tower {config['text_cfg'].get('hf_model_name')} is not in the local hub cache",
                "Add --download to fetch its configuration.",
            ) from e
        except TypeError as e:
            raise CheckpointError(f"{spec.text}: open_clip does not accept the model configuration: {e}") from e


def _set_tanh(visual: nn.Module) -> None:
    """Obey `vision_cfg.act_kwargs` of our exports in timm towers too: open_clip reads it for its own ViT alone."""
    for module in visual.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def _load_weights(model: Any, source: Source, options: Mapping[str, Any], quick_gelu: bool) -> KeyReport:
    if source.weights is None:
        return KeyReport()
    state = read_state_dict(source.weights)
    state = _convert(model, state, source, quick_gelu)
    return load_strict(
        model,
        state,
        file=source.weights.name,
        allow_missing=(*OPTIONAL_MISSING, *options.get("allow_missing", ())),
        allow_unexpected=(*OPTIONAL_UNEXPECTED, *options.get("allow_unexpected", ())),
    )


def _convert(model: Any, state: dict[str, Tensor], source: Source, quick_gelu: bool) -> dict[str, Tensor]:
    """Names and shapes of older or foreign checkpoints in open_clip's current form; values stay as they are."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    found = [k for k in OPENAI_ENTRIES if k in state]
    if found and not quick_gelu:
        raise CheckpointError(
            f"{source.weights} holds the entries {', '.join(found)} of an OpenAI archive, trained with QuickGELU, but "
            f"{source.architecture} was resolved to plain GELU",
            f"Use open_clip:{source.architecture.removesuffix('-quickgelu')}-quickgelu@FILE or ?quick_gelu=true.",
        )
    state = {k: v for k, v in state.items() if k not in found}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and text_tower(model) is not model:
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        parameter = getattr(model, key, None)
        if key in state and parameter is not None and state[key].numel() == parameter.numel():
            state[key] = state[key].reshape(parameter.shape)
    return state


def _resolve_image(
    spec: ModelSpec, source: Source, model: Any, options: Mapping[str, Any]
) -> tuple[ImageRecord, dict[str, str]]:
    side = model.visual.image_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    return resolve_image(
        option=options,
        config=image_from_open_clip(source.preprocess) if source.preprocess else None,
        config_name=CONFIG_NAME,
        tag=image_from_open_clip(source.tag) if source.tag else None,
        tag_name=f"{spec.name}/{spec.tag}",
        family=source.family,
        native_size=int(height) if height == width else None,
    )


def _check_size(image: ImageRecord, tower: Tower, architecture: str) -> None:
    side = tower.patch_size
    if isinstance(tower, PooledTower) and image.size != side:
        raise UsageError(f"{architecture} takes {side} px only, got image.size={image.size}", f"Use ?size={side}.")
    if image.size % side:
        raise UsageError(
            f"{architecture}: image.size {image.size} is no multiple of patch size {side}",
            f"Use for example ?size={image.size // side * side}.",
        )


def _activation_name(model: Any, tower: Tower) -> str:
    """The activation in the record's words; convolutional towers have their own, so there the text tower speaks."""
    from open_clip.transformer import QuickGELU

    if any(isinstance(m, QuickGELU) for m in model.modules()):
        return "quick_gelu"
    return activation_of(text_tower(model).transformer if isinstance(tower, PooledTower) else model.visual)


def _text_only(model: Any) -> nn.Module:
    """The text tower for counting parameters; the flat CLIP class spreads it over the model."""
    if text_tower(model) is not model:
        return model.text
    parts = nn.Module()
    for name in ("transformer", "token_embedding", "ln_final", "positional_embedding", "text_projection"):
        setattr(parts, name, getattr(model, name))
    return parts
