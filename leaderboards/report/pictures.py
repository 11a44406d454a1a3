"""Pictures of the best and worst samples, chosen under a budget and embedded as data URIs.

* The budget counts bytes of files. It is spent in rounds over all results (best 0 of each, worst 0 of each, best 1 of
  each, ...), so that a small budget shows a little of everything instead of everything of the first model.
* A record may come from elsewhere (`results import`): only WebP files below the record's own folder are read.
* What is left out is counted, per result and for the page.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtv.leaderboards.frame import Stored
from mtv.leaderboards.report.text import esc

DEFAULT_BUDGET_MB = 8.0
_KIND = re.compile(r"(?P<kind>[a-z]+)-(?P<turn>\d+)$")
_ORDER = ("best", "worst")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One embedded picture."""

    kind: str
    """`best`, `worst`, or whatever the task calls it."""
    turn: int
    """Rank within its kind, from 0."""
    data: bytes
    """The WebP file."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass(kw_only=True)
class Gallery:
    """The pictures of one result."""

    shown: list[Picture] = field(default_factory=list)
    """Embedded ones."""
    over_budget: int = 0
    """Left out because of the budget."""
    missing: int = 0
    """Named by the record, but not beside it."""
    unreadable: int = 0
    """There, but no WebP picture, or outside the record's folder."""

    @property
    def total(self) -> int:
        """Pictures that the record names."""
        return len(self.shown) + self.over_budget + self.missing + self.unreadable

    def left_out(self) -> str:
        """What is not shown and why, in words; empty when everything is."""
        reasons = (
            (self.over_budget, "left out to keep the page small"),
            (self.missing, "missing beside the record"),
            (self.unreadable, "unreadable"),
        )
        return "; ".join(f"{n} of {self.total} {why}" for n, why in reasons if n)


def collect(records: Sequence[Stored], budget_mb: float = DEFAULT_BUDGET_MB) -> dict[Path, Gallery]:
    """The gallery of every record that names pictures, by the record's path.

    Args:
        records: in the order of the page.
        budget_mb: megabytes (10^6 bytes) of picture files for the whole page; 0 embeds none.
    """
    galleries = {s.path: Gallery() for s in records if s.record.artefacts}
    queue = sorted((_place(name), k, name) for k, s in enumerate(records) for name in dict.fromkeys(s.record.artefacts))
    left = int(budget_mb * 1e6)
    for (turn, _, kind), k, name in queue:
        gallery, path = galleries[records[k].path], _file(records[k].path, name)
        if path is None:
            gallery.unreadable += 1
        elif not path.is_file():
            gallery.missing += 1
        elif (size := path.stat().st_size) > left:
            gallery.over_budget += 1
        elif picture := _read(path, kind, turn):
            gallery.shown.append(picture)
            left -= size
        else:
            gallery.unreadable += 1
    return galleries


def _place(name: str) -> tuple[int, int, str]:
    """(turn, rank of the kind, kind): the order of the rounds. Names without a number come first."""
    stem = Path(name).stem
    found = _KIND.search(stem)
    kind = found["kind"] if found else stem
    return (int(found["turn"]) if found else 0, _ORDER.index(kind) if kind in _ORDER else len(_ORDER), kind)


def _file(record: Path, name: str) -> Path | None:
    """The file of a picture, or None for one that does not lie below the folder of the record."""
    folder = record.parent.resolve()
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder) and path.suffix == ".webp" else None


def _read(path: Path, kind: str, turn: int) -> Picture | None:
    """The picture, or None where the file is none."""
    import io

    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            return Picture(kind=kind, turn=turn, data=data, size=image.size)
    except (OSError, ValueError):
        return None


def gallery_html(gallery: Gallery, *, title: str) -> str:
    """The pictures of one result in a closed `details`, best and worst apart; empty for a result without any.

    Args:
        gallery: from `collect`.
        title: of the result, for the summary and the alternative texts.
    """
    if not gallery.total:
        return ""
    left = gallery.left_out()
    groups = []
    for kind in dict.fromkeys(p.kind for p in sorted(gallery.shown, key=lambda p: _place(f"{p.kind}-0"))):
        own = sorted((p for p in gallery.shown if p.kind == kind), key=lambda p: p.turn)
        images = "\n".join(_image(p, title) for p in own)
        groups.append(f'<p class="kind">{esc(kind)}</p>\n<div class="pictures">\n{images}\n</div>\n')
    note = f'<p class="note">{esc(left)}.</p>\n' if left else ""
    return (
        f'<details class="gallery">\n<summary>{esc(title)}: {len(gallery.shown)} pictures</summary>\n'
        f"{''.join(groups)}{note}</details>\n"
    )


def _image(picture: Picture, title: str) -> str:
    uri = f"data:image/webp;base64,{base64.b64encode(picture.data).decode('ascii')}"
    alt = f"{title}: {picture.kind} sample {picture.turn + 1}, described in the picture"
    width, height = picture.size
    return f'<img src="{uri}" alt="{esc(alt)}" width="{width}" height="{height}" loading="lazy" decoding="async">'
