"""Truth at pixel centres: depth, masks, what is seen of each instance. numpy on the host."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import find_objects
from torch import Tensor

from mtv.miniworld.frame import Seen
from mtv.miniworld.rendering.fragments import Hits
from mtv.miniworld.rendering.pack import Packed
from mtv.miniworld.rendering.surfaces import Seen as NearestSurface
from mtv.miniworld.rendering.surfaces import to_device
from mtv.miniworld.scene import Scene
from mtv.miniworld.vocabulary import semantic_id


def maps(packed: Packed, surface: NearestSurface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth float32, semantic uint8 and instance uint8, each [B,H,W]."""
    device = surface.t_S.device
    shape = (packed.planes_B64.shape[0], packed.height, packed.width)
    picture = torch.arange(shape[0], device=device).repeat_interleave(packed.height * packed.width)
    depth = torch.where(torch.isinf(surface.t_S), torch.zeros_like(surface.t_S), surface.t_S)
    part, plane = surface.part_S, surface.plane_S
    on_part, on_plane = part >= 0, plane >= 0
    instance = to_device(packed.parts.instance_P, device)[part.clamp(min=0)] if len(packed.parts.instance_P) else part
    own = instance - to_device(packed.instance_first_B, device)[picture] + 1
    of_part = to_device(packed.instance_semantic_I, device)[instance] if len(packed.instance_semantic_I) else part
    of_plane = to_device(packed.plane_semantic_B6, device)[picture, plane.clamp(min=0)]
    semantic = torch.where(on_part, of_part, torch.where(on_plane, of_plane, semantic_id("sky")))
    return (
        depth.view(shape).cpu().numpy(),
        semantic.to(torch.uint8).view(shape).cpu().numpy(),
        torch.where(on_part, own, 0).to(torch.uint8).view(shape).cpu().numpy(),
    )


def unoccluded(packed: Packed, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Per instance of the batch: int64 pixels it would cover with nothing in front, and whether the border cuts it."""
    count, area = len(packed.instance_image_I), packed.height * packed.width
    device = hits.t_S.device
    mark = torch.zeros(count * area, dtype=torch.bool, device=device)
    instance, sample = hits.reached
    mark[instance * area + torch.remainder(sample, area)] = True
    grid = mark.view(count, packed.height, packed.width)
    border: Tensor = grid[:, 0].any(1) | grid[:, -1].any(1) | grid[:, :, 0].any(1) | grid[:, :, -1].any(1)
    return grid.sum(dim=(1, 2)).cpu().numpy(), border.cpu().numpy()


def seen_instances(
    scene: Scene, depth_HW: np.ndarray, instance_HW: np.ndarray, whole: np.ndarray, cut: np.ndarray
) -> tuple[Seen, ...]:
    """What of each instance is in the picture."""
    pixels = np.bincount(instance_HW.ravel(), minlength=len(scene.instances) + 1)
    boxes = find_objects(instance_HW, max_label=len(scene.instances))
    out = []
    for i in range(len(scene.instances)):
        where = boxes[i]
        if where is None:
            box, median, nearest = None, float("nan"), float("nan")
        else:
            rows, columns = where
            depths = depth_HW[where][instance_HW[where] == i + 1]
            box = (columns.start, rows.start, columns.stop, rows.stop)
            median, nearest = float(np.median(depths)), float(depths.min())
        out.append(
            Seen(
                index=i,
                pixels=int(pixels[i + 1]),
                whole=int(whole[i]),
                box=box,
                depth=median,
                nearest=nearest,
                cut=bool(cut[i]),
            )
        )
    return tuple(out)
