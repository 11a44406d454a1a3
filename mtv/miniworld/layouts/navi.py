"""NAVI v1 layout: individuals in changing surroundings, with object masks, object depth and object-to-camera poses.

Notable choices:
* As in NAVI, depth is of the object only, elsewhere 0; here only where nothing hides it, so that depth and mask agree.
* The object's frame is the shape's, with the scale of the individual applied; the camera is x right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, json_bytes, mixed_size, png
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.scene import Instance
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES

WILD, MULTIVIEW = "navi/wild_set", "navi/multiview"
CODE = 655_350.0
"""Depth in millimetres times code."""
MULTIVIEWS = 1
"""Pictures of the multiview scene of each object."""
_FOLDER = {WILD: "wild_set", MULTIVIEW: "multiview_00_mini"}


def object_name(individual: int) -> str:
    """Folder of an individual: its category and which one of it."""
    category = CATEGORIES[individual % len(CATEGORIES)]
    return f"{category}_{individual // len(CATEGORIES):03d}"


def depth_codes(frame: Frame, mask_HW: np.ndarray) -> np.ndarray:
    """uint16 [H,W]: round(655350 / millimetres) inside the mask, 0 elsewhere."""
    millimetres_HW = np.where(mask_HW, frame.depth_HW.astype(np.float64) * 1000, np.inf)
    return np.clip(np.rint(CODE / millimetres_HW), 0, 65535).astype(np.uint16)


def quaternion(rotation_33: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion w, x, y, z of a rotation; w >= 0, and never divided by a small number.

    >>> quaternion(np.diag([1.0, -1.0, -1.0]))
    (0.0, 1.0, 0.0, 0.0)
    """
    r = rotation_33
    # The four products 4 q_i q_j that contain the largest component (Shepperd 1978).
    table_44 = np.array(
        [
            [1 + r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], 1 + r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], 1 - r[0, 0] + r[1, 1] - r[2, 2], r[1, 2] + r[2, 1]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], 1 - r[0, 0] - r[1, 1] + r[2, 2]],
        ]
    )
    q = table_44[int(np.argmax(np.diag(table_44)))]
    q = q / np.linalg.norm(q) * (1.0 if q[0] >= 0 else -1.0)
    w, x, y, z = (float(v) + 0.0 for v in q)
    return w, x, y, z


def camera_record(frame: Frame, instance: Instance) -> dict[str, Any]:
    """`camera` of an annotation: X_cam = R(q) X_obj + t in millimetres, focal length in pixels."""
    world_to_camera = frame.scene.camera.world_to_camera
    rotation = world_to_camera[:3, :3] @ np.array(instance.rotation)
    shift = world_to_camera[:3, :3] @ np.array(instance.position) + world_to_camera[:3, 3]
    return {
        "q": [round(v, 9) for v in quaternion(rotation)],
        "t": [round(float(v) * 1000, 6) for v in shift],
        "focal_length": round(frame.scene.camera.focal, 6),
        "camera_model": "mini",
    }


class Navi(PictureLayout):
    """Objects with a wild set, and a small multiview scene each, whose presence the readers ask for."""

    name = "navi"
    title = "NAVI v1 layout: geometric correspondence"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """Wild-set pictures object by object, then the multiview ones."""
        found = []
        for split, views in ((WILD, scale.navi_views), (MULTIVIEW, MULTIVIEWS)):
            for index in range(scale.navi_objects * views):
                individual = index // views
                width, height = mixed_size(spec, split, index, shorter=2 * spec.size)
                found.append(
                    SceneRequest(
                        split=split,
                        index=index,
                        purpose="model",
                        width=width,
                        height=height,
                        test=True,
                        category=CATEGORIES[individual % len(CATEGORIES)],
                        individual=individual,
                    )
                )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """Picture, depth and mask; the record goes into the row."""
        instance, seen, mask_HW = shot.main()
        split, name = shot.request.split, object_name(shot.request.individual)
        views = shot.scale.navi_views if split == WILD else MULTIVIEWS
        place, stem = f"{name}/{_FOLDER[split]}", f"{shot.request.index % views:03d}"
        folder.write(f"{place}/images/{stem}.jpg", jpeg(shot.frame.rgb_HW3))
        folder.write(f"{place}/depth/{stem}.png", png(depth_codes(shot.frame, mask_HW)))
        folder.write(f"{place}/masks/{stem}.png", png(np.where(mask_HW, 255, 0).astype(np.uint8)))
        width, height = shot.frame.size
        record = {
            "object_id": name,
            "scene_name": _FOLDER[split],
            "filename": f"{stem}.jpg",
            "filename_original": f"{stem}.jpg",
            "image_size": [height, width],
            "split": "val",
            "occluded": seen.visibility < 0.95,
            "camera": camera_record(shot.frame, instance),
        }
        return {"place": place, "record": record}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """`annotations.json` of every scene."""
        records: dict[str, list[Any]] = {}
        for row in rows:
            records.setdefault(row["place"], []).append(row["record"])
        for place, found in records.items():
            folder.write(f"{place}/annotations.json", json_bytes(found, indent=1))
        wild = [place for place in records if place.endswith(_FOLDER[WILD])]
        return {
            "objects": len(wild),
            "wild images": sum(len(records[place]) for place in wild),
            "multiview images": sum(len(v) for p, v in records.items() if p not in wild),
        }

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`<object>/wild_set/{annotations.json, images, depth, masks}`: one individual in changing "
            "surroundings; the objects are as large as NAVI's, 20 to 35 cm.",
            "`<object>/multiview_00_mini/`: one more picture in the same form; the readers ask for such a scene.",
            "`camera`: X_cam = R(q) X_obj + t, q = w, x, y, z, t in millimetres; x right, y down, z forward; "
            "focal length in pixels, principal point in the middle of the picture.",
            "Depth codes: round(655350 / millimetres), 0 where the object is not seen. Masks: 255 where it is seen.",
        )
