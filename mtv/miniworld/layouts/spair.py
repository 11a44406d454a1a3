"""SPair-71k layout: pictures of one main object, and pairs of one category with the keypoints that both show.

Rules for what SPair annotated by hand or took from PASCAL (`pair_record`):
* azimuth: where the camera stands around the object, degrees from its front, counter-clockwise seen from above.
* viewpoint_variation: 0, 1, 2 for azimuths less than 45, 45 to 90, and more than 90 degrees apart.
* scale_variation: 0, 1, 2 for a ratio of the boxes' longer sides below 1.3, below 1.8, and above.
* truncation, occlusion: 0 neither picture, 1 the source, 2 the target, 3 both. Truncated: the border cuts the object;
  occluded: less than 95 % of it is seen.
* mirror: 1 where the pictures show opposite flanks and mirroring one brings the azimuths within 45 degrees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtv.draws import Draws
from mtv.miniworld.folder import SetFolder
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, json_bytes, mixed_size, png, text_bytes
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.scene import Camera, Instance
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES

SPLITS = {"trn": "spair/trn", "val": "spair/val", "test": "spair/test"}
MIN_SHARED = 3
"""Fewest keypoints that both pictures of a pair show."""
SMALL = 4
"""One pair in so many is in the small layout."""
POSES = ("Frontal", "Left", "Rear", "Right")
"""Names of the quarters around an azimuth of 0, 90, 180 and 270 degrees."""


def azimuth(instance: Instance, camera: Camera) -> float:
    """Degrees 0..360 from the object's front (+x) to the camera, counter-clockwise seen from above."""
    towards = np.array(instance.rotation).T @ (np.array(camera.position) - np.array(instance.position))
    return math.degrees(math.atan2(towards[1], towards[0])) % 360


def apart(a: float, b: float) -> float:
    """Angle between two azimuths, 0..180 degrees."""
    return abs((a - b + 180) % 360 - 180)


def viewpoint_variation(a: float, b: float) -> int:
    """0, 1 or 2 (see the rules above)."""
    difference = apart(a, b)
    return 0 if difference < 45 else 1 if difference <= 90 else 2


def scale_variation(a: Sequence[float], b: Sequence[float]) -> int:
    """0, 1 or 2 from two boxes l, t, r, b."""
    sides = sorted(max(box[2] - box[0], box[3] - box[1]) for box in (a, b))
    ratio = sides[1] / sides[0]
    return 0 if ratio < 1.3 else 1 if ratio < 1.8 else 2


def mirror(a: float, b: float) -> int:
    """1 where one azimuth is near the mirror image of the other, on the other flank."""
    flanks = math.sin(math.radians(a)), math.sin(math.radians(b))
    opposite = flanks[0] * flanks[1] < 0 and min(map(abs, flanks)) > math.sin(math.radians(22.5))
    return int(opposite and apart(a, -b) < 45)


