"""Which pigment shows at each pixel centre of an object: the truth behind colour words, whatever the light."""

from __future__ import annotations

import numpy as np
import torch

from mtv.miniworld.rendering.fragments import View
from mtv.miniworld.rendering.intersect import Components
from mtv.miniworld.rendering.pack import Packed
from mtv.miniworld.rendering.surfaces import Seen, points, to_device
from mtv.miniworld.rendering.textures import second_share
from mtv.miniworld.vocabulary import CATEGORIES, SEMANTIC


def shown_pigments(packed: Packed, view: View, seen: Seen, rays: Components, device: torch.device) -> np.ndarray:
    """uint8 [B,H,W] as `Frame.pigment_HW`; `view` has one sample per pixel."""
    parts = packed.parts
    out = torch.zeros(seen.t_S.shape[0], dtype=torch.uint8, device=device)
    classes = [SEMANTIC.index(c) for c in CATEGORIES]
    wanted_P = np.isin(packed.instance_semantic_I[parts.instance_P], classes)
    # the last entry answers for -1, where no part is seen
    of_object = to_device(np.append(wanted_P, False), device)[seen.part_S]
    at = points(packed, view, seen, torch.nonzero(of_object).flatten(), rays, device)
    m = to_device(packed.materials_M14.T, device).index_select(1, at.material)
    repeats = tuple(c / m[2] for c in at.local)
    share = second_share(m[0].to(torch.int64), repeats, at.local_normal, (m[4], m[5], m[6]), m[3])  # type: ignore[arg-type]
    slot = to_device(parts.slot_P, device)[seen.part_S[at.sample]]
    out[at.sample] = (1 + 2 * slot + (share > 0.5)).to(torch.uint8)
    return out.view(packed.planes_B64.shape[0], packed.height, packed.width).cpu().numpy()
