"""Small parts that the readers share: listing folders, naming files, and turning an error into a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, FileRef, Verdict
from mtv.eval.datasets.outcomes import folders, outermost
from mtv.eval.datasets.registry import ReaderInfo

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Lower-case suffixes that count as pictures; everything else in an image folder is ignored."""

_HEADERS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Outcome of comparing what was found with what is known about a data set."""

    verdict: Verdict
    """As in `CheckReport`."""
    label: str = ""
    """As in `CheckReport`."""
    problems: tuple[str, ...] = ()
    """One sentence each; for `ok-but` they are remarks."""
    repair: str = ""
    """One sentence."""


def names_in(folder: Path) -> tuple[list[str], list[str]]:
    """Visible (sub-folders, pictures) of a folder, each sorted; hidden files such as `._x.jpg` are left out."""
    folders, pictures = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                pictures.append(entry.name)
    return sorted(folders), sorted(pictures)


def file_refs(data: Path, folder: Path, names: Iterable[str]) -> list[FileRef]:
    """References to the files `names` of one folder below the data root."""
    prefix = folder.relative_to(data).as_posix()
    start = "" if prefix == "." else f"{prefix}/"
    return [FileRef(path=folder / name, name=f"{start}{name}") for name in names]


def file_ref(data: Path, path: Path) -> FileRef:
    """Reference to a plain file below the data root."""
    return file_refs(data, path.parent, [path.name])[0]


def some(items: Sequence[object] | Iterable[object], n: int = 5) -> str:
    """`a, b, c` or `a, b, c, d, e, ... (12 in all)`."""
    listed = list(items)
    text = ", ".join(str(i) for i in listed[:n])
    return text if len(listed) <= n else f"{text}, ... ({len(listed)} in all)"


def the_one(candidates: Sequence[Path], what: str, data: Path) -> Path:
    """The only candidate. Raises DataError that lists all of them when there are several."""
    if len(candidates) == 1:
        return candidates[0]
    listing = some([c.relative_to(data).as_posix() or "." for c in candidates], 10)
    raise DataError(
        f"{what}: {len(candidates)} candidates below --data: {listing}", "Point --data at the one that is meant."
    )


def bad_headers(images: Mapping[str, FileRef]) -> list[str]:
    """Names of the files that are empty, unreadable or do not begin like a JPEG, PNG, WebP or BMP picture."""
    refs = list(images.values())
    batches = [refs[i : i + 512] for i in range(0, len(refs), 512)]
    # threads, because on a network disk each small read waits
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [name for names in pool.map(_without_header, batches) for name in names]


def _without_header(refs: Sequence[FileRef]) -> list[str]:
    return [ref.name for ref in refs if not _has_header(ref)]


def _has_header(ref: FileRef) -> bool:
    try:
        handle = os.open(ref.path, os.O_RDONLY)
        try:
            head = os.pread(handle, 12 if ref.size is None else min(12, ref.size), ref.offset or 0)
        finally:
            os.close(handle)
    except OSError:
        return False
    return head.startswith(_HEADERS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def refuse_bad_headers(images: Mapping[str, FileRef]) -> None:
    """Raise DataError listing the pictures that cannot be pictures."""
    bad = bad_headers(images)
    if bad:
        raise DataError(
            f"{len(bad)} files are empty or no pictures: {some(bad, 20)}", "Copy these files again from the archive."
        )


def refuse(
    info: ReaderInfo,
    split: str,
    error: DataError,
    *,
    root: Path | None = None,
    layout: str = "",
    found: Mapping[str, int] | None = None,
    expected: Mapping[str, int] | None = None,
) -> CheckReport:
    """A reader's DataError as a `wrong` report: its message is the problem, its hint the repair."""
    return CheckReport(
        name=info.name,
        verdict="wrong",
        root=root,
        layout=layout,
        split=split,
        found=dict(found or {}),
        expected=dict(info.expected if expected is None else expected),
        problems=tuple(error.message.splitlines()),
        repair=error.hint,
    )


def roots_below(data: Path, is_root: Callable[[Path], bool], names: Sequence[str] = ()) -> list[Path]:
    """Folders at most two levels below `data` that `is_root` accepts, outermost only.

    Args:
        data: what the user gave as --data.
        is_root: the test; called with every visible folder.
        names: lower-case folder names to prefer: when a candidate bears one, only those are returned.

    Raises:
        DataError: `data` is no directory.
    """
    found = [d for d in folders(data) if is_root(d)]
    named = [d for d in found if d.name.lower() in names]
    return outermost(named or found)
