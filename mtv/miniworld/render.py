"""From scenes to frames: the public face of the renderer.

RGB takes four samples per pixel; depth, masks and boxes are exact at pixel centres. Frames come back in the order of
the scenes, each independent of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mtv.errors import UsageError
from mtv.miniworld.frame import Frame
from mtv.miniworld.rendering.fragments import cast
from mtv.miniworld.rendering.pack import pack
from mtv.miniworld.rendering.pigments import shown_pigments
from mtv.miniworld.rendering.sensor import develop
from mtv.miniworld.rendering.shade import shade
from mtv.miniworld.rendering.surfaces import nearest, ray_directions, select
from mtv.miniworld.rendering.truth import maps, seen_instances, unoccluded
from mtv.miniworld.rendering.views import camera_view
from mtv.miniworld.scene import Scene

_SAMPLES = 2
_PIXELS_PER_BATCH = {"cpu": 1 << 17, "cuda": 1 << 23}


def render(scenes: Sequence[Scene], *, device: str | torch.device = "cpu") -> list[Frame]:
    """Pictures with truth, in order.

    Args:
        scenes: any number, frame sizes may differ.
        device: `cpu` or `cuda`; on one kind of device the same scene gives the same bits.

    Raises:
        UsageError: a scene has more than 255 instances, which the mask cannot tell apart.
    """
    place = torch.device(device)
    for scene in scenes:
        if len(scene.instances) > 255:
            raise UsageError(f"scene {scene.id} has {len(scene.instances)} instances; at most 255 can be rendered")
    out: dict[int, Frame] = {}
    for batch in _batches(scenes, place):
        out.update(zip(batch, _render_batch([scenes[i] for i in batch], place), strict=True))
    return [out[i] for i in range(len(scenes))]


def _batches(scenes: Sequence[Scene], device: torch.device) -> Iterator[list[int]]:
    """Positions of scenes of one frame size, as many as fit the memory of a pass."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for i, scene in enumerate(scenes):
        sizes.setdefault((scene.camera.width, scene.camera.height), []).append(i)
    for (width, height), members in sizes.items():
        count = max(1, _PIXELS_PER_BATCH[device.type] // (width * height))
        for start in range(0, len(members), count):
            yield members[start : start + count]


@torch.inference_mode()
def _render_batch(scenes: list[Scene], device: torch.device) -> list[Frame]:
    packed = pack(scenes)
    view = camera_view(packed, _SAMPLES)
    rays = ray_directions(packed, view, device)
    surface = nearest(packed, view, cast(view, packed.parts, len(scenes), device), device)
    chosen = select(packed, surface, _SAMPLES, device)
    light = shade(packed, scenes, view, rays, surface, chosen)
    rgb = develop(light, chosen.count_BHW, scenes, packed.width, packed.height, _SAMPLES).cpu().numpy()

    centre_view = camera_view(packed, 1)
    hits = cast(centre_view, packed.parts, len(scenes), device)
    centre = nearest(packed, centre_view, hits, device)
    depth, semantic, instance = maps(packed, centre)
    pigment = shown_pigments(packed, centre_view, centre, ray_directions(packed, centre_view, device), device)
    whole, cut = unoccluded(packed, hits)
    frames = []
    for b, scene in enumerate(scenes):
        own = slice(int(packed.instance_first_B[b]), int(packed.instance_first_B[b]) + len(scene.instances))
        frames.append(
            Frame(
                scene=scene,
                rgb_HW3=rgb[b],
                depth_HW=depth[b],
                semantic_HW=semantic[b],
                instance_HW=instance[b],
                pigment_HW=pigment[b],
                seen=seen_instances(scene, depth[b], instance[b], whole[own], cut[own]),
            )
        )
    return frames
