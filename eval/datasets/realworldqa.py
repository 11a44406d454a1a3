"""RealWorldQA: open and lettered questions on photographs, hosted as Parquet with the pictures inside (`vqa.md` 3).

The options of a lettered question, and how to answer, are part of the question text, so every question is open here:
its answer is what the table says, such as `A`, `Yes` or `2`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mtv.errors import DataError, unknown
from mtv.eval.datasets.base import CheckReport, FileRef
from mtv.eval.datasets.common import roots_below
from mtv.eval.datasets.outcomes import ambiguous, missing, wrong
from mtv.eval.datasets.parquet import pictures, read_rows, table_columns
from mtv.eval.datasets.questions import Question, QuestionSet, accept
from mtv.eval.datasets.registry import ReaderInfo

FIELDS = ("question", "answer")

LAYOUT = """\
RealworldQA/
  data/test-00000-of-00002.parquet, ...     765 rows in all: image {bytes, path}, question, answer; 0.7 GB
    (older copies: test_0412-...; the files may also lie beside the folder `data`)"""

INFO = ReaderInfo(
    name="realworldqa",
    title="RealWorldQA: questions on photographs, many from cars; read by the task vqa",
    default_split="test",
    splits=("test",),
    licence="CC BY-ND 4.0",
    how_to_get="Described on the card of xai-org/RealworldQA, which holds the tables.",
    layout=LAYOUT,
    expected={"questions": 765},
)

_NAMES = ("realworldqa", "realworld_qa")
_TABLE = re.compile(r"test(_0412)?-\d{5}-of-(?P<count>\d{5})\.parquet")


def inspect(data: Path, *, split: str = "test") -> tuple[CheckReport, QuestionSet | None]:
    """Look at the tables of RealWorldQA under `data`: columns, rows, questions and answers.

    The pictures are inside the tables and are looked at by the full check only.

    Args:
        data: the folder that holds the tables or their folder `data`, or up to two levels above it.
        split: only `test`.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    if split not in INFO.splits:
        raise unknown("realworldqa split", split, INFO.splits)
    # many hosted sets have files of these names: only a folder of this name, or --data itself, can be meant
    roots = roots_below(data, lambda d: (d == data or d.name.lower() in _NAMES) and _is_root(d))
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root, problems = roots[0], list[str]()
    tables = _tables(root)
    announced = {int(m["count"]) for t in tables if (m := _TABLE.fullmatch(t.name))}
    if announced != {len(tables)}:
        problems.append(f"{len(tables)} tables are there; their names say {', '.join(map(str, sorted(announced)))}")
    questions, images = _read(root, tables, problems)
    if not questions and not problems:
        problems.append("the tables hold no row")
    layout = ", ".join(t.relative_to(root).as_posix() for t in tables)
    found = {"questions": len(questions)}
    if problems:
        repair = "Copy the tables of one version again, complete."
        return wrong(INFO, split=split, root=root, problems=problems, repair=repair, layout=layout, found=found), None
    return accept(
        INFO,
        split=split,
        root=root,
        layout=layout,
        questions=questions,
        images=images,
        found={},
        expected=INFO.expected,
    )


def _tables(folder: Path) -> list[Path]:
    return sorted(p for place in (folder / "data", folder) for p in place.glob("*.parquet") if _TABLE.fullmatch(p.name))


def _is_root(folder: Path) -> bool:
    tables = _tables(folder)
    try:
        return bool(tables) and set(table_columns(tables[0])) == {"image", *FIELDS}
    except DataError:
        return folder.name.lower() in _NAMES  # a damaged table is reported, not overlooked


def _read(root: Path, tables: list[Path], problems: list[str]) -> tuple[list[Question], dict[str, FileRef]]:
    """Questions and pictures in the order of files and rows; ids count from 0 over all tables."""
    questions: list[Question] = []
    images: dict[str, FileRef] = {}
    for table in tables:
        name = table.relative_to(root).as_posix()
        try:
            rows, refs = read_rows(table, FIELDS), pictures(table, name)
        except DataError as e:
            problems.append(e.message)
            continue
        for number, (row, ref) in enumerate(zip(rows, refs, strict=True)):
            if bad := [f for f in FIELDS if not _is_text(row[f])]:
                problems.append(f"{name} row {number}: {bad[0]} is {row[bad[0]]!r}, expected text")
                continue
            key = str(len(questions))
            questions.append(Question(id=key, image=key, question=row["question"], open_answer=row["answer"]))
            images[key] = ref
    return questions, images


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
