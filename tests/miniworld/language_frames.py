"""Frames made by hand, without renderer: every object is a block that covers a rectangle of the picture at one depth.

Scene, camera, masks, depth and boxes agree with each other, so that what is said of a frame can be checked against any
of them. `random_frame` covers many more cases per second than rendering does; `frame_of` builds a given one.
`rendered_frames` are real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mtv.draws import Draws
from mtv.miniworld.frame import Frame, Seen
from mtv.miniworld.materials import Material, draw_material
from mtv.miniworld.scene import Camera, Instance, Light, Scene, Sensor, Sky
from mtv.miniworld.shapes import Part, Shape, turn
from mtv.miniworld.spec import Purpose, SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES, semantic_id

SIZE = 96
FOCAL = 100.0
FAR = 30.0
SETTINGS = (("kitchen", "in a kitchen", False), ("office", "in an office", False), ("beach", "on a beach", True))
CLUTTER = ("window", "door", "crate", "bush", "picture")
TRAITS = {"mug": ("a handle", "handle middle"), "house": ("a chimney", "chimney top")}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One object or piece of clutter."""

    name: str
    """Semantic class."""
    rect: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels; may reach beyond the picture."""
    depth: float
    """Camera z in metres."""
    material: Material
    """Of every part."""
    on: int | None = None
    """As in `Instance`."""
    heading: float = 0.0
    """Degrees from facing away from the camera, anticlockwise from above."""
    traited: bool = False
    """Whether it has the trait of its category."""


def plain(colour: str, **options: str) -> Material:
    """A material of one colour, or of two with `second_colour` and `pattern`."""
    values = {"second_colour": colour, **options}
    return Material(colour=colour, pigment=(0.5, 0.5, 0.5), second_pigment=(0.2, 0.2, 0.2), **values)  # type: ignore[arg-type]


def frame_of(*blocks: Block, setting: tuple[str, str, bool] = SETTINGS[0], pitch: float = 0.0) -> Frame:
    """The frame that shows the blocks, nearer ones in front. `pitch`: degrees by which the camera looks down."""
    camera = Camera(
        width=SIZE,
        height=SIZE,
        focal=FOCAL,
        rotation=_looking_down(pitch),
        position=(0.0, 0.0, 2.0),
    )
    instances = tuple(_instance(b, camera) for b in blocks)
    mask, depth = np.zeros((SIZE, SIZE), np.uint8), np.full((SIZE, SIZE), FAR, np.float32)
    for i in sorted(range(len(blocks)), key=lambda i: -blocks[i].depth):
        left, top, right, bottom = blocks[i].rect
        window = np.s_[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        mask[window], depth[window] = i + 1, blocks[i].depth
    semantic = np.array([semantic_id("wall"), *(semantic_id(b.name) for b in blocks)], np.uint8)[mask]
    scene = Scene(
        id="toy/0",
        setting=setting[0],
        phrase=setting[1],
        outdoor=setting[2],
        instances=instances,
        surfaces=(),
        light=Light(direction=(0, 0, 1), strength=(1, 1, 1), ambient_up=(0, 0, 0), ambient_down=(0, 0, 0), softness=0),
        sky=Sky(zenith=(0, 0, 1), horizon=(1, 1, 1), clouds=0, phase=0),
        camera=camera,
        sensor=Sensor(exposure=1, balance=(1, 1, 1), blur=0, noise=0, seed=0),
    )
    return Frame(
        scene=scene,
        rgb_HW3=np.zeros((SIZE, SIZE, 3), np.uint8),
        depth_HW=depth,
        semantic_HW=semantic,
        instance_HW=mask,
        pigment_HW=_pigments(blocks, mask),
        seen=tuple(_seen(i, b, mask, depth) for i, b in enumerate(blocks)),
    )


def random_frame(draws: Draws) -> Frame:
    """A frame of nothing to eight objects, some hidden, cut, stacked or of one kind, and some clutter."""
    kinds = draws.sample(CATEGORIES, draws.integer(1, 6))
    blocks: list[Block] = []
    for _ in range(draws.choice(range(9), (1, 3, 4, 4, 3, 3, 2, 1, 1))):
        largest = 90 if draws.chance(0.1) else 50
        width, height = round(draws.uniform(2, largest)), round(draws.uniform(2, largest))
        left, top, depth = draws.integer(-10, 92), draws.integer(-10, 92), draws.uniform(1, 8)
        on = draws.integer(0, len(blocks)) if blocks and draws.chance(0.25) else None
        if on is not None:
            (left, top, _, _), depth = blocks[on].rect, blocks[on].depth - 0.01
            top -= height
        blocks.append(_random_block(draws, draws.choice(kinds), (left, top, left + width, top + height), depth, on))
    for _ in range(draws.integer(0, 4)):
        left, top = draws.integer(0, 80), draws.integer(0, 60)
        rect = (left, top, left + draws.integer(3, 40), top + draws.integer(3, 40))
        blocks.append(_random_block(draws, draws.choice(CLUTTER), rect, draws.uniform(3, 12), None))
    return frame_of(*blocks, setting=draws.choice(SETTINGS), pitch=draws.choice((0.0, 20.0, 40.0)))


@cache
def rendered_frames() -> tuple[Frame, ...]:
    """Frames of the real generator: every purpose, two sizes, one of them wide. Made once per test run."""
    from mtv.miniworld.compose import make_scene
    from mtv.miniworld.render import render

    wanted: list[tuple[Purpose, int, int, int]] = [
        ("several", 96, 96, 20),
        ("indoor", 96, 96, 8),
        ("single", 64, 64, 8),
        ("road", 128, 48, 6),
        ("model", 64, 64, 4),
    ]
    scenes = [
        make_scene(
            WorldSpec(), SceneRequest(split=f"language/{purpose}", index=i, purpose=purpose, width=width, height=height)
        )
        for purpose, width, height, count in wanted
        for i in range(count)
    ]
    return tuple(render(scenes))


def _random_block(draws: Draws, name: str, rect: tuple[int, int, int, int], depth: float, on: int | None) -> Block:
    return Block(
        name=name,
        rect=rect,
        depth=depth,
        material=draw_material(draws, period=(0.1, 0.3)),
        on=on,
        heading=draws.uniform(0, 360),
        traited=draws.chance(0.5),
    )


def _looking_down(pitch: float) -> tuple[tuple[float, float, float], ...]:
    s, c = float(np.sin(np.radians(pitch))), float(np.cos(np.radians(pitch)))
    return ((1.0, 0.0, 0.0), (0.0, -s, -c), (0.0, c, -s))


def _instance(block: Block, camera: Camera) -> Instance:
    left, top, right, bottom = block.rect
    half = (0.05, (right - left) * block.depth / FOCAL / 2, (bottom - top) * block.depth / FOCAL / 2)
    seen_from_camera = np.array(
        [
            ((left + right) / 2 - SIZE / 2) * block.depth / FOCAL,
            ((top + bottom) / 2 - SIZE / 2) * block.depth / FOCAL,
            block.depth,
        ]
    )
    centre = np.array(camera.rotation).T @ seen_from_camera + np.array(camera.position)
    traits, keypoints = (), ()
    if block.name in TRAITS:
        trait, keypoint = TRAITS[block.name]
        traits = (trait,) if block.traited else ()
        keypoints = ((keypoint, (0.0, 0.0, 0.0) if block.traited else None),)
    return Instance(
        name=block.name,
        shape=Shape(parts=(Part(kind="box", centre=(0, 0, 0), half=half),), traits=traits, keypoints=keypoints),
        scale=1.0,
        rotation=turn(z=90 + block.heading),
        position=tuple(centre),
        materials={"main": block.material},
        on=block.on,
    )


def _seen(index: int, block: Block, mask: np.ndarray, depth: np.ndarray) -> Seen:
    left, top, right, bottom = block.rect
    own = mask == index + 1
    rows, columns = np.nonzero(own)
    width, height = max(0, min(SIZE, right) - max(0, left)), max(0, min(SIZE, bottom) - max(0, top))
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1) if len(rows) else None
    return Seen(
        index=index,
        pixels=int(own.sum()),
        whole=width * height,
        box=box,
        depth=float(np.median(depth[own])) if len(rows) else float("nan"),
        nearest=float(depth[own].min()) if len(rows) else float("nan"),
        cut=left <= 0 or top <= 0 or right >= SIZE or bottom >= SIZE,
    )


def _pigments(blocks: tuple[Block, ...], mask: np.ndarray) -> np.ndarray:
    """The main pigment everywhere, but for two columns of five where the material has a pattern."""
    out = np.zeros_like(mask)
    second = np.arange(SIZE)[None, :] % 5 < 2
    for i, block in enumerate(blocks):
        if block.name in CATEGORIES:
            out[mask == i + 1] = 1
            if block.material.pattern != "plain":
                out[(mask == i + 1) & second] = 2
    return out
