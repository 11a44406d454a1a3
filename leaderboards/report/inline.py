"""matplotlib figures inside the page: as SVG, with ids of their own and a table of the numbers below."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtv.leaderboards.figures.save import figure_bytes
from mtv.leaderboards.report.text import esc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ID = re.compile(r'\bid="([^"]+)"')
_HREF = re.compile(r'(xlink:)?href="#([^"]+)"')
_URL = re.compile(r"url\(#([^)]+)\)")
_OPENING = re.compile(r"<svg\b[^>]*>", re.DOTALL)
_VIEW = re.compile(r'viewBox="([^"]+)"')
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_STYLE = re.compile(r"<style\b.*?</style>\s*", re.DOTALL)


def inline_svg(figure: Figure, *, key: str, alt: str) -> str:
    """The figure as an `<svg>` element that can stand beside others.

    matplotlib writes a document: its declaration and metadata go, its global style sheet would reach the whole page
    (the page has that rule for figures), and its ids repeat from figure to figure, so `key` is put in front.

    Args:
        figure: to draw.
        key: unique in the page.
        alt: what a reader who cannot see it is told.
    """
    text = figure_bytes(figure, "svg").decode("utf-8")
    text = _STYLE.sub("", _METADATA.sub("", text))
    opening = _OPENING.search(text)
    view = _VIEW.search(text)
    assert opening is not None, "matplotlib wrote no svg element"
    assert view is not None, "matplotlib wrote an svg element without viewBox"
    body = text[opening.end() :]
    body = _ID.sub(lambda m: f'id="{key}-{m[1]}"', body)
    body = _HREF.sub(lambda m: f'href="#{key}-{m[2]}"', body)
    body = _URL.sub(lambda m: f"url(#{key}-{m[1]})", body)
    body = re.sub(r"\s*<defs>\s*</defs>", "", body)
    width = view[1].split()[2]
    return f'<svg role="img" aria-label="{esc(alt)}" viewBox="{view[1]}" width="{width}pt">{body.rstrip()}\n'
