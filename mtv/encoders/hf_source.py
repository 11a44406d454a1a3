"""Files of an `hf:` spec: a local directory, or the snapshot of a hub repository. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.encoders.hub import hub_file, not_cached
from mtv.encoders.spec import ModelSpec
from mtv.errors import CheckpointError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)


@dataclass(frozen=True, kw_only=True)
class HfFiles:
    """One model directory."""

    directory: Path
    """Holds config.json and, unless random, weights."""
    config: dict[str, Any]
    """Content of config.json."""
    preprocessor: dict[str, Any] | None
    """Content of preprocessor_config.json."""
    weights: str | None
    """Name of the weight file or of its index; None for a random initialisation."""
    commit: str | None
    """Resolved hub commit."""
    has_tokenizer: bool
    """Whether tokenizer files are there."""


def find_files(spec: ModelSpec, *, subfolder: str | None, download: bool) -> HfFiles:
    """Resolve an `hf:` spec to one directory.

    Raises:
        CheckpointError: not cached, no config.json, no weights, or an adapter instead of a model.
    """
    commit = None
    if spec.file is not None:
        directory = Path(spec.file) / (subfolder or "")
        if not (directory / CONFIG).is_file():
            raise CheckpointError(
                f"{spec.text}: {directory} holds no {CONFIG}", "Give a directory written by save_pretrained."
            )
    else:
        directory, commit = _snapshot(spec, subfolder, download=download)
    if (directory / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{spec.text}: {directory.name} holds an adapter (PEFT)", "Merge it into the model first."
        )
    weights = None if spec.random else _weights(directory, spec)
    preprocessor = directory / PREPROCESSOR
    return HfFiles(
        directory=directory,
        config=read_json(directory / CONFIG),
        preprocessor=read_json(preprocessor) if preprocessor.is_file() else None,
        weights=weights,
        commit=commit,
        has_tokenizer=any((directory / name).is_file() for name in TOKENIZER[1:]),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: unreadable, or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _weights(directory: Path, spec: ModelSpec) -> str:
    name = next((n for n in (*SAFETENSORS, *PICKLED) if (directory / n).is_file()), None)
    if name is None:
        raise CheckpointError(
            f"{spec.text}: {directory.name} holds no weights",
            f"Expected one of {', '.join((*SAFETENSORS, *PICKLED))}; add @random for a random initialisation, or "
            "--download when the hub cache is incomplete.",
        )
    return name


def _snapshot(spec: ModelSpec, subfolder: str | None, *, download: bool) -> tuple[Path, str]:
    """The cached snapshot of a repository; with `download`, completed file by file."""
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    config = hub_file(spec.name, prefix + CONFIG, revision=spec.revision, download=download)
    if config is None:
        raise not_cached(spec, spec.name)
    directory = config.parent
    root = directory.parent if subfolder else directory
    for _ in range(prefix.strip("/").count("/")):
        root = root.parent
    if download:
        # Every further file by the commit that config.json came from: a branch may move in between.
        _complete(spec.name, prefix, root.name, directory)
    return directory, root.name


def _complete(repo: str, prefix: str, commit: str, directory: Path) -> None:
    for name in (PREPROCESSOR, *TOKENIZER):
        hub_file(repo, prefix + name, revision=commit, download=True)
    for name in (*SAFETENSORS, *PICKLED):
        if hub_file(repo, prefix + name, revision=commit, download=True) is None:
            continue
        if name.endswith(".index.json"):
            for shard in sorted(set(read_json(directory / name)["weight_map"].values())):
                hub_file(repo, prefix + shard, revision=commit, download=True)
        return
