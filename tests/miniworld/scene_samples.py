"""Scenes for tests, made once per session, and plain measures of them."""

from __future__ import annotations

from functools import cache

import numpy as np

from mtv.miniworld.compose import make_scene
from mtv.miniworld.scene import Instance, Scene
from mtv.miniworld.spec import Purpose, SceneRequest, WorldSpec

WORLD = WorldSpec()


def request(purpose: Purpose, index: int, **more: object) -> SceneRequest:
    """A request of the usual frame size."""
    width = 318 if purpose == "road" else 96
    values = {"split": "t", "index": index, "purpose": purpose, "width": width, "height": 96, **more}
    return SceneRequest(**values)  # type: ignore[arg-type]


@cache
def scenes(purpose: Purpose, count: int, spec: WorldSpec = WORLD, test: bool = False) -> tuple[Scene, ...]:
    """The first scenes of a split."""
    return tuple(make_scene(spec, request(purpose, i, test=test)) for i in range(count))


def world_corners(instance: Instance) -> np.ndarray:
    """[P,8,3] corners of the box around every part, world."""
    return instance.to_world(instance.shape.corners)


def objects(scene: Scene) -> list[Instance]:
    """The instances of categories."""
    return [i for i in scene.instances if i.is_object]
