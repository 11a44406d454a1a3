"""One question with two options whose answer differs between two similar pictures: the paired form of MMVP."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.frame import Frame
from mtv.miniworld.language.facts import Facts, Thing
from mtv.miniworld.language.observe import facts_of
from mtv.miniworld.language.words import LANDMARKS, plural, with_article
from mtv.miniworld.vocabulary import CATEGORIES

PairKind = Literal["presence", "count", "colour", "pattern", "side", "depth", "facing", "support", "place", "view"]

_POINTED_AT = (*CATEGORIES, *(name for name in LANDMARKS if name != "picture"))


@dataclass(frozen=True, kw_only=True)
class PairQuestion:
    """One question about two pictures."""

    kind: PairKind
    """What it asks for."""
    question: str
    """One English sentence with a question mark."""
    choices: tuple[str, str]
    """The two options, in random order."""
    answers: tuple[int, int]
    """Index of the option that is right for the first and for the second picture; always different."""

    def __post_init__(self) -> None:
        if sorted(self.answers) != [0, 1] or self.choices[0] == self.choices[1]:
            raise UsageError(f"PairQuestion.answers {self.answers} must differ, and so must choices {self.choices}")


Candidate = tuple[str, str, str]
"""Question, answer for the first picture, answer for the second."""


def pair_questions(
    first: Frame, second: Frame, draws: Draws, kinds: Collection[PairKind] | None = None
) -> PairQuestion | None:
    """A question that both pictures answer with certainty, and differently; None if there is none.

    Args:
        first: a picture.
        second: another one; the more alike they are, the more kinds there are beside `presence` and `place`.
        draws: the stream. The kind is drawn evenly from those that offer a question.
        kinds: the kinds that are wanted; all when None.
    """
    a, b = facts_of(first), facts_of(second)
    found = {kind: candidates(a, b) for kind, candidates in _KINDS.items() if kinds is None or kind in kinds}
    possible = [kind for kind, candidates in found.items() if candidates]
    if not possible:
        return None
    kind = draws.choice(possible)
    text, *answers = draws.choice(found[kind])
    choices = draws.shuffled(answers)
    return PairQuestion(
        kind=kind,
        question=text,
        choices=(choices[0], choices[1]),
        answers=(choices.index(answers[0]), choices.index(answers[1])),
    )


def _presence(a: Facts, b: Facts) -> list[Candidate]:
    """A category or a piece of scenery that is certainly in one picture and certainly not in the other."""
    out: list[Candidate] = []
    for name in _POINTED_AT:
        in_a, in_b = a.shows(name), b.shows(name)
        if (in_a and name not in b.glimpsed) or (in_b and name not in a.glimpsed):
            text = f"Is there {with_article(name)} in the picture?"
            out.append((text, "Yes", "No") if in_a else (text, "No", "Yes"))
    return out


def _count(a: Facts, b: Facts) -> list[Candidate]:
    """A category with different certain counts of at least one."""
    both = [(c, a.counts.get(c, 0), b.counts.get(c, 0)) for c in CATEGORIES]
    return [(f"How many {plural(c)} are in the picture?", str(n), str(m)) for c, n, m in both if n != m and n and m]


def _shared(a: Facts, b: Facts) -> list[tuple[Thing, Thing]]:
    """The only object of its category in the one picture and in the other, clear in both."""
    sole = [{t.name: t for t in f.things if t.clear and f.counts.get(t.name) == 1} for f in (a, b)]
    return [(t, sole[1][name]) for name, t in sole[0].items() if name in sole[1]]


def _colour(a: Facts, b: Facts) -> list[Candidate]:
    """The main colour of an object; neither wears the other's anywhere."""
    return [
        (f"What is the main colour of the {x.name}?", x.look.colours[0], y.look.colours[0])
        for x, y in _shared(a, b)
        if x.look.alone and y.look.alone and x.look.colours[0] not in y.worn and y.look.colours[0] not in x.worn
    ]


def _pattern(a: Facts, b: Facts) -> list[Candidate]:
    """Whether an object is plain or patterned."""
    out: list[Candidate] = []
    for x, y in _shared(a, b):
        patterns = x.look.pattern, y.look.pattern
        if "" not in patterns and x.look.plain != y.look.plain:
            pattern = patterns[1] if x.look.plain else patterns[0]
            out.append((f"Is the {x.name} {pattern} or plain?", *patterns))
    return out


def _side(a: Facts, b: Facts) -> list[Candidate]:
    """Whether one object is to the left or to the right of another."""
    return _swapped(a, b, Facts.left_of, "Is the {} to the left or to the right of the {}?", ("left", "right"))


def _depth(a: Facts, b: Facts) -> list[Candidate]:
    """Which of two objects is closer to the camera."""
    return _swapped(a, b, Facts.nearer, "Which is closer to the camera, the {0} or the {1}?", ("the {0}", "the {1}"))


def _swapped(
    a: Facts, b: Facts, test: Callable[[Facts, Thing, Thing], bool], text: str, answers: tuple[str, str]
) -> list[Candidate]:
    """Two objects for which the test holds in one order in the one picture and in the other order in the other."""
    shared, out = _shared(a, b), []
    for x, u in shared:
        for y, v in shared:
            words = (x.name, y.name)
            if test(a, x, y) and test(b, v, u):
                out.append((text.format(*words), answers[0].format(*words), answers[1].format(*words)))
    return out


def _facing(a: Facts, b: Facts) -> list[Candidate]:
    """Which side an object faces, or whether it faces the camera or away."""
    texts = {
        ("left", "right"): "Does the {} face left or right?",
        ("towards", "away"): "Does the {} face towards the camera or away from it?",
    }
    return [
        (text.format(x.name), x.facing, y.facing)
        for x, y in _shared(a, b)
        for ways, text in texts.items()
        if x.facing in ways and y.facing in ways and x.facing != y.facing and x.facing and y.facing
    ]


def _support(a: Facts, b: Facts) -> list[Candidate]:
    """Whether an object stands on another one that both pictures show."""
    out: list[Candidate] = []
    shared = _shared(a, b)
    for x, u in shared:
        for y, v in shared:
            if a.on(x, y) != b.on(u, v):
                yes = ("Yes", "No") if a.on(x, y) else ("No", "Yes")
                out.append((f"Is the {x.name} on the {y.name}?", *yes))
    return out


def _place(a: Facts, b: Facts) -> list[Candidate]:
    """Indoors or outdoors."""
    words = ["outdoors" if f.outdoor else "indoors" for f in (a, b)]
    return [("Was the picture taken indoors or outdoors?", words[0], words[1])] if a.outdoor != b.outdoor else []


def _view(a: Facts, b: Facts) -> list[Candidate]:
    """Seen from above or from the side."""
    text, above, side = "Is the scene seen from above or from the side?", "from above", "from the side"
    if a.from_above and b.from_the_side:
        return [(text, above, side)]
    return [(text, side, above)] if a.from_the_side and b.from_above else []


_KINDS: dict[PairKind, Callable[[Facts, Facts], list[Candidate]]] = {
    "presence": _presence,
    "count": _count,
    "colour": _colour,
    "pattern": _pattern,
    "side": _side,
    "depth": _depth,
    "facing": _facing,
    "support": _support,
    "place": _place,
    "view": _view,
}
