"""KITTI depth layout: raw tree with PNG pictures, semi-dense 16-bit ground truth, and the Eigen list.

The ground truth has the pattern of a lidar that stands in the camera's place (`scanned`): beams 0.4 degrees apart in
elevation from 2 degrees up to 24.8 down, and of their points as many as cover a fifth of the picture, up to 80 m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtv.draws import Draws
from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import fit, png, text_bytes
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.scene import Camera
from mtv.miniworld.spec import SceneRequest, WorldSpec

SPLIT = "kitti/val"
ASPECT = 1242 / 375
DATE = "2000_01_01"
PER_DRIVE = 10
"""Pictures per drive."""
RANGE_M = 80.0
"""Farthest return."""
TOP_DEG, BOTTOM_DEG, STEP_DEG = 2.0, -24.8, 0.4
"""Elevation of the highest and the lowest beam, and between neighbours: 68 beams, as good as the original's 64."""
KEPT, COVERED = 0.6, 0.2
"""Largest share of the points on a beam that return, and share of the picture that they cover at most."""


def elevation_edges(camera: Camera) -> np.ndarray:
    """Elevation in degrees above the horizon of the rays through the upper and lower edge of each pixel, [2,H,W]."""
    rows = np.arange(camera.height + 1) - camera.height / 2
    columns = np.arange(camera.width) + 0.5 - camera.width / 2
    x_HW, y_HW = np.meshgrid(columns, rows)
    rays = np.stack([x_HW, y_HW, np.full_like(x_HW, camera.focal)], axis=-1) @ np.array(camera.rotation)
    degrees = np.degrees(np.arcsin(rays[..., 2] / np.linalg.norm(rays, axis=-1)))
    return np.stack([degrees[:-1], degrees[1:]])


def scanned(frame: Frame, draws: Draws) -> np.ndarray:
    """bool [H,W]: pixels that a beam crosses, that return, and that are near enough."""
    upper_HW, lower_HW = elevation_edges(frame.scene.camera)
    beam = [np.floor((TOP_DEG - edge_HW) / STEP_DEG) for edge_HW in (upper_HW, lower_HW)]
    crossed_HW = (beam[0] != beam[1]) & (upper_HW <= TOP_DEG) & (lower_HW >= BOTTOM_DEG)
    # The beams of a small picture cross nearly every row; a fifth of the pixels is to stay a fifth at any size.
    share = min(KEPT, COVERED / max(float(crossed_HW.mean()), COVERED))
    returns_HW = np.random.Generator(np.random.Philox(key=draws.seed32())).random(crossed_HW.shape) < share
    return crossed_HW & returns_HW & (frame.depth_HW > 0) & (frame.depth_HW <= RANGE_M)


class Kitti(PictureLayout):
    """Wide outdoor pictures with sparse depth."""

    name = "kitti"
    title = "KITTI depth layout (Eigen list): outdoor depth"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """All pictures in order."""
        width, height = fit(spec.size * ASPECT, spec.size)
        return [
            SceneRequest(split=SPLIT, index=i, purpose="road", width=width, height=height, test=True)
            for i in range(scale.kitti)
        ]

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """Picture and ground truth of a drive."""
        drive = f"{DATE}_drive_{shot.request.index // PER_DRIVE + 1:04d}_sync"
        stem = f"{shot.request.index % PER_DRIVE:010d}"
        image = f"{DATE}/{drive}/image_02/data/{stem}.png"
        truth = f"{drive}/proj_depth/groundtruth/image_02/{stem}.png"
        valid_HW = scanned(shot.frame, shot.draws("lidar"))
        codes_HW = np.where(valid_HW, np.rint(shot.frame.depth_HW * 256.0), 0).astype(np.uint16)
        folder.write(f"raw/{image}", png(shot.frame.rgb_HW3))
        folder.write(f"data_depth_annotated/val/{truth}", png(codes_HW))
        return {"drive": drive, "line": f"{image} {truth} {round(shot.frame.scene.camera.focal, 4)}"}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """The list."""
        folder.write("eigen_test_files_with_gt.txt", text_bytes([row["line"] for row in rows]))
        return {"images": len(rows), "drives": len({row["drive"] for row in rows})}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`raw/<date>/<drive>/image_02/data/*.png`: pictures, sides as 1242 to 375.",
            "`data_depth_annotated/val/<drive>/proj_depth/groundtruth/image_02/*.png`: metres = code / 256, 0 missing.",
            "`eigen_test_files_with_gt.txt`: picture, ground truth, focal length in pixels.",
            f"Ground truth lies on the beams of a lidar in the camera's place, {STEP_DEG:g} degrees apart from "
            f"{TOP_DEG:g} degrees up to {-BOTTOM_DEG:g} down, thinned to at most a fifth of the picture, up to "
            f"{RANGE_M:g} m.",
            f"Every {PER_DRIVE} pictures are called a drive, though they share nothing.",
        )
