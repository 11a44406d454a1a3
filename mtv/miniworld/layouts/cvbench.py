"""CV-Bench's fields: `test_2d.jsonl` and `test_3d.jsonl` with a picture tree.

The sources are called MiniWorld2D and MiniWorld3D, so that no reader takes the set for CV-Bench. Kinds of questions
that CV-Bench does not have (existence, colour) are left out. Objects are named by descriptions; no boxes are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.language.items import Question
from mtv.miniworld.language.questions import questions
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, json_bytes, mixed_size
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec

SPLIT = "cvbench/test"
TASKS = ("Count", "Relation", "Depth", "Distance")
PER_PICTURE = 2
"""Most questions about one picture."""


def chosen(found: Sequence[Question], index: int) -> list[Question]:
    """At most `PER_PICTURE` questions of different tasks; the task that comes first changes from picture to picture."""
    by_task = {q.task: q for q in reversed(found)}
    order = [TASKS[(index + i) % len(TASKS)] for i in range(len(TASKS))]
    return [by_task[task] for task in order if task in by_task][:PER_PICTURE]


def question_record(question: Question, filename: str) -> dict[str, Any]:
    """A row of a table, without its number."""
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip(ascii_uppercase, question.choices, strict=False))
    return {
        "type": question.type,
        "task": question.task,
        "question": question.question,
        "choices": list(question.choices),
        "answer": f"({ascii_uppercase[question.answer]})",
        "prompt": f"{question.question} Select from the following choices.\n{listed}",
        "filename": filename,
        "source": f"MiniWorld{question.type}",
        "source_dataset": "miniature world",
        "source_filename": "",
    }


class CvBench(PictureLayout):
    """Pictures of several objects with multiple-choice questions."""

    name = "cvbench"
    title = "CV-Bench's fields: multiple-choice questions"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """All pictures in order."""
        found = []
        for index in range(scale.cvbench):
            width, height = mixed_size(spec, SPLIT, index, shorter=spec.size)
            found.append(
                SceneRequest(split=SPLIT, index=index, purpose="several", width=width, height=height, test=True)
            )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """The picture, if there is something to ask; its questions go into the row."""
        index = shot.request.index
        asked = chosen(questions(shot.frame, shot.draws("questions")), index)
        filename = f"img/mini_{index:06d}.jpg"
        if asked:
            folder.write(filename, jpeg(shot.frame.rgb_HW3))
        return {"questions": [question_record(q, filename) for q in asked]}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """The two tables."""
        records = [record for row in rows for record in row["questions"]]
        for kind in ("2D", "3D"):
            table = [record for record in records if record["type"] == kind]
            lines = [json_bytes({"idx": idx, **record}) for idx, record in enumerate(table)]
            folder.write(f"test_{kind.lower()}.jsonl", b"".join(lines))
        tasks = Counter(record["task"] for record in records)
        asked = sum(bool(row["questions"]) for row in rows)
        return {"questions": len(records), "images": asked, **{task: tasks[task] for task in TASKS}}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`test_2d.jsonl`, `test_3d.jsonl`: idx, type, task, question, choices, answer, prompt, filename, source.",
            "`img/*.jpg`: the pictures; several questions may share one.",
        )
