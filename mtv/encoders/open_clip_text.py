"""Text towers of open_clip: which may be trimmed, how a short batch runs, which tokenizer belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.families_text import TEXT_RULES, resolve_text
from mtv.encoders.open_clip_source import Source
from mtv.encoders.spec import ModelSpec
from mtv.encoders.text import TextPipeline, build_pipeline
from mtv.encoders.vocabularies import Vocabulary, clip_vocabulary, load_tokenizer
from mtv.errors import CheckpointError, UsageError

# open_clip's cleaning names in ours: its `lower` also repairs and unescapes, and so does its `whitespace`.
_CLEANINGS = {"whitespace": "none", "lower": "clip", "canonicalize": "canonicalize"}


def why_not_trimmed(config: Mapping[str, Any]) -> str | None:
    """Why batches of this text tower may not be cut to their longest text; None when the structure allows it.

    Exact trimming needs causal attention, positions from 0 and pooling at EOT (protocol 4.4).

    Args:
        config: open_clip's model configuration.
    """
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        return "Hugging Face text tower"
    if text.get("embed_cls"):
        return "class token appended at the end"
    if text.get("no_causal_mask"):
        return "bidirectional attention"
    if text.get("pool_type", "argmax") not in ("argmax", "eos"):
        return f"pools at {text['pool_type']!r}, not at EOT"
    return None


def build_text(
    spec: ModelSpec, source: Source, model: Any, options: Mapping[str, Any], *, download: bool
) -> tuple[TextPipeline, dict[str, str]]:
    """The text pipeline of an open_clip model and the sources of its fields.

    Raises:
        UsageError, CheckpointError: unresolved fields, no tokenizer, a length beyond the tower's positions.
    """
    config = source.config["text_cfg"]
    tower = text_tower(model)
    rows = _embedding_rows(tower)
    vocabulary, own_ids = _vocabulary(spec, source, rows, options, download=download)
    from_config: dict[str, Any] = {"length": context_length(source.config)}
    if source.family not in TEXT_RULES or TEXT_RULES[source.family].vocab_size != rows:
        how = (config.get("tokenizer_kwargs") or {}).get(
            "clean", "whitespace" if config.get("hf_tokenizer_name") else "lower"
        )
        from_config |= {"cleaning": _CLEANINGS[how], "caption_cleaning": _CLEANINGS[how]}
    fields, sources = resolve_text(
        option=options,
        config=from_config,
        config_name=f"open_clip model config of {source.architecture}",
        tokenizer=own_ids,
        tokenizer_name=f"tokenizer {vocabulary.name}",
        family=source.family,
        vocab_size=rows,
    )
    if fields["length"] > from_config["length"]:
        raise UsageError(
            f"text.length={fields['length']} exceeds the {from_config['length']} positions of {source.architecture}"
        )
    pipeline = build_pipeline(
        fields,
        vocabulary,
        text_forward(model, full_length=from_config["length"]),
        embed_dim=int(source.config["embed_dim"]),
        embedding_rows=rows,
        causal=why_not_trimmed(source.config) is None,
        trim=options.get("trim"),
        device=torch.device("cpu"),
    )
    return pipeline, sources


def context_length(config: Mapping[str, Any]) -> int:
    """Text positions of a configuration (open_clip's default is 77)."""
    return int(config["text_cfg"].get("context_length", 77))


def text_tower(model: Any) -> Any:
    """The module that holds the text tower: `model.text`, or the model itself in open_clip's flat CLIP class."""
    return getattr(model, "text", model)


def text_forward(model: Any, *, full_length: int) -> Callable[[Tensor], Tensor]:
    """Ids B,L to embeddings B,D, for L up to `full_length`; at full length it is the library's own pass."""
    tower = text_tower(model)

    def forward(ids_BL: Tensor) -> Tensor:
        if ids_BL.shape[1] < full_length and tower_is_causal(tower):
            return short_pass(tower, ids_BL)
        out = model.encode_text(ids_BL) if tower is model else tower(ids_BL)
        # Towers of CoCa return their tokens too.
        return out[0] if isinstance(out, tuple) else out

    return forward


def tower_is_causal(tower: Any) -> bool:
    """Whether the tower is open_clip's own and carries a causal mask that a short batch must slice."""
    return getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None


def short_pass(tower: Any, ids_BL: Tensor) -> Tensor:
    """open_clip's causal text tower on the first L positions: what `encode_text` computes, positions and mask sliced.

    Source: `encode_text` of open_clip `src/open_clip/model.py`, which adds all positions and so needs full length.
    """
    from open_clip.transformer import text_global_pool

    length = ids_BL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x_BLD = tower.token_embedding(ids_BL).to(dtype) + tower.positional_embedding[:length].to(dtype)
    x_BLD = tower.ln_final(tower.transformer(x_BLD, attn_mask=tower.attn_mask[:length, :length]))
    flat = hasattr(tower, "text_pool_type")
    pool, eos = ("text_pool_type", "text_eos_id") if flat else ("pool_type", "eos_id")
    pooled_BD = text_global_pool(x_BLD, ids_BL, getattr(tower, pool), eos_token_id=getattr(tower, eos, None))
    projection = tower.text_projection
    if projection is None:
        return pooled_BD
    return projection(pooled_BD) if isinstance(projection, nn.Linear) else pooled_BD @ projection


def _embedding_rows(tower: Any) -> int:
    if hasattr(tower, "token_embedding"):
        return int(tower.token_embedding.weight.shape[0])
    return int(tower.transformer.get_input_embeddings().weight.shape[0])


def _vocabulary(
    spec: ModelSpec, source: Source, rows: int, options: Mapping[str, Any], *, download: bool
) -> tuple[Vocabulary, dict[str, int | None]]:
    named = options.get("tokenizer")
    hub_id = source.config["text_cfg"].get("hf_tokenizer_name") or source.config["text_cfg"].get("hf_model_name")
    if named:
        return load_tokenizer(named, download=download)
    if not hub_id:
        vocabulary = clip_vocabulary()
        if vocabulary.size != rows:
            raise CheckpointError(
                f"{spec.text}: the text tower has {rows} ids, open_clip's bundled vocabulary {vocabulary.size}",
                "Name the tokenizer with ?tokenizer=DIR.",
            )
        return vocabulary, {}
    if source.tokenizer_dir is not None:
        return load_tokenizer(str(source.tokenizer_dir), download=False)
    return load_tokenizer(hub_id, download=download)
