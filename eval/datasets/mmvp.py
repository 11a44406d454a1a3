"""MMVP: 150 pairs of pictures that CLIP confuses, with one two-way question each (`vqa.md` section 3).

* `Questions.csv` is read by position: its first header cell is `Index` in some copies and `lndex` in others.
* A pair only counts when both of its questions are there and have opposite answers; anything else is refused, because
  a score over pairs would mean nothing (traps T14, T15).
* The table that the hub shows holds the pictures alone, in the order 1, 10, 100; it is refused by name, and so is
  MMVP-VLM, which has statements instead of questions.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from mtv.errors import DataError, unknown
from mtv.eval.datasets.base import CheckReport, FileRef
from mtv.eval.datasets.common import names_in, roots_below
from mtv.eval.datasets.outcomes import ambiguous, missing, wrong
from mtv.eval.datasets.questions import Question, QuestionSet, accept, letter_index, picture_problems, repeated_ids
from mtv.eval.datasets.registry import ReaderInfo

PICTURES = "MMVP Images"
QUESTIONS = "Questions.csv"

KNOWN = {
    "1": "Are the butterfly's wings closer to being open or closed?",
    "279": "Is the elderly person standing or sitting in the picture?",
}
"""Two questions of MMVP by index (tsb0601/MMVP issue 14): a set that has others under these numbers is another set."""

LAYOUT = f"""\
MMVP/
  {QUESTIONS}     index, question, options `(a) x (b) y`, answer `(a)`; 300 rows, two per pair
  {PICTURES}/      1.jpg ... 300.jpg"""

INFO = ReaderInfo(
    name="mmvp",
    title="MMVP: paired two-way questions on pictures that CLIP confuses; read by the task vqa",
    default_split="test",
    splits=("test",),
    licence="MIT",
    how_to_get="Described in arXiv 2401.06209 and in tsb0601/MMVP README.md; the files of the data set MMVP/MMVP.",
    layout=LAYOUT,
    expected={"questions": 300, "pairs": 150},
)

_NAMES = ("mmvp",)
_MARK = re.compile(r"\(([a-z])\)", re.IGNORECASE)
_REPAIR = "Restore Questions.csv and the pictures from the data set MMVP/MMVP, unrenamed."


def inspect(data: Path, *, split: str = "test") -> tuple[CheckReport, QuestionSet | None]:
    """Look at the questions of MMVP, or of a set in its layout, and at the headers of its pictures.

    Args:
        data: the folder that holds `Questions.csv` and `MMVP Images`, or up to two levels above it.
        split: only `test`.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    if split not in INFO.splits:
        raise unknown("mmvp split", split, INFO.splits)
    roots = roots_below(data, _is_root, _NAMES)
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root, problems = roots[0], list[str]()
    if not (root / QUESTIONS).is_file():
        return wrong(INFO, split=split, root=root, problems=[_only_pictures(root)], repair=_REPAIR), None
    questions = _read(root / QUESTIONS, problems)
    images = {q.id: FileRef(path=root / PICTURES / f"{q.id}.jpg", name=f"{PICTURES}/{q.id}.jpg") for q in questions}
    problems += [*repeated_ids(questions), *_pair_problems(questions), *picture_problems(images)]
    if not questions and not problems:
        problems.append(f"{QUESTIONS}: no question")
    if problems:
        found = {"questions": len(questions)}
        return wrong(INFO, split=split, root=root, problems=problems, repair=_REPAIR, found=found), None
    others = [q for q in questions if q.id in KNOWN and _plain(q.question) != _plain(KNOWN[q.id])]
    return accept(
        INFO,
        split=split,
        root=root,
        layout=f"{QUESTIONS} and {PICTURES}",
        questions=questions,
        images=images,
        found={"pairs": len({q.pair for q in questions})},
        expected=INFO.expected,
        notes=[f"question {q.id} of MMVP reads otherwise: {KNOWN[q.id]!r}" for q in others],
        label=f"not MMVP ({len(questions)} questions)" if others else "",
    )


def split_options(text: str) -> list[str]:
    """Texts of `(a) x (b) y`: a bracketed letter opens an option only when it is the next in the alphabet.

    Nothing when the text does not begin with `(a)`.

    >>> split_options("(a) 2 (two) (b) 3")
    ['2 (two)', '3']
    """
    starts: list[re.Match[str]] = []
    for mark in _MARK.finditer(text):
        if ord(mark[1].lower()) - ord("a") == len(starts):
            starts.append(mark)
    if not starts or text[: starts[0].start()].strip():
        return []
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return [text[m.end() : end].strip() for m, end in zip(starts, ends, strict=True)]


def _is_root(folder: Path) -> bool:
    if (folder / PICTURES).is_dir():
        return True
    return folder.name.lower() in _NAMES and ((folder / QUESTIONS).is_file() or bool(_hosted_tables(folder)))


def _hosted_tables(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet")) + sorted(folder.glob("data/*.parquet"))


def _only_pictures(root: Path) -> str:
    tables = _hosted_tables(root)
    what = (
        tables[0].relative_to(root).as_posix() if tables else f"{PICTURES}, {len(names_in(root / PICTURES)[1])} files"
    )
    return f"{what}: pictures only, as in the hosted table (whose rows go 1, 10, 100, ...); {QUESTIONS} is not there"


def _read(path: Path, problems: list[str]) -> list[Question]:
    """Questions sorted by index."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.reader(f)
            rows = [(f"{path.name} line {reader.line_num}", row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        problems.append(f"{path.name}: cannot be read ({e})")
        return []
    if rows and len(rows[0][1]) == 3:
        problems.append(f"{path.name} has 3 columns: this is MMVP-VLM (statements for CLIP models), not MMVP")
        return []
    questions = []
    for where, row in rows[1:]:
        if not any(cell.strip() for cell in row):
            continue
        try:
            questions.append(_question(row))
        except DataError as e:
            problems.append(f"{where}: {e.message}")
    return sorted(questions, key=lambda q: int(q.id))


def _question(row: list[str]) -> Question:
    """One row: index, question, options, answer. Raises DataError naming the cell."""
    if len(row) < 4:
        raise DataError(f"{len(row)} cells, expected index, question, options, answer")
    index, question, options, answer = (cell.strip() for cell in row[:4])
    if not index.isdecimal() or int(index) < 1:
        raise DataError(f"index {index!r} is no number from 1")
    if not question:
        raise DataError("the question is empty")
    choices = split_options(options)
    if len(choices) != 2 or not all(choices):
        raise DataError(f"options {options!r} do not read `(a) x (b) y`")
    return Question(
        id=str(int(index)),
        image=str(int(index)),
        question=question,
        choices=tuple(choices),
        answer=letter_index(answer, len(choices)),
        pair=str((int(index) - 1) // 2),
    )


def _pair_problems(questions: list[Question]) -> list[str]:
    """Pairs that are incomplete or whose answers are equal. Ids are unique or reported already."""
    pairs: dict[str, dict[str, int | None]] = {}
    for q in questions:
        pairs.setdefault(q.pair, {})[q.id] = q.answer
    problems = []
    for pair, answers in pairs.items():
        first = 2 * int(pair) + 1
        if len(answers) < 2:
            (there,) = answers
            problems.append(f"pair {first}/{first + 1} is incomplete: only question {there} is there")
        elif len(set(answers.values())) < 2:
            problems.append(f"pair {first}/{first + 1}: both questions have the same answer")
    return problems


def _plain(text: str) -> str:
    """Letters only, so that quotation marks and blanks do not matter."""
    return re.sub(r"[^a-z]", "", text.lower())
