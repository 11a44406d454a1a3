"""ADE20k layout: `ADEChallengeData2016` with 8-bit label maps, 0 = other, classes from 1 in the order of `SEMANTIC`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, mixed_size, png, text_bytes
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import SEMANTIC

TRAIN, VAL = "ade20k/training", "ade20k/validation"
ROOT = "ADEChallengeData2016"
_PREFIX = {TRAIN: "ADE_train", VAL: "ADE_val"}


class Ade20k(PictureLayout):
    """Scenes with a class per pixel."""

    name = "ade20k"
    title = "ADE20k layout: semantic segmentation"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """Training, then validation."""
        found = []
        for split, count in ((TRAIN, scale.ade20k_train), (VAL, scale.ade20k_val)):
            for index in range(count):
                width, height = mixed_size(spec, split, index, shorter=1.5 * spec.size)
                found.append(
                    SceneRequest(
                        split=split, index=index, purpose="several", width=width, height=height, test=split == VAL
                    )
                )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """Picture and label map; pixel counts go into the row."""
        part = shot.request.split.rpartition("/")[2]
        stem = f"{_PREFIX[shot.request.split]}_{shot.request.index + 1:08d}"
        folder.write(f"{ROOT}/images/{part}/{stem}.jpg", jpeg(shot.frame.rgb_HW3))
        folder.write(f"{ROOT}/annotations/{part}/{stem}.png", png(shot.frame.semantic_HW))
        counts = np.bincount(shot.frame.semantic_HW.ravel(), minlength=len(SEMANTIC))
        setting = shot.frame.scene.setting.replace(" ", "_")
        return {"split": shot.request.split, "stem": stem, "setting": setting, "pixels": counts.tolist()}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """`objectInfo150.txt` with the columns of the original, and `sceneCategories.txt`."""
        pixels = {s: np.array([row["pixels"] for row in rows if row["split"] == s], np.int64) for s in (TRAIN, VAL)}
        ratio = pixels[TRAIN].sum(axis=0) / pixels[TRAIN].sum()
        lines = ["\t".join(("Idx", "Ratio", "Train", "Val", "Name"))]
        for index, name in enumerate(SEMANTIC[1:], 1):
            seen = [int((pixels[s][:, index] > 0).sum()) for s in (TRAIN, VAL)]
            lines.append(f"{index}\t{ratio[index]:.4f}\t{seen[0]}\t{seen[1]}\t{name}")
        folder.write(f"{ROOT}/objectInfo150.txt", text_bytes(lines))
        folder.write(f"{ROOT}/sceneCategories.txt", text_bytes([f"{row['stem']} {row['setting']}" for row in rows]))
        return {"training": len(pixels[TRAIN]), "validation": len(pixels[VAL]), "classes": len(SEMANTIC) - 1}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            f"`{ROOT}/images/{{training,validation}}/*.jpg`, `{ROOT}/annotations/...*.png`: pairs of equal stem.",
            f"Label maps are 8-bit, one channel: 0 = other, 1 to {len(SEMANTIC) - 1} in the order of "
            "`objectInfo150.txt` (index, share of training pixels, training and validation pictures that show "
            "it, name).",
        )
