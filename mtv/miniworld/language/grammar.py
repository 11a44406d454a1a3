"""Noun phrases and relations: how a thing is mentioned with more or less detail, and how two mentions relate.

A mention holds its text and what it stands for, so that a later clause can refer to it and never contradicts it.
Colours of patterned things are said alone only where `Look.alone` allows it; otherwise both are said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtv.draws import Draws
from mtv.miniworld.language.facts import Facts, Thing
from mtv.miniworld.language.looks import Look
from mtv.miniworld.language.words import NUMBERS, colour_word, listing, noun_for, plural, with_article

PATTERN_ADJECTIVES = {
    "striped": ("striped",),
    "checked": ("checked", "checkered"),
    "dotted": ("dotted", "spotted"),
    "marbled": ("marbled",),
    "shaded": ("shaded",),
}
"""Words for a pattern before the noun."""

_PATTERN_NOUNS = {
    "striped": ("stripes",),
    "checked": ("checks", "squares"),
    "dotted": ("dots", "spots"),
}
_FINISH_ADJECTIVES = {"glossy": ("glossy", "shiny"), "matte": ("matte", "dull")}
_FACING = {
    "left": ("facing left", "facing to the left"),
    "right": ("facing right", "facing to the right"),
    "towards": ("facing the camera", "seen from the front"),
    "away": ("facing away from the camera", "seen from behind"),
}
RELATIONS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
    "on": ("on", "on top of"),
    "next": ("next to", "beside"),
    "nearer": ("closer to the camera than", "nearer than"),
    "farther": ("farther from the camera than", "farther away than"),
    "larger": ("larger than", "bigger than"),
    "smaller": ("smaller than",),
}
"""Words for a relation between a first and a second mention."""

_TESTS: dict[str, Callable[[Facts, Thing, Thing], bool]] = {
    "left": Facts.left_of,
    "right": lambda facts, a, b: facts.left_of(b, a),
    "front": Facts.in_front_of,
    "behind": lambda facts, a, b: facts.in_front_of(b, a),
    "on": Facts.on,
    "next": Facts.next_to,
    "nearer": Facts.nearer,
    "farther": lambda facts, a, b: facts.nearer(b, a),
    "larger": Facts.larger,
    "smaller": lambda facts, a, b: facts.larger(b, a),
}

COMPARISONS = ("nearer", "farther", "larger", "smaller")
"""Relations that compare and need a verb."""

BESIDE = tuple(r for r in RELATIONS if r not in COMPARISONS)
"""Relations of place."""


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A noun phrase and what it stands for."""

    text: str
    """`a striped red mug`, `two chairs`, `a window`."""
    short: str
    """How a later clause refers to it: `the mug`, `the chairs`."""
    things: tuple[Thing, ...]
    """What it stands for."""
    plural: bool = False
    """Whether verbs take the plural."""
    coloured: bool = False
    """Whether the text names a colour."""


def mention(draws: Draws, facts: Facts, thing: Thing, detail: int, *, distinct: bool = False) -> Mention:
    """An object in words.

    Args:
        draws: the stream.
        facts: of the frame.
        thing: the object.
        detail: 0 the bare noun, 1 a colour, 2 the pattern or one more attribute, 3 several attributes.
        distinct: later clauses refer to it by its colour, because another one of the category is mentioned.
    """
    noun, look = noun_for(draws, thing.name), thing.look
    blend = look.pattern == "shaded"
    if blend and distinct:
        detail = 1
    colours = _colours(draws, look, detail) if detail else []
    words = [*colours, noun]
    finish = (0.0, 0.05, 0.2, 0.4)[detail]
    if look.finish and draws.chance(finish):
        words.insert(0, draws.choice(_FINISH_ADJECTIVES[look.finish]))
    size = _size(facts, thing)
    if size and detail and draws.chance(0.5):
        words.insert(0, size)
    return Mention(
        text=" ".join([with_article(" ".join(words)), *_after(draws, thing, detail, colours)]),
        short=f"the {look.colours[0]} {noun}" if distinct else f"the {noun}",
        things=(thing,),
        coloured=blend or bool(colours),
    )


def _colours(draws: Draws, look: Look, detail: int) -> list[str]:
    """Adjectives of colour and pattern; none where no colour can be told, or where they follow the noun."""
    if not (look.alone or look.both):
        return []
    first = colour_word(draws, look.colours[0])
    pair = [first, "and", colour_word(draws, look.colours[1])] if look.both else [first]
    if look.plain or not look.pattern:
        return [first] if look.alone and (look.plain or draws.chance(0.7)) else pair
    if look.pattern == "shaded" and detail >= 2 and draws.chance(0.5):
        return []
    if detail >= 2 and draws.chance(0.75):
        pattern = draws.choice(PATTERN_ADJECTIVES[look.pattern])
        return [pattern, first] if look.alone and draws.chance(0.5) else [*pair, pattern]
    return [first] if look.alone and draws.chance(0.7) else pair


def _size(facts: Facts, thing: Thing) -> str | None:
    """`large` or `small` where the category has exactly two members of clearly different size."""
    pair = facts.alike(thing.name)
    if facts.counts.get(thing.name) != 2:
        return None
    other = pair[0] if pair[1].index == thing.index else pair[1]
    return "large" if facts.larger(thing, other) else "small" if facts.larger(other, thing) else None


def _after(draws: Draws, thing: Thing, detail: int, colours: Sequence[str]) -> list[str]:
    """What follows the noun: the pattern's other colour, traits, where it faces."""
    out, parts, look = [], [], thing.look
    if detail >= 2 and look.pattern == "shaded" and not colours:
        pair = draws.shuffled(look.colours[:2])
        out.append(f"fading from {colour_word(draws, pair[0])} to {colour_word(draws, pair[1])}")
    if detail >= 2 and len(colours) == 1 and look.pattern in _PATTERN_NOUNS:
        parts.append(f"{colour_word(draws, look.colours[1])} {draws.choice(_PATTERN_NOUNS[look.pattern])}")
    if thing.clear and thing.traits and draws.chance((0.0, 0.1, 0.35, 0.7)[detail]):
        parts.append(draws.choice(thing.traits))
    if parts:
        out.append(f"with {listing(parts)}")
    if thing.facing and thing.clear and draws.chance((0.05, 0.1, 0.25, 0.35)[detail]):
        out.append(draws.choice(_FACING[thing.facing]))
    return out


def group(draws: Draws, facts: Facts, name: str, detail: int) -> Mention:
    """All objects of a category of which the count is certain and at least two: `two chairs, one red and one blue`."""
    members = facts.alike(name)
    noun = plural(noun_for(draws, name))
    number = NUMBERS[len(members)]
    if len(members) == 2 and draws.chance(0.15):
        number = "a pair of"
    told = detail > 0 and all(t.look.alone for t in members)
    colours = [t.look.colours[0] for t in members] if told else []
    same = told and len(set(colours)) == 1
    text = f"{number} {colour_word(draws, colours[0])} {noun}" if same else f"{number} {noun}"
    differ = told and len(members) == 2 and len(set(colours)) == 2 and draws.chance(0.6)
    if differ:
        text += f", one {colours[0]} and one {colours[1]}"
    return Mention(text=text, short=f"the {noun}", things=members, plural=True, coloured=same or differ)


def relations(facts: Facts, first: Sequence[Thing], second: Sequence[Thing]) -> list[str]:
    """The relations in which every thing of `first` stands to every thing of `second`, in the order of `RELATIONS`."""
    return [name for name, test in _TESTS.items() if all(test(facts, a, b) for a in first for b in second)]
