"""Figures as files: PDF, PNG or SVG by suffix, the same bytes for the same figure, written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.atomic import atomic_write_bytes
from mtv.errors import unknown
from mtv.leaderboards.figures.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_FORMATS: tuple[str, ...] = ("pdf", "png", "svg")
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""Entries that matplotlib would add: dates and versions, which would make equal figures differ."""


@styled
def figure_bytes(figure: Figure, fmt: str) -> bytes:
    """The figure as a file of that format; equal figures give equal bytes.

    Raises:
        UsageError: unknown format.
    """
    if fmt not in FIGURE_FORMATS:
        raise unknown("figure format", fmt, FIGURE_FORMATS)
    out = io.BytesIO()
    figure.savefig(out, format=fmt, metadata=_METADATA[fmt])
    return out.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, in the format of its suffix, atomically.

    Raises:
        UsageError: a suffix other than .pdf, .png, .svg.
        CacheError: the file cannot be written; names it.
    """
    atomic_write_bytes(path, figure_bytes(figure, path.suffix.lower().lstrip(".")))
