"""Posed RGB-D sequences in the 7-Scenes layout, task `sevenscenes` (`correspondence.md`, last section).

A sequence is a folder of `frame-XXXXXX.{color.jpg|color.png, depth.png, pose.txt}`. A scene holds one directly, in
`data/`, or several as `seq-XX/`; a collection holds scenes (`chess/`, `fire/`, ...). Poses on disk are camera-to-world
and are inverted.

Candidate pairs never leave a sequence. They come from `pairs.json` of the scene where there is one; otherwise from the
poses alone (`mtv.eval.datasets.posed_geometry`), after thinning sequences of more than 100 frames to every 25th.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtv.errors import DataError, unknown
from mtv.eval.datasets.base import CheckReport, FileRef, PosedImage, PosedSet, fingerprint_of
from mtv.eval.datasets.images import depth_size, picture_size
from mtv.eval.datasets.outcomes import ambiguous, folders, missing, outermost, subfolders, usable, wrong
from mtv.eval.datasets.posed_geometry import (
    Intrinsics,
    camera_motion,
    invert_pose,
    read_intrinsics,
    read_pose,
    visible_pairs,
)
from mtv.eval.datasets.registry import OptionInfo, ReaderInfo
from mtv.hashing import sha256_json

FRAMES = {"all": 43000, "train": 26000, "test": 17000}
"""Published frames of all seven scenes."""

LAYOUT = """\
7scenes/                                     7 scenes, 46 sequences, 43,000 frames of 640 x 480
  chess/ fire/ heads/ office/ pumpkin/ redkitchen/ stairs/
    TrainSplit.txt TestSplit.txt             lines such as `sequence3`; needed for split=train|test only
    camera-intrinsics.txt                    optional 3 x 3 matrix; also pairs.json, optional
    seq-01/frame-000000.color.png            or .jpg
    seq-01/frame-000000.depth.png            16-bit millimetres, 0 and 65535 invalid
    seq-01/frame-000000.pose.txt             4 x 4 camera-to-world, metres
or one scene: frame-* files directly in the folder or in its data/"""

INFO = ReaderInfo(
    name="sevenscenes",
    title="7-Scenes and other posed RGB-D sequences in its layout; geometric correspondence",
    default_split="all",
    splits=("all", "train", "test"),
    options={
        "intrinsics": OptionInfo(
            choices=("auto", "file", "default"),
            help="camera-intrinsics.txt where there is one, insist on it, or 585 585 320 240 of 7-Scenes",
        )
    },
    licence="7-Scenes: Microsoft Research, non-commercial research only",
    how_to_get="Described at microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes; one archive per scene.",
    layout=LAYOUT,
    expected={"scenes": 7, "frames": FRAMES["all"]},
)

DEFAULT_INTRINSICS = (585.0, 585.0, 320.0, 240.0)
DEFAULT_SIZE = (640, 480)
LONG_SEQUENCE, STRIDE = 100, 25

_POSE = re.compile(r"(frame-\d+)\.pose\.txt")
_SEQUENCE = re.compile(r"seq-(\d+)")
_SCENES = {"chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs"}
_NAMES = {"7scenes", "7-scenes", "7_scenes", "sevenscenes"}


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """One frame before its files are looked at."""

    id: str
    """`frame-000000`, `seq-01/frame-000000` or `chess/seq-01/frame-000000`, whatever lies between root and file."""
    group: str
    """The sequence."""
    stem: Path
    """Path without `.color.jpg` and the like."""
    scene: Path
    """Folder that may hold the intrinsics."""


def inspect(data: Path, *, split: str = "all", intrinsics: str = "auto") -> tuple[CheckReport, PosedSet | None]:
    """Look at names, headers, poses and pair files of the sequences under `data`.

    Args:
        data: a scene, a collection of scenes, or up to two levels above it.
        split: `all`, or the sequences that `TrainSplit.txt` or `TestSplit.txt` of each scene lists.
        intrinsics: `auto`: `camera-intrinsics.txt` where there is one, else 585 585 320 240; `file`: a scene without
            the file is an error; `default`: always 585 585 320 240. What was used stands in `report.layout`.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    if split not in INFO.splits:
        raise unknown("sevenscenes split", split, INFO.splits)
    if intrinsics not in INFO.options["intrinsics"].choices:
        raise unknown("value of sevenscenes option intrinsics", intrinsics, INFO.options["intrinsics"].choices)
    roots = _roots(data)
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root, problems = roots[0], list[str]()
    scenes = [root] if _is_scene(root) else [s for s in subfolders(root) if _is_scene(s)]
    total, frames, pair_rows = 0, list[_Frame](), list[tuple[str, str, float, float]]()
    for scene in scenes:
        count, kept, rows = _read_scene(root, scene, split, problems)
        total, frames, pair_rows = total + count, frames + kept, pair_rows + rows
    cameras = {scene: _camera(root, scene, intrinsics, problems) for scene in scenes}
    posed = _read_frames(root, frames, cameras, problems)
    if not posed and not problems:
        return missing(INFO, data, split=split, detail=f"{root}: no sequence of split {split}"), None
    found = {"scenes": len(scenes), "frames": total, "frames_used": len(posed)}
    pairs = () if problems else _pairs(posed, frames, pair_rows, problems)
    layout = _layout_text(root, scenes, cameras)
    if problems:
        repair = "Restore the files named above; of a frame without a valid pose remove color, depth and pose together."
        return wrong(INFO, split=split, root=root, problems=problems, repair=repair, layout=layout, found=found), None
    return _finish(root, posed, pairs, split=split, layout=layout, found=found)


