"""Questions about how objects lie to each other: sides, in front, what stands on what, depth, distance."""

from __future__ import annotations

from collections.abc import Callable

from mtv.draws import Draws
from mtv.miniworld.language.facts import Facts, Thing
from mtv.miniworld.language.items import MOST_CHOICES, Question, item
from mtv.miniworld.language.reference import describe

_SMALLER_NEAR_SHARE = 0.38
"""How often a pair is sought whose nearer object is the smaller. Small objects stand nearer, as all fill a like share
of the picture; with this value about half of the questions that are found are of either sort (1,000 scenes)."""


def _named(facts: Facts, draws: Draws) -> list[tuple[Thing, str]]:
    """The clearly seen objects that a description fits alone, with it."""
    pairs = [(t, describe(facts, t, draws)) for t in facts.things if t.clear]
    return [(t, words) for t, words in pairs if words is not None]


def _ordered(
    facts: Facts, draws: Draws, test: Callable[[Thing, Thing], bool]
) -> tuple[tuple[Thing, str], tuple[Thing, str]] | None:
    """A random pair for which the test holds in this order."""
    named = _named(facts, draws)
    pairs = [(a, b) for a in named for b in named if test(a[0], b[0])]
    return draws.choice(pairs) if pairs else None


def side(facts: Facts, draws: Draws) -> Question | None:
    """Whether one object is to the left or to the right of another in the picture."""
    pair = _ordered(facts, draws, facts.left_of)
    if pair is None:
        return None
    (_, left), (_, right) = pair
    flip = draws.chance(0.5)
    subject, other = (right, left) if flip else (left, right)
    text = draws.choice(
        (
            "Is {} to the left or to the right of {} in the picture?",
            "On which side of {1} is {0} in the picture?",
            "Seen from the camera, where is {} relative to {}?",
        )
    )
    answers = ("right", "left") if flip else ("left", "right")
    return item(draws, "side", text.format(subject, other), answers[0], answers[1:])


def front(facts: Facts, draws: Draws) -> Question | None:
    """Whether one object is in front of or behind another."""
    pair = _ordered(facts, draws, facts.in_front_of)
    if pair is None:
        return None
    (_, near), (_, far) = pair
    flip = draws.chance(0.5)
    subject, other = (far, near) if flip else (near, far)
    text = draws.choice(
        ("Is {} in front of or behind {}?", "Seen from the camera, where does {} stand relative to {}?")
    )
    answers = ("behind", "in front") if flip else ("in front", "behind")
    return item(draws, "front", text.format(subject, other), answers[0], answers[1:])


def support(facts: Facts, draws: Draws) -> Question | None:
    """On what something stands, or what stands on something; wrong choices are other objects in the picture."""
    named = {t.index: (t, words) for t, words in _named(facts, draws)}
    pairs = [(t, named[t.support][0]) for t, _ in named.values() if t.support in named]
    pairs = [(a, b) for a, b in pairs if sum(t.support == b.index for t in facts.things) == 1]
    if not pairs:
        return None
    top, base = draws.choice(pairs)
    others = [words for i, (t, words) in named.items() if i not in (top.index, base.index)]
    wrong = draws.sample(others, MOST_CHOICES - 1)
    if not wrong:
        return None
    if draws.chance(0.5):
        return item(draws, "support", f"What does {named[top.index][1]} stand on?", named[base.index][1], wrong)
    return item(draws, "support", f"What stands on {named[base.index][1]}?", named[top.index][1], wrong)


def depth(facts: Facts, draws: Draws) -> Question | None:
    """Which of two objects is nearer or farther; as often the smaller as the larger one, so that size tells nothing."""
    small_first = draws.chance(_SMALLER_NEAR_SHARE)
    pair = _ordered(facts, draws, lambda a, b: facts.nearer(a, b) and (a.extent < b.extent) == small_first)
    if pair is None:
        return None
    (_, near), (_, far) = pair
    first, second = draws.shuffled((near, far))
    text = draws.choice(("Which is closer to the camera, {} or {}?", "Which object is nearer to the viewer, {} or {}?"))
    if draws.chance(0.5):
        text = draws.choice(("Which is farther from the camera, {} or {}?", "Which object is farther away, {} or {}?"))
        near, far = far, near
    return item(draws, "depth", text.format(first, second), near, (far,))


def distance(facts: Facts, draws: Draws) -> Question | None:
    """Which of two objects is closer to a third one, by the distance between the objects' centres in the world."""
    named = _named(facts, draws)
    triples = [
        (c, a, b)
        for c in named
        for a in named
        for b in named
        if len({c[0].index, a[0].index, b[0].index}) == 3 and facts.closer_to(c[0], a[0], b[0])
    ]
    if not triples:
        return None
    (_, anchor), (_, near), (_, far) = draws.choice(triples)
    first, second = draws.shuffled((near, far))
    text = "In the real scene, which object is closer to {}: {} or {}?"
    return item(draws, "distance", text.format(anchor, first, second), near, (far,))
