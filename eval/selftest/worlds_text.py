"""Tiny ImageNet, COCO and Flickr copies in their original layouts, filled from `codes`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from mtv.eval.datasets.imagenet_classes import imagenet_wnids
from mtv.eval.selftest.codes import (
    COCO_CAPTIONS,
    COCO_IDENTITIES,
    FLICKR8K_CAPTIONS,
    FLICKR8K_IDENTITIES,
    FLICKR30K_CAPTIONS,
    FLICKR30K_IDENTITIES,
    IMAGENET_FILES,
)
from mtv.eval.selftest.pictures import identity_picture, save

COCO_IDS = (391, 581929)
"""Ascending, so that position and identity agree."""


def write_imagenet(
    root: Path,
    files: Sequence[tuple[int, int]] = IMAGENET_FILES,
    *,
    relabel: Callable[[int], int] = lambda c: c,
    backwards: bool = False,
) -> None:
    """`imagenet/val/<wnid>/ILSVRC2012_val_########.JPEG`.

    Args:
        root: data root.
        files: class and identity of each picture.
        relabel: moves pictures to the folder of another class.
        backwards: write the last picture first.
    """
    for number, (label, identity) in sorted(enumerate(files, start=1), reverse=backwards):
        folder = root / "imagenet" / "val" / imagenet_wnids()[relabel(label)]
        save(identity_picture(identity, number), folder / f"ILSVRC2012_val_{number:08d}.JPEG")


def write_coco(root: Path) -> None:
    """`coco/val2014/COCO_val2014_############.jpg` and the Karpathy file, with a picture of another split."""
    records = []
    for position, (coco_id, identity) in enumerate(zip(COCO_IDS, COCO_IDENTITIES, strict=True)):
        name = f"COCO_val2014_{coco_id:012d}.jpg"
        save(identity_picture(identity, position, (64, 48)), root / "coco" / "val2014" / name)
        captions = [caption for owner, caption, _ in COCO_CAPTIONS if owner == position]
        records.append(_karpathy(name, captions, "test") | {"filepath": "val2014", "cocoid": coco_id})
    other = _karpathy("COCO_val2014_000000000042.jpg", ["Not of this split."], "val")
    _write_json(root / "coco" / "dataset_coco.json", [other | {"filepath": "val2014", "cocoid": 42}, *records[::-1]])


def write_flickr30k(root: Path) -> None:
    """`flickr30k/flickr30k-images/*.jpg` and the Karpathy file."""
    folder = root / "flickr30k"
    records = []
    for k, (identity, caption) in enumerate(zip(FLICKR30K_IDENTITIES, FLICKR30K_CAPTIONS, strict=True)):
        name = f"{1007129816 + k}.jpg"
        save(identity_picture(identity, k, (40, 56)), folder / "flickr30k-images" / name)
        records.append(_karpathy(name, [caption], "test"))
    _write_json(folder / "dataset_flickr30k.json", records)


def write_flickr8k(root: Path) -> None:
    """`flickr8k/Images/*.jpg`, `captions.txt` (CSV with quotes) and the list of test pictures."""
    folder = root / "flickr8k"
    names = [f"{number}_0.jpg" for number in range(100, 100 + len(FLICKR8K_IDENTITIES))]
    for position, (name, identity) in enumerate(zip(names, FLICKR8K_IDENTITIES, strict=True)):
        save(identity_picture(identity, position), folder / "Images" / name)
    quoted = [(names[owner], caption.replace('"', '""')) for owner, caption in FLICKR8K_CAPTIONS]
    lines = ["image,caption", *(f'{name},"{caption}"' for name, caption in quoted)]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "Flickr_8k.testImages.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _karpathy(name: str, captions: Sequence[str], split: str) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": c} for c in captions]}


def _write_json(path: Path, images: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
