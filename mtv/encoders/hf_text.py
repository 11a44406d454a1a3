"""Text towers of transformers models: CLIP (causal, pooled at EOT) and SigLIP (bidirectional, last position)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtv.encoders.families_text import TextFields, resolve_text
from mtv.encoders.hf_source import HfFiles
from mtv.encoders.spec import ModelSpec
from mtv.encoders.text import TextPipeline, build_pipeline
from mtv.encoders.vocabularies import load_tokenizer
from mtv.errors import CheckpointError, UsageError


def why_not_trimmed(config: Mapping[str, Any]) -> str | None:
    """Why batches of this model's text tower may not be cut to their longest text; None when the structure allows it.

    Args:
        config: content of config.json.
    """
    return None if config.get("model_type") == "clip" else "bidirectional attention, pooled at the last position"


def build_text(
    spec: ModelSpec, files: HfFiles, model: Any, family: str | None, options: Mapping[str, Any], *, download: bool
) -> tuple[TextPipeline, dict[str, str]]:
    """The text pipeline of a transformers model and the sources of its fields.

    Raises:
        UsageError, CheckpointError: unresolved fields, no tokenizer, a length beyond the tower's positions, an EOS id
            that the tower would not find.
    """
    config = model.config.text_config
    vocabulary, own_ids = load_tokenizer(options.get("tokenizer") or str(files.directory), download=download)
    positions, rows = int(config.max_position_embeddings), int(config.vocab_size)
    fields, sources = resolve_text(
        option=options,
        config={"length": positions},
        config_name="config.json",
        tokenizer=own_ids,
        tokenizer_name=f"tokenizer {vocabulary.name}",
        family=family,
        vocab_size=rows,
    )
    if fields["length"] > positions:
        raise UsageError(f"{spec.text}: text.length={fields['length']} exceeds the {positions} positions of the model")
    causal = why_not_trimmed(files.config) is None
    if causal:
        _check_eos(spec, config, fields, rows)
    pipeline = build_pipeline(
        fields,
        vocabulary,
        text_forward(model),
        embed_dim=int(getattr(model.config, "projection_dim", 0) if causal else config.projection_size),
        embedding_rows=rows,
        causal=causal,
        trim=options.get("trim"),
        device=torch.device("cpu"),
    )
    return pipeline, sources


def text_forward(model: Any) -> Callable[[Tensor], Tensor]:
    """Ids B,L to embeddings B,D. No mask: SigLIP attends to its padding, and behind EOT CLIP's padding is unseen."""
    projection = getattr(model, "text_projection", None)

    def forward(ids_BL: Tensor) -> Tensor:
        pooled_BD: Tensor = model.text_model(input_ids=ids_BL).pooler_output
        return pooled_BD if projection is None else projection(pooled_BD)

    return forward


def _check_eos(spec: ModelSpec, config: Any, fields: TextFields, rows: int) -> None:
    """CLIP's tower looks for `eos_token_id`, or for the largest id when that is 2 (a mistake of early exports)."""
    if config.eos_token_id == 2:
        if fields["eos"] != rows - 1:
            raise CheckpointError(
                f"{spec.text}: text_config.eos_token_id is 2, so the tower pools at the largest id of {rows}, but "
                f"EOS is {fields['eos']}",
                "Correct eos_token_id in config.json.",
            )
    elif config.eos_token_id != fields["eos"]:
        raise CheckpointError(
            f"{spec.text}: the tower pools at text_config.eos_token_id={config.eos_token_id}, the tokenizer "
            f"ends texts with {fields['eos']}",
            "Correct config.json, or name the id with ?eos=.",
        )
