"""Scenes to tables: every part as an affine map to unit coordinates, every surface as a plane, every material as a row.

A ray is o(u, v) + t d(u, v), affine in the pixel coordinates; in a part's unit coordinates it is affine too, so a part
needs a few numbers per view. For a camera t is the camera z of the hit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtv.miniworld.materials import Material
from mtv.miniworld.scene import Scene
from mtv.miniworld.shapes import KINDS, SLOTS, Part
from mtv.miniworld.vocabulary import PATTERNS, semantic_id

MAX_PLANES = 6
_NO_SHADOW = frozenset({"hill", "road", "rug", "window", "picture", "door"})


@dataclass(frozen=True, kw_only=True)
class PartTable:
    """All parts of a batch, sorted by kind, float64 and int64 on the host. P parts."""

    kind_counts: tuple[int, ...]
    """Parts per kind, in the order of `KINDS`; they add up to P."""
    image_P: np.ndarray
    """Picture of each part."""
    instance_P: np.ndarray
    """Batch-wide number of its instance."""
    unit_from_world_P33: np.ndarray
    """Linear part of the map to unit coordinates."""
    centre_P3: np.ndarray
    """World centre."""
    reach_P3: np.ndarray
    """Half extents in unit coordinates (1 except for torus and widening frustum)."""
    corners_P83: np.ndarray
    """World corners of the box around the part."""
    metres_P3: np.ndarray
    """Metres per unit along each own axis."""
    shape_P2: np.ndarray
    """Taper and openness of a frustum; ring and tube radius of a torus."""
    material_P: np.ndarray
    """Row in the material table."""
    slot_P: np.ndarray
    """Index into `SLOTS`."""
    casts_P: np.ndarray
    """bool: throws a shadow."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch of scenes of one frame size as arrays. B pictures, P parts, M materials, I instances."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    parts: PartTable
    """Primitives."""
    planes_B64: np.ndarray
    """Unit normal and offset of up to six surfaces, world; unused rows have normal 0."""
    plane_material_B6: np.ndarray
    """Material rows of the surfaces."""
    plane_semantic_B6: np.ndarray
    """Mask values of the surfaces."""
    materials_M14: np.ndarray
    """Pattern, gloss, period, phase, axis (3), main pigment (3, linear), second pigment (3, linear), unused."""
    instance_semantic_I: np.ndarray
    """Mask value of each instance."""
    instance_image_I: np.ndarray
    """Picture of each instance."""
    instance_first_B: np.ndarray
    """Batch-wide number of the first instance of each picture."""
    position_B3: np.ndarray
    """Camera centres, world."""
    ray_B33: np.ndarray
    """World direction of the ray of pixel coordinates (u, v, 1); camera z component 1."""
    world_to_camera_B44: np.ndarray
    """Poses."""
    focal_B: np.ndarray
    """Focal lengths, pixels."""


def to_linear(srgb: Sequence[float]) -> list[float]:
    """sRGB 0..1 to linear light (pure power 2.2, inverted by the sensor)."""
    return [max(0.0, float(c)) ** 2.2 for c in srgb]


