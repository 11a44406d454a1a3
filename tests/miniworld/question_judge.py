"""Answers questions from masks, depth and scene: an independent reader of what `questions` and `pair_questions` ask.

`right_choices` returns every choice that is true of the frame; a good question has exactly one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from caption_judge import Judge
from caption_reader import COLOURS, PATTERNS, SINGULAR


class UnaskedError(ValueError):
    """A question that no rule understands, or a description that does not fit exactly one object."""


def right_choices(judge: Judge, question: str, choices: Sequence[str]) -> list[str]:
    """The choices that are true of the frame.

    Raises:
        UnaskedError: the question cannot be understood, or is ambiguous.
    """
    for pattern, answer in _RULES:
        if match := re.fullmatch(pattern, question):
            return [c for c in choices if answer(judge, c, *match.groups())]
    raise UnaskedError(question)


def worn(judge: Judge, i: int) -> set[str]:
    """Every colour on any part."""
    instance = judge.scene.instances[i]
    slots = {p.slot for p in instance.shape.parts}
    return {c for s in slots for c in (instance.materials[s].colour, instance.materials[s].second_colour)}


def resolve(judge: Judge, description: str) -> int:
    """The only instance with a visible pixel that a definite description may mean."""
    *adjectives, noun = description.removeprefix("the ").split()
    shown = judge.visible(SINGULAR[noun])
    for word in adjectives:
        if word in COLOURS:
            shown = [i for i in shown if word in worn(judge, i)]
        else:
            shown = [i for i in shown if _has_pattern(judge, i, PATTERNS[word])]
    if len(shown) != 1:
        raise UnaskedError(f"{description!r} fits {len(shown)} objects")
    if not all(judge.coloured(shown[0], w) for w in adjectives if w in COLOURS):
        raise UnaskedError(f"{description!r}: the object has the colours {judge.shares(shown[0])}")
    return shown[0]


def _has_pattern(judge: Judge, i: int, pattern: str) -> bool:
    instance = judge.scene.instances[i]
    return any(instance.materials[p.slot].pattern == pattern for p in instance.shape.parts)


def _exists(judge: Judge, choice: str, what: str) -> bool:
    """Yes only if one is seen well; no only if not a pixel of one is seen."""
    *colour, noun = what.split()
    shown = judge.visible(noun)
    if choice == "Yes":
        fits = [i for i in shown if judge.mask(i).sum() >= 0.004 * judge.frame.instance_HW.size]
        return any(not colour or judge.coloured(i, colour[0]) for i in fits)
    return not any(not colour or colour[0] in worn(judge, i) for i in shown)


def _counts(judge: Judge, choice: str, noun: str) -> bool:
    return str(len(judge.visible(SINGULAR[noun]))) == choice


def _coloured(judge: Judge, choice: str, noun: str) -> bool:
    """Whether the choice is on the only object of the kind at all: wrong choices must not be."""
    (i,) = judge.visible(noun)
    return choice in worn(judge, i)


def _side(judge: Judge, choice: str, a: str, b: str) -> bool:
    x, y = judge.column(resolve(judge, a)), judge.column(resolve(judge, b))
    return (x < y) == (choice == "left") and abs(x - y) > 0.04 * judge.width


def _other_side(judge: Judge, choice: str, b: str, a: str) -> bool:
    return _side(judge, choice, a, b)


def _fronts(judge: Judge, choice: str, a: str, b: str) -> bool:
    x, y = resolve(judge, a), resolve(judge, b)
    ratio = judge.depth(x) / judge.depth(y)
    return judge.overlap(x, y) > 0.4 and (ratio < 1 / 1.1 if choice == "in front" else ratio > 1.1)


def _stands_on(judge: Judge, choice: str, top: str) -> bool:
    return judge.scene.instances[resolve(judge, top)].on == resolve(judge, choice)


def _bears(judge: Judge, choice: str, base: str) -> bool:
    return judge.scene.instances[resolve(judge, choice)].on == resolve(judge, base)


def _nearer(judge: Judge, choice: str, a: str, b: str) -> bool:
    other = resolve(judge, b if choice == a else a)
    return choice in (a, b) and 1.1 * judge.depth(resolve(judge, choice)) < judge.depth(other)


def _farther(judge: Judge, choice: str, a: str, b: str) -> bool:
    other = resolve(judge, b if choice == a else a)
    return choice in (a, b) and judge.depth(resolve(judge, choice)) > 1.1 * judge.depth(other)


def _closer(judge: Judge, choice: str, anchor: str, a: str, b: str) -> bool:
    centre = judge.centre(resolve(judge, anchor))
    near, far = resolve(judge, choice), resolve(judge, b if choice == a else a)
    gap = [float(np.linalg.norm(judge.centre(i) - centre)) for i in (near, far)]
    return choice in (a, b) and 1.3 * gap[0] < gap[1]


def _patterned(judge: Judge, choice: str, noun: str, pattern: str) -> bool:
    (i,) = judge.visible(noun)
    return choice in (pattern, "plain") and judge.patterned(i, choice)


def _faces(judge: Judge, choice: str, noun: str) -> bool:
    (i,) = judge.visible(noun)
    return judge.faces(i, choice)


def _is_on(judge: Judge, choice: str, a: str, b: str) -> bool:
    return (judge.scene.instances[resolve(judge, a)].on == resolve(judge, b)) == (choice == "Yes")


def _taken(judge: Judge, choice: str) -> bool:
    return judge.scene.outdoor == (choice == "outdoors")


def _seen_from(judge: Judge, choice: str) -> bool:
    down = -judge.scene.camera.rotation[2][2]
    return down > 0.45 if choice == "from above" else abs(down) < 0.25


_THE = r"(the [a-z ]+?)"
_RULES: tuple[tuple[str, Callable[..., bool]], ...] = (
    (r"(?:Is there|Can you see) an? ([a-z ]+) in the picture\?", _exists),
    (r"Does the picture show an? ([a-z ]+)\?", _exists),
    (r"How many (\w+) (?:are in the picture|can you see|does the picture show)\?", _counts),
    (r"What is the (?:main )?colour of the (\w+)\?", _coloured),
    (r"What colour is the (\w+)\?", _coloured),
    (rf"Is {_THE} to the left or to the right of {_THE}(?: in the picture)?\?", _side),
    (rf"On which side of {_THE} is {_THE} in the picture\?", _other_side),
    (rf"Seen from the camera, where is {_THE} relative to {_THE}\?", _side),
    (rf"Is {_THE} in front of or behind {_THE}\?", _fronts),
    (rf"Seen from the camera, where does {_THE} stand relative to {_THE}\?", _fronts),
    (rf"What does {_THE} stand on\?", _stands_on),
    (rf"What stands on {_THE}\?", _bears),
    (rf"Which is closer to the camera, {_THE} or {_THE}\?", _nearer),
    (rf"Which object is nearer to the viewer, {_THE} or {_THE}\?", _nearer),
    (rf"Which is farther from the camera, {_THE} or {_THE}\?", _farther),
    (rf"Which object is farther away, {_THE} or {_THE}\?", _farther),
    (rf"In the real scene, which object is closer to {_THE}: {_THE} or {_THE}\?", _closer),
    (r"Is the (\w+) (\w+) or plain\?", _patterned),
    (r"Does the (\w+) face (?:left or right|towards the camera or away from it)\?", _faces),
    (rf"Is {_THE} on {_THE}\?", _is_on),
    (r"Was the picture taken indoors or outdoors\?", _taken),
    (r"Is the scene seen from above or from the side\?", _seen_from),
)
