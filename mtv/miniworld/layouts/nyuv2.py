"""NYUv2 layout of BTS: `official_splits/{train,test}/<scene>`, depth in millimetres, both list files.

Depth has the holes of a structured-light camera (`sensed`): 0 where the projector, a hand's breadth beside the camera,
cannot reach, and beyond 10 m. A map without any hole would be taken for in-painted depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import LONGEST, jpeg, png
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec

TRAIN, TEST = "nyuv2/train", "nyuv2/test"
BASELINE_M = 0.075
"""Distance between projector and camera."""
RANGE_M = 10.0
"""Farthest depth that is sensed."""


def sensed(frame: Frame) -> np.ndarray:
    """bool [H,W]: where a structured-light camera gets an answer.

    In each row the projector's light moves by focal * baseline / depth pixels. A point lies in shadow when one to its
    left moves past it.
    """
    depth_HW = frame.depth_HW.astype(np.float64)
    hit_HW = (depth_HW > 0) & (depth_HW <= RANGE_M)
    shift_HW = np.divide(
        frame.scene.camera.focal * BASELINE_M, depth_HW, out=np.zeros_like(depth_HW), where=depth_HW > 0
    )
    place_HW = np.arange(depth_HW.shape[1]) + shift_HW
    # Half a pixel of tolerance, or every slanted surface would shadow itself by rounding.
    return hit_HW & (np.maximum.accumulate(place_HW, axis=1) <= place_HW + 0.5)


def millimetres(frame: Frame) -> np.ndarray:
    """uint16 [H,W]; 0 where nothing is sensed."""
    return np.where(sensed(frame), np.rint(frame.depth_HW * 1000.0), 0).astype(np.uint16)


class Nyuv2(PictureLayout):
    """Rooms with depth; 4:3, both sides multiples of four."""

    name = "nyuv2"
    title = "NYUv2 layout (BTS splits): indoor depth"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """Training, then test."""
        height = min(2 * spec.size, LONGEST * 3 // 4) // 4 * 4
        width = round(height / 3) * 4
        return [
            SceneRequest(split=split, index=i, purpose="indoor", width=width, height=height, test=split == TEST)
            for split, count in ((TRAIN, scale.nyuv2_train), (TEST, scale.nyuv2_test))
            for i in range(count)
        ]

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """Picture and depth in the folder of their room."""
        part = shot.request.split.rpartition("/")[2]
        setting = shot.frame.scene.setting.replace(" ", "_")
        scene = setting if part == "test" else f"{setting}_0001"
        image, depth = (f"{scene}/{kind}_{shot.request.index:05d}" for kind in ("rgb", "sync_depth"))
        folder.write(f"official_splits/{part}/{image}.jpg", jpeg(shot.frame.rgb_HW3))
        folder.write(f"official_splits/{part}/{depth}.png", png(millimetres(shot.frame)))
        focal = round(shot.frame.scene.camera.focal, 4)
        return {"split": part, "scene": scene, "line": f"{image}.jpg {depth}.png {focal}"}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """The two lists, with the slashes and the missing newline that BTS's lists have."""
        lines = {part: sorted(row["line"] for row in rows if row["split"] == part) for part in ("train", "test")}
        slashed = ["/" + line.replace(" ", " /", 1) for line in lines["train"]]
        folder.write("nyudepthv2_train_files_with_gt.txt", ("\n".join(slashed) + "\n").encode())
        folder.write("nyudepthv2_test_files_with_gt.txt", "\n".join(lines["test"]).encode())
        return {**{part: len(found) for part, found in lines.items()}, "scenes": len({row["scene"] for row in rows})}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`official_splits/{train,test}/<scene>/rgb_*.jpg`, `sync_depth_*.png`: 16-bit millimetres, 0 = missing.",
            "`nyudepthv2_{train,test}_files_with_gt.txt`: picture, depth, focal length in pixels.",
            f"Depth is missing beyond {RANGE_M:g} m and where a projector {BASELINE_M * 100:g} cm beside the "
            "camera casts a shadow. Pictures have no black frame.",
        )
