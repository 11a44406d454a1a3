"""Sets of questions about pictures: CV-Bench, MMVP, RealWorldQA (`protocols/vqa.md` section 3).

* A question carries what a prompt (section 4) and a score (section 5) need, so no annotation file is read twice.
* The answer is an index into the choices or a text; `label` spells either as a right response does.
* The fingerprint hashes every field, so another answer, order of choices or pairing is another set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from string import ascii_uppercase

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, Dataset, FileRef, fingerprint_of
from mtv.eval.datasets.common import bad_headers
from mtv.eval.datasets.outcomes import usable
from mtv.eval.datasets.registry import ReaderInfo
from mtv.hashing import sha256_json

_LETTER = re.compile(r"\(?([A-Za-z])\)?")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one picture: multiple choice (`choices`, `answer`) or open (`open_answer`)."""

    id: str
    """Stable id, unique in the set."""
    image: str
    """Key of `Dataset.images`; several questions may share a picture."""
    question: str
    """The question alone, as the file has it."""
    choices: tuple[str, ...] = ()
    """Texts of the options in the order of their letters; empty for an open question."""
    answer: int | None = None
    """Index of the right choice; None for an open question."""
    open_answer: str = ""
    """The right text of an open question; empty otherwise."""
    prompt: str = ""
    """Question and options as the set itself spells them (CV-Bench); empty where it has no such field."""
    type: str = ""
    """Coarse stratum, CV-Bench: 2D, 3D."""
    task: str = ""
    """Stratum, CV-Bench: Count, Relation, Depth, Distance."""
    source: str = ""
    """Where the picture comes from, CV-Bench: ADE20K, COCO, Omni3D; its official score weights these."""
    pair: str = ""
    """Questions that only count together share it (MMVP); empty where there are none."""

    def __post_init__(self) -> None:
        if self.choices and (self.answer is None or not 0 <= self.answer < len(self.choices)):
            raise DataError(f"question {self.id}: answer {self.answer} is none of its {len(self.choices)} choices")
        if self.choices and self.open_answer:
            raise DataError(f"question {self.id}: both choices and open_answer {self.open_answer!r} are given")
        if not self.choices and (self.answer is not None or not self.open_answer):
            raise DataError(f"question {self.id}: open_answer is missing, and there are no choices")

    @property
    def label(self) -> str:
        """What a right response says: the letter of the choice, upper case, or the open answer."""
        return self.open_answer if self.answer is None else ascii_uppercase[self.answer]


@dataclass(frozen=True, kw_only=True)
class QuestionSet(Dataset):
    """Pictures with questions."""

    questions: tuple[Question, ...]
    """In canonical order: file order for CV-Bench and RealWorldQA, by index for MMVP."""


def letter_index(text: str, n_choices: int) -> int:
    """Index of the choice that `(A)`, `(a)` or `A` names.

    >>> letter_index("(b)", 2)
    1

    Raises:
        DataError: no single letter, or one beyond the choices.
    """
    match = _LETTER.fullmatch(text.strip())
    if match is None:
        raise DataError(f"answer {text!r} is no letter such as (A)")
    index = ascii_uppercase.index(match[1].upper())
    if index >= n_choices:
        raise DataError(f"answer {text!r} is beyond the {n_choices} choices")
    return index


def repeated_ids(questions: Sequence[Question]) -> list[str]:
    """A sentence for every id that several questions bear, else nothing."""
    seen: set[str] = set()
    twice = dict.fromkeys(q.id for q in questions if q.id in seen or seen.add(q.id))  # type: ignore[func-returns-value]
    return [f"question {name} occurs more than once" for name in twice]


def picture_problems(images: Mapping[str, FileRef]) -> list[str]:
    """A sentence for every picture file that is not there, is empty or does not begin like a picture."""
    there = {name: ref for name, ref in images.items() if ref.path.is_file()}
    missing = [f"{ref.name}: missing" for name, ref in images.items() if name not in there]
    return missing + [f"{name}: empty or no picture" for name in bad_headers(there)]


def accept(
    info: ReaderInfo,
    *,
    split: str,
    root: Path,
    layout: str,
    questions: Sequence[Question],
    images: Mapping[str, FileRef],
    found: Mapping[str, int],
    expected: Mapping[str, int],
    notes: Sequence[str] = (),
    label: str = "",
) -> tuple[CheckReport, QuestionSet]:
    """The report and the data set of questions that may be asked.

    Args:
        found: counts besides those of questions and images.
        expected: counts of the full split.
        notes: reasons why this is not the benchmark itself, one sentence each.
        label: replaces `subset (n of N)` where the questions are not those of the benchmark at all.
    """
    report = usable(
        info,
        split=split,
        root=root,
        layout=layout,
        found={"questions": len(questions), **found, "images": len(images)},
        expected=expected,
        unit="questions",
        fingerprint=fingerprint_of((q.id, sha256_json(list(astuple(q)))) for q in questions),
        notes=notes,
    )
    report = replace(report, label=label or report.label)
    return report, QuestionSet(
        name=info.name, split=split, report=report, images=dict(images), questions=tuple(questions)
    )
