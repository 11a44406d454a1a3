"""The hf backend: SigLIP, CLIP, DINOv2, DINOv3, ViT, MAE and relatives, Depth Anything and DPT through transformers.

Code from a repository never runs. Keys must match; optional ones are named per architecture. Tokens are read by hooks
on the blocks, so the tap means the same for every class. Text goes in as ids alone: a mask over SigLIP's padding would
change every embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtv.encoders.build import activation_of, freeze, make_info, plain
from mtv.encoders.hf_depth import HfDepthEncoder, head_record
from mtv.encoders.hf_depth_layouts import depth_model
from mtv.encoders.hf_encoder import HfEncoder, attribute, set_pos_interp, square
from mtv.encoders.hf_layouts import Layout, layout_of
from mtv.encoders.hf_quiet import quiet
from mtv.encoders.hf_source import PREPROCESSOR, HfFiles, find_files
from mtv.encoders.hf_text import build_text
from mtv.encoders.hf_weights import build_random, load_weights
from mtv.encoders.image_configs import image_from_hf
from mtv.encoders.options import TEXT_KEYS, reject_options
from mtv.encoders.policy import family_of, resolve_image
from mtv.encoders.records import ImageRecord, KeyReport
from mtv.encoders.spec import ModelSpec
from mtv.encoders.text import NO_TEXT
from mtv.errors import UsageError
from mtv.training_record import read_training

POOLINGS = {"cls": "CLS after the final norm", "mean": "mean of patch tokens after the final norm"}
_UNSTABLE_KEYS = ("transformers_version", "torch_dtype", "dtype", "architectures", "id2label", "label2id")


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
    depth = depth_model(files.config, spec.text)
    layout, pooling = _choose_pooling(depth.layout if depth else layout_of(files.config, spec.text), options)
    if depth is None:
        reject_options(options, ("depth_kind",), f"{layout.cls} has no depth head")
    if not layout.has_text:
        reject_options(options, TEXT_KEYS, f"{layout.cls} has no text tower")
    config, activation_source = _configure(files, options, spec)
    if files.weights is None:
        model, keys = build_random(layout, config, seed=options.get("seed", 0)), KeyReport()
    else:
        model, keys = load_weights(layout, config, files, options)
    freeze(model)
    pos_interp = set_pos_interp(attribute(model, layout.vision), layout, options.get("pos_interp"))
    family = _family(spec, files.config)
    image, sources = _resolve_image(files, family, options)
    _check_size(image, attribute(model, layout.vision).config, spec)
    if files.commit is not None:
        sources["weights"] = f"hub commit {files.commit}"
    text = None
    if layout.has_text and options.get("tokenizer") != NO_TEXT:
        text, text_sources = build_text(spec, files, model, family, options, download=download)
        sources |= text_sources
    head = None
    if depth is not None:
        head, sources["depth_head.kind"] = head_record(depth, files, options)
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
        depth_head=head,
    )
    if files.weights is not None:
        info = replace(info, training=read_training(Path(files.directory)))
    return HfEncoder(model, layout, text, info) if depth is None else HfDepthEncoder(model, depth, layout, info)


def stable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config is architecture: no paths, versions, labels or storage dtypes, at any depth."""
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k not in _UNSTABLE_KEYS}
    return {k: stable_config(v) if isinstance(v, Mapping) else plain(v) for k, v in kept.items()}


def _choose_pooling(layout: Layout, options: Mapping[str, Any]) -> tuple[Layout, str]:
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
        with quiet(bars=False):
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
        if part is not None and hasattr(part, "hidden_act"):
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
