"""Definite descriptions: the shortest words that fit exactly one object of a frame, so that a question can name it."""

from __future__ import annotations

from mtv.draws import Draws
from mtv.miniworld.language.facts import Facts, Thing
from mtv.miniworld.language.grammar import PATTERN_ADJECTIVES

_ELABORATE_SHARE = 0.3
_VAGUE = ("", "plain", "shaded")


def describe(facts: Facts, thing: Thing, draws: Draws) -> str | None:
    """`the chair`, `the red chair` or `the striped chair`; None if none of them fits it alone.

    Instances that are hardly seen count as rivals, so that nobody can mean them. Where the bare noun suffices, the
    colour is said now and then all the same.
    """
    rivals = [g for g in facts.glimpsed[thing.name] if g.index != thing.index]
    coloured = f"the {thing.look.colours[0]} {thing.name}" if thing.look.alone else None
    if not rivals:
        return coloured if coloured and draws.chance(_ELABORATE_SHARE) else f"the {thing.name}"
    if coloured and all(thing.look.colours[0] not in g.colours for g in rivals):
        return coloured
    pattern = thing.look.pattern
    by_pattern = pattern not in _VAGUE and all(pattern not in g.patterns for g in rivals)
    return f"the {PATTERN_ADJECTIVES[pattern][0]} {thing.name}" if by_pattern else None
