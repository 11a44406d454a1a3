"""Miniature sets whose truth is analytic: ImageNet's layout with classes of its own, and NAVI's with balls.

The colour of a ball is its surface normal in its own frame, so an encoder that only averages colours (`ball_model.py`)
knows which point of the ball it sees, and recall says whether poses, depth and crops fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from run_world import noise, rotation, save, write_json
from scipy.spatial.transform import Rotation

BALL_SOURCE = '''
"""Tokens are mean colours of patches of 8 pixels; nothing is learnt."""
import torch
from torch import nn


class Colours(nn.Module):
    patch_size = 8
    size = 32
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    resize = "squash"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        y = nn.functional.avg_pool2d(x, 8) * self.scale
        return y, y.mean((2, 3)) + 1


def build():
    return Colours().eval()
'''

OTHER_CLASSES = {
    "n90000007": "table lamp",
    "n90000003": "mug",
    "n90000012": "sailing  boat",
    "n90000001": "dog",
}
"""Invented wnids, not in their order; the names of two have blanks."""


def write_other_classes(root: Path, per_class: int = 4) -> None:
    """`imagenet/classnames.txt` and `imagenet/val/<wnid>/scene_####.JPEG`."""
    lines = [f"{wnid} {name}" for wnid, name in OTHER_CLASSES.items()]
    (root / "imagenet").mkdir(parents=True, exist_ok=True)
    (root / "imagenet" / "classnames.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for label, wnid in enumerate(OTHER_CLASSES):
        for k in range(per_class):
            number = per_class * label + k
            picture = noise(900 + number, 96, 96, base=950 + label if k % 2 else None)
            save(picture, root / "imagenet" / "val" / wnid / f"scene_{number:04d}.JPEG", format="JPEG")


BALL_RADIUS = 0.12
BALL_FOCAL = 300.0
BALL_SIZES = ((256, 192), (192, 240))
"""Width, height of the photos, in turn."""
BALL_ANGLES = (0.0, 15.0, 30.0, 45.0)
"""Degrees by which each ball is turned from view to view."""


def write_balls(root: Path, *, radius: float = BALL_RADIUS, mirrored: bool = False) -> None:
    """`navi/<ball>/{wild_set, multiview_00_mini}`, layout of v1.0: two balls of four views at 0.5 to 1.2 m.

    Args:
        root: data root.
        radius: metres.
        mirrored: write the inverse of every rotation, which no reader can see and every recall must.
    """
    for number, name in enumerate(("globe", "marble")):
        wild = root / "navi" / name / "wild_set"
        (wild.parent / "multiview_00_mini").mkdir(parents=True)
        records = []
        for view, angle in enumerate(BALL_ANGLES):
            width, height = BALL_SIZES[(number + view) % 2]
            turn_33 = rotation((0.3 - number, 1.0, 0.2), angle + 7 * number)
            place = np.array([0.03 * view - 0.04, 0.02 * number, 0.6 + 0.15 * view])
            rgb, depth = ball(width, height, turn_33, place, radius)
            save(Image.fromarray(rgb), wild / "images" / f"{view:03d}.jpg", quality=95)
            codes = np.where(depth > 0, np.rint(655.350 / np.where(depth > 0, depth, 1)), 0)
            save(Image.fromarray(codes.astype(np.uint16)), wild / "depth" / f"{view:03d}.png")
            x, y, z, w = Rotation.from_matrix(turn_33.T if mirrored else turn_33).as_quat()
            camera = {
                "q": [1.5 * float(v) for v in (w, x, y, z)], "t": (1000 * place).tolist(),
                "focal_length": BALL_FOCAL, "camera_model": "mini",
            }  # fmt: skip
            records.append(
                {
                    "object_id": name, "scene_name": "wild_set", "filename": f"{view:03d}.jpg", "split": "val",
                    "filename_original": f"{view:03d}.jpg", "image_size": [height, width], "occluded": False,
                    "camera": camera,
                }
            )  # fmt: skip
        write_json(wild / "annotations.json", records)


def ball(
    width: int, height: int, turn_33: np.ndarray, place: Sequence[float] | np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 H,W,3 and metres H,W of a ball at `place` in the camera: where each ray meets it first."""
    x_HW, y_HW = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    ray_HW3 = np.stack([x_HW / BALL_FOCAL, y_HW / BALL_FOCAL, np.ones_like(x_HW)], axis=-1)
    centre = np.asarray(place, dtype=float)
    a, b, c = (ray_HW3**2).sum(-1), ray_HW3 @ centre, centre @ centre - radius**2
    inside = b**2 - a * c
    depth_HW = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, 0)
    normal_HW3 = (ray_HW3 * depth_HW[..., None] - centre) @ turn_33 / radius
    rgb_HW3 = np.where(depth_HW[..., None] > 0, np.rint(127.5 + 127.5 * np.clip(normal_HW3, -1, 1)), 128)
    return rgb_HW3.astype(np.uint8), depth_HW


def write_ball_model(folder: Path) -> str:
    """Spec of the encoder that sees colours."""
    path = folder / "ball_model.py"
    path.write_text(BALL_SOURCE, encoding="utf-8")
    return f"python:{path}:build"
