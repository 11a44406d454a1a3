"""The four text cleanings of the zero-shot protocol (section 4.1). Pure functions of one string; no torch here.

They run on the finished prompt, before any tokenizer, so that a text means the same whichever library holds the
weights. `canonicalize` follows big_vision `big_vision/evaluators/proj/image_text/prompt_engineering.py`, `clip` follows
openai/CLIP `clip/simple_tokenizer.py`.
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable
from typing import get_args

from mtv.encoders.records import Cleaning
from mtv.errors import unknown

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean(text: str, how: Cleaning) -> str:
    """`text` as the tokenizer shall see it.

    Args:
        text: the finished prompt or caption.
        how: `none` collapses whitespace and strips; `lower` also lower-cases; `clip` repairs the encoding and unescapes
            HTML first; `canonicalize` does that, turns `_` into a space, deletes ASCII punctuation and lower-cases.

    Raises:
        UsageError: unknown cleaning.
    """
    if how not in _FUNCTIONS:
        raise unknown("text cleaning", how, get_args(Cleaning))
    return _FUNCTIONS[how](text)


def _none(text: str) -> str:
    return " ".join(text.split())


def _lower(text: str) -> str:
    return _none(text).lower()


def _clip(text: str) -> str:
    return _lower(_repair(text))


def _canonicalize(text: str) -> str:
    return _lower(_repair(text).replace("_", " ").translate(_NO_PUNCTUATION))


def _repair(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # nothing to repair or unescape; 80,000 prompts would spend seconds in ftfy otherwise
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))


_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "none": _none,
    "lower": _lower,
    "clip": _clip,
    "canonicalize": _canonicalize,
}
