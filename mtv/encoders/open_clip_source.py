"""Where an open_clip model comes from: architecture, weights file, preprocessing and tokenizer of a spec.

open_clip:ARCH/TAG      the hub cache (or the hub, with --download)
open_clip:ARCH@FILE     a local checkpoint
open_clip:./DIR         a directory in open_clip's layout: open_clip_config.json, weights, tokenizer files
open_clip:ARCH@random   no weights
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.encoders.hub import hub_file, not_cached
from mtv.encoders.policy import family_of
from mtv.encoders.spec import ModelSpec
from mtv.errors import CheckpointError, UsageError, unknown

CONFIG_NAME = "open_clip_config.json"
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
DIRECTORY_WEIGHTS = (*HUB_WEIGHTS, "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "model.pth")
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a spec resolved to; nothing is built yet."""

    architecture: str
    """open_clip's name, or the directory's for a configuration that open_clip does not list."""
    config: dict[str, Any]
    """open_clip's model configuration (`embed_dim`, `vision_cfg`, `text_cfg`, ...)."""
    family: str | None
    """Policy family."""
    weights: Path | None
    """Checkpoint, none for a random initialisation."""
    preprocess: dict[str, Any] | None
    """`preprocess_cfg` of the configuration beside the weights."""
    owns_config: bool
    """`config` itself travels with the weights (directory layout), so its activation counts as configuration."""
    tag: dict[str, Any] | None
    """The library's entry for the named tag."""
    tokenizer_dir: Path | None
    """Directory beside the weights that holds tokenizer files."""


def resolve_source(spec: ModelSpec, *, download: bool) -> Source:
    """Find everything that `spec` names.

    Raises:
        UsageError: unknown architecture or tag.
        CheckpointError: not cached and nothing may be downloaded, missing file, unreadable configuration.
    """
    if spec.file is not None and Path(spec.file).is_dir():
        return _directory(Path(spec.file))
    config = architecture_config(spec.name)
    family = family_of(spec.name, library="open_clip")
    common: dict[str, Any] = {"architecture": spec.name, "config": config, "family": family, "owns_config": False}
    if spec.file is not None:
        file = Path(spec.file)
        beside = file.parent / CONFIG_NAME
        preprocess = _read_json(beside).get("preprocess_cfg") if beside.is_file() else None
        return Source(
            **common, weights=file, preprocess=preprocess, tag=None, tokenizer_dir=tokenizer_files(file.parent)
        )
    if spec.random:
        return Source(**common, weights=None, preprocess=None, tag=None, tokenizer_dir=None)
    return _tagged(spec, common, download=download)


def architecture_config(name: str) -> dict[str, Any]:
    """A private copy of open_clip's configuration for `name`.

    Raises:
        UsageError: unknown name, with the nearest spellings.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise unknown("open_clip architecture", name, open_clip.list_models())
    return deepcopy(config)


def tokenizer_files(directory: Path) -> Path | None:
    """`directory` when it holds a tokenizer, else None."""
    return directory if any((directory / name).is_file() for name in TOKENIZER_FILES) else None


def _tagged(spec: ModelSpec, common: Mapping[str, Any], *, download: bool) -> Source:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tag = get_pretrained_cfg(spec.name, spec.tag or "")
    if not tag:
        raise unknown(f"open_clip tag of {spec.name}", str(spec.tag), list_pretrained_tags_by_model(spec.name))
    repo, filename = os.path.split(tag["hf_hub"])
    names = (f"{Path(filename).stem}.safetensors", filename) if filename else HUB_WEIGHTS
    weights = next((p for p in (hub_file(repo, n) for n in names) if p), None)
    if weights is None and download:
        weights = next((p for p in (hub_file(repo, n, download=True) for n in names) if p), None)
    if weights is None:
        raise not_cached(spec, repo)
    beside = hub_file(repo, CONFIG_NAME, download=download)
    preprocess = _read_json(beside).get("preprocess_cfg") if beside else None
    return Source(
        **common, weights=weights, preprocess=preprocess, tag=tag, tokenizer_dir=tokenizer_files(weights.parent)
    )


def _directory(directory: Path) -> Source:
    import open_clip

    file = directory / CONFIG_NAME
    if not file.is_file():
        raise CheckpointError(
            f"{directory} holds no {CONFIG_NAME}", "Give a directory in open_clip's layout, or open_clip:ARCH@FILE."
        )
    raw = _read_json(file)
    config = deepcopy(raw.get("model_cfg"))
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise CheckpointError(f"{file}: 'model_cfg' needs embed_dim, vision_cfg and text_cfg")
    weights = next((directory / n for n in DIRECTORY_WEIGHTS if (directory / n).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{directory} holds no weights", f"Expected one of {', '.join(DIRECTORY_WEIGHTS)}.")
    listed = next((n for n in open_clip.list_models() if open_clip.get_model_config(n) == config), None)
    return Source(
        architecture=listed or directory.resolve().name,
        config=config,
        family=family_of(listed, library="open_clip") if listed else family_of_config(config),
        weights=weights,
        preprocess=raw.get("preprocess_cfg"),
        owns_config=True,
        tag=None,
        tokenizer_dir=tokenizer_files(directory),
    )


def family_of_config(config: Mapping[str, Any]) -> str | None:
    """Family of a configuration without a known name, from its structure; None when it does not tell."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config:
        return "coca"
    trunk = family_of(str(vision.get("timm_model_name", "")))
    if trunk == "siglip" and text.get("no_causal_mask"):
        return "siglip2" if text.get("vocab_size") == 256000 else "siglip"
    if trunk in ("pe", "mobileclip", "mobileclip2"):
        return trunk
    if text.get("no_causal_mask"):
        return "clipa" if text.get("hf_tokenizer_name") == "bert-base-uncased" else None
    return "clip" if text.get("vocab_size") == 49408 else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object")
    return value
