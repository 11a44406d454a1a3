"""Text rules per family (protocol table 4.2) and their resolution, field by field, with sources. No torch here.

A family means the same text handling whichever library brings the weights: that is why its rule stands above what a
tokenizer file says about padding, and why library-side cleaning never runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, get_args

from mtv.encoders.records import Cleaning, Provenance
from mtv.errors import UsageError, unknown

CLEANINGS: tuple[str, ...] = get_args(Cleaning)
FIELDS = ("cleaning", "caption_cleaning", "length", "bos", "eos", "pad")


class TextFields(TypedDict):
    """The resolved part of a `TextRecord`."""

    cleaning: Cleaning
    caption_cleaning: Cleaning
    length: int
    bos: int | None
    eos: int
    pad: int


@dataclass(frozen=True, kw_only=True)
class TextRule:
    """What a family prescribes; fields that only a checkpoint can know are left open."""

    cleaning: Cleaning
    """Cleaning of prompts."""
    caption_cleaning: Cleaning
    """Cleaning of captions."""
    vocab_size: int
    """Rows of the token embedding for which `bos`, `eos` and `pad` hold; another vocabulary speaks for itself."""
    length: int | None = None
    """Context length of the published checkpoints, used where no configuration says it."""
    bos: int | None = None
    """First id, or none."""
    eos: int
    """Last id."""
    pad: int
    """Id on the right of `eos`."""


def _clip(length: int | None) -> TextRule:
    return TextRule(
        cleaning="clip", caption_cleaning="clip", vocab_size=49408, length=length, bos=49406, eos=49407, pad=0
    )


_SIGLIP = TextRule(
    cleaning="canonicalize", caption_cleaning="canonicalize", vocab_size=32000, length=64, bos=None, eos=1, pad=1
)

TEXT_RULES: dict[str, TextRule] = {
    "clip": _clip(77),
    "pe": _clip(32),
    "mobileclip": _clip(77),
    "mobileclip2": _clip(77),
    "coca": _clip(76),
    # open_clip's CLIPA tokenizer is BERT's with [SEP] overwritten by the pad id, so the text ends in 0.
    "clipa": TextRule(cleaning="clip", caption_cleaning="clip", vocab_size=32000, length=32, bos=101, eos=0, pad=0),
    "siglip": _SIGLIP,
    "mtv": _SIGLIP,
    "siglip2": TextRule(
        cleaning="canonicalize", caption_cleaning="lower", vocab_size=256000, length=64, bos=None, eos=1, pad=0
    ),
}


def resolve_text(
    *,
    option: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    config_name: str = "",
    tag: Mapping[str, Any] | None = None,
    tag_name: str = "",
    tokenizer: Mapping[str, Any] | None = None,
    tokenizer_name: str = "",
    family: str | None,
    vocab_size: int,
) -> tuple[TextFields, dict[str, str]]:
    """Cleaning, length and special ids by the precedence option > config > tag > family > error.

    Args:
        option: explicit overrides under `TextRecord` names; other keys are ignored here.
        config: fields from a configuration that travels with the weights.
        config_name: evidence for `config`, a file name.
        tag: fields from the library's entry for a named tag.
        tag_name: evidence for `tag`.
        tokenizer: special ids as the tokenizer's own files give them: used where the family's vocabulary is another
            one, and never against it (SigLIP vocabularies ship with the wrong pad id).
        tokenizer_name: evidence for `tokenizer`.
        family: policy family, or none.
        vocab_size: rows of the model's token embedding.

    Returns:
        The fields, and `text.<field>` to the rule that decided it.

    Raises:
        UsageError: unresolved fields (listed), or a value that cannot be.
    """
    rule = TEXT_RULES.get(family or "")
    layers: list[tuple[Provenance, Mapping[str, Any]]] = [
        (Provenance(rule="option", evidence=""), option),
        (Provenance(rule="config", evidence=config_name), config or {}),
        (Provenance(rule="tag", evidence=tag_name), tag or {}),
        (Provenance(rule="family", evidence=str(family)), _family_layer(rule, vocab_size)),
        (Provenance(rule="config", evidence=tokenizer_name), tokenizer or {}),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in FIELDS:
        for provenance, layer in layers:
            if field in layer:
                values[field], sources[f"text.{field}"] = layer[field], str(provenance)
                if provenance.rule == "option":
                    sources[f"text.{field}"] = f"option: {field}={layer[field]}"
                break
    _check(values, family, vocab_size)
    return TextFields(**values), sources  # type: ignore[typeddict-item]


def _family_layer(rule: TextRule | None, vocab_size: int) -> dict[str, Any]:
    if rule is None:
        return {}
    layer: dict[str, Any] = {"cleaning": rule.cleaning, "caption_cleaning": rule.caption_cleaning}
    if rule.length is not None:
        layer["length"] = rule.length
    if rule.vocab_size == vocab_size:
        layer |= {"bos": rule.bos, "eos": rule.eos, "pad": rule.pad}
    return layer


def _check(values: Mapping[str, Any], family: str | None, vocab_size: int) -> None:
    open_fields = [f"text.{f}" for f in FIELDS if f not in values]
    if open_fields:
        raise UsageError(
            f"text handling is unresolved for family {family or 'unknown'} (vocabulary of {vocab_size}): "
            + ", ".join(open_fields),
            "Name them, for example ?cleaning=canonicalize&caption_cleaning=canonicalize&length=64&pad=1.",
        )
    for field in ("cleaning", "caption_cleaning"):
        if values[field] not in CLEANINGS:
            raise unknown(f"text.{field}", str(values[field]), CLEANINGS)
    for field in ("bos", "eos", "pad"):
        if values[field] is not None and not 0 <= values[field] < vocab_size:
            raise UsageError(f"text.{field}={values[field]} is outside the vocabulary of {vocab_size} ids")
    shortest = 2 if values["bos"] is None else 3
    if values["length"] < shortest:
        raise UsageError(f"text.length={values['length']} leaves no room for a word beside the special ids")
