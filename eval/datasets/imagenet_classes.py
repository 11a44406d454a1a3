"""The 1000 ImageNet-1k classes, what is known about the labels of the validation pictures, and classes of a set's own.

All ImageNet lists come from files that installed libraries ship, read as files: neither timm nor torch is imported.
"""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mtv.errors import DataError
from mtv.hashing import sha256_lines

WNIDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""SHA-256 of the sorted wnids joined by LF (`protocols/zero_shot_and_retrieval.md` section 2.1)."""
NAMES_SHA256 = "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
"""SHA-256 of open_clip's 1000 class names joined by LF (section 2.3)."""

CLASS_NAMES = "classnames.txt"
"""File that names classes: beside `val/` one line `<wnid> <name>` each; beside shards one name per ImageNet class."""
WNID = re.compile(r"n\d{8}")
_NAMED = re.compile(rf"({WNID.pattern})\s+(\S.*)")


@dataclass(frozen=True, kw_only=True)
class OtherClasses:
    """A label space that is not ImageNet's, as `classnames.txt` defines it."""

    wnids: tuple[str, ...]
    """Class ids in ASCII order; the position is the class index."""
    names: tuple[str, ...]
    """Name of each."""


def other_classes(path: Path) -> OtherClasses | None:
    """Read a `classnames.txt` with one line `<wnid> <name>` per class.

    Returns:
        None where the file is absent, lists names alone (CLIP_benchmark's form), or has only wnids of ImageNet-1k: then
        the labels are ImageNet's, and so are the names.

    Raises:
        DataError: a line without wnid or name among others that have both, a wnid that occurs twice, no text.
    """
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8 text ({e.reason})", "Save the file as UTF-8.") from e
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not any(WNID.match(line) for _, line in lines):
        return None
    names: dict[str, str] = {}
    for number, line in lines:
        match = _NAMED.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is not `<wnid> <name>`",
                "Write one class per line, such as `n90000001 mug`.",
            )
        if match[1] in names:
            raise DataError(f"{path}, line {number}: {match[1]} occurs twice", "Name each class once.")
        names[match[1]] = " ".join(match[2].split())
    if set(names) <= set(imagenet_wnids()):
        return None
    wnids = tuple(sorted(names))
    return OtherClasses(wnids=wnids, names=tuple(names[w] for w in wnids))


@lru_cache(maxsize=1)
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 wnids in ASCII order; the position is the class index.

    Raises:
        DataError: the installed timm ships another list.
    """
    path = _timm_info() / "imagenet_synsets.txt"
    wnids = tuple(sorted(path.read_text(encoding="utf-8").split()))
    if sha256_lines(wnids) != WNIDS_SHA256:
        raise DataError(f"{path}: not the 1000 ImageNet-1k wnids", "Reinstall timm (1.0.20 or newer, below 2).")
    return wnids


def reassessed_labels() -> list[list[int]]:
    """Image number - 1 to the class indices that human raters accept (ReaL, Beyer et al. 2020); empty where none."""
    labels: list[list[int]] = json.loads((_timm_info() / "imagenet_real_labels.json").read_text(encoding="utf-8"))
    return labels


def agreement_with_reassessed(labels: dict[int, int]) -> tuple[int, int]:
    """How many validation pictures bear a label that the raters accept.

    The original labels reach about 90 %, a permuted class order about 0.1 %: this finds pictures in wrong folders.

    Args:
        labels: image number 1..50000 to class index.

    Returns:
        (accepted, pictures with at least one accepted class).
    """
    real = reassessed_labels()
    rated = [(index, real[number - 1]) for number, index in labels.items() if real[number - 1]]
    return sum(index in accepted for index, accepted in rated), len(rated)


def check_class_names(path: Path) -> None:
    """Check that line i of a `classnames.txt` names class i, so that numeric labels mean the sorted-wnid order.

    Older exports differ from today's list in single names, so 90 % equal lines are enough.

    Raises:
        DataError: not 1000 names, or another order; names the first line that differs.
    """
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if sha256_lines(names) == NAMES_SHA256:
        return
    repair = "Export the shards of imagenet1k again; the labels of these mean other classes."
    if len(names) != 1000:
        raise DataError(f"{path}: {len(names)} class names, expected 1000", repair)
    standard = standard_class_names()
    differing = [i for i, (a, b) in enumerate(zip(names, standard, strict=True)) if a.lower() != b.lower()]
    if len(differing) > 100:
        i = differing[0]
        raise DataError(
            f"{path}: {len(differing)} of 1000 class names differ from the ImageNet order; the first is line {i + 1}, "
            f"{names[i]!r} instead of {standard[i]!r}",
            repair,
        )


def standard_class_names() -> tuple[str, ...]:
    """open_clip's 1000 names in class order, from its metadata file; the package and torch stay out."""
    path = _folder_of("open_clip") / "zero_shot_metadata.py"
    names: tuple[str, ...] = tuple(runpy.run_path(str(path))["IMAGENET_CLASSNAMES"])
    if sha256_lines(names) != NAMES_SHA256:
        raise DataError(f"{path}: not the 1000 ImageNet class names", "Reinstall open_clip_torch (3.3).")
    return names


def _timm_info() -> Path:
    return _folder_of("timm") / "data" / "_info"


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{package} is not installed; the ImageNet class lists come from it", f"Install {package}.")
    return Path(spec.submodule_search_locations[0])
