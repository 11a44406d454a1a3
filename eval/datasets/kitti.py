"""KITTI depth: the Eigen test split, or the benchmark's own depth selection (`depth.md` section 5.1).

What is read, so that a writer can produce it:

* `layout=eigen`: a list `eigen_test_files_with_gt.txt` (or `kitti_eigen_test.txt`) in the root, lines
  `picture depth focal` separated by blanks, as BTS wrote them:
  `2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
  2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377`. A depth of `None` drops the line
  (45 of 697). Both files are looked for below the root and its folders, two levels down, whatever they are called
  (`raw/`, `input/`, `train/`, `val/`, `data_depth_annotated/val/`); a picture whose date folder is missing in the list
  is also found below it, as in the raw data. The suffix is the one in the list, `.png` in the original.
* `layout=selection`: `val_selection_cropped/{image,groundtruth_depth}` of the depth benchmark, files
  `<drive>_image_<frame>_image_<camera>.png` and `<drive>_groundtruth_depth_<frame>_image_<camera>.png`, optionally
  `intrinsics/<as the picture>.txt` with nine numbers, the first of which is the focal length. Always labelled.
* Depth is 16-bit grey PNG, metres = code / 256, 0 = missing; as large as its picture. Frames of one set differ in size;
  crops belong to the task. Sizes other than those of the raw data are labelled.
* The drive is the group (`DepthImage.group`): the folder `<date>_drive_<number>_sync` of the picture's path, or its
  first folder; in the selection the part of the name before `_image_`.

Dense depth (in-painted or rendered) is labelled `filled`, depth as sparse as one lidar scan `raw lidar`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, DepthSet
from mtv.eval.datasets.common import file_ref, names_in, refuse, roots_below, some
from mtv.eval.datasets.dense_headers import MapPair
from mtv.eval.datasets.depth_evidence import DepthEvidence
from mtv.eval.datasets.depth_lists import DepthLine, find_file, read_depth_list
from mtv.eval.datasets.depth_open import DepthSource, Findings, Located, Sizes, open_depth_set
from mtv.eval.datasets.outcomes import ambiguous, folders, missing, outermost, subfolders
from mtv.eval.datasets.registry import OptionInfo, ReaderInfo

LINES, WITHOUT_DEPTH = 697, 45
FRAMES = LINES - WITHOUT_DEPTH
"""Usable pictures of the Eigen test split."""
SELECTION = 1000
"""Pictures of the benchmark's depth selection, 1216 x 352."""
LISTS = ("eigen_test_files_with_gt.txt", "kitti_eigen_test.txt")
RAW_SIZES = {(1242, 375), (1241, 376), (1238, 374), (1226, 370), (1224, 370)}
"""Width, height of the rectified colour pictures, by recording day."""
SPARSE, DENSE = 0.08, 0.9
"""Shares of pixels with depth: one lidar scan covers 4 to 5 %, the ground truth of the benchmark 16 to 21 %."""
LARGEST_M = (20.0, 100.0)
"""Where the largest depth of a few maps lies; about 80 m in KITTI."""

LAYOUT = """\
kitti/
  eigen_test_files_with_gt.txt               697 lines `picture depth focal`, 45 of them with depth None
  2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png                about 375 x 1242
  {train,val}/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png    16-bit, metres x 256
both trees may lie one or two folders deeper, under any name
or  depth_selection/val_selection_cropped/{image,groundtruth_depth,intrinsics}/     1,000 frames, labelled"""

INFO = ReaderInfo(
    name="kitti",
    title="KITTI metric depth, Eigen test split; zero-shot relative depth",
    default_split="test",
    splits=("test",),
    options={
        "layout": OptionInfo(
            choices=("auto", "eigen", "selection"),
            help="the Eigen list where there is one, else the depth selection; or one of the two",
        )
    },
    licence="CC BY-NC-SA 3.0 (cvlibs.net/datasets/kitti)",
    how_to_get="Described at cvlibs.net/datasets/kitti: raw data of the test drives, data_depth_annotated.zip (14 GB)\n"
    "and data_depth_selection.zip (2 GB); the list is in github.com/cleinc/bts, train_test_inputs.",
    layout=LAYOUT,
    expected={"images": FRAMES},
)

_ROOT_NAMES = ("kitti", "kitti_dataset")
_SELECTIONS = (".", "val_selection_cropped", "depth_selection/val_selection_cropped")
_DATA = re.compile(r"\d{4}_\d\d_\d\d(_drive_\d{4}_sync)?")
_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d)_drive_\d{4}_sync")
_SELECTED = re.compile(r"(?P<drive>.+?)_image_(?P<frame>\d+)_image_(?P<camera>\d+)")


