"""A model as a directory that `transformers.SiglipModel.from_pretrained` and its processor load (section 13).

`model.safetensors`, `config.json`, processor and tokenizer files; beside them `mtv_heads.safetensors` with what that
class has no place for, and the run's resolved configuration. A model without a text tower becomes a
`SiglipVisionModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mtv.atomic import atomic_write, atomic_write_json
from mtv.encoders.checkpoint import check_finite
from mtv.errors import UsageError
from mtv.model.heads_file import FILE as HEADS_FILE
from mtv.model.heads_file import save_heads
from mtv.model.hf_config import config_json, preprocessor_json
from mtv.model.hf_keys import to_hf
from mtv.model.model import MtvModel
from mtv.model.teacher import Teacher
from mtv.model.tokenizer import Tokenizer
from mtv.training_record import FILE as TRAINING_FILE

WEIGHTS = "model.safetensors"


def tower_state(model: MtvModel) -> dict[str, Tensor]:
    """The towers under `SiglipModel`'s names, float32, on the CPU."""
    layers = {"vision_layers": model.size.vision.layers, "text_layers": model.size.text.layers if model.text else 0}
    return {k: v.float() for k, v in to_hf(model.state_dict(), **layers).items()}


def export_hf(
    model: MtvModel,
    directory: Path,
    *,
    tokenizer: Tokenizer | None,
    teacher: Teacher | None = None,
    centres: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write the export; every file atomically, the weights last.

    Args:
        model: without a wrapper around it.
        directory: made when it does not exist.
        tokenizer: the run's; None only for a model without a text tower.
        teacher: shipped in the heads file.
        centres: `dino` and `ibot` to [1, K], shipped in the heads file.
        training: the training record and the resolved recipe, plain values.

    Raises:
        UsageError: no tokenizer for a text tower, or one that does not fit it.
        CheckpointError: weights that are not finite; names the tensor.
        CacheError: a file cannot be written.
    """
    _check_tokenizer(model, tokenizer)
    state = tower_state(model)
    check_finite(state, WEIGHTS)
    directory.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(directory)
        atomic_write_json(directory / "processor_config.json", {"processor_class": "SiglipProcessor"})
    atomic_write_json(directory / "preprocessor_config.json", preprocessor_json(model.size))
    if training is not None:
        atomic_write_json(directory / TRAINING_FILE, dict(training))
    save_heads(directory / HEADS_FILE, model, teacher=teacher, centres=centres)
    atomic_write_json(directory / "config.json", config_json(model.size, text=model.text is not None))
    # transformers refuses a file that does not name its framework.
    atomic_write(directory / WEIGHTS, lambda p: save_file(state, p, metadata={"format": "pt"}))


def _check_tokenizer(model: MtvModel, tokenizer: Tokenizer | None) -> None:
    if (model.text is None) != (tokenizer is None):
        raise UsageError("export: a tokenizer belongs to a model with a text tower, and to no other")
    if tokenizer is None:
        return
    text = model.size.text
    if tokenizer.vocab_size > text.vocab_size or tokenizer.positions != text.positions:
        raise UsageError(
            f"export: tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids and {tokenizer.positions} positions, "
            f"the text tower {text.vocab_size} and {text.positions}"
        )
