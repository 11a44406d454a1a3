"""List files of depth benchmarks, `picture depth focal` per line, as BTS wrote them for NYUv2 and KITTI.

Paths may begin with `/` (BTS's NYU train list does, its test list does not): it is stripped, or a join would discard
the root. The last line may lack its newline. A depth of `None` marks a picture without ground truth; it is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef

NO_DEPTH = "None"
"""Second column of a picture without ground truth."""
_REPAIR = "Use the list as github.com/cleinc/bts has it (train_test_inputs)."


@dataclass(frozen=True, kw_only=True)
class DepthLine:
    """One usable line: both paths relative, without leading `/`."""

    image: str
    """First column."""
    depth: str
    """Second column."""
    focal: float
    """Third column, pixels."""

    @property
    def id(self) -> str:
        """The picture's path without its suffix."""
        return str(PurePosixPath(self.image).with_suffix(""))


@dataclass(frozen=True, kw_only=True)
class DepthList:
    """A list file."""

    lines: tuple[DepthLine, ...]
    """Usable lines, ordered by picture path."""
    without_depth: int
    """Lines that were dropped because their depth is `None`."""


def read_depth_list(path: Path, *, name: str) -> DepthList:
    """Parse a list file. A line that is repeated word for word counts once.

    Args:
        path: the file.
        name: what an error calls it.

    Raises:
        DataError: not readable, another format, a path that leaves the root, or one picture twice; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{name}: cannot be read ({e})", _REPAIR) from e
    lines: dict[str, DepthLine] = {}
    dropped = 0
    for number, row in enumerate(text.splitlines(), start=1):
        columns = row.split()
        if not columns:
            continue
        line = _parse(columns, f"{name}, line {number}")
        if line.depth == NO_DEPTH:
            dropped += 1
        elif lines.setdefault(line.image, line) != line:
            where = f"{name}, line {number}"
            raise DataError(f"{where}: {line.image} is listed twice, with another depth or focal length", _REPAIR)
    return DepthList(lines=tuple(lines[k] for k in sorted(lines)), without_depth=dropped)


def _parse(columns: Sequence[str], where: str) -> DepthLine:
    if len(columns) == 3 and PurePosixPath(columns[2]).name.startswith("filled_"):
        raise DataError(
            f"{where}: third column is {columns[2]}: the labelled 795 / 654 list of prs-eth/Marigold, another set",
            _REPAIR,
        )
    try:
        focal = float(columns[2]) if len(columns) == 3 else math.nan
    except ValueError:
        focal = math.nan
    paths = [c.lstrip("/") for c in columns[:2]]
    if not (math.isfinite(focal) and focal > 0) or any(".." in p.split("/") or not p for p in paths):
        raise DataError(f"{where}: expected `picture depth focal`, found {' '.join(columns)[:120]!r}", _REPAIR)
    return DepthLine(image=paths[0], depth=paths[1], focal=focal)


def find_file(root: Path, bases: Sequence[Path], path: str) -> FileRef:
    """The file `path` below the first of `bases` that has it; below the first one when none has.

    Args:
        root: what names are relative to.
        bases: folders inside `root`.
        path: relative path.
    """
    found = next((b / path for b in bases if (b / path).is_file()), bases[0] / path)
    return FileRef(path=found, name=found.relative_to(root).as_posix())