def inspect(data: Path, *, split: str, layout: str = "auto") -> tuple[CheckReport, DepthSet | None]:
    """Look at names and headers of KITTI under `data`, and into a few depth maps.

    Args:
        data: the folder with the list or the selection, or up to two levels above it.
        split: `test`.
        layout: `eigen`, `selection`, or `auto`: the Eigen list where there is one, else the selection.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    lists = roots_below(data, _has_list, _ROOT_NAMES) if layout != "selection" else []
    selections = _selections(data) if layout == "selection" or (layout == "auto" and not lists) else []
    roots = lists or selections
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    try:
        source = _eigen(roots[0], split) if lists else _selection(roots[0], split)
    except DataError as e:
        return refuse(INFO, split, e, root=roots[0]), None
    return open_depth_set(source, _judge_eigen if lists else _judge_selection)


def _has_list(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LISTS)


def _selections(data: Path) -> list[Path]:
    found = {d / s for d in folders(data) for s in _SELECTIONS}
    return outermost(sorted(d for d in found if (d / "image").is_dir() and (d / "groundtruth_depth").is_dir()))


def _eigen(root: Path, split: str) -> DepthSource:
    names = [n for n in LISTS if (root / n).is_file()]
    listings = [read_depth_list(root / n, name=n) for n in names]
    if len(listings) == 2 and listings[0] != listings[1]:
        raise DataError(f"{root}: {' and '.join(names)} differ", "Remove the one that does not belong to the files.")
    listing = listings[0]
    if not listing.lines:
        raise DataError(f"{root}/{names[0]}: no line with a depth map", "Copy the list again.")
    bases = _bases(root)
    located = [_locate(root, bases, line) for line in listing.lines]
    return DepthSource(
        info=INFO,
        split=split,
        root=root,
        layout=f"Eigen list {names[0]}",
        located=located,
        expected=FRAMES,
        encoding="metres_256",
        counts={"drives": len({i.group for i in located}), "without depth": listing.without_depth},
        repair="Restore the files named above from the raw data and data_depth_annotated, unscaled and unrenamed.",
    )


def _bases(root: Path) -> list[Path]:
    """The root and its folders, two levels down, except the recordings themselves."""
    level1 = [d for d in subfolders(root) if not _DATA.fullmatch(d.name)]
    level2 = [d for outer in level1 for d in subfolders(outer) if not _DATA.fullmatch(d.name)]
    return [root, *level1, *level2]


def _locate(root: Path, bases: Sequence[Path], line: DepthLine) -> Located:
    image = find_file(root, bases, line.image)
    day = _DRIVE.match(line.image)
    if day and not image.path.is_file():
        dated = find_file(root, bases, f"{day[1]}/{line.image}")
        image = dated if dated.path.is_file() else image
    depth = find_file(root, bases, line.depth)
    folders_above = PurePosixPath(line.image).parts[:-1]
    group = next((p for p in folders_above if _DRIVE.fullmatch(p)), folders_above[0] if folders_above else "")
    return Located(id=line.id, image=image, depth=depth, group=group, focal=line.focal)


def _selection(root: Path, split: str) -> DepthSource:
    _, names = names_in(root / "image")
    odd = [n for n in names if not _SELECTED.fullmatch(PurePosixPath(n).stem)]
    if odd or not names:
        raise DataError(
            f"{root}/image: not named <drive>_image_<frame>_image_<camera>.png: {some(odd) or 'no picture at all'}",
            "Use val_selection_cropped of data_depth_selection.zip, unrenamed.",
        )
    located = [_locate_selected(root, n) for n in names]
    return DepthSource(
        info=INFO,
        split=split,
        root=root,
        layout="depth selection val_selection_cropped",
        located=located,
        expected=SELECTION,
        encoding="metres_256",
        counts={"drives": len({i.group for i in located})},
        repair="Restore the files named above from data_depth_selection.zip, unscaled and unrenamed.",
    )


def _locate_selected(root: Path, name: str) -> Located:
    stem = PurePosixPath(name).stem
    match = _SELECTED.fullmatch(stem)
    assert match is not None  # checked by the caller
    depth = f"{match['drive']}_groundtruth_depth_{match['frame']}_image_{match['camera']}.png"
    return Located(
        id=stem,
        image=file_ref(root, root / "image" / name),
        depth=file_ref(root, root / "groundtruth_depth" / depth),
        group=match["drive"],
        focal=_focal(root / "intrinsics" / f"{stem}.txt"),
    )


def _focal(path: Path) -> float | None:
    """First of the nine numbers of a camera matrix; None without a file."""
    if not path.is_file():
        return None
    try:
        numbers = [float(v) for v in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: not nine numbers ({e})", "Copy the file again.") from e
    if len(numbers) != 9 or not numbers[0] > 0:
        raise DataError(f"{path}: not the nine numbers of a camera matrix", "Copy the file again.")
    return numbers[0]


def _judge_eigen(pairs: Sequence[MapPair], sizes: Sizes, evidence: DepthEvidence) -> Findings:
    return _judge(sizes, evidence, RAW_SIZES, {})


def _judge_selection(pairs: Sequence[MapPair], sizes: Sizes, evidence: DepthEvidence) -> Findings:
    what = {"depth selection": "val_selection_cropped of the depth benchmark, not the Eigen test split"}
    return _judge(sizes, evidence, {(1216, 352)}, what)


def _judge(sizes: Sizes, evidence: DepthEvidence, known: set[tuple[int, int]], notes: dict[str, str]) -> Findings:
    """Compare sizes and the decoded maps with what is known of KITTI."""
    other = sorted({size for size in sizes.values() if size not in known})
    if other:
        listed = some([f"{w} x {h}" for w, h in other], 3)
        notes[listed] = f"frames of {listed}; the full set has {some([f'{w} x {h}' for w, h in sorted(known)])}"
    if evidence.valid_share > DENSE:
        notes["filled"] = (
            f"{evidence.valid_share:.0%} of the pixels have depth: in-painted or rendered; KITTI's ground truth covers "
            "16 to 21 %"
        )
    elif evidence.valid_share < SPARSE:
        notes["raw lidar"] = (
            f"only {evidence.valid_share:.1%} of the pixels have depth: single lidar scans, not the ground truth of "
            "the depth benchmark, which covers 16 to 21 %"
        )
    if not LARGEST_M[0] <= evidence.max_m <= LARGEST_M[1]:
        notes["depth scale?"] = (
            f"depth ends at {evidence.max_m:.1f} m, not near 80 m as in KITTI: perhaps a wrong scale (codes are metres "
            "x 256)"
        )
    return Findings(notes=notes)
