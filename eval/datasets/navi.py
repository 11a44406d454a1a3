"""NAVI v1.0 and v1.5, wild set: objects in the wild with poses and depth (`correspondence.md` section 2).

Objects with a `wild_set` and at least one multiview scene, sorted; ids sorted inside; videos and multiview pictures are
never read. Both spellings of scene names are accepted: `multiview_00_camera` (v1.0) and `multiview-00-camera` (v1.5).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtv.errors import DataError, unknown
from mtv.eval.datasets.base import CheckReport, FileRef, PosedImage, PosedSet, fingerprint_of
from mtv.eval.datasets.images import depth_size, picture_size
from mtv.eval.datasets.outcomes import ambiguous, folders, missing, outermost, subfolders, usable, wrong
from mtv.eval.datasets.registry import OptionInfo, ReaderInfo
from mtv.hashing import sha256_json

LAYOUT = """\
navi_v1.5/                                   archive 30 GB (or navi_v1.0/, 16 GB)
  <object>/                                  36 objects
    wild_set/                                35 objects, 2,298 pictures in all
      annotations.json                       list of records: filename, image_size, camera {q, t, focal_length}
      images/000.jpg ...                     optionally images/downsampled_000.jpg, shorter side 1024
      depth/000.png ...                      16-bit; optionally depth/downsampled_000.png
    multiview-00-<camera>/                   v1.5; v1.0 writes multiview_00_<camera>; only its presence counts"""

INFO = ReaderInfo(
    name="navi",
    title="NAVI wild set: pictures of objects with poses and depth; geometric correspondence",
    default_split="wild_set",
    splits=("wild_set",),
    options={
        "cache": OptionInfo(
            choices=("auto", "require", "ignore"),
            help="1024-px copies downsampled_*: use where every picture has them, insist on them, or read originals",
        )
    },
    licence="as stated on the project page, navidataset.github.io",
    how_to_get="Described at github.com/google/navi; one archive per version: navi_v1.5.tar.gz or navi_v1.0.tar.gz.",
    layout=LAYOUT,
    expected={"objects": 35, "images": 2298},
)

_ROOT_NAMES = {"navi", "navi_v1", "navi_v1.0", "navi_v1.5"}
_MULTIVIEW = re.compile(r"multiview([_-])\d+\1.+")
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_CACHE_SIDE = 1024
_PREFIX = "downsampled_"


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One record of `annotations.json` with the files it needs."""

    id: str
    """`object/wild_set/000`."""
    folder: Path
    """`<root>/<object>/wild_set`."""
    filename: str
    """As in the record."""
    size: tuple[int, int]
    """Width, height after EXIF transposition, from the record."""
    q: tuple[float, ...]
    """w, x, y, z, any length but zero."""
    t: tuple[float, ...]
    """Millimetres."""
    focal: float
    """Full-resolution pixels."""

    def file(self, kind: str, *, cached: bool) -> Path:
        """`images` or `depth`, the original or its 1024-px copy."""
        prefix = _PREFIX if cached else ""
        stem = Path(self.filename).stem
        return self.folder / kind / (f"{prefix}{self.filename}" if kind == "images" else f"{prefix}{stem}.png")


