"""CV-Bench and sets in its fields: multiple-choice questions on counting, position, depth and distance (`vqa.md` 3).

* One row per question in `test_2d` and `test_3d`: `.jsonl` beside the picture tree, or `.parquet` with the pictures
  inside. A full copy has both; the JSON lines are read where their pictures are there, else the Parquet table.
* A row must have `idx, type, task, question, choices, answer, prompt, filename, source` (`FIELDS`); `filename` is
  relative to the folder of the table and may leave it upwards. Further fields are ignored.
* Only rows whose sources are CV-Bench's count as CV-Bench. Everything else, such as `cvbench_like.jsonl`, made from
  other pictures, or the miniature world (sources MiniWorld2D, MiniWorld3D), runs under the label `not CV-Bench`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mtv.errors import DataError, unknown
from mtv.eval.datasets.base import CheckReport, FileRef
from mtv.eval.datasets.common import roots_below
from mtv.eval.datasets.outcomes import ambiguous, missing, wrong
from mtv.eval.datasets.parquet import ParquetPicture, pictures, read_rows
from mtv.eval.datasets.questions import Question, QuestionSet, accept, letter_index, picture_problems, repeated_ids
from mtv.eval.datasets.registry import ReaderInfo

FIELDS = ("idx", "type", "task", "question", "choices", "answer", "prompt", "filename", "source")
"""What a row must have."""

TASKS = {"2D": {"Count": 788, "Relation": 650}, "3D": {"Depth": 600, "Distance": 600}}
"""Published questions per type and task."""

SOURCES = ("ADE20K", "COCO", "Omni3D")
"""Where the pictures of CV-Bench come from."""

LAYOUT = """\
CV-Bench/
  test_2d.jsonl, test_3d.jsonl            1,438 and 1,200 rows, one JSON object per line: idx, type, task, question,
                                          choices, answer, prompt, filename, source
  img/{2D,3D}/...                         the pictures that `filename` names
  or test_2d.parquet, test_3d.parquet     the same rows with the pictures inside (image: {bytes, path})"""


def _expected(types: tuple[str, ...]) -> dict[str, int]:
    tasks = {task: n for kind in types for task, n in TASKS[kind].items()}
    return {"questions": sum(tasks.values()), **tasks}


EXPECTED = {"test": _expected(("2D", "3D")), "test_2d": _expected(("2D",)), "test_3d": _expected(("3D",))}
"""Split to counts."""

INFO = ReaderInfo(
    name="cvbench",
    title="CV-Bench: multiple choice on counting, position, depth and distance; read by the task vqa",
    default_split="test",
    splits=("test", "test_2d", "test_3d"),
    licence="Apache-2.0",
    how_to_get=(
        "Described in arXiv 2406.16860 and on the card of nyu-visionx/CV-Bench, which holds tables and pictures.\n"
        "cvbench_like.jsonl, made from other pictures in the same fields, is read too, but never called CV-Bench."
    ),
    layout=LAYOUT,
    expected=EXPECTED["test"],
)

_PARTS = {"test_2d": "2D", "test_3d": "3D"}
_LIKE = "cvbench_like"
_SUFFIXES = (".jsonl", ".parquet")
_NAMES = ("cv-bench", "cvbench", "cv_bench")


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One file of rows."""

    path: Path
    """The file."""
    type: str
    """`2D` or `3D`, which all of its rows must bear; empty where both may occur."""


