"""NYUv2 depth in the BTS layout: 654 official test frames, 24,231 training frames (`depth.md` sections 2 and 5.1).

What is read, so that a writer can produce it:

* A list per split, `nyu_test.txt` / `nyu_train.txt` or `nyudepthv2_{test,train}_files_with_gt.txt`, in the root, which
  is the folder with the list. Lines are `picture depth focal`, separated by blanks:
  `kitchen/rgb_00045.jpg kitchen/sync_depth_00045.png 518.8579`. BTS writes a leading `/` in the train list only, and no
  newline after the last test line; both are optional here. A depth of `None` drops the line.
* Files lie below the root, `official_splits/<split>/`, `<split>/` or (train) `sync/`, tried in this order. Test and
  train may have two roots: each split is looked for by its own list.
* Pictures are JPEG or PNG, 8-bit; depth is 16-bit grey PNG in millimetres, 0 = missing. All frames of a set have one
  size, depth the same as its picture. 640 x 480 is the original; another size is labelled.
* The first folder of the picture's path is its scene (`DepthImage.group`, the unit that intervals resample). Test
  pictures must not stand in the train list, by path.

Depth that is scored ends at 10 m: a set whose usual depth is beyond that is refused as wrongly scaled. In-painted or
rendered depth (no holes) is labelled `filled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, DepthSet
from mtv.eval.datasets.common import refuse, roots_below, some
from mtv.eval.datasets.dense_headers import MapPair, spread
from mtv.eval.datasets.depth_evidence import DepthEvidence
from mtv.eval.datasets.depth_lists import DepthLine, DepthList, find_file, read_depth_list
from mtv.eval.datasets.depth_open import DepthSource, Findings, Located, Sizes, open_depth_set
from mtv.eval.datasets.images import open_exif
from mtv.eval.datasets.outcomes import ambiguous, folders, missing
from mtv.eval.datasets.registry import ReaderInfo

FRAMES = {"test": 654, "train": 24231}
"""Lines of the published lists."""
LISTS = {s: (f"nyu_{s}.txt", f"nyudepthv2_{s}_files_with_gt.txt") for s in FRAMES}
SIZE = (640, 480)
RANGE_M = 10.0
"""Depth beyond this is neither trained on nor scored."""
LARGEST_M = (3.0, 11.0)
"""Where the largest depth of a few frames lies; of 16 NYUv2 frames it is always above 5 m."""
FRAME = slice(7, 474), slice(7, 632)
"""Rows and columns that the BTS test pictures keep."""
BLACK = 10
"""Mean grey value below which the rest counts as black."""
PLAIN = 10
"""Standard deviation of grey values below which the sides of a picture are a frame."""

LAYOUT = """\
nyu_depth_v2/
  nyu_test.txt                               or nyudepthv2_test_files_with_gt.txt: 654 lines `picture depth focal`
  nyu_train.txt                              or nyudepthv2_train_files_with_gt.txt: 24,231 lines
  official_splits/test/<scene>/rgb_00045.jpg           640 x 480, black outside rows 7-473, columns 7-631
  official_splits/test/<scene>/sync_depth_00045.png    16-bit millimetres, raw (not filled), 0 = missing
  sync/<scene>/rgb_00045.jpg sync_depth_00045.png      training frames, about 4 GB
