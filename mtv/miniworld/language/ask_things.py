"""Questions about what is there: existence, count, colour."""

from __future__ import annotations

from mtv.draws import Draws
from mtv.miniworld.language.facts import Facts
from mtv.miniworld.language.items import MOST_CHOICES, Question, item
from mtv.miniworld.language.words import plural, with_article
from mtv.miniworld.vocabulary import CATEGORIES, COLOURS

_COUNT_WEIGHTS = (0.3, 0.6, 2.5, 6.0, 9.0)
_COLOURED_SHARE = 0.5


def existence(facts: Facts, draws: Draws) -> Question | None:
    """Of a category, or of a category in a colour; no where the category or only the colour is missing."""
    shown = [t for t in facts.things if t.clear]
    absent = [c for c in CATEGORIES if facts.counts.get(c) == 0]
    yes, coloured = draws.chance(0.5), draws.chance(_COLOURED_SHARE)
    pool = [t for t in shown if t.look.alone] if coloured else shown
    if not pool or not absent:
        return None
    name = draws.choice(sorted({t.name for t in pool}))
    worn = frozenset().union(*(g.colours for g in facts.glimpsed[name]))
    if coloured:
        true, false = sorted({t.look.colours[0] for t in pool if t.name == name}), [c for c in COLOURS if c not in worn]
        what = f"{draws.choice(true if yes else false)} {name}"
    else:
        what = name if yes else draws.choice(absent)
    text = draws.choice(("Is there {} in the picture?", "Can you see {} in the picture?", "Does the picture show {}?"))
    right, wrong = ("Yes", "No") if yes else ("No", "Yes")
    return item(draws, "existence", text.format(with_article(what)), right, (wrong,))


def count(facts: Facts, draws: Draws) -> Question | None:
    """How many of a category, where that is certain; larger counts are asked for more often."""
    by_count: dict[int, list[str]] = {}
    for name, n in facts.counts.items():
        by_count.setdefault(n, []).append(name)
    if not by_count:
        return None
    values = sorted(by_count)
    right = draws.choice(values, [_COUNT_WEIGHTS[min(v, len(_COUNT_WEIGHTS) - 1)] for v in values])
    name = draws.choice(by_count[right])
    lowest = max(0, right - draws.integer(0, MOST_CHOICES))
    wrong = [str(v) for v in range(lowest, lowest + MOST_CHOICES) if v != right]
    text = draws.choice(
        ("How many {} are in the picture?", "How many {} can you see?", "How many {} does the picture show?")
    )
    return item(draws, "count", text.format(plural(name)), str(right), wrong)


def colour(facts: Facts, draws: Draws) -> Question | None:
    """The (main) colour of the only object of its category; wrong colours are on no part of it."""
    pool = [t for t in facts.things if t.look.alone and facts.counts.get(t.name) == 1]
    if not pool:
        return None
    thing = draws.choice(pool)
    around = {t.look.colours[0] for t in facts.things if t.look.colours} - thing.worn
    other = [c for c in COLOURS if c not in thing.worn and c not in around]
    wrong = [*draws.shuffled(sorted(around)), *draws.shuffled(other)][: MOST_CHOICES - 1]
    texts = ("What colour is the {}?", "What is the colour of the {}?")
    text = draws.choice(texts) if thing.look.plain else "What is the main colour of the {}?"
    return item(draws, "colour", text.format(thing.name), thing.look.colours[0], wrong)
