"""What must not stand in a file that everybody reads: directories of a machine, host names, addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_PATTERNS = (
    ("an absolute path", re.compile(r"(?<![\w./~-])/[\w.-]+/|(?<!\w)~/|(?<!\w)[A-Za-z]:\\|\\\\\w+\\")),
    ("an address", re.compile(r"://|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")),
    ("a host name", re.compile(r"(?<![\w.-])(?:localhost|[\w-]+\.(?:local|internal|lan|corp|intra))(?![\w-])")),
)


def leaks(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(dotted field, what it shows) for every text in a JSON value that shows a directory, an address or a host.

    Args:
        value: text, number, list or mapping.
        where: dotted name of it.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaks(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for k, item in enumerate(value):
            yield from leaks(item, f"{where}[{k}]")
    elif isinstance(value, str):
        yield from ((where, what) for what, pattern in _PATTERNS if pattern.search(value))
