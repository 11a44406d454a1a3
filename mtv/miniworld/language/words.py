"""The words of captions, names and questions, and how they bend: plurals, articles, synonyms, numbers.

Synonyms are only those that name nothing else in this world: a couch is a sofa, but a light might be a lamp or the sun.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtv.draws import Draws

FRONTED = ("car", "plane", "dog", "bird", "robot")
"""Categories whose front everybody agrees on, so that they can face a side."""

STANDING = ("mug", "bottle", "lamp", "chair", "table", "house", "tree", "dog", "robot")
"""Categories of which one says that they stand."""

SCENERY = ("window", "door", "picture", "rug", "crate", "pillar", "bush", "rock", "fence", "hill")
"""Surroundings with borders, which one can point at; the others are the place itself."""

LANDMARKS = ("window", "door", "picture", "crate", "pillar", "bush", "rock", "fence")
"""Scenery that is compact enough to say where an object is."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""Number words by value."""

_PLURALS = {"bus": "buses", "grass": "grass", "sand": "sand", "snow": "snow", "sky": "skies", "bush": "bushes"}
_SYNONYMS = {"mug": ("cup",), "sofa": ("couch",), "plane": ("airplane",), "car": ("automobile",)}
_FUNCTION_WORDS = frozenset(("a", "an", "its", "on", "of", "with", *NUMBERS))
_SYNONYM_SHARE = 0.25
_SPELLINGS = {"grey": ("gray",)}


def plural(noun: str) -> str:
    """Plural of a category, a synonym or a piece of scenery.

    >>> plural("bush"), plural("couch"), plural("mug")
    ('bushes', 'couches', 'mugs')
    """
    if noun in _PLURALS:
        return _PLURALS[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def with_article(words: str) -> str:
    """The words after `a` or `an`.

    >>> with_article("orange boat"), with_article("boat")
    ('an orange boat', 'a boat')
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def noun_for(draws: Draws, name: str) -> str:
    """The category's word or, less often, a synonym."""
    others = _SYNONYMS.get(name)
    return draws.choice(others) if others and draws.chance(_SYNONYM_SHARE) else name


def colour_word(draws: Draws, colour: str) -> str:
    """The colour's name or another spelling of it."""
    return draws.choice((colour, *_SPELLINGS.get(colour, ())))


def content_words(trait: str) -> frozenset[str]:
    """The words of a trait that may name a keypoint, nouns in the singular.

    >>> sorted(content_words("two funnels")), sorted(content_words("a knob on its base"))
    (['funnel'], ['base', 'knob'])
    """
    return frozenset(w.removesuffix("s") for w in trait.split() if w not in _FUNCTION_WORDS)


def place_of(phrase: str) -> str:
    """The setting without its preposition: `a kitchen` for `in a kitchen`."""
    return phrase.split(" ", 1)[1]