def _roots(data: Path) -> list[Path]:
    """Scenes, and folders that gather the known scenes or bear a name of 7-Scenes; none inside another."""
    every = folders(data)
    scenes = [d for d in every if _is_scene(d)]
    named = [d for d in every if d.name.lower() in _NAMES and any(map(_is_scene, subfolders(d)))]
    parents = [s.parent for s in scenes if s.name.lower() in _SCENES and s.parent in every]
    return outermost(sorted({*scenes, *named, *parents}))


def _is_scene(folder: Path) -> bool:
    inside = (p for p in subfolders(folder) if p.name == "data" or _SEQUENCE.fullmatch(p.name))
    return _has_frames(folder) or any(map(_has_frames, inside))


def _has_frames(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(e.name.startswith("frame-") and _POSE.fullmatch(e.name) for e in entries)
    except PermissionError:
        return False


def _read_scene(
    root: Path, scene: Path, split: str, problems: list[str]
) -> tuple[int, list[_Frame], list[tuple[str, str, float, float]]]:
    """Frames on disk, the frames kept, and the rows (a, b, degrees, metres) of `pairs.json` within them."""
    sequences = _sequences(scene, split, problems)
    listing = scene / "pairs.json"
    total, kept = 0, []
    for folder in sequences:
        stems = sorted(m[1] for m in map(_POSE.fullmatch, os.listdir(folder)) if m)
        total += len(stems)
        if len(stems) > LONG_SEQUENCE and not listing.is_file():
            stems = stems[::STRIDE]
        inside = "/".join(p for p in folder.relative_to(root).parts if p != "data")
        for stem in stems:
            kept.append(
                _Frame(id=f"{inside}/{stem}".strip("/"), group=inside or "scene", stem=folder / stem, scene=scene)
            )
    rows = _read_pair_file(root, scene, kept, split, problems) if listing.is_file() else []
    return total, kept, rows


def _sequences(scene: Path, split: str, problems: list[str]) -> list[Path]:
    if split == "all":
        inside = [p for p in subfolders(scene) if p.name == "data" or _SEQUENCE.fullmatch(p.name)]
        return [p for p in [scene, *inside] if _has_frames(p)]
    listing = scene / f"{split.capitalize()}Split.txt"
    if not listing.is_file():
        problems.append(f"{scene.name}/{listing.name}: missing; split={split} needs it")
        return []
    numbers = sorted({int(n) for n in re.findall(r"sequence\s*(\d+)", listing.read_text(encoding="utf-8"))})
    sequences = [scene / f"seq-{n:02d}" for n in numbers]
    problems += [f"{scene.name}/{p.name}: listed in {listing.name}, but not there" for p in sequences if not p.is_dir()]
    return [p for p in sequences if p.is_dir()]


def _read_pair_file(
    root: Path, scene: Path, frames: list[_Frame], split: str, problems: list[str]
) -> list[tuple[str, str, float, float]]:
    where = (scene / "pairs.json").relative_to(root).as_posix()
    prefix = scene.relative_to(root).as_posix().strip(".")
    ids = {f.id for f in frames if f.scene == scene}
    try:
        records = json.loads((scene / "pairs.json").read_bytes())
        named = [tuple("/".join(filter(None, (prefix, str(r[k])))) for k in ("a", "b")) for r in records]
        rows = [(a, b, float(r["rot_deg"]), float(r["trans_m"])) for (a, b), r in zip(named, records, strict=True)]
    except (OSError, ValueError, KeyError, TypeError) as e:
        problems.append(f"{where}: expected a list of {{a, b, overlap_5cm, rot_deg, trans_m}} ({e!r})")
        return []
    if split != "all":  # the file describes all sequences
        rows = [r for r in rows if r[0] in ids and r[1] in ids]
    problems += [f"{where}: names {k}, which is not there" for k in sorted({k for r in rows for k in r[:2]} - ids)]
    return rows


def _camera(root: Path, scene: Path, choice: str, problems: list[str]) -> tuple[Intrinsics, str] | None:
    """Intrinsics and their source in words; None, with a problem, when there are none."""
    file = scene / "camera-intrinsics.txt"
    if choice == "default" or (choice == "auto" and not file.is_file()):
        return DEFAULT_INTRINSICS, "7-Scenes default intrinsics 585 585 320 240"
    try:
        return read_intrinsics(file, name=file.relative_to(root).as_posix()), "intrinsics of camera-intrinsics.txt"
    except DataError as e:
        problems.append(e.message)
        return None


def _read_frames(
    root: Path,
    frames: list[_Frame],
    cameras: dict[Path, tuple[Intrinsics, str] | None],
    problems: list[str],
) -> dict[str, tuple[FileRef, PosedImage]]:
    posed = {}
    for frame in frames:
        camera = cameras[frame.scene]
        if camera is None:
            continue
        try:
            if frame.id in posed:
                raise DataError(f"{frame.id}: there twice, in the scene folder and in its data/")
            posed[frame.id] = _read_frame(root, frame, *camera)
        except DataError as e:
            problems.append(e.message)
    return posed


def _read_frame(root: Path, frame: _Frame, intrinsics: Intrinsics, source: str) -> tuple[FileRef, PosedImage]:
    base = frame.stem.relative_to(root).as_posix()
    colours = [e for e in ("color.jpg", "color.png") if Path(f"{frame.stem}.{e}").is_file()]
    if len(colours) != 1:
        state = "missing" if not colours else "there beside .color.jpg; keep one"
        raise DataError(f"{base}.color.png: {state}")
    image = FileRef(path=Path(f"{frame.stem}.{colours[0]}"), name=f"{base}.{colours[0]}")
    depth = FileRef(path=Path(f"{frame.stem}.depth.png"), name=f"{base}.depth.png")
    if not depth.path.is_file():
        raise DataError(f"{depth.name}: missing")
    size = picture_size(image.path, name=image.name, exif=False)
    shape = depth_size(depth.path, name=depth.name)
    if shape != size:
        raise DataError(f"{depth.name}: {shape[0]} x {shape[1]}, but {colours[0]} is {size[0]} x {size[1]}")
    if source.startswith("7-Scenes default") and size != DEFAULT_SIZE:
        raise DataError(f"{image.name}: {size[0]} x {size[1]}; the default intrinsics are for 640 x 480, add a file")
    if not (0 <= intrinsics[2] < size[0] and 0 <= intrinsics[3] < size[1]):
        raise DataError(f"{image.name}: {size[0]} x {size[1]} does not hold the principal point {intrinsics[2:]}")
    pose = read_pose(Path(f"{frame.stem}.pose.txt"), name=f"{base}.pose.txt")
    return image, PosedImage(
        id=frame.id,
        group=frame.group,
        depth=depth,
        world_to_camera=invert_pose(pose),
        intrinsics=intrinsics,
        size=size,
    )


def _pairs(
    posed: dict[str, tuple[FileRef, PosedImage]],
    frames: list[_Frame],
    rows: list[tuple[str, str, float, float]],
    problems: list[str],
) -> tuple[tuple[str, str], ...]:
    """Pairs of the files, checked against the poses, then pairs from the poses of the scenes without a file."""
    pairs = []
    for a, b, degrees, metres in rows:
        first, second = posed[a][1], posed[b][1]
        angle, distance = camera_motion(first.world_to_camera, second.world_to_camera)
        if first.group != second.group or a == b:
            problems.append(f"pairs.json: {a} and {b} are not two frames of one sequence")
        elif abs(np.cos(np.radians(angle)) - np.cos(np.radians(degrees))) > 2e-3 or abs(distance - metres) > 0.02:
            problems.append(
                f"pairs.json: {a} and {b} are {degrees} degrees and {metres} m apart, but {angle:.2f} and "
                f"{distance:.3f} by their pose files; are those camera-to-world, in metres?"
            )
        pairs.append((a, b))
    listed = {f.scene for f in frames if (f.scene / "pairs.json").is_file()}
    by_group: dict[str, list[PosedImage]] = {}
    for frame in frames:
        if frame.scene not in listed:
            by_group.setdefault(frame.group, []).append(posed[frame.id][1])
    for group in by_group.values():
        pairs += visible_pairs(group)
    if not pairs and not problems:
        problems.append("no two frames of one sequence see the same part of the scene")
    return tuple(pairs)


def _layout_text(root: Path, scenes: list[Path], cameras: dict[Path, tuple[Intrinsics, str] | None]) -> str:
    shape = "one scene" if scenes == [root] else f"collection of {len(scenes)} scenes"
    sources = sorted({c[1] for c in cameras.values() if c})
    given = sum((s / "pairs.json").is_file() for s in scenes)
    pairs = (
        "pairs.json"
        if given == len(scenes)
        else "pairs from poses"
        if not given
        else f"{given} pairs.json, rest by pose"
    )
    return f"posed RGB-D, {shape}, {' and '.join(sources) or 'no intrinsics'}, {pairs}"


def _finish(
    root: Path,
    posed: dict[str, tuple[FileRef, PosedImage]],
    pairs: tuple[tuple[str, str], ...],
    *,
    split: str,
    layout: str,
    found: dict[str, int],
) -> tuple[CheckReport, PosedSet]:
    items = {key: item for key, (_, item) in posed.items()}
    rows = [
        (key, sha256_json([i.world_to_camera.round(9).tolist(), list(i.intrinsics), list(i.size)]))
        for key, i in items.items()
    ]
    rows += [(f"{a} {b}", "pair") for a, b in pairs]
    report = usable(
        INFO,
        split=split,
        root=root,
        layout=layout,
        found=found | {"pairs": len(pairs)},
        expected={"scenes": 7, "frames": FRAMES[split]},
        unit="frames",
        fingerprint=fingerprint_of(rows),
    )
    return report, PosedSet(
        name=INFO.name,
        split=split,
        report=report,
        images={key: image for key, (image, _) in posed.items()},
        extra_files={f"{key}.depth": item.depth for key, item in items.items()},
        posed=items,
        depth_encoding="millimetres",
        pairs=pairs,
    )
