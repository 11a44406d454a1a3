"""Task `navi`: object crops of the wild set, pairs of views of one object."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.eval.datasets.base import FileRef, PosedSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.preparations import NaviCamera, NaviPreparation
from mtv.eval.protocols import NaviProtocol
from mtv.eval.tasks.geometric import GeometricTask, pose_of
from mtv.probes.correspondence import NAVI, draw_navi_pairs
from mtv.probes.matching import lookup_map, upsample_map
from mtv.probes.navi_prepare import SIDE, PreparedItem


class NaviTask(GeometricTask[NaviProtocol]):
    """NAVI wild set, object crops, pairs within an object."""

    spec = NAVI

    @property
    def pooled_over_matches(self) -> bool:
        """`probe3d` pools matches."""
        return self.protocol.mode == "probe3d"

    @property
    def pixel_zoom(self) -> float:
        """The thresholds are 5, 25, 50 pixels of the 512 crop."""
        return self.protocol.size / SIDE

    def open_all(self, data: Path) -> PosedSet:
        """NAVI v1.0 or v1.5."""
        return cast(PosedSet, open_dataset("navi", data, cache=self.protocol.rgb_cache))

    def draw(self, dataset: PosedSet) -> list[tuple[str, str]]:
        """One partner per image, drawn by seed among the views within 120 degrees; every stride-th is kept."""
        objects: dict[str, list[str]] = {}
        for image, item in dataset.posed.items():
            objects.setdefault(item.group, []).append(image)
        names = list(objects.values())
        rotations = [
            torch.stack([pose_of(dataset, image)[:3, :3].float() for image in members]) for members in objects.values()
        ]
        drawn = draw_navi_pairs(
            rotations,
            seed=self.protocol.seed,
            stride=self.protocol.stride,
            self_pairs=self.protocol.mode == "probe3d",
            names=names,
        )
        return [(names[d.object][d.index0], names[d.object][d.index1]) for d in drawn]

    def request_files(self, dataset: PosedSet) -> dict[str, tuple[FileRef, ...]]:
        """Photo and depth: the crop follows the depth."""
        return {k: (v, dataset.posed[k].depth) for k, v in dataset.images.items()}

    def preparation(self, dataset: PosedSet) -> NaviPreparation:
        """Object crop at the protocol's size."""
        cameras = {
            k: NaviCamera(focal=v.intrinsics[0], size=v.size, downsampled=v.downsampled)
            for k, v in dataset.posed.items()
        }
        p = self.protocol
        return NaviPreparation(mode=p.mode, size=p.size, grid=p.grid, cameras=cameras)

    def geometry(self, dataset: PosedSet, image: str) -> PreparedItem:
        """Points of the matching grid."""
        return self.preparation(dataset).item(image, None, dataset.posed[image].depth.read())

    def grid_features(self, tokens_HWD: Tensor, encoder: Encoder, item: PreparedItem) -> Tensor:
        """Bicubic map (`probe3d`) or bicubic lookup at the true place of each cell (`centered`)."""
        p = self.protocol
        if p.mode == "probe3d":
            return upsample_map(tokens_HWD, (p.grid, p.grid))
        step = p.size // p.grid
        return lookup_map(tokens_HWD, image_size=(p.size, p.size), patch=encoder.patch_size, step=step, phase=step // 2)
