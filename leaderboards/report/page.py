"""The frame of the page: head, contents, sections, styles and script, in one file that asks the network for nothing.

A content security policy says so to the browser too: pictures from the page itself only, no script but ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from mtv.leaderboards.report.text import esc


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page."""

    key: str
    """Its id."""
    title: str
    """Its heading."""
    body: str
    """HTML, escaped already; headings in it begin at the third level."""
    links: tuple[tuple[str, str], ...] = ()
    """(id, title) of its parts, for the contents."""


def page_html(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole document.

    Args:
        title: first heading.
        lead: HTML below it, escaped already.
        sections: in order; an empty body leaves a section out.
    """
    shown = [s for s in sections if s.body]
    style, script = (_resource(name) for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = "".join(
        f'<section aria-labelledby="{s.key}">\n<h2 id="{s.key}">{esc(s.title)}</h2>\n{s.body}</section>\n'
        for s in shown
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{esc(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#{shown[0].key}">To the results</a>\n'
        f"<header>\n<h1>{esc(title)}</h1>\n{lead}</header>\n{_contents(shown)}"
        f"<main>\n{body}</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _contents(sections: Sequence[Section]) -> str:
    items = []
    for s in sections:
        links = "".join(f'<li><a href="#{key}">{esc(title)}</a></li>' for key, title in s.links)
        below = f"\n<ul>{links}</ul>" if links else ""
        items.append(f'<li><a href="#{s.key}">{esc(s.title)}</a>{below}</li>\n')
    return f'<nav aria-label="Contents">\n<ul>\n{"".join(items)}</ul>\n</nav>\n'


def _resource(name: str) -> str:
    return (files("mtv.leaderboards.report") / name).read_text(encoding="utf-8")
