"""MMVP's paired form: `Questions.csv` and `MMVP Images/`; two pictures, one question, opposite answers."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence

from mtv.errors import DataError
from mtv.miniworld.draws import Draws
from mtv.miniworld.folder import SetFolder
from mtv.miniworld.language.pairs import PairQuestion, pair_questions
from mtv.miniworld.layouts.base import CHUNK, Layout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, mixed_size
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec

SPLIT = "mmvp/test"
CANDIDATES = 3
"""Pictures of which two make a pair: not every two allow a question."""


def choose(shots: Sequence[Shot], draws: Draws) -> tuple[PairQuestion, Shot, Shot]:
    """The first two pictures that one question tells apart.

    Raises:
        DataError: no two do.
    """
    for first, second in itertools.combinations(shots, 2):
        found = pair_questions(first.frame, second.frame, draws.child(first.request.index, second.request.index))
        if found is not None:
            return found, first, second
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
            width, height = mixed_size(spec, SPLIT, index // CANDIDATES, shorter=spec.size)
            found.append(
                SceneRequest(split=SPLIT, index=index, purpose="several", width=width, height=height, test=True)
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
