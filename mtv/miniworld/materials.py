"""Materials: colour names to pigments, procedural patterns, finish."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.vocabulary import COLOURS, FINISHES, PATTERNS

RGB = tuple[float, float, float]

_HSV: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-0.02, 0.015), (0.75, 0.95), (0.6, 0.9)),
    "orange": ((0.06, 0.085), (0.8, 0.95), (0.8, 0.98)),
    "yellow": ((0.135, 0.165), (0.75, 0.95), (0.85, 1.0)),
    "green": ((0.29, 0.37), (0.6, 0.9), (0.35, 0.7)),
    "teal": ((0.475, 0.515), (0.6, 0.9), (0.5, 0.8)),
    "blue": ((0.59, 0.64), (0.7, 0.95), (0.5, 0.9)),
    "purple": ((0.74, 0.79), (0.5, 0.8), (0.4, 0.75)),
    "pink": ((0.9, 0.94), (0.3, 0.5), (0.88, 1.0)),
    "brown": ((0.055, 0.08), (0.55, 0.75), (0.3, 0.45)),
    "white": ((0.0, 1.0), (0.0, 0.05), (0.9, 1.0)),
    "grey": ((0.0, 1.0), (0.0, 0.06), (0.4, 0.6)),
    "black": ((0.0, 1.0), (0.0, 0.2), (0.03, 0.1)),
}
"""Hue, saturation and value ranges; disjoint, so that a colour name is true for a pigment."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a surface looks like."""

    colour: str
    """Name of the main colour, from `COLOURS`; the main pigment covers at least half of the surface."""
    pigment: RGB
    """Main colour, sRGB 0..1."""
    second_colour: str
    """Name of the other colour of a pattern; equals `colour` for plain materials."""
    second_pigment: RGB
    """Other colour, sRGB 0..1."""
    pattern: str = "plain"
    """From `PATTERNS`."""
    finish: str = "matte"
    """From `FINISHES`."""
    period: float = 0.2
    """Length in metres of one repeat of the pattern."""
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Unit direction across the stripes or along the gradient, in the part's own axes."""
    phase: float = 0.0
    """Offset of the pattern in repeats; for noise, which noise."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("colour", self.colour, COLOURS),
            ("second_colour", self.second_colour, COLOURS),
            ("pattern", self.pattern, PATTERNS),
            ("finish", self.finish, FINISHES),
        ):
            if value not in allowed:
                raise UsageError(f"Material.{name} must be one of {', '.join(allowed)}, got {value!r}")
        if self.period <= 0:
            raise UsageError(f"Material.period must be positive, got {self.period}")


def draw_pigment(draws: Draws, colour: str) -> RGB:
    """A pigment (sRGB 0..1) that bears the colour's name."""
    (h0, h1), (s0, s1), (v0, v1) = _HSV[colour]
    return colorsys.hsv_to_rgb(draws.uniform(h0, h1) % 1.0, draws.uniform(s0, s1), draws.uniform(v0, v1))


def draw_material(
    draws: Draws,
    *,
    period: tuple[float, float],
    colour: str | None = None,
    patterns: tuple[str, ...] = PATTERNS,
    plain_share: float = 0.4,
) -> Material:
    """A random material: the same distribution for every category, so that it tells nothing about the category.

    Args:
        draws: the stream.
        period: range of the pattern's repeat in metres; scale it with the object.
        colour: fixed main colour, or drawn.
        patterns: allowed patterns (the `shift` option of the world holds some out).
        plain_share: probability of `plain` where it is allowed.
    """
    colour = colour or draws.choice(COLOURS)
    patterned = tuple(p for p in patterns if p != "plain")
    plain = not patterned or ("plain" in patterns and draws.chance(plain_share))
    second = colour if plain else draws.choice([c for c in COLOURS if c != colour])
    first_pigment, second_pigment = draw_pigment(draws, colour), draw_pigment(draws, second)
    z = draws.uniform(-1, 1)
    x, y = draws.normal(), draws.normal()
    norm = max(1e-6, (x * x + y * y + z * z) ** 0.5)
    return Material(
        colour=colour,
        pigment=first_pigment,
        second_colour=second,
        second_pigment=first_pigment if plain else second_pigment,
        pattern="plain" if plain else draws.choice(patterned),
        finish=draws.choice(FINISHES),
        period=draws.uniform(*period),
        axis=(x / norm, y / norm, z / norm),
        phase=draws.uniform(0, 64),
    )