def image_record(shot: Shot, name: str) -> dict[str, Any]:
    """The image annotation. Keypoints that are not visible are null, as in SPair."""
    instance, seen, _ = shot.main()
    width, height = shot.frame.size
    points = shot.frame.keypoints(seen.index)
    angle = azimuth(instance, shot.frame.scene.camera)
    return {
        "filename": name,
        "src_database": "miniature world",
        "src_annotation": "miniature world",
        "src_image": "miniature world",
        "image_width": width,
        "image_height": height,
        "image_depth": 3,
        "category": instance.name,
        "pose": POSES[int((angle + 45) % 360 // 90)],
        "truncated": int(seen.cut),
        "occluded": int(seen.visibility < 0.95),
        "difficult": 0,
        "bndbox": list(seen.box or (0, 0, 0, 0)),
        "kps": {str(i): [round(p.x, 1), round(p.y, 1)] if p.visible else None for i, p in enumerate(points)},
        "azimuth_id": int((angle + 22.5) % 360 // 45),
    }


def pair_record(number: int, source: Row, target: Row) -> dict[str, Any] | None:
    """The annotation of a pair; None where the pictures share fewer than `MIN_SHARED` keypoints."""
    a, b = source["record"], target["record"]
    shared = [k for k in a["kps"] if a["kps"][k] is not None and b["kps"][k] is not None]
    if len(shared) < MIN_SHARED:
        return None
    stems = [r["filename"].removesuffix(".jpg") for r in (a, b)]
    return {
        "pair_id": number,
        "filename": f"{number:06d}-{stems[0]}-{stems[1]}:{a['category']}",
        "src_imname": a["filename"],
        "trg_imname": b["filename"],
        "src_imsize": [a["image_width"], a["image_height"], 3],
        "trg_imsize": [b["image_width"], b["image_height"], 3],
        "src_bndbox": a["bndbox"],
        "trg_bndbox": b["bndbox"],
        "category": a["category"],
        "src_pose": a["pose"],
        "trg_pose": b["pose"],
        "src_kps": [a["kps"][k] for k in shared],
        "trg_kps": [b["kps"][k] for k in shared],
        "kps_ids": shared,
        "mirror": mirror(source["azimuth"], target["azimuth"]),
        "viewpoint_variation": viewpoint_variation(source["azimuth"], target["azimuth"]),
        "scale_variation": scale_variation(a["bndbox"], b["bndbox"]),
        "truncation": a["truncated"] + 2 * b["truncated"],
        "occlusion": a["occluded"] + 2 * b["occluded"],
    }


def split_pairs(rows: Sequence[Row], *, spec: WorldSpec, split: str, most: int) -> list[dict[str, Any]]:
    """Pairs of a split: at most `most` per category, drawn; categories in order, pairs numbered from 0."""
    found: list[dict[str, Any]] = []
    for category in CATEGORIES:
        pictures = [r for r in rows if r["split"] == split and r["record"]["category"] == category]
        draws = Draws(spec.seed, SPLITS[split], category, "pairs")
        wanted = len(found) + most
        for pair in draws.shuffled(list(itertools.combinations(pictures, 2))):
            source, target = draws.shuffled(pair)
            record = pair_record(len(found), source, target)
            if record is not None:
                found.append(record)
            if len(found) == wanted:
                break
    return found


class Spair(PictureLayout):
    """Equally many pictures of each category; splits share no picture."""

    name = "spair"
    title = "SPair-71k layout: semantic correspondence"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """Test, val, trn; the categories take turns."""
        found = []
        for split, count in (("test", scale.spair), ("val", scale.spair_other), ("trn", scale.spair_other)):
            for index in range(count * len(CATEGORIES)):
                width, height = mixed_size(spec, SPLITS[split], index, shorter=2 * spec.size)
                found.append(
                    SceneRequest(
                        split=SPLITS[split],
                        index=index,
                        purpose="single",
                        width=width,
                        height=height,
                        test=split != "trn",
                        category=CATEGORIES[index % len(CATEGORIES)],
                    )
                )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """Picture, annotation and mask; the annotation goes into the row as well."""
        instance, _, mask_HW = shot.main()
        split = shot.request.split.rpartition("/")[2]
        stem = f"mini_{split}_{shot.request.index:06d}"
        record = image_record(shot, f"{stem}.jpg")
        place = f"{instance.name}/{stem}"
        folder.write(f"JPEGImages/{place}.jpg", jpeg(shot.frame.rgb_HW3))
        folder.write(f"ImageAnnotation/{place}.json", json_bytes(record))
        folder.write(f"Segmentation/{place}.png", png(mask_HW.astype(np.uint8)))
        return {"split": split, "record": record, "azimuth": azimuth(instance, shot.frame.scene.camera)}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """Pair annotations and the lists of both layouts."""
        counts = {"images": len(rows)}
        for split in SPLITS:
            records = split_pairs(rows, spec=spec, split=split, most=scale.spair_pairs)
            for record in records:
                folder.write(f"PairAnnotation/{split}/{record['filename']}.json", json_bytes(record))
            names = [record["filename"] for record in records]
            folder.write(f"Layout/large/{split}.txt", text_bytes(names))
            folder.write(f"Layout/small/{split}.txt", text_bytes(names[::SMALL]))
            counts[f"{split} pairs"] = len(records)
        return counts

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`JPEGImages`, `ImageAnnotation`, `Segmentation` (0, 1) by category; `PairAnnotation/{trn,val,test}`.",
            f"`Layout/large` lists all pairs, `Layout/small` one in {SMALL}.",
            f"A pair shares at least {MIN_SHARED} visible keypoints. Keypoints are in pixels, (0, 0) the corner "
            "of the picture; null where not visible. Boxes l, t, r, b enclose the visible pixels, right and "
            "bottom exclusive.",
            "`viewpoint_variation` 0, 1, 2: azimuths under 45, 45 to 90, over 90 degrees apart.",
            "`scale_variation` 0, 1, 2: ratio of the boxes' longer sides under 1.3, under 1.8, over.",
            "`truncation`, `occlusion`: 0 none, 1 source, 2 target, 3 both (cut by the border; under 95 % seen).",
            "`mirror`: 1 where mirroring one picture brings opposite flanks within 45 degrees.",
        )
