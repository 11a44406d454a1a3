"""What `mtv-eval data show` draws of each data set: a few items with their truth, read by the readers of the suite.

The files are read as the tasks read them, so the sheet shows what a model will be measured on. Items are spread evenly
over the set. Sets that are not below the folder are left out; one that is wrong is an error, as everywhere.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from PIL import Image

from mtv.errors import DataError, unknown
from mtv.eval.contact_sheet import (
    Panel,
    Row,
    colour_of,
    coloured_depth,
    coloured_labels,
    enlarge,
    with_boxes,
    with_mask,
    with_points,
)
from mtv.eval.datasets.base import (
    CaptionSet,
    ClassificationSet,
    Dataset,
    DepthSet,
    KeypointPairSet,
    PosedSet,
    SegmentationSet,
)
from mtv.eval.datasets.dense_decode import read_depth_metres, read_labels
from mtv.eval.datasets.images import open_exif, read_depth_png
from mtv.eval.datasets.questions import QuestionSet
from mtv.eval.datasets.registry import check_dataset, open_dataset

T = TypeVar("T")
PRETRAIN = "pretrain"


def rows_below(data: Path, *, names: Sequence[str] | None, items: int) -> Iterator[Row]:
    """Rows of the sets below a folder, in a fixed order.

    Args:
        data: folder with data sets, up to two levels below.
        names: sets to show; None for all that are there.
        items: items per set.

    Raises:
        UsageError: an unknown set.
        DataError: no such folder; a named set is missing; a set is wrong.
    """
    for name in names or ():
        if name not in (*_DRAW, PRETRAIN):
            raise unknown("set", name, (*_DRAW, PRETRAIN))
    for name, draw in _DRAW.items():
        if names is None and check_dataset(name, data).verdict == "missing":
            continue
        if names is None or name in names:
            dataset = open_dataset(name, data)
            counts = ", ".join(f"{number} {what}" for what, number in dataset.report.found.items())
            yield Row(title=name, remark=f"{dataset.split}: {counts}", panels=draw(dataset, items))
    if names is None or PRETRAIN in names:
        yield from _pretrain(data, items, wanted=names is not None)


def spread(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of the values, evenly spread.

    >>> spread("abcdefgh", 3)
    ['a', 'd', 'g']
    """
    count = min(count, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def _picture(dataset: Dataset, key: str) -> Image.Image:
    ref = dataset.images[key]
    return open_exif(ref.read(), name=ref.name)


def _classes(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(ClassificationSet, dataset)
    keys = list(found.images)
    chosen = spread(np.argsort(found.labels, kind="stable").tolist(), items)
    return [Panel(image=enlarge(_picture(found, keys[i])), text=found.titles[found.labels[i]]) for i in chosen]


def _captions(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(CaptionSet, dataset)
    instances = _coco_instances(found)
    panels = []
    for position in spread(range(len(found.images)), items):
        key = list(found.images)[position]
        image = enlarge(_picture(found, key))
        boxes = []
        for number, (box, name, mask_HW) in enumerate(instances.get(key, ()), 1):
            image = with_mask(image, mask_HW, colour_of(number))
            boxes.append((box, name))
        first = int(np.flatnonzero(found.owner == position)[0])
        panels.append(Panel(image=with_boxes(image, boxes), text=found.captions[first]))
    return panels


_Instance = tuple[tuple[float, float, float, float], str, np.ndarray]


def _coco_instances(dataset: Dataset) -> dict[str, list[_Instance]]:
    """Image id to boxes (fractions), names and masks, where the folder has `annotations/instances_*.json`."""
    from pycocotools import mask as coco_mask

    root = dataset.report.root
    found: dict[str, list[_Instance]] = {}
    for path in sorted((root / "annotations").glob("instances_*.json")) if root is not None else ():
        content = json.loads(path.read_bytes())
        sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"] if str(i["id"]) in dataset.images}
        names = {c["id"]: c["name"] for c in content["categories"]}
        for record in content["annotations"]:
            shape = record.get("segmentation")
            if record["image_id"] not in sizes or not shape:
                continue
            height, width = sizes[record["image_id"]]
            rle = shape if isinstance(shape, dict) else coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
            x, y, w, h = record["bbox"]
            box = (x / width, y / height, (x + w) / width, (y + h) / height)
            mask_HW = coco_mask.decode(rle)
            found.setdefault(str(record["image_id"]), []).append((box, names[record["category_id"]], mask_HW))
    return found


def _poses(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(PosedSet, dataset)
    panels = []
    for key in spread(list(found.images), items // 2):
        item = found.posed[key]
        depth_HW = read_depth_png(item.depth.read(), found.depth_encoding, name=item.depth.name)
        x, y, z = np.linalg.inv(item.world_to_camera)[:3, 3]
        panels += [
            Panel(image=enlarge(_picture(found, key)), text=key),
            Panel(image=coloured_depth(depth_HW), text=f"camera at {x:.2f}, {y:.2f}, {z:.2f} m"),
        ]
    return panels


def _keypoints(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(KeypointPairSet, dataset)
    panels = []
    for pair in spread(found.pairs, items // 2):
        for key in (pair.source, pair.target):
            note = found.annotations[key]
            (width, height), (left, top, right, bottom) = note.size, note.bbox
            points = [(x / width, y / height, i) for i, (x, y) in enumerate(note.keypoints.tolist()) if not np.isnan(x)]
            box = (left / width, top / height, right / width, bottom / height)
            image = with_boxes(with_points(enlarge(_picture(found, key)), points), [(box, note.category)])
            panels.append(Panel(image=image, text=f"viewpoint variation {pair.viewpoint}"))
    return panels


def _labels(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(SegmentationSet, dataset)
    panels = []
    for key in spread(list(found.images), items // 2):
        labels_HW = read_labels(found, key)
        shown_HW = np.where(labels_HW == found.ignore_index, 0, labels_HW.astype(np.int64) + 1)
        most = np.argsort(-np.bincount(shown_HW.ravel(), minlength=len(found.classes) + 1)[1:], kind="stable")
        present = [found.classes[i] for i in most if (labels_HW == i).any()]
        panels += [
            Panel(image=enlarge(_picture(found, key))),
            Panel(image=coloured_labels(shown_HW), text=", ".join(present[:6])),
        ]
    return panels


def _depths(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(DepthSet, dataset)
    panels = []
    for key in spread(list(found.images), items // 2):
        depth_HW = read_depth_metres(found.items[key].depth, found.depth_encoding)
        valid = depth_HW[depth_HW > 0]
        text = f"{valid.min():.1f} to {valid.max():.1f} m, {valid.size / depth_HW.size:.0%} known" if valid.size else ""
        panels += [
            Panel(image=enlarge(_picture(found, key)), text=found.items[key].group),
            Panel(image=coloured_depth(depth_HW), text=text),
        ]
    return panels


def _questions(dataset: Dataset, items: int) -> list[Panel]:
    found = cast(QuestionSet, dataset)
    paired = bool(found.questions and found.questions[0].pair)
    if paired:
        starts = spread(range(0, len(found.questions) - 1, 2), items // 2)
        chosen = [found.questions[i + k] for i in starts for k in (0, 1)]
    else:
        chosen = spread(found.questions, items)
    return [
        Panel(
            image=enlarge(_picture(found, q.image)),
            text=f"{q.question}\n" + " ".join(f"[{c}]" if i == q.answer else c for i, c in enumerate(q.choices)),
        )
        for q in chosen
    ]


def _pretrain(data: Path, items: int, *, wanted: bool) -> Iterator[Row]:
    """Pictures with named boxes and disparity, from the shards below `data` or `data/pretrain`."""
    from mtv.shards import ShardDataset, decode_disparity

    root = next((d for d in (data / PRETRAIN, data) if (d / "dataset.json").is_file()), None)
    if root is None:
        if wanted:
            raise DataError(f"{data}: no pretraining shards (dataset.json)", "Make them with mtv-eval data make-mini.")
        return
    labels = sorted(p.name for p in (root / "labels").iterdir() if p.is_dir()) if (root / "labels").is_dir() else []
    shards = ShardDataset.open(root, labels=labels)
    panels = []
    for i in spread(range(len(shards)), items // 2):
        sample = shards.sample(i)
        image = enlarge(Image.open(io.BytesIO(sample.image)))
        boxes = [(region.box, region.name) for region in sample.regions or () if " " in region.name]
        panels.append(Panel(image=with_boxes(image, boxes), text=sample.captions[0] if sample.captions else ""))
        if sample.disparity is not None:
            code = sample.disparity
            nearness_HW = decode_disparity(code.png, code.min, code.max)
            far_HW = np.divide(1, nearness_HW, out=np.zeros_like(nearness_HW), where=nearness_HW > 0)
            panels.append(Panel(image=coloured_depth(far_HW), text="disparity"))
    yield Row(title=PRETRAIN, remark=f"{len(shards)} samples with captions, regions, disparity", panels=panels)


_DRAW: Mapping[str, Callable[[Dataset, int], list[Panel]]] = {
    "imagenet": _classes,
    "coco": _captions,
    "flickr8k": _captions,
    "flickr30k": _captions,
    "navi": _poses,
    "spair": _keypoints,
    "ade20k": _labels,
    "nyuv2": _depths,
    "kitti": _depths,
    "cvbench": _questions,
    "mmvp": _questions,
}
"""Data set to what is drawn of it."""