def pack(scenes: Sequence[Scene]) -> Packed:
    """Tables for scenes of one frame size."""
    cameras = [s.camera for s in scenes]
    materials: dict[int, int] = {}
    rows: list[list[float]] = []

    def material_row(m: Material) -> int:
        if id(m) not in materials:
            materials[id(m)] = len(rows)
            rows.append(_material(m))
        return materials[id(m)]

    first: list[int] = []
    semantic: list[int] = []
    image_of: list[int] = []
    for b, scene in enumerate(scenes):
        first.append(len(semantic))
        semantic += [semantic_id(i.name) for i in scene.instances]
        image_of += [b] * len(scene.instances)
    parts = _pack_parts(scenes, first, material_row)
    planes = np.zeros((len(scenes), MAX_PLANES, 4))
    plane_material = np.zeros((len(scenes), MAX_PLANES), dtype=np.int64)
    plane_semantic = np.zeros((len(scenes), MAX_PLANES), dtype=np.int64)
    for b, scene in enumerate(scenes):
        for k, surface in enumerate(scene.surfaces):
            planes[b, k] = (*surface.normal, surface.offset)
            plane_material[b, k] = material_row(surface.material)
            plane_semantic[b, k] = semantic_id(surface.name)
    poses = np.stack([c.world_to_camera for c in cameras])
    focal = np.array([c.focal for c in cameras])
    camera = cameras[0]
    pixel_to_camera = np.zeros((len(scenes), 3, 3))
    pixel_to_camera[:, 0, 0] = pixel_to_camera[:, 1, 1] = 1 / focal
    pixel_to_camera[:, 0, 2] = -camera.width / 2 / focal
    pixel_to_camera[:, 1, 2] = -camera.height / 2 / focal
    pixel_to_camera[:, 2, 2] = 1
    return Packed(
        width=camera.width,
        height=camera.height,
        parts=parts,
        planes_B64=planes,
        plane_material_B6=plane_material,
        plane_semantic_B6=plane_semantic,
        materials_M14=np.array(rows or [[0.0] * 14]),
        instance_semantic_I=np.array(semantic, dtype=np.int64),
        instance_image_I=np.array(image_of, dtype=np.int64),
        instance_first_B=np.array(first, dtype=np.int64),
        position_B3=np.array([c.position for c in cameras]),
        ray_B33=np.swapaxes(poses[:, :3, :3], 1, 2) @ pixel_to_camera,
        world_to_camera_B44=poses,
        focal_B=focal,
    )


def _material(m: Material) -> list[float]:
    pigments = [*to_linear(m.pigment), *to_linear(m.second_pigment)]
    return [PATTERNS.index(m.pattern), float(m.finish == "glossy"), m.period, m.phase, *m.axis, *pigments, 0.0]


def _pack_parts(scenes: Sequence[Scene], first: list[int], material_row: Callable[[Material], int]) -> PartTable:
    flat = [
        (KINDS.index(part.kind), b, first[b] + i, instance, part)
        for b, scene in enumerate(scenes)
        for i, instance in enumerate(scene.instances)
        for part in instance.shape.parts
    ]
    flat.sort(key=lambda row: row[0])
    kinds = [row[0] for row in flat]
    instances = {row[2]: row[3] for row in flat}
    turn_I33 = {i: np.array(x.rotation) for i, x in instances.items()}
    count = len(flat)
    turn = np.array([turn_I33[row[2]] for row in flat]).reshape(count, 3, 3)
    place = np.array([row[3].position for row in flat]).reshape(count, 3)
    scale = np.array([row[3].scale for row in flat]).reshape(count)
    own = np.array([row[4].rotation for row in flat]).reshape(count, 3, 3)
    half = np.array([row[4].half for row in flat]).reshape(count, 3)
    middle = np.array([row[4].centre for row in flat]).reshape(count, 3)
    reach = np.array([row[4].reach for row in flat]).reshape(count, 3)
    metres = half * scale[:, None]
    axes = turn @ own
    centre = scale[:, None] * (turn @ middle[:, :, None])[:, :, 0] + place
    signs = np.array([(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    box = signs[None] * (reach * scale[:, None])[:, None, :]
    corners = (axes[:, None] @ box[..., None])[..., 0] + centre[:, None]
    return PartTable(
        kind_counts=tuple(kinds.count(k) for k in range(len(KINDS))),
        image_P=np.array([row[1] for row in flat], dtype=np.int64),
        instance_P=np.array([row[2] for row in flat], dtype=np.int64),
        unit_from_world_P33=np.swapaxes(axes, 1, 2) / metres[:, :, None],
        centre_P3=centre,
        reach_P3=reach / half,
        corners_P83=corners,
        metres_P3=metres,
        shape_P2=np.array([_numbers(row[4]) for row in flat]).reshape(count, 2),
        material_P=np.array([material_row(row[3].materials[row[4].slot]) for row in flat], dtype=np.int64),
        slot_P=np.array([SLOTS.index(row[4].slot) for row in flat], dtype=np.int64),
        casts_P=np.array([row[3].name not in _NO_SHADOW for row in flat], dtype=bool),
    )


def _numbers(part: Part) -> tuple[float, float]:
    if part.kind == "torus":
        ring = 1 / (1 + part.tube)
        return ring, 1 - ring
    return part.taper, float(part.open)