files may also lie in the root itself, in <split>/, and train and test below two roots"""

INFO = ReaderInfo(
    name="nyuv2",
    title="NYUv2 metric depth, BTS splits; linear depth probe and zero-shot relative depth",
    default_split="test",
    splits=("test", "train"),
    licence="as stated on the project page of NYU Depth V2 (Silberman et al. 2012); research use",
    how_to_get="Lists and training frames are described at github.com/cleinc/bts (train_test_inputs, README); its\n"
    "utils/extract_official_train_test_set_from_mat.py makes the test frames from nyu_depth_v2_labeled.mat.",
    layout=LAYOUT,
    expected={"images": FRAMES["test"]},
)

_ROOT_NAMES = ("nyuv2", "nyu", "nyu_depth_v2", "nyudepthv2", "nyu_v2")
_MARIGOLD = "filename_list_{split}.txt"
_REPAIR = "Restore the files named above from the BTS export, unscaled and unrenamed."


def inspect(data: Path, *, split: str) -> tuple[CheckReport, DepthSet | None]:
    """Look at lists and headers of NYUv2 under `data`, and into a few frames.

    Args:
        data: the folder with the list, or up to two levels above it.
        split: `test` or `train`.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    roots = _roots(data, split)
    if not roots:
        return _not_found(data, split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root = roots[0]
    try:
        listing, name = _read_list(root, split)
        overlap = _overlap(data, root, split, listing)
    except DataError as e:
        return refuse(INFO, split, e, root=root, expected={"images": FRAMES[split]}), None
    source = DepthSource(
        info=INFO,
        split=split,
        root=root,
        layout=f"BTS list {name}",
        located=[_locate(root, split, line) for line in listing.lines],
        expected=FRAMES[split],
        encoding="millimetres",
        counts={"scenes": len({_scene(line) for line in listing.lines}), "without depth": listing.without_depth},
        repair=_REPAIR,
    )
    return open_depth_set(source, partial(_judge, split=split, overlap=overlap))


def _roots(data: Path, split: str) -> list[Path]:
    return roots_below(data, lambda d: any((d / n).is_file() for n in LISTS[split]), _ROOT_NAMES)


def _not_found(data: Path, split: str) -> CheckReport:
    """`missing`, or `wrong` when there is the labelled set of Marigold instead."""
    for folder in folders(data):
        listing = folder / _MARIGOLD.format(split=split)
        if listing.is_file():
            try:
                read_depth_list(listing, name=listing.name)
            except DataError as e:
                if "Marigold" in e.message:
                    return refuse(INFO, split, e, root=folder)
    bare = [d for d in folders(data) if (d / "official_splits" / split).is_dir()]
    if bare:
        detail = f"{bare[0]}: official_splits/{split} is there, but neither {' nor '.join(LISTS[split])}"
        return missing(INFO, data, split=split, detail=detail)
    return missing(INFO, data, split=split)


def _read_list(root: Path, split: str) -> tuple[DepthList, str]:
    """The list and its file name. Raises DataError when it is empty, or two lists in one root differ."""
    names = [n for n in LISTS[split] if (root / n).is_file()]
    lists = [read_depth_list(root / n, name=n) for n in names]
    if len(lists) == 2 and lists[0] != lists[1]:
        raise DataError(f"{root}: {' and '.join(names)} differ", "Remove the one that does not belong to the files.")
    if not lists[0].lines:
        raise DataError(f"{root}/{names[0]}: no line with a depth map", "Copy the list again.")
    return lists[0], names[0]


def _overlap(data: Path, root: Path, split: str, listing: DepthList) -> list[str]:
    """Test pictures in the train list, where the other list can be found."""
    other = "train" if split == "test" else "test"
    roots = _roots(data, other)
    there = [root] if root in roots else roots
    if len(there) != 1:
        return []
    lines, name = _read_list(there[0], other)
    both = sorted({line.id for line in listing.lines} & {line.id for line in lines.lines})
    return [f"{len(both)} pictures are in the {split} list and in {name}: {some(both)}"] if both else []


def _locate(root: Path, split: str, line: DepthLine) -> Located:
    bases = [root, root / "official_splits" / split, root / split, *([root / "sync"] if split == "train" else [])]
    image, depth = (find_file(root, bases, path) for path in (line.image, line.depth))
    return Located(id=line.id, image=image, depth=depth, group=_scene(line), focal=line.focal)


def _scene(line: DepthLine) -> str:
    return PurePosixPath(line.image).parts[0]


def _judge(
    pairs: Sequence[MapPair], sizes: Sizes, evidence: DepthEvidence, *, split: str, overlap: Sequence[str]
) -> Findings:
    """Compare names, sizes and the decoded frames with what is known of NYUv2; `overlap` adds to the problems."""
    kinds = sorted(set(sizes.values()))
    if len(kinds) > 1:
        odd = [f"{k} {w} x {h}" for k, (w, h) in sizes.items() if (w, h) != next(iter(sizes.values()))]
        return Findings(problems=[*overlap, f"frames of {len(kinds)} sizes; unlike the first: {some(odd, 10)}"])
    problems, notes = list(overlap), {}
    if kinds[0] != SIZE:
        notes[f"{kinds[0][0]} x {kinds[0][1]}"] = f"frames of {kinds[0][0]} x {kinds[0][1]} instead of 640 x 480"
    if evidence.median_m > RANGE_M:
        problems.append(
            f"wrong depth scale: the median of the decoded maps is {evidence.median_m:.1f} m, only depth up to "
            f"{RANGE_M:g} m is scored; codes are millimetres"
        )
    if kinds[0] == SIZE:
        _judge_frame(pairs, split, problems, notes)
    if any(PurePosixPath(p.target.name).name.startswith("filled_") for p in pairs):
        notes["filled"] = "the depth files are called filled_*: in-painted depth"
    _note_depth(evidence, notes)
    return Findings(problems=problems, notes=notes)


def _note_depth(evidence: DepthEvidence, notes: dict[str, str]) -> None:
    if evidence.filled:
        notes["filled"] = (
            f"{evidence.hole_free} of {evidence.maps} decoded depth maps have no hole: in-painted or rendered depth, "
            "errors differ from those on raw depth"
        )
    if evidence.from_8_bit:
        notes["8-bit levels"] = f"the decoded maps hold {evidence.levels} distinct depths: they went through 8 bits"
    if not LARGEST_M[0] <= evidence.max_m <= LARGEST_M[1]:
        notes["depth scale?"] = (
            f"depth ends at {evidence.max_m:.2f} m, not near 10 m as in NYUv2: perhaps a wrong scale (x 0.1, x 10, or "
            "metres x 256)"
        )


def _judge_frame(pairs: Sequence[MapPair], split: str, problems: list[str], notes: dict[str, str]) -> None:
    """Look at the plain frame around the pictures: black in the BTS test set, white in other exports."""
    sample = [np.asarray(open_exif(p.image.read(), name=p.image.name).convert("L"), np.float64) for p in spread(pairs)]
    outside_HW = np.ones((SIZE[1], SIZE[0]), dtype=bool)
    outside_HW[FRAME] = False
    brightness = float(np.mean([grey_HW[outside_HW].mean() for grey_HW in sample]))
    if split == "test" and brightness >= BLACK:
        notes["no black frame"] = (
            f"outside rows 7-473 and columns 7-631 the pictures are {brightness:.0f} of 255 bright, in the BTS test "
            "set black: another export, RMSE changes"
        )
    if _frame_is_mirrored(sample):
        problems.append(
            "the pictures are mirrored: their frame is wider on the left; in NYUv2 it is wider on the right"
        )


def _frame_is_mirrored(sample: Sequence[np.ndarray]) -> bool:
    """In NYUv2 column 632 belongs to the frame and column 7, its mirror image, to the picture; False without frame."""
    sides = [np.concatenate([grey_HW[:, :5], grey_HW[:, -5:]], axis=1) for grey_HW in sample]
    if np.mean([side.std() for side in sides]) > PLAIN:
        return False
    level = np.mean([side.mean() for side in sides])
    left, right = (abs(np.mean([grey_HW[:, c].mean() for grey_HW in sample]) - level) for c in (7, 632))
    return bool(right > 4 * PLAIN and left < right / 2)
