"""The places of the miniature world: eight rooms and nine outdoor settings, and which of them a scene may use.

Notable choices: a setting is drawn independently of everything that stands in it; a world with `shift` keeps some
settings and patterns for its test splits.
"""

from __future__ import annotations

from mtv.miniworld.settings.base import Amount, LightRange, Look, Setting, Tint
from mtv.miniworld.settings.outdoors import OUTDOORS
from mtv.miniworld.settings.rooms import ROOMS
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import PATTERNS

SETTINGS: tuple[Setting, ...] = (*ROOMS, *OUTDOORS)
"""Every setting."""

HELD_OUT_PATTERNS = ("checked", "marbled")
"""Patterns that a world with `shift` keeps for its test splits."""

__all__ = [
    "HELD_OUT_PATTERNS",
    "SETTINGS",
    "Amount",
    "LightRange",
    "Look",
    "Setting",
    "Tint",
    "patterns_for",
    "settings_for",
]


def settings_for(spec: WorldSpec, request: SceneRequest) -> tuple[Setting, ...]:
    """The settings among which a scene's is drawn, all equally likely."""
    fitting = {
        "indoor": lambda s: not s.outdoor,
        "road": lambda s: s.strip == "road",
    }.get(request.purpose, lambda s: True)
    return tuple(s for s in SETTINGS if fitting(s) and (not spec.shift or s.held_out == request.test))


def patterns_for(spec: WorldSpec, request: SceneRequest) -> tuple[str, ...]:
    """The patterns that a scene may use, on objects and surroundings."""
    return tuple(p for p in PATTERNS if not spec.shift or (p in HELD_OUT_PATTERNS) == request.test)