def inspect(data: Path, *, split: str = "wild_set", cache: str = "auto") -> tuple[CheckReport, PosedSet | None]:
    """Look at names, headers and annotations of NAVI under `data`.

    Args:
        data: the NAVI folder or up to two levels above it.
        split: only `wild_set`.
        cache: `auto`: the 1024-px copies where every picture and depth map has one; `require`: a missing copy is an
            error; `ignore`: the originals. The choice is part of the fingerprint, since the pixels differ.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    _check_choice(split, cache)
    roots = _roots(data)
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root = roots[0]
    objects, version = _qualifying(root)
    if not objects:
        return wrong(INFO, split=split, root=root, problems=[_no_object(root)], repair=LAYOUT), None

    problems: list[str] = []
    pictures = [p for folder in objects for p in _read_object(folder / "wild_set", problems)]
    found = {"objects": len(objects), "images": len(pictures)}
    cached = cache == "require" or (cache == "auto" and bool(pictures) and all(map(_has_copies, pictures)))
    layout = f"NAVI {version}, {'1024-px copies' if cached else 'original files'}"
    for picture in pictures:
        problems += _file_problems(picture, cached=cached)
    if not pictures and not problems:
        problems.append(f"{root}: the wild sets of {len(objects)} objects hold no picture")
    if problems:
        repair = "Restore the files named above from the NAVI archive"
        repair += ", or read the originals with cache=ignore." if cached else "."
        return wrong(INFO, split=split, root=root, problems=problems, repair=repair, layout=layout, found=found), None
    return _finish(root, pictures, layout=layout, split=split, cached=cached, found=found)


def rotation_from_quaternion(q: Sequence[float]) -> np.ndarray:
    """float64 3,3 rotation of a quaternion w, x, y, z of any non-zero length (scale s = 2 / |q|^2).

    >>> rotation_from_quaternion((0, 1, 0, 0)).tolist()
    [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
    """
    w, x, y, z = (float(v) for v in q)
    s = 2 / (w * w + x * x + y * y + z * z)
    return np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )


def copy_size(width: int, height: int) -> tuple[int, int]:
    """Size of the 1024-px copy: both sides int(side * 1024 / shorter), truncated, so 1022 or 1023 can occur."""
    factor = _CACHE_SIDE / min(width, height)
    return int(width * factor), int(height * factor)


def _check_choice(split: str, cache: str) -> None:
    if split not in INFO.splits:
        raise unknown("navi split", split, INFO.splits)
    if cache not in INFO.options["cache"].choices:
        raise unknown("value of navi option cache", cache, INFO.options["cache"].choices)


def _roots(data: Path) -> list[Path]:
    every = folders(data)
    named = [d for d in every if d.name.lower() in _ROOT_NAMES and subfolders(d)]
    candidates = [d for d in every if any((o / "wild_set").is_dir() for o in subfolders(d))]
    return outermost([d for d in candidates if d in named] or candidates or named)


def _qualifying(root: Path) -> tuple[list[Path], str]:
    """Objects with a wild set and a multiview scene, sorted, and the version that the scene names tell."""
    objects, separators, videos = [], set(), False
    for folder in subfolders(root):
        names = [p.name for p in subfolders(folder)]
        marks = {m[1] for m in map(_MULTIVIEW.fullmatch, names) if m}
        separators |= marks
        videos |= any(n.startswith("video") for n in names)
        if marks and "wild_set" in names:
            objects.append(folder)
    if len(separators) > 1:
        return objects, "v1.0 and v1.5 names mixed"
    return objects, "v1.5" if videos or separators == {"-"} else "v1.0"


def _no_object(root: Path) -> str:
    inside = [f"{o.name}/{{{', '.join(p.name for p in subfolders(o)) or 'no folder'}}}" for o in subfolders(root)[:5]]
    return (
        f"{root}: no object has both wild_set/ and a multiview scene (v1.0: multiview_00_<camera>, v1.5: "
        f"multiview-00-<camera>); found {'; '.join(inside) or 'no folder'}"
    )


def _read_object(wild: Path, problems: list[str]) -> list[_Picture]:
    """Pictures of one object, sorted by id; what is wrong with its records goes into `problems`."""
    where = f"{wild.parent.name}/wild_set/annotations.json"
    try:
        records = json.loads((wild / "annotations.json").read_bytes())
    except (OSError, ValueError) as e:
        problems.append(f"{where}: cannot be read ({e})")
        return []
    if not isinstance(records, list):
        problems.append(f"{where}: expected a list of records, found {type(records).__name__}")
        return []
    pictures: dict[str, _Picture] = {}
    for number, record in enumerate(records):
        try:
            picture = _parse(record, wild)
        except DataError as e:
            problems.append(f"{where}, record {number}: {e.message}")
            continue
        if picture.id in pictures:
            problems.append(f"{where}: filename {picture.filename} occurs twice")
        pictures[picture.id] = picture
    listed = {p.filename for p in pictures.values()}
    problems += [
        f"{wild.parent.name}/wild_set/images/{name}: no record in annotations.json"
        for name in _picture_names(wild / "images")
        if name not in listed
    ]
    return [pictures[key] for key in sorted(pictures) if "_" not in Path(pictures[key].filename).stem]


def _picture_names(folder: Path) -> list[str]:
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [n for n in names if n[0] != "." and Path(n).suffix.lower() in _SUFFIXES and "_" not in Path(n).stem]


def _parse(record: Any, wild: Path) -> _Picture:
    try:
        camera = record["camera"]
        filename = str(record["filename"])
        height, width = (int(v) for v in record["image_size"])
        q = tuple(float(v) for v in camera["q"])
        t = tuple(float(v) for v in camera["t"])
        focal = float(camera["focal_length"])
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"expected filename, image_size [h, w] and camera {{q, t, focal_length}} ({e!r})") from e
    if Path(filename).name != filename or Path(filename).suffix.lower() not in _SUFFIXES:
        raise DataError(f"filename {filename!r} is not the plain name of a picture")
    if len(q) != 4 or len(t) != 3:
        raise DataError(f"{filename}: q needs 4 and t 3 numbers, found {len(q)} and {len(t)}")
    if not all(map(math.isfinite, (*q, *t, focal))) or not any(q):
        raise DataError(f"{filename}: the pose is not finite or q is zero: q {list(q)}, t {list(t)}, focal {focal}")
    if focal <= 0 or min(width, height) <= 0:
        raise DataError(f"{filename}: focal_length {focal} and image_size {[height, width]} must be positive")
    identifier = f"{wild.parent.name}/wild_set/{Path(filename).stem}"
    return _Picture(id=identifier, folder=wild, filename=filename, size=(width, height), q=q, t=t, focal=focal)


def _has_copies(picture: _Picture) -> bool:
    return all(picture.file(kind, cached=True).is_file() for kind in ("images", "depth"))


def _file_problems(picture: _Picture, *, cached: bool) -> list[str]:
    """Missing files, other sizes than the record says, depth that is not 16-bit. Headers only."""
    paths = {kind: picture.file(kind, cached=cached) for kind in ("images", "depth")}
    names = {kind: path.relative_to(picture.folder.parent.parent).as_posix() for kind, path in paths.items()}
    absent = [f"{names[kind]}: missing" for kind, path in paths.items() if not path.is_file()]
    if absent:
        return absent
    try:
        size = picture_size(paths["images"], name=names["images"], exif=True)
        depth = depth_size(paths["depth"], name=names["depth"])
    except DataError as e:
        return [e.message]
    expected = copy_size(*picture.size) if cached else picture.size
    problems = []
    if size != expected:
        rule = " for the 1024-px copy" if cached else ""
        problems.append(
            f"{names['images']}: {size[0]} x {size[1]} after EXIF transposition, but image_size of the record asks for "
            f"{expected[0]} x {expected[1]}{rule}"
        )
    # Depth may be stored smaller than the picture; another shape means that it was turned or cropped differently.
    if abs(depth[0] * size[1] - depth[1] * size[0]) > 2 * max(*depth, *size):
        problems.append(
            f"{names['depth']}: {depth[0]} x {depth[1]} has another shape than its picture, {size[0]} x {size[1]}"
        )
    return problems


def _finish(
    root: Path, pictures: list[_Picture], *, layout: str, split: str, cached: bool, found: dict[str, int]
) -> tuple[CheckReport, PosedSet]:
    posed, images, rows = {}, {}, []
    for p in pictures:
        refs = {k: p.file(k, cached=cached) for k in ("images", "depth")}
        image, depth = (FileRef(path=path, name=path.relative_to(root).as_posix()) for path in refs.values())
        pose = np.eye(4)
        pose[:3, :3] = rotation_from_quaternion(p.q)
        pose[:3, 3] = np.asarray(p.t) / 1000
        width, height = p.size
        images[p.id] = image
        posed[p.id] = PosedImage(
            id=p.id,
            group=p.id.split("/")[0],
            depth=depth,
            world_to_camera=pose,
            intrinsics=(p.focal, p.focal, width / 2, height / 2),
            size=p.size,
            downsampled=cached,
        )
        rows.append((p.id, sha256_json([list(p.q), list(p.t), p.focal, [width, height], cached])))
    report = usable(
        INFO,
        split=split,
        root=root,
        layout=layout,
        found=found,
        expected=INFO.expected,
        unit="images",
        fingerprint=fingerprint_of(rows),
    )
    depths = {f"{key}.depth": item.depth for key, item in posed.items()}
    return report, PosedSet(
        name=INFO.name,
        split=split,
        report=report,
        images=images,
        extra_files=depths,
        posed=posed,
        depth_encoding="navi_disparity",
    )
