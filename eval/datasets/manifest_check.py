"""Files against the manifest of a generated set: sizes in the quick check, hashes with `--full`.

A set of the miniature world carries `manifest.json` with the size and SHA-256 of every file, so a file that is missing,
cut or altered is found even where it still decodes. Sets without such a manifest pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtv.eval.datasets.base import CheckReport
from mtv.hashing import sha256_file

NAME = "manifest.json"
GENERATOR = "mtv.miniworld"
SHOWN = 20
"""Files that a report lists; the rest is counted."""
_REPAIR = "Run the make-mini command in README.md beside {name} again: it makes these files again."


def compare_with_manifest(report: CheckReport, *, full: bool) -> CheckReport:
    """The report, turned to `wrong` where files differ from the manifest of the set.

    Args:
        report: a reader's report.
        full: compare hashes, not only sizes.
    """
    found = None if report.root is None else _manifest(report.root)
    problems = [] if found is None else list(_differences(*found, full=full))
    if not problems:
        return report
    more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return replace(
        report,
        verdict="wrong",
        problems=(*problems[:SHOWN], *more, *(p for p in report.problems if report.verdict == "wrong")),
        repair=_REPAIR.format(name=NAME),
    )


def _manifest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Folder and `files` of the manifest of a generated set: beside the set's root, or one or two folders above."""
    for folder in (root, *root.parents[:2]):
        path = folder / NAME
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("generator") == GENERATOR and "files" in content:
            return folder, content["files"]
    return None


def _differences(folder: Path, files: dict[str, Any], *, full: bool) -> Iterator[str]:
    for name, entry in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError:
            yield f"{name}: missing, but in {NAME}"
            continue
        if size != entry["size"]:
            yield f"{name}: {size} bytes instead of {entry['size']}"
        elif full and sha256_file(path) != entry["sha256"]:
            yield f"{name}: its bytes are not those in {NAME}"
