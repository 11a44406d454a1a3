"""MMVP's paired form: `Questions.csv` and `MMVP Images/`; two pictures, one question, opposite answers.

Every pair is chosen among `CANDIDATES` pictures, so that questions on details (colour, pattern, facing, count,
relations) come before those that any two scenes allow (what is there, indoors or outdoors). Two thirds of the pairs
show one object of the same category, a third show several objects.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence

from mtv.draws import Draws
from mtv.errors import DataError
from mtv.miniworld.folder import SetFolder
from mtv.miniworld.language.pairs import PairKind, PairQuestion, pair_questions
from mtv.miniworld.layouts.base import CHUNK, Layout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, mixed_size
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES

SPLIT = "mmvp/test"
CANDIDATES = 4
"""Pictures of which two make a pair."""
DETAILS: tuple[PairKind, ...] = ("count", "colour", "pattern", "side", "depth", "facing", "support", "view")
"""Kinds of questions that are asked where two of the pictures allow it."""


def choose(shots: Sequence[Shot], draws: Draws) -> tuple[PairQuestion, Shot, Shot]:
    """Two of the pictures and a question that tells them apart; which kind is drawn evenly from those they offer.

    Raises:
        DataError: no two of them differ in anything that can be asked.
    """
    for kinds in (DETAILS, None):
        found: dict[PairKind, tuple[PairQuestion, Shot, Shot]] = {}
        for a, b in itertools.combinations(shots, 2):
            question = pair_questions(a.frame, b.frame, draws.child(a.request.index, b.request.index), kinds)
            if question is not None:
                found.setdefault(question.kind, (question, a, b))
        if found:
            return found[draws.child("kind").choice(list(found))]
    raise DataError(
        f"no question tells the scenes {', '.join(s.frame.scene.id for s in shots)} apart", "Choose another seed."
    )


class Mmvp(Layout):
    """Pairs of pictures with a two-way question each."""

    name = "mmvp"
    title = "MMVP's paired form: two-way questions"

    def chunk_length(self, scale: Scale) -> int:
        """Whole pairs."""
        return CHUNK // CANDIDATES * CANDIDATES

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """The candidates of every pair; those of one pair have one size."""
        found = []
        for index in range(scale.mmvp * CANDIDATES):
            pair = index // CANDIDATES
            width, height = mixed_size(spec, SPLIT, pair, shorter=spec.size)
            several = pair % 3 == 2
            found.append(
                SceneRequest(
                    split=SPLIT,
                    index=index,
                    purpose="several" if several else "single",
                    width=width,
                    height=height,
                    test=True,
                    category=None if several else Draws(spec.seed, SPLIT, pair, "category").choice(CATEGORIES),
                )
            )
        return found

    def write_chunk(self, number: int, shots: Iterable[Shot], folder: SetFolder) -> list[Row]:
        """Pairs one by one; the questions go into the rows."""
        rows: list[Row] = []
        shots = iter(shots)
        while candidates := list(itertools.islice(shots, CANDIDATES)):
            pair = candidates[0].request.index // CANDIDATES
            question, *chosen = choose(candidates, candidates[0].draws("pair"))
            options = "(a) {} (b) {}".format(*question.choices)
            for place, (shot, answer) in enumerate(zip(chosen, question.answers, strict=True), 1):
                index = 2 * pair + place
                folder.write(f"MMVP Images/{index}.jpg", jpeg(shot.frame.rgb_HW3))
                row = [str(index), question.question, options, f"({'ab'[answer]})"]
                rows.append({"kind": question.kind, "row": row})
        return rows

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """`Questions.csv`."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["Index", "Question", "Options", "Correct Answer"])
        table.writerows(row["row"] for row in rows)
        folder.write("Questions.csv", text.getvalue().encode("utf-8"))
        return {"questions": len(rows), "pairs": len(rows) // 2}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`Questions.csv`: index, question, options `(a) x (b) y`, answer. Questions 2k - 1 and 2k are a "
            "pair: the same question about two pictures, with opposite answers.",
            "`MMVP Images/<index>.jpg`.",
        )
