"""SPair-71k and sets in its layout: keypoint pairs between pictures of one category (`correspondence.md` section 3).

Keypoints come from the image annotations, boxes too; the pair annotations give who is compared with whom. Pair files
may be named `000001-a-b:cat.json` or, where `:` is not allowed, `000001-a-b_cat.json`; pair ids always have a colon.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mtv.errors import DataError, unknown
from mtv.eval.datasets.base import (
    CheckReport,
    FileRef,
    KeypointImage,
    KeypointPair,
    KeypointPairSet,
    find_root,
    fingerprint_of,
)
from mtv.eval.datasets.images import picture_size
from mtv.eval.datasets.outcomes import ambiguous, missing, outermost, usable, wrong
from mtv.eval.datasets.registry import OptionInfo, ReaderInfo
from mtv.hashing import sha256_json

CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "train", "tvmonitor"),
)
"""The 18 categories of SPair-71k."""

PAIRS = {"trn": 53340, "val": 5384, "test": 12234}
"""Published pairs per split."""

LAYOUT = """\
SPair-71k/
  JPEGImages/<category>/<id>.jpg             18 categories, 1,800 pictures
  ImageAnnotation/<category>/<id>.json
  PairAnnotation/{trn,val,test}/<000001>-<src>-<trg>:<category>.json     53,340 / 5,384 / 12,234
  Layout/{large,small}/{trn,val,test}.txt    one pair name per line
  Segmentation/ is not read"""

INFO = ReaderInfo(
    name="spair",
    title="SPair-71k: keypoint pairs within 18 categories; semantic correspondence",
    default_split="test",
    splits=("test", "val", "trn"),
    options={
        "layout": OptionInfo(choices=("large", "small"), help="which list of pairs: the full one or the small one")
    },
    licence="as stated on the project page; the pictures are from PASCAL 3D+ and PASCAL VOC 2012",
    how_to_get="Described in arXiv 1908.10543 and at cvlab.postech.ac.kr/research/SPair-71k; archive SPair-71k.tar.gz.",
    layout=LAYOUT,
    expected={"pairs": PAIRS["test"], "categories": len(CATEGORIES)},
)

_MARKS = (("PairAnnotation", "ImageAnnotation", "JPEGImages"),)
_NAMES = ("SPair-71k", "SPair71k", "spair")


def inspect(data: Path, *, split: str = "test", layout: str = "large") -> tuple[CheckReport, KeypointPairSet | None]:
    """Look at the annotations of an SPair-layout set under `data` and at the headers of the pictures they name.

    Args:
        data: the folder that holds `PairAnnotation`, or up to two levels above it.
        split: `test`, `val` or `trn`.
        layout: the list `Layout/<layout>/<split>.txt` to follow; without a Layout folder every pair file counts.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    if split not in INFO.splits:
        raise unknown("spair split", split, INFO.splits)
    if layout not in INFO.options["layout"].choices:
        raise unknown("value of spair option layout", layout, INFO.options["layout"].choices)
    roots = outermost(find_root(data, _MARKS, _NAMES))
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root, problems = roots[0], list[str]()
    files, listed = _pair_files(root, split, layout, problems)
    if not files and not problems:
        return missing(INFO, data, split=split, detail=f"{root}: no pair in split {split}"), None
    pairs = _read_pairs(root, split, files, problems)
    annotations = _read_images(root, pairs, problems)
    found = {
        "pairs": len(pairs),
        "categories": len({p["category"] for p in pairs.values()}),
        "images": len(annotations),
    }
    kind = f"SPair-71k layout, {listed}"
    if problems:
        return wrong(
            INFO,
            split=split,
            root=root,
            problems=problems,
            repair="Restore the files named above from the archive, unscaled and unrenamed.",
            layout=kind,
            found=found,
        ), None
    return _finish(root, pairs, annotations, split=split, kind=kind, found=found, small=listed.endswith("small list"))


