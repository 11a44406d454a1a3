"""Text rules per family (protocol table 4.2) and their precedence."""

from __future__ import annotations

from typing import Any

import pytest

from mtv.encoders.families_text import TEXT_RULES, resolve_text
from mtv.encoders.policy import FAMILIES
from mtv.errors import UsageError

CLIP = ("clip", "clip", 77, 49406, 49407, 0)
PE = ("clip", "clip", 32, 49406, 49407, 0)
SIGLIP = ("canonicalize", "canonicalize", 64, None, 1, 1)
SIGLIP2 = ("canonicalize", "lower", 64, None, 1, 0)


@pytest.mark.parametrize(
    ("family", "vocab", "expected"),
    [
        ("clip", 49408, CLIP),
        ("pe", 49408, PE),
        ("siglip", 32000, SIGLIP),
        ("mtv", 32000, SIGLIP),
        ("siglip2", 256000, SIGLIP2),
    ],
)
def test_table_4_2(family: str, vocab: int, expected: tuple[Any, ...]) -> None:
    fields, sources = resolve_text(option={}, family=family, vocab_size=vocab)
    assert tuple(fields.values()) == expected
    assert set(sources.values()) == {f"family: {family}"}


def test_every_text_family_is_a_policy_family() -> None:
    assert set(TEXT_RULES) <= set(FAMILIES)


def test_precedence_option_config_tag_family() -> None:
    common: dict[str, Any] = {"family": "siglip", "vocab_size": 32000}
    fields, sources = resolve_text(option={}, tag={"length": 20}, tag_name="webli", **common)
    assert (fields["length"], sources["text.length"]) == (20, "tag: webli")
    more = {"config": {"length": 16}, "config_name": "config.json", "tag": {"length": 20}, "tag_name": "webli"}
    fields, sources = resolve_text(option={}, **more, **common)
    assert (fields["length"], sources["text.length"]) == (16, "config: config.json")
    option = {"length": 12, "cleaning": "none", "size": 224}
    fields, sources = resolve_text(option=option, **more, **common)
    assert (fields["length"], sources["text.length"]) == (12, "option: length=12")
    assert (fields["cleaning"], fields["caption_cleaning"]) == ("none", "canonicalize")
    assert sources["text.cleaning"] == "option: cleaning=none"
    assert sources["text.caption_cleaning"] == "family: siglip"


def test_tokenizer_files_never_overrule_the_family_vocabulary() -> None:
    """T5's own pad id is 0; SigLIP pads with 1 whatever the file says. Another vocabulary speaks for itself."""
    own = {"bos": 5, "eos": 2, "pad": 0}
    fields, sources = resolve_text(option={}, tokenizer=own, tokenizer_name="t5", family="siglip", vocab_size=32000)
    assert (fields["bos"], fields["eos"], fields["pad"]) == (None, 1, 1)
    fields, sources = resolve_text(option={}, tokenizer=own, tokenizer_name="t5", family="siglip", vocab_size=250000)
    assert (fields["bos"], fields["eos"], fields["pad"]) == (5, 2, 0)
    assert sources["text.pad"] == "config: t5"


def test_unresolved_fields_are_listed() -> None:
    with pytest.raises(UsageError, match=r"text\.cleaning, text\.caption_cleaning, text\.bos") as e:
        resolve_text(option={"length": 64}, family=None, vocab_size=1000)
    assert "text.length" not in e.value.message


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"cleaning": "lowercase"}, "did you mean lower"),
        ({"pad": 49408}, r"text\.pad=49408"),
        ({"length": 2}, r"text\.length=2"),
    ],
)
def test_impossible_values_are_refused(option: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        resolve_text(option=option, family="clip", vocab_size=49408)
