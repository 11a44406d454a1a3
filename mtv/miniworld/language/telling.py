"""What a sentence mentions: chooses objects, relations, setting and background, and remembers what was said."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

from mtv.draws import Draws
from mtv.miniworld.language.facts import Facts, Thing
from mtv.miniworld.language.grammar import COMPARISONS, Mention, group, mention, relations
from mtv.miniworld.language.words import LANDMARKS, listing, with_article

Tier = Literal["short", "medium", "long"]
Subject = tuple[Thing, ...]
"""One object, or all objects of a category of which there are certainly several."""

_DETAIL_WEIGHTS: dict[Tier, tuple[float, ...]] = {
    "short": (0.25, 0.65, 0.1, 0.0),
    "medium": (0.1, 0.45, 0.35, 0.1),
    "long": (0.05, 0.25, 0.4, 0.3),
}
_SETTING_SHARE: dict[Tier, float] = {"short": 0.4, "medium": 0.65, "long": 0.75}
_RELATION_WEIGHTS = {"on": 3.0, "front": 3.0, "behind": 3.0, "next": 2.0}
_COMPARISON_WEIGHT = 0.35
_FRESH = 0.35
_BACKGROUND_RATIO = 1.1


class Teller:
    """The choices of one sentence.

    Args:
        draws: the stream.
        facts: of the frame.
        tier: how long the sentence shall be.
        used: how often earlier captions of the frame mentioned an object, by index; added to.
    """

    def __init__(self, draws: Draws, facts: Facts, tier: Tier, used: dict[int, int]) -> None:
        self.draws, self.facts, self.tier, self.used = draws, facts, tier, used

    def detail(self) -> int:
        """How closely to describe the next mention, 0 to 3."""
        return self.draws.choice((0, 1, 2, 3), _DETAIL_WEIGHTS[self.tier])

    def worth(self, things: Sequence[Thing]) -> float:
        """Weight of a choice: large in the picture and left out so far."""
        return sum(math.sqrt(t.share) * _FRESH ** self.used.get(t.index, 0) for t in things) / len(things)

    def pick(self, things: Sequence[Thing]) -> Thing:
        """One of `things` by worth."""
        return self.draws.choice(things, [self.worth((t,)) for t in things])

    def several(self, wanted: int) -> list[Subject]:
        """Up to `wanted` subjects of different categories."""
        left, out = list(self.facts.things), list[Subject]()
        while left and len(out) < wanted:
            thing = self.pick(left)
            left = [t for t in left if t.name != thing.name]
            kind = self.facts.alike(thing.name)
            together = self.facts.counts.get(thing.name) == len(kind) and self.draws.chance(0.8)
            out.append(kind if together else (thing,))
        return out

    def say(self, subject: Subject, detail: int | None = None, *, distinct: bool = False) -> Mention:
        """Put a subject into words.

        Args:
            subject: what to mention.
            detail: 0 to 3, drawn when None.
            distinct: the sentence mentions another object of the category, so the colour must be said.
        """
        for thing in subject:
            self.used[thing.index] = self.used.get(thing.index, 0) + 1
        detail = self.detail() if detail is None else detail
        if len(subject) > 1:
            return group(self.draws, self.facts, subject[0].name, detail)
        return mention(self.draws, self.facts, subject[0], detail, distinct=distinct)

    def subjects(self, without: Collection[str] = ()) -> list[Subject]:
        """Every single thing, and every kind of which there are certainly several, of categories not in `without`."""
        kinds = [self.facts.alike(c) for c, n in self.facts.counts.items() if n > 1]
        return [s for s in [*((t,) for t in self.facts.things), *kinds] if s[0].name not in without]

    def landmarks(self) -> list[Subject]:
        """Scenery by which one says where an object is."""
        return [(s,) for s in self.facts.scenery if s.name in LANDMARKS]

    def related(
        self, firsts: Sequence[Subject], seconds: Sequence[Subject], allowed: Collection[str] | None = None
    ) -> tuple[Subject, str, Subject] | None:
        """Two subjects that can be told from each other and a relation that holds between them, if there are any."""
        options = []
        for first in firsts:
            for second in seconds:
                if _apart(first, second):
                    found = [r for r in relations(self.facts, first, second) if allowed is None or r in allowed]
                    options += [(first, found, second)] if found else []
        if not options:
            return None
        first, found, second = self.draws.choice(options, [self.worth(a) * self.worth(b) for a, _, b in options])
        weights = [_COMPARISON_WEIGHT if r in COMPARISONS else _RELATION_WEIGHTS.get(r, 1.0) for r in found]
        return first, self.draws.choice(found, weights), second

    def setting(self) -> str:
        """The setting as a tail with a blank before it, or nothing."""
        if not self.draws.chance(_SETTING_SHARE[self.tier]):
            return ""
        if self.draws.chance(0.1):
            return " outdoors" if self.facts.outdoor else " indoors"
        return f" {self.facts.phrase}"

    def tail(self, things: Sequence[Thing], *, backdrop: bool = True) -> str:
        """Scenery behind all of `things` if `backdrop`, or the view, with a blank before it; or nothing."""
        deepest = max(t.depth for t in things) * _BACKGROUND_RATIO
        behind = [s for s in self.facts.scenery if s.depth >= deepest]
        if backdrop and behind and self.tier != "short" and self.draws.chance(0.3):
            return f" with {some_scenery(self.draws, behind, 2)} in the background"
        return " seen from above" if self.facts.from_above and self.draws.chance(0.25) else ""


def some_scenery(draws: Draws, items: Sequence[Thing], most: int) -> str:
    """One to `most` kinds of scenery: `a window and a door`."""
    names = draws.sample(list(dict.fromkeys(s.name for s in items)), draws.integer(1, most + 1))
    return listing([with_article(n) for n in names])


def _apart(first: Subject, second: Subject) -> bool:
    """Whether two subjects can be told from each other: other categories, or single things of other colours."""
    a, b = first[0], second[0]
    if a.name != b.name:
        return True
    single = len(first) == len(second) == 1 and a.index != b.index
    return single and a.look.alone and b.look.alone and not a.worn & b.worn
