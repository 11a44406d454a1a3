"""Light, sky and sensor: how bright, from where, how warm, and what the camera makes of it."""

from __future__ import annotations

import colorsys
import math

from mtv.draws import Draws
from mtv.miniworld.materials import RGB
from mtv.miniworld.scene import Light, Sensor, Sky
from mtv.miniworld.settings.base import LightRange
from mtv.miniworld.shapes import Vec3


def draw_light(draws: Draws, light: LightRange, *, outdoor: bool, detail: float) -> Light:
    """The light of one scene; the azimuth is uniform, so shadows fall in every direction.

    Args:
        draws: the stream.
        light: its distribution.
        outdoor: under the sky, whose light is bluish.
        detail: factor on the penumbra, for scenes of small or large things.
    """
    azimuth = draws.uniform(0, math.tau)
    strength = draws.uniform(*light.strength)
    warmth = draws.uniform(*light.warmth)
    ambient = draws.uniform(*light.ambient)
    cool = draws.uniform(0.9, 1.0) if outdoor else 1.0
    below = draws.uniform(0.45, 0.75)
    filled = draws.chance(0.5)
    fill_azimuth = azimuth + math.pi + draws.uniform(-1.0, 1.0)
    fill = draws.uniform(0.08, 0.3) * strength
    return Light(
        direction=_towards(azimuth, math.radians(draws.uniform(*light.elevation))),
        strength=_tinted(strength, warmth),
        ambient_up=(ambient * cool, ambient, ambient / cool),
        ambient_down=(ambient * below, ambient * below, ambient * below),
        softness=draws.uniform(*light.softness) * detail,
        fill_direction=_towards(fill_azimuth, math.radians(draws.uniform(10, 50))) if filled else None,
        fill_strength=(fill, fill, fill) if filled else (0.0, 0.0, 0.0),
    )


def _towards(azimuth: float, elevation: float) -> Vec3:
    flat = math.cos(elevation)
    return flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)


def _tinted(strength: float, warmth: float) -> RGB:
    """Light of the same green whose red is `warmth` times its blue."""
    half = math.sqrt(warmth)
    return strength * half, strength, strength / half


def draw_sky(draws: Draws) -> Sky:
    """A sky: clear, hazy, grey or at dusk."""
    kind = draws.choice(("clear", "hazy", "grey", "dusk"), (4, 2, 2, 1))
    if kind == "clear":
        zenith, horizon = (
            _hsv(draws, (0.56, 0.64), (0.4, 0.75), (0.6, 0.9)),
            _hsv(draws, (0.52, 0.60), (0.08, 0.3), (0.85, 1.0)),
        )
    elif kind == "hazy":
        zenith, horizon = (
            _hsv(draws, (0.52, 0.62), (0.15, 0.4), (0.7, 0.95)),
            _hsv(draws, (0.08, 0.16), (0.02, 0.15), (0.85, 1.0)),
        )
    elif kind == "grey":
        zenith, horizon = (
            _hsv(draws, (0.55, 0.65), (0.02, 0.12), (0.5, 0.8)),
            _hsv(draws, (0.55, 0.65), (0.0, 0.08), (0.75, 0.95)),
        )
    else:
        zenith, horizon = (
            _hsv(draws, (0.62, 0.78), (0.25, 0.5), (0.45, 0.75)),
            _hsv(draws, (0.0, 0.1), (0.25, 0.55), (0.8, 1.0)),
        )
    return Sky(zenith=zenith, horizon=horizon, clouds=draws.uniform(0, 0.9), phase=draws.uniform(0, 64))


def _hsv(draws: Draws, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> RGB:
    return colorsys.hsv_to_rgb(draws.uniform(*hue) % 1.0, draws.uniform(*saturation), draws.uniform(*value))


def draw_sensor(draws: Draws, light: Light, ground: RGB) -> Sensor:
    """A camera that exposes for the ground, more or less; its white balance, blur and noise are mild.

    Args:
        draws: the stream.
        light: the scene's.
        ground: sRGB pigment of the ground.
    """
    received = light.strength[1] * light.direction[2] + light.ambient_up[1]
    reflected = received * sum(c**2.2 for c in ground) / 3
    # Half way to a constant picture: bright places stay brighter than dark ones.
    metered = min(1.7, max(0.75, math.sqrt(0.3 / max(0.01, reflected))))
    return Sensor(
        exposure=metered * draws.uniform(0.85, 1.15),
        balance=(draws.uniform(0.93, 1.07), 1.0, draws.uniform(0.93, 1.07)),
        blur=draws.uniform(0.25, 0.6) if draws.chance(0.25) else 0.0,
        noise=draws.uniform(0.0, 0.02),
        seed=draws.seed32(),
    )
