"""`mtv_heads.safetensors`: everything of a run's model that `SiglipModel` has no place for, with its configuration.

Mask token, both self-supervised heads, Prompter, depth head, an own scale and bias of the regions, centres, and the
teacher. The header holds sizes and objectives as JSON, so the file says how to build the model it belongs to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtv.atomic import atomic_write
from mtv.encoders.checkpoint import check_finite, load_strict, read_state_dict
from mtv.errors import CheckpointError, UsageError
from mtv.model.config import ModelSize, PrompterConfig, SslConfig
from mtv.model.model import MtvModel
from mtv.model.teacher import Teacher

FILE = "mtv_heads.safetensors"
FORMAT = 1
_HEADER = "mtv_heads"
_PARTS = ("dino_head", "ibot_head", "prompter", "dpt", "ground_log_scale", "ground_bias")
MASK_TOKEN = "vision.mask_token"


@dataclass(frozen=True, kw_only=True)
class HeadsFile:
    """Content of the file."""

    size: ModelSize
    """Towers and depth head."""
    objectives: frozenset[str]
    """Active ones."""
    ssl: SslConfig
    """Self-supervised heads."""
    prompter: PrompterConfig
    """Grounding layer."""
    tensors: dict[str, Tensor]
    """Heads under their names in `MtvModel`, `teacher.*`, `centres.*`."""
    file: str
    """Path, for messages."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under `prefix`, without it; empty when there are none."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}

    def build(self) -> MtvModel:
        """A model of this configuration, at its initial weights."""
        return MtvModel(self.size, self.objectives, self.ssl, self.prompter)


def save_heads(
    path: Path, model: MtvModel, *, teacher: Teacher | None = None, centres: Mapping[str, Tensor] | None = None
) -> None:
    """Write the file atomically; a model with towers alone gives one with a header only.

    Args:
        path: the file.
        model: whose heads.
        teacher: its teacher, when there is one.
        centres: `dino` and `ibot` to [1, K], when there are any.

    Raises:
        CacheError: the file cannot be written.
        CheckpointError: a value that is not finite.
    """
    tensors = head_tensors(model)
    tensors |= {f"teacher.{k}": v for k, v in (teacher.state_dict() if teacher else {}).items()}
    tensors |= {f"centres.{k}": v for k, v in (centres or {}).items()}
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    check_finite(tensors, path.name)
    header = {
        "format": FORMAT,
        "size": model.size.to_dict(),
        "objectives": sorted(model.objectives),
        "ssl": dataclasses.asdict(model.ssl_config),
        "prompter": dataclasses.asdict(model.prompter_config),
    }
    metadata = {_HEADER: json.dumps(header, sort_keys=True)}
    atomic_write(path, lambda p: save_file(tensors, p, metadata=metadata))


def head_tensors(model: MtvModel) -> dict[str, Tensor]:
    """Entries of the model's state dict that are no tower's."""
    prefixes = tuple(f"{p}." for p in _PARTS)
    return {k: v for k, v in model.state_dict().items() if k in (*_PARTS, MASK_TOKEN) or k.startswith(prefixes)}


def read_heads(path: Path) -> HeadsFile:
    """Read and check the file.

    Raises:
        CheckpointError: missing, damaged, another format, or values that are not finite.
    """
    tensors = read_state_dict(path) if _has_tensors(path) else {}
    header = _read_header(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: heads of format {header.get('format')!r}, this mtv reads {FORMAT}")
    try:
        return HeadsFile(
            size=ModelSize.from_dict(header["size"]),
            objectives=frozenset(header["objectives"]),
            ssl=SslConfig(**header["ssl"]),
            prompter=PrompterConfig(**header["prompter"]),
            tensors=tensors,
            file=str(path),
        )
    except (KeyError, TypeError, UsageError) as e:
        raise CheckpointError(f"{path}: its header does not describe a model: {e}") from e


def load_heads(model: MtvModel, heads: HeadsFile) -> None:
    """Put the heads of a file into a model of the same configuration; towers stay as they are.

    Raises:
        CheckpointError: keys or shapes that differ; names file and keys.
    """
    state = {k: v for k, v in heads.tensors.items() if not k.startswith(("teacher.", "centres."))}
    towers = {k: v for k, v in model.state_dict().items() if k not in head_tensors(model)}
    load_strict(model, {**towers, **state}, file=heads.file)


def _has_tensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return bool(list(file.keys()))
    except (OSError, SafetensorError) as e:
        raise CheckpointError(f"{path}: cannot be read ({str(e).splitlines()[0]})", "Export the run again.") from e


def _read_header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_HEADER)
    if text is None:
        raise CheckpointError(f"{path} was not written by this trainer: it has no {_HEADER!r} header")
    value: dict[str, Any] = json.loads(text)
    return value
