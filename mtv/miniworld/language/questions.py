"""Multiple-choice questions about one frame, with one certain answer each.

Kinds and how CV-Bench names them (`type`, `task`): `count` (2D, Count); `side`, `front`, `support` (2D, Relation);
`depth` (3D, Depth); `distance` (3D, Distance). CV-Bench has no counterpart of `existence` and `colour`; they carry
tasks of their own. CV-Bench draws boxes into its Depth and Distance pictures; here objects are named by descriptions
that fit only one of them, and the pictures stay as they are.

Answers are balanced by construction: choices stand in random order; yes and no, left and right, nearer and farther are
drawn evenly. Wrong choices come from the picture where it has them, so that seeing what is there does not suffice.
"""

from __future__ import annotations

from collections.abc import Callable

from mtv.draws import Draws
from mtv.miniworld.frame import Frame
from mtv.miniworld.language import ask_relations, ask_things
from mtv.miniworld.language.facts import Facts
from mtv.miniworld.language.items import TASKS, Kind, Question
from mtv.miniworld.language.observe import facts_of

_ASK: dict[Kind, Callable[[Facts, Draws], Question | None]] = {
    "existence": ask_things.existence,
    "count": ask_things.count,
    "colour": ask_things.colour,
    "side": ask_relations.side,
    "front": ask_relations.front,
    "support": ask_relations.support,
    "depth": ask_relations.depth,
    "distance": ask_relations.distance,
}


def questions(frame: Frame, draws: Draws) -> tuple[Question, ...]:
    """At most one question of every kind that the frame allows, in the order of `TASKS`."""
    facts = facts_of(frame)
    found = (_ASK[kind](facts, draws.child("question", kind)) for kind in TASKS)
    return tuple(q for q in found if q is not None)
