"""Plain values as YAML in block style, for model cards. PyYAML is no dependency of this package, and this is little.

Text that could be read as anything else (a number, a date, `no`) stands in double quotes with JSON's escapes, which
are YAML's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*( [A-Za-z0-9(][A-Za-z0-9_./()-]*)*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def yaml_text(value: Mapping[str, Any]) -> str:
    """A mapping of text, numbers, booleans, None, lists and mappings, with a final newline.

    Raises:
        TypeError: any other value.
        ValueError: NaN or infinity.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item, nested="  ")
    elif isinstance(value, (list, tuple)) and value:
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(head: str, item: Any, *, nested: str) -> Iterator[str]:
    if isinstance(item, (Mapping, list, tuple)) and item:
        yield head
        # A list may begin in the column of its key: the usual look of model cards.
        indent = nested if isinstance(item, Mapping) else ""
        yield from (f"{indent}{line}" for line in _lines(item))
    else:
        yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        text = json.dumps(value, ensure_ascii=False)
        return _UNPRINTABLE.sub(lambda m: f"\\u{ord(m.group()):04x}", text)
    if isinstance(value, float):
        text = json.dumps(value, allow_nan=False)
        # YAML 1.1 takes 1e-05 for text: the point is required.
        return re.sub(r"^(-?\d+)e", r"\1.0e", text)
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, (Mapping, list, tuple)) and not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    raise TypeError(f"{type(value).__name__} has no place in a model card: {value!r}")
