"""Cleaning functions: protocol section 4.1, test row Z2."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import basic_clean, canonicalize_text, whitespace_clean

from mtv.encoders.cleaning import clean
from mtv.errors import UsageError


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("kite (bird of prey)", "kite bird of prey"),
        ("black-footed", "blackfooted"),
        ("sea_waves", "sea waves"),
        ("A  Photo,\nof", "a photo of"),
    ],
)
def test_z2_canonicalize(raw: str, expected: str) -> None:
    assert clean(raw, "canonicalize") == expected
    assert clean(clean(raw, "canonicalize"), "canonicalize") == expected


@given(st.text(alphabet=string.printable))
def test_z2_canonicalize_twice_is_once(text: str) -> None:
    once = clean(text, "canonicalize")
    assert clean(once, "canonicalize") == once
    assert not set(once) & set(string.punctuation)
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", "A Dog&amp;amp;Cat's caf\u00c3\u00a9_bar!"),
        ("lower", "a dog&amp;amp;cat's caf\u00e3\u00a9_bar!"),
        ("clip", "a dog&cat's caf\u00e9_bar!"),
        ("canonicalize", "a dogcats caf\u00e9 bar"),
    ],
)
def test_each_cleaning_does_its_steps_and_no_more(how: str, expected: str) -> None:
    # Mojibake, a doubly escaped ampersand, an underscore, upper case and outer whitespace in one string.
    assert clean("  A Dog&amp;amp;Cat's\n caf\u00c3\u00a9_bar! ", how) == expected  # type: ignore[arg-type]


@given(st.text())
def test_clip_equals_the_steps_of_open_clip(text: str) -> None:
    assert clean(text, "clip") == whitespace_clean(basic_clean(text)).lower()


@given(st.text())
def test_canonicalize_equals_the_steps_of_open_clip(text: str) -> None:
    assert clean(text, "canonicalize") == canonicalize_text(basic_clean(text))


def test_unknown_cleaning_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean canonicalize"):
        clean("x", "canonicalise")  # type: ignore[arg-type]
