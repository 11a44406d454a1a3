"""Multiple-choice items: what one is, and how its choices are put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mtv.draws import Draws
from mtv.errors import UsageError

Kind = Literal["existence", "count", "colour", "side", "front", "support", "depth", "distance"]

TASKS: dict[Kind, tuple[str, str]] = {
    "existence": ("2D", "Existence"),
    "count": ("2D", "Count"),
    "colour": ("2D", "Colour"),
    "side": ("2D", "Relation"),
    "front": ("2D", "Relation"),
    "support": ("2D", "Relation"),
    "depth": ("3D", "Depth"),
    "distance": ("3D", "Distance"),
}
"""CV-Bench's `type` and `task` of every kind."""

MOST_CHOICES = 4
"""Largest number of choices of an item."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One multiple-choice item."""

    kind: Kind
    """What it asks for."""
    question: str
    """One English sentence with a question mark."""
    choices: tuple[str, ...]
    """Two to four different answers."""
    answer: int
    """Index of the right one."""

    def __post_init__(self) -> None:
        if not 0 <= self.answer < len(self.choices) or len(set(self.choices)) < len(self.choices):
            raise UsageError(f"Question.answer {self.answer} does not fit the choices {self.choices}")

    @property
    def type(self) -> str:
        """CV-Bench's `2D` or `3D`."""
        return TASKS[self.kind][0]

    @property
    def task(self) -> str:
        """CV-Bench's task."""
        return TASKS[self.kind][1]


def item(draws: Draws, kind: Kind, question: str, right: str, wrong: Sequence[str]) -> Question:
    """The item with the right answer and the wrong ones in random order."""
    choices = draws.shuffled((right, *wrong))
    return Question(kind=kind, question=question, choices=tuple(choices), answer=choices.index(right))