def _pair_files(root: Path, split: str, layout: str, problems: list[str]) -> tuple[list[str], str]:
    """File names of the pairs, sorted, and where they were taken from."""
    folder = root / "PairAnnotation" / split
    there = {n for n in os.listdir(folder) if n.endswith(".json") and n[0] != "."} if folder.is_dir() else set()
    listing = root / "Layout" / layout / f"{split}.txt"
    if not listing.is_file():
        if layout == "small":
            problems.append(f"Layout/small/{split}.txt: missing, but layout=small was asked for")
        return sorted(there), "no list, all pair files"
    stems = listing.read_text(encoding="utf-8").split()
    if len(set(stems)) < len(stems):
        twice = next(s for s in stems if stems.count(s) > 1)
        problems.append(f"Layout/{layout}/{split}.txt: {twice} is listed twice")
    by_plain_name = {n.replace(":", "_"): n for n in there}
    names = []
    for stem in sorted(set(stems)):
        name = by_plain_name.get(f"{stem}.json".replace(":", "_"))
        if name is None:
            problems.append(f"Layout/{layout}/{split}.txt: {stem} has no file in PairAnnotation/{split}")
        else:
            names.append(name)
    return names, f"{layout} list"


def _read_pairs(root: Path, split: str, files: Iterable[str], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Pair id to the raw annotation, in the order of the ids."""
    folder = os.path.join(root, "PairAnnotation", split)
    pairs: dict[str, dict[str, Any]] = {}
    for name in files:
        try:
            with open(os.path.join(folder, name), "rb") as f:
                raw = json.loads(f.read())
            pairs[_pair_id(raw, name)] = raw
        except (OSError, ValueError, DataError) as e:
            problems.append(f"PairAnnotation/{split}/{name}: {e.message if isinstance(e, DataError) else e}")
    return dict(sorted(pairs.items()))


def _pair_id(raw: Any, name: str) -> str:
    keys = ("filename", "category", "src_imname", "trg_imname", "src_imsize", "trg_imsize", "viewpoint_variation")
    if not isinstance(raw, dict) or any(k not in raw for k in keys):
        absent = [k for k in keys if k not in raw] if isinstance(raw, dict) else list(keys)
        raise DataError(f"lacks {', '.join(absent)}")
    identifier = str(raw["filename"]).removesuffix(".json")
    stem = name.removesuffix(".json")
    if identifier.replace(":", "_") != stem.replace(":", "_"):
        raise DataError(f"its filename field says {identifier!r}")
    category = str(raw["category"])
    if identifier[-len(category) - 1 :] not in (f":{category}", f"_{category}"):
        raise DataError(f"category {category!r} is not the one in its name")
    if raw["viewpoint_variation"] not in (0, 1, 2):
        raise DataError(f"viewpoint_variation is {raw['viewpoint_variation']!r}; known: 0, 1, 2")
    for key in ("src_imsize", "trg_imsize"):
        if not isinstance(raw[key], list) or len(raw[key]) < 2:
            raise DataError(f"{key} is {raw[key]!r}, expected [width, height, channels]")
    return f"{identifier[: -len(category) - 1]}:{category}"


def _image_ids(pair: dict[str, Any]) -> tuple[str, str]:
    category, source, target = pair["category"], Path(pair["src_imname"]), Path(pair["trg_imname"])
    return f"{category}/{source.stem}", f"{category}/{target.stem}"


def _read_images(root: Path, pairs: dict[str, dict[str, Any]], problems: list[str]) -> dict[str, KeypointImage]:
    """Annotation of every picture that a pair names, sorted by id, checked against the header and the pairs."""
    sizes: dict[str, tuple[str, list[int], str]] = {}
    for pair_id, pair in pairs.items():
        for side, image_id in zip(("src", "trg"), _image_ids(pair), strict=True):
            name, size = str(pair[f"{side}_imname"]), list(pair[f"{side}_imsize"][:2])
            known = sizes.setdefault(image_id, (name, size, pair_id))
            if known[:2] != (name, size):
                problems.append(f"pair {pair_id}: {name} {size} differs from {known[0]} {known[1]} in pair {known[2]}")
    annotations = {}
    for image_id, (name, size, pair_id) in sorted(sizes.items()):
        try:
            annotations[image_id] = _read_image(root, image_id, name, size)
        except DataError as e:
            problems.append(f"{e.message} (asked for by pair {pair_id})")
    return _pad_keypoints(annotations)


def _read_image(root: Path, image_id: str, name: str, imsize: list[int]) -> KeypointImage:
    category = image_id.split("/")[0]
    picture = f"JPEGImages/{category}/{name}"
    where = f"ImageAnnotation/{image_id}.json"
    if not (root / picture).is_file():
        raise DataError(f"{picture}: missing")
    try:
        raw = json.loads((root / where).read_bytes())
        box = tuple(float(v) for v in raw["bndbox"])
        keypoints_K2 = _keypoints(raw["kps"], where)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{where}: missing or unreadable ({e!r})") from e
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
        raise DataError(f"{where}: bndbox {list(box)} is not l, t, r, b with r > l and b > t")
    size = picture_size(root / picture, name=picture, exif=False)
    told = {"src_imsize or trg_imsize": tuple(imsize)}
    if "image_width" in raw and "image_height" in raw:
        told[where] = (raw["image_width"], raw["image_height"])
    for source, claimed in told.items():
        if claimed != size:
            raise DataError(f"{picture} is {size[0]} x {size[1]}, but {source} says {claimed[0]} x {claimed[1]}")
    left, top, right, bottom = box
    return KeypointImage(
        id=image_id, category=category, size=size, bbox=(left, top, right, bottom), keypoints=keypoints_K2
    )


def _keypoints(kps: dict[str, Any], where: str) -> np.ndarray:
    """float64 K,2; NaN where null. The keys must be 0 .. K-1, or rows would lose their meaning."""
    if sorted(kps, key=lambda k: (len(k), k)) != [str(i) for i in range(len(kps))]:
        raise DataError(f"{where}: keys of kps are not 0 .. {len(kps) - 1}: {', '.join(sorted(kps))}")
    rows = [kps[str(i)] for i in range(len(kps))]
    points_K2 = np.full((len(rows), 2), np.nan)
    for i, point in enumerate(rows):
        if point is None:
            continue
        if len(point) != 2 or not all(math.isfinite(float(v)) for v in point):
            raise DataError(f"{where}: keypoint {i} is {point!r}, expected [x, y] or null")
        points_K2[i] = point
    return points_K2


def _pad_keypoints(annotations: dict[str, KeypointImage]) -> dict[str, KeypointImage]:
    """Give all pictures of a category the same number of rows, absent ones NaN, so that pairs compare row by row."""
    most: dict[str, int] = {}
    for a in annotations.values():
        most[a.category] = max(most.get(a.category, 0), len(a.keypoints))
    padded = {}
    for key, a in annotations.items():
        rows = np.full((most[a.category], 2), np.nan)
        rows[: len(a.keypoints)] = a.keypoints
        padded[key] = KeypointImage(id=a.id, category=a.category, size=a.size, bbox=a.bbox, keypoints=rows)
    return padded


def _finish(
    root: Path,
    raw: dict[str, dict[str, Any]],
    annotations: dict[str, KeypointImage],
    *,
    split: str,
    kind: str,
    found: dict[str, int],
    small: bool,
) -> tuple[CheckReport, KeypointPairSet]:
    pairs, images, rows = [], {}, []
    for pair_id, pair in raw.items():
        source, target = _image_ids(pair)
        viewpoint, category = int(pair["viewpoint_variation"]), str(pair["category"])
        pairs.append(KeypointPair(id=pair_id, category=category, source=source, target=target, viewpoint=viewpoint))
        rows.append((pair_id, sha256_json([source, target, category, viewpoint])))
        for image_id, side in ((source, "src"), (target, "trg")):
            name = f"JPEGImages/{category}/{pair[f'{side}_imname']}"
            images[image_id] = FileRef(path=root / name, name=name)
    for a in annotations.values():
        points = [None if np.isnan(x) else [float(x), float(y)] for x, y in a.keypoints]
        rows.append((a.id, sha256_json([list(a.size), list(a.bbox), points])))
    categories = tuple(sorted({p.category for p in pairs}))
    other = [c for c in categories if c not in CATEGORIES]
    notes = [f"{len(other)} of {len(categories)} categories are not of SPair-71k: {', '.join(other)}"] if other else []
    notes += ["the small list of pairs"] if small else []
    report = usable(
        INFO,
        split=split,
        root=root,
        layout=kind,
        found=found,
        expected={"pairs": PAIRS[split], "categories": len(CATEGORIES)},
        unit="pairs",
        fingerprint=fingerprint_of(rows),
        notes=notes,
    )
    return report, KeypointPairSet(
        name=INFO.name,
        split=split,
        report=report,
        images={key: images[key] for key in annotations},
        annotations=annotations,
        pairs=tuple(pairs),
        categories=categories,
    )
