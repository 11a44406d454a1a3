"""Words of records on their way into the page: nothing in them may act as markup or tell whose machine they came from.

Every string that comes from a record passes through `scrub` once and is escaped when HTML is made of it: by
`mtv.leaderboards.formats` inside tables, by `esc` everywhere else.
"""

from __future__ import annotations

import html
import re

_POSIX = re.compile(r"(?<![\w/.~…<])~?(?:/(?!/)[^\s'\"`,;()<>|/]*)+")
_DRIVE = re.compile(r"(?<!\w)[A-Za-z]:\\[^\s'\"`,;()<>|]+")
_FILE_URL = re.compile(r"\bfile://\S+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def scrub(value: object) -> str:
    """`value` as text without control characters, and with absolute paths cut to their last component.

    >>> scrub("no such file: /home/ada/data/val.txt (see 1/4, a/b)")
    'no such file: …/val.txt (see 1/4, a/b)'
    """
    text = _FILE_URL.sub(lambda m: _last(m[0]), _CONTROL.sub("\ufffd", str(value)))
    return _DRIVE.sub(lambda m: _last(m[0].replace("\\", "/")), _POSIX.sub(lambda m: _last(m[0]), text))


def _last(path: str) -> str:
    """`…/name`; a lone slash, as in `kg / m`, stays."""
    end = re.search(r"[.:!?]*$", path)
    tail = end[0] if end else ""
    parts = [p for p in path[: len(path) - len(tail)].split("/") if p]
    return f"…/{parts[-1]}{tail}" if parts else path


def esc(value: object) -> str:
    """`scrub`, then escaped for HTML text and quoted attributes."""
    return html.escape(scrub(value), quote=True)


def anchor(*parts: str) -> str:
    """An id for the page: letters, digits and `-`, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-") or "part"
