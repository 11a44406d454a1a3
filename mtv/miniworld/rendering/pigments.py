"""Which pigment shows at each pixel centre of an object: the truth behind colour words, whatever the light."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtv.miniworld.rendering.fragments import View
from mtv.miniworld.rendering.intersect import Components
from mtv.miniworld.rendering.pack import Packed
from mtv.miniworld.rendering.surfaces import Seen, points, to_device
from mtv.miniworld.rendering.textures import second_share
from mtv.miniworld.vocabulary import CATEGORIES, SEMANTIC

_BETWEEN = 0.15


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
    looks = _looks_second(m[7:10], m[10:13], share)
    code = 1 + 2 * to_device(parts.slot_P, device)[seen.part_S[at.sample]] + (looks > 0.5)
    out[at.sample] = torch.where((looks - 0.5).abs() < _BETWEEN, 0, code).to(torch.uint8)
    return out.view(packed.planes_B64.shape[0], packed.height, packed.width).cpu().numpy()


def _looks_second(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """How far a blend of two linear pigments [3,H] lies from the first to the second as the eye sees it, 0..1.

    Light pigments win over dark ones: half brown, half pink looks pink.
    """
    low, high, blend = (c.clamp(min=0) ** (1 / 2.2) for c in (first, second, first + (second - first) * share))
    whole = ((high - low) ** 2).sum(0)
    return ((blend - low) * (high - low)).sum(0) / whole.clamp(min=1e-6)
