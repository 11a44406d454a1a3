"""Captions of a frame: different from each other, true, of three to thirty words, written as people write them.

Later captions of a frame prefer objects that earlier ones left out, so that together they tell more than each alone.
"""

from __future__ import annotations

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.frame import Frame
from mtv.miniworld.language.observe import facts_of
from mtv.miniworld.language.sentences import sentence
from mtv.miniworld.language.telling import Tier

MIN_WORDS = 3
"""Shortest caption in words."""
MAX_WORDS = 30
"""Longest caption in words."""

_TIERS: tuple[Tier, ...] = ("short", "medium", "long")
_TIER_WEIGHTS = (0.22, 0.45, 0.33)
_TRIES_PER_CAPTION = 100


def captions(frame: Frame, draws: Draws, count: int = 5) -> tuple[str, ...]:
    """`count` different true captions; a pure function of the frame and the stream's key.

    Raises:
        UsageError: the frame does not offer so many different captions.
    """
    facts = facts_of(frame)
    used: dict[int, int] = {}
    out: dict[str, str] = {}
    for number in range(_TRIES_PER_CAPTION * count):
        if len(out) == count:
            break
        own = draws.child("caption", number)
        before = dict(used)
        text = sentence(own, facts, own.choice(_TIERS, _TIER_WEIGHTS), used)
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS and text not in out:
            out[text] = _written(own, text)
        else:
            used = before
    if len(out) < count:
        raise UsageError(f"{count} different captions asked for, but {frame.scene.id} offers only {len(out)}")
    return tuple(out.values())


def _written(draws: Draws, text: str) -> str:
    """The text as somebody typed it: with or without first article, capital and full stop."""
    first, _, rest = text.partition(" ")
    if first in ("a", "an") and len(rest.split()) >= MIN_WORDS and draws.chance(0.12):
        text = rest
    if draws.chance(0.7):
        text = text[0].upper() + text[1:]
    return f"{text}." if draws.chance(0.5) else text