def inspect(data: Path, *, split: str = "test") -> tuple[CheckReport, QuestionSet | None]:
    """Look at the tables of a set in CV-Bench's fields under `data` and at the headers of the pictures they name.

    Args:
        data: the folder that holds the tables, or up to two levels above it.
        split: `test` (both types), `test_2d` or `test_3d`.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    if split not in INFO.splits:
        raise unknown("cvbench split", split, INFO.splits)
    roots = roots_below(data, lambda folder: bool(_tables(folder)), _NAMES)
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root, problems = roots[0], list[str]()
    tables = [t for t in _tables(root) if not t.type or split in ("test", f"test_{t.type.lower()}")]
    wanted = tuple(_PARTS.values()) if split == "test" else (_PARTS[split],)
    questions, images = _read(tables, wanted, problems)
    if not questions and not problems:
        return missing(INFO, data, split=split, detail=f"{root}: no question in split {split}"), None
    problems += repeated_ids(questions)
    problems += picture_problems({k: r for k, r in images.items() if not isinstance(r, ParquetPicture)})
    layout = " + ".join(t.path.name for t in tables)
    if problems:
        return wrong(
            INFO,
            split=split,
            root=root,
            problems=problems,
            repair="Restore the rows and files named above from the original tables and picture tree.",
            layout=layout,
            found={"questions": len(questions)},
        ), None
    return _finish(root, questions, images, split=split, layout=layout)


def _tables(folder: Path) -> list[_Table]:
    """The tables of a folder, 2D first; of two forms of one table the one whose pictures can be read."""
    found = []
    for stem, kind in {**_PARTS, _LIKE: ""}.items():
        forms = [p for p in (folder / f"{stem}{suffix}" for suffix in _SUFFIXES) if p.is_file()]
        if forms:
            usable = forms[0] if len(forms) == 1 or _first_picture_is_there(forms[0]) else forms[1]
            found.append(_Table(path=usable, type=kind))
    return [t for t in found if t.type] or found


def _first_picture_is_there(table: Path) -> bool:
    try:
        _, row = next(_rows(table))
        return (table.parent / row["filename"]).is_file()
    except (StopIteration, DataError, KeyError, TypeError):
        return False


def _read(
    tables: list[_Table], wanted: tuple[str, ...], problems: list[str]
) -> tuple[list[Question], dict[str, FileRef]]:
    """Questions of the wanted types in file order, and the pictures they ask about."""
    questions: list[Question] = []
    images: dict[str, FileRef] = {}
    for table in tables:
        try:
            embedded = pictures(table.path, table.path.name) if table.path.suffix == ".parquet" else []
            for number, (where, row) in enumerate(_rows(table.path)):
                try:
                    question = _question(row, table.type)
                except DataError as e:
                    problems.append(f"{where}: {e.message}")
                    continue
                if question.type not in wanted:
                    continue
                questions.append(question)
                file = FileRef(path=table.path.parent / question.image, name=question.image)
                images.setdefault(question.image, embedded[number] if embedded else file)
        except DataError as e:
            problems.append(e.message)
    return questions, images


def _rows(table: Path) -> Iterator[tuple[str, Any]]:
    """Where a row stands, and the row.

    Raises:
        DataError: the file cannot be read, or a line is no JSON; names it.
    """
    if table.suffix == ".parquet":
        for number, row in enumerate(read_rows(table, FIELDS)):
            yield f"{table.name} row {number}", row
        return
    try:
        with table.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{table.name} line {number}", json.loads(line)
    except json.JSONDecodeError as e:
        raise DataError(f"{table.name} line {number}: not valid JSON ({e.msg})") from e
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{table.name}: cannot be read ({e})") from e


def _question(row: Any, table_type: str) -> Question:
    """One row, checked. Raises DataError naming the field."""
    absent = [f for f in FIELDS if not isinstance(row, Mapping) or row.get(f) is None]
    if absent:
        raise DataError(f"lacks {', '.join(absent)}")
    strings = {f: row[f] for f in ("type", "task", "question", "answer", "prompt", "filename", "source")}
    if bad := [f for f, value in strings.items() if not isinstance(value, str) or not value.strip()]:
        raise DataError(f"{bad[0]} is {strings[bad[0]]!r}, expected text")
    if not isinstance(row["idx"], int) or isinstance(row["idx"], bool):
        raise DataError(f"idx is {row['idx']!r}, expected a number")
    if strings["type"] not in TASKS or (table_type and strings["type"] != table_type):
        raise DataError(f"type is {strings['type']!r}, expected {table_type or ' or '.join(TASKS)}")
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise DataError(f"choices are {choices!r}, expected at least two texts")
    if PurePosixPath(strings["filename"]).is_absolute():
        raise DataError(f"filename {strings['filename']!r} is not relative to the table")
    return Question(
        id=f"{strings['type']}/{row['idx']}",
        image=strings["filename"],
        question=strings["question"],
        choices=tuple(choices),
        answer=letter_index(strings["answer"], len(choices)),
        prompt=strings["prompt"],
        type=strings["type"],
        task=strings["task"],
        source=strings["source"],
    )


def _finish(
    root: Path, questions: list[Question], images: dict[str, FileRef], *, split: str, layout: str
) -> tuple[CheckReport, QuestionSet]:
    other = sorted({q.source for q in questions} - set(SOURCES))
    notes = [f"pictures from {', '.join(other)}; CV-Bench has {', '.join(SOURCES)} only"] if other else []
    if layout.startswith(_LIKE):
        notes.append(f"{layout} is made in the fields of CV-Bench; it is another set")
    return accept(
        INFO,
        split=split,
        root=root,
        layout=layout,
        questions=questions,
        images=images,
        found=Counter(q.task for q in questions),
        expected=EXPECTED[split],
        notes=notes,
        label=f"not CV-Bench ({len(questions)} questions)" if notes else "",
    )
