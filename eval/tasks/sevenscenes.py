"""Task `sevenscenes`: whole posed RGB-D frames, pairs spread over rotation angles."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.eval.datasets.base import FileRef, PosedSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.preparations import FramePreparation
from mtv.eval.protocols import SevenScenesProtocol
from mtv.eval.tasks.geometric import GeometricTask, pose_of
from mtv.probes.correspondence import SEVENSCENES, draw_stratified_pairs
from mtv.probes.geometry import relative_pose, rotation_angle
from mtv.probes.matching import lookup_map
from mtv.probes.navi_prepare import PreparedItem


class SevenScenesTask(GeometricTask[SevenScenesProtocol]):
    """Posed RGB-D frames, whole pictures, pairs stratified by angle."""

    spec = SEVENSCENES

    def open_all(self, data: Path) -> PosedSet:
        """7-Scenes or frames in its layout."""
        return cast(PosedSet, open_dataset("sevenscenes", data))

    def draw(self, dataset: PosedSet) -> list[tuple[str, str]]:
        """All candidate pairs, or `n_pairs` of them spread over the angle bins."""
        pairs = list(dataset.pairs)
        if self.protocol.pairs == "all":
            return pairs
        angles = [
            float(rotation_angle(relative_pose(pose_of(dataset, a), pose_of(dataset, b))[:3, :3])) for a, b in pairs
        ]
        return draw_stratified_pairs(pairs, angles, self.protocol.n_pairs, seed=self.protocol.seed)

    def strata(self, data: PosedSet, bins: np.ndarray) -> np.ndarray:
        """The angle bin, as the draw was stratified by it."""
        return np.array([f"bin{b}" for b in bins], dtype=str)

    def request_files(self, dataset: PosedSet) -> dict[str, tuple[FileRef, ...]]:
        """The picture alone."""
        return {k: (v,) for k, v in dataset.images.items()}

    def preparation(self, dataset: PosedSet) -> FramePreparation:
        """Whole frames."""
        return FramePreparation(intrinsics={k: v.intrinsics for k, v in dataset.posed.items()})

    def geometry(self, dataset: PosedSet, image: str) -> PreparedItem:
        """Points at every fourth pixel."""
        return self.preparation(dataset).item(image, dataset.posed[image].depth.read())

    def grid_features(self, tokens_HWD: Tensor, encoder: Encoder, item: PreparedItem) -> Tensor:
        """Bicubic lookup at the true place of each cell."""
        height, width = item.valid.shape
        return lookup_map(tokens_HWD, image_size=(4 * height, 4 * width), patch=encoder.patch_size)
