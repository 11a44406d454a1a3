"""COCO layout: captions and instances of `val2014`, and a Karpathy split file `dataset_coco.json`.

Instances are the objects that a viewer would name (`Frame.objects`), with compressed RLE masks of the visible pixels;
`bbox` and `area` are those of the mask, so boxes and masks agree exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame
from mtv.miniworld.language.captions import captions
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, json_bytes, mixed_size
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES

TEST, VAL = "coco/test", "coco/val"
FIRST_ID = {TEST: 900_000_000_001, VAL: 900_001_000_001}
"""Ids begin where COCO has none, so that no picture can be taken for one of COCO's."""


def image_id(request: SceneRequest) -> int:
    """COCO id of a picture."""
    return FIRST_ID[request.split] + request.index


def instance_records(frame: Frame) -> list[dict[str, Any]]:
    """COCO annotations of the nameable objects, without ids."""
    from pycocotools import mask as coco_mask

    found = []
    for instance, seen in frame.objects():
        mask_HW = np.asfortranarray(frame.instance_HW == seen.index + 1, dtype=np.uint8)
        rle = coco_mask.encode(mask_HW)
        assert seen.box is not None
        left, top, right, bottom = seen.box
        found.append(
            {
                "category_id": CATEGORIES.index(instance.name) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask_HW.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(mask_HW.shape), "counts": rle["counts"].decode("ascii")},
            }
        )
    return found


class Coco(PictureLayout):
    """Pictures of several objects with five captions each, boxes and masks."""

    name = "coco"
    title = "COCO layout: captions for retrieval, instances with boxes and masks"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """The test split, then the val split."""
        found = []
        for split, count in ((TEST, scale.coco), (VAL, max(1, scale.coco // 5))):
            for index in range(count):
                width, height = mixed_size(spec, split, index, shorter=spec.size)
                found.append(
                    SceneRequest(split=split, index=index, purpose="several", width=width, height=height, test=True)
                )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """The picture; captions and instances go into the row."""
        number = image_id(shot.request)
        name = f"COCO_val2014_{number:012d}.jpg"
        folder.write(f"val2014/{name}", jpeg(shot.frame.rgb_HW3))
        width, height = shot.frame.size
        return {
            "split": shot.request.split,
            "image": {"id": number, "file_name": name, "width": width, "height": height},
            "captions": list(captions(shot.frame, shot.draws("captions"))),
            "instances": instance_records(shot.frame),
        }

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """Annotation files and the split file."""
        images = [row["image"] for row in rows]
        info = {"info": {"description": "miniature world"}, "licenses": [], "images": images}
        texts = [(row["image"]["id"], text) for row in rows for text in row["captions"]]
        sentences = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(texts, 1)]
        objects = [(row["image"]["id"], record) for row in rows for record in row["instances"]]
        instances = [{**record, "id": n, "image_id": i} for n, (i, record) in enumerate(objects, 1)]
        kinds = [{"id": n, "name": c, "supercategory": "object"} for n, c in enumerate(CATEGORIES, 1)]
        folder.write("annotations/captions_val2014.json", json_bytes({**info, "annotations": sentences}))
        whole = {**info, "annotations": instances, "categories": kinds}
        folder.write("annotations/instances_val2014.json", json_bytes(whole))
        folder.write("dataset_coco.json", json_bytes({"dataset": "coco", "images": _karpathy(rows)}))
        tests = sum(row["split"] == TEST for row in rows)
        return {"images": len(rows), "test images": tests, "captions": len(sentences), "instances": len(instances)}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`val2014/*.jpg`: two to six objects each.",
            "`annotations/captions_val2014.json`: five captions per picture.",
            "`annotations/instances_val2014.json`: objects with at least 12 visible pixels of which at least a "
            "quarter is seen; `segmentation` is a compressed RLE of the visible pixels, `bbox` its box.",
            "`dataset_coco.json`: Karpathy's form, splits `test` and `val`.",
        )


def _karpathy(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Records of `dataset_coco.json`."""
    records, number = [], 0
    for position, row in enumerate(rows):
        sentences = []
        for text in row["captions"]:
            tokens = re.findall(r"[a-z0-9']+", text.lower())
            sentences.append({"tokens": tokens, "raw": text, "imgid": position, "sentid": number})
            number += 1
        records.append(
            {
                "filepath": "val2014",
                "filename": row["image"]["file_name"],
                "imgid": position,
                "split": row["split"].rpartition("/")[2],
                "sentids": [s["sentid"] for s in sentences],
                "sentences": sentences,
                "cocoid": row["image"]["id"],
            }
        )
    return records
