"""Scenes of the world of the fixture `mini_world`, rendered again, and its files as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mtv.miniworld.compose import make_scene
from mtv.miniworld.frame import Frame
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.spec import SceneRequest, WorldSpec

SPEC, TINY = WorldSpec(size=48), SCALES["tiny"]


def frames(name: str, count: int, start: int = 0) -> list[tuple[SceneRequest, Frame]]:
    """Scenes of a set, rendered here."""
    from mtv.miniworld.render import render

    requests = LAYOUTS[name].requests(SPEC, TINY)[start : start + count]
    return list(zip(requests, render([make_scene(SPEC, r) for r in requests]), strict=True))


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def psnr(path: Path, frame: Frame) -> float:
    with Image.open(path) as image:
        error = np.asarray(image.convert("RGB"), np.float64) - frame.rgb_HW3
    return float(10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)))
