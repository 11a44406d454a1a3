"""Weights of a `SiglipModel` directory into our towers: the official MTV, Google's SigLIP, or an export of ours.

Safetensors only. Architecture, names, shapes, counts and finiteness are checked before anything is copied, so a wrong
directory is one error that names file and key, and the model is as it was.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from mtv.encoders.checkpoint import check_finite, read_state_dict
from mtv.encoders.hf_source import read_json
from mtv.errors import CheckpointError
from mtv.model.config import TextConfig, VisionConfig
from mtv.model.heads_file import FILE as HEADS_FILE
from mtv.model.heads_file import load_heads, read_heads
from mtv.model.hf_config import towers_of
from mtv.model.hf_export import WEIGHTS
from mtv.model.hf_keys import from_hf, pairs
from mtv.model.model import MtvModel

logger = logging.getLogger(__name__)

_IGNORED = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")


def read_siglip(directory: Path) -> tuple[VisionConfig, TextConfig, dict[str, Tensor]]:
    """Sizes and weights of a directory, the weights under our names, float32, on the CPU.

    Raises:
        CheckpointError: missing or damaged files, another architecture, missing or unexpected keys, shapes that
            contradict config.json, NaN or infinity.
    """
    config_file, weights_file = directory / "config.json", directory / WEIGHTS
    if not weights_file.is_file():
        raise CheckpointError(
            f"{directory} holds no {WEIGHTS}", "Only safetensors are read; convert other files with transformers."
        )
    vision, text = towers_of(read_json(config_file), str(config_file))
    state = {k: v for k, v in read_state_dict(weights_file).items() if k not in _IGNORED}
    _check(state, vision, text, str(weights_file))
    state = {k: v.float() for k, v in state.items()}
    return vision, text, from_hf(state, vision_layers=vision.layers, text_layers=text.layers)


def load_towers(model: MtvModel, directory: Path) -> None:
    """Start a run from the towers in `directory`, in place; heads keep their initial weights.

    Call it before the teacher is made, which is then a copy of these weights.

    Raises:
        CheckpointError: see `read_siglip`; or sizes other than the model's, all named.
    """
    state = _copy_towers(model, directory)
    fresh = sorted({name.split(".")[0] for name, _ in model.named_parameters() if "." in name and name not in state})
    heads = [name for name in fresh if name not in ("vision", "text")]
    logger.warning(
        "towers start from %s; %s start fresh, and the teacher as a copy of these towers",
        directory.name,
        ", ".join(heads) or "no heads",
    )


def load_export(directory: Path) -> MtvModel:
    """The whole student of an export of ours: towers and heads.

    Raises:
        CheckpointError: see `read_siglip` and `mtv.model.heads_file.read_heads`; or an export without text tower.
    """
    heads = read_heads(directory / HEADS_FILE)
    model = heads.build()
    _copy_towers(model, directory)
    load_heads(model, heads)
    return model


def _copy_towers(model: MtvModel, directory: Path) -> dict[str, Tensor]:
    vision, text, state = read_siglip(directory)
    parts: list[tuple[str, object, object]] = [("vision", vision, model.size.vision)]
    parts += [("text", text, model.size.text)] if model.text else []
    wrong = [
        f"{name}.{field}: file {getattr(theirs, field)}, model {value}"
        for name, theirs, ours in parts
        for field, value in vars(ours).items()
        if getattr(theirs, field) != value
    ]
    if wrong:
        raise CheckpointError(
            f"{directory / 'config.json'} describes another model: {'; '.join(wrong)}", "Choose the matching size."
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(state[name])
    return state


def _check(state: dict[str, Tensor], vision: VisionConfig, text: TextConfig, file: str) -> None:
    expected = expected_shapes(vision, text)
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    wrong = [
        f"{k}: file {list(state[k].shape)}, config.json {list(shape)}"
        for k, shape in sorted(expected.items())
        if k in state and tuple(state[k].shape) != shape
    ]
    found = [
        f"{len(items)} {label}: {', '.join(items[:4])}{' ...' if len(items) > 4 else ''}"
        for label, items in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if items
    ]
    if found:
        raise CheckpointError(f"{file} does not fit its config.json; {'; '.join(found)}", "Copy or export it again.")
    check_finite(state, file)


def expected_shapes(vision: VisionConfig, text: TextConfig) -> dict[str, tuple[int, ...]]:
    """Name in `SiglipModel` to shape, for towers of these sizes; the sum over it is the parameter count."""
    from mtv.model.text import TextTower
    from mtv.model.vision import VisionTower

    with torch.device("meta"):
        towers = {"vision": VisionTower(vision), "text": TextTower(text)}
    own = {f"{name}.{k}": tuple(p.shape) for name, tower in towers.items() for k, p in tower.named_parameters()}
    own |= {"log_scale": (1,), "bias": (1,)}
    out: dict[str, tuple[int, ...]] = {}
    for ours, theirs in pairs(vision.layers, text.layers):
        rows, *rest = own[ours]
        out |= {name: (rows // len(theirs), *rest) for name in theirs}
    assert sum(math.prod(s) for s in out.values()) == sum(math.prod(s) for s in own.values())
    return out
