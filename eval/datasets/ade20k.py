"""ADE20k scene parsing in the layout of `ADEChallengeData2016` (`segmentation.md` section 1), and sets in that layout.

What is read, so that a writer can produce it:

* `images/{training,validation}/<stem>.jpg` and `annotations/{training,validation}/<stem>.png`; other names, suffixes of
  pictures but `.jpg` and `.png`, and other folders are not looked at. Splits are `validation` (default) and `training`.
* Label maps are 8-bit PNGs of the picture's size, grey or palette. 0 is unlabelled ("other"), k the k-th class; 255 is
  unlabelled too. `read_labels` returns 255, k - 1 and 255 (`reduce_zero_label`).
* `objectInfo150.txt`, optional: tab-separated, with a first line that names the columns, among them `Idx` (1, 2, ...
  in order) and `Name` (synonyms separated by commas or semicolons; the first one counts). The original's columns are
  Idx, Ratio, Train, Val, [Stuff,] Name. Without the file, or when it names the 150 known classes in their order, they
  are the classes. When it names others, it has K rows, values 0..K and 255 are allowed, and the set is labelled
  `other classes (K)`: that is how the miniature world brings its own.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.ade20k_classes import ADE20K_CLASSES
from mtv.eval.datasets.common import some
from mtv.eval.datasets.registry import ReaderInfo
from mtv.eval.datasets.segmentation_folder import Adaptation, FolderReader, SegmentationLayout

COUNTS = {"validation": 2000, "training": 20210}
CLASS_FILE = "objectInfo150.txt"

LAYOUT_TEXT = """\
ADEChallengeData2016/                        archive 0.9 GB
  images/validation/ADE_val_00000001.jpg ... 00002000.jpg
  annotations/validation/ADE_val_00000001.png ...      8-bit, 0 unlabelled, 1 to 150 the classes
  images/training/ADE_train_00000001.jpg ... 00020210.jpg
  annotations/training/ADE_train_00000001.png ...
  objectInfo150.txt                          optional; when it names other classes, the set has those"""

_FULL_SET = "this is the full ADE20K set with *_seg.png parts; the benchmark uses ADEChallengeData2016"

LAYOUT = SegmentationLayout(
    images="images/{split}/*",
    labels="annotations/{split}/*",
    folders={"validation": "validation", "training": "training"},
    counts=COUNTS,
    classes=ADE20K_CLASSES,
    raw_to_train={k + 1: k for k in range(len(ADE20K_CLASSES))},
    ignored=(0, 255),
    root_names=("adechallengedata2016",),
    other_sets={
        "images/training/*/*/*_seg.png": _FULL_SET,
        "images/validation/*/*/*_seg.png": _FULL_SET,
        "images/ADE/*/*/*/*_seg.png": _FULL_SET,
        "annotations/*/*_seg.png": _FULL_SET,
    },
)


def read_class_file(path: Path) -> tuple[str, ...]:
    """Class names, the first synonym of each, in the order of the rows.

    Raises:
        DataError: not readable, no columns Idx and Name, rows out of order, a name that is empty or there twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
        numbers = [int(row["Idx"]) for row in rows]
        names = tuple(re.split("[,;]", row["Name"])[0].strip() for row in rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(
            f"{path}: no tab-separated columns Idx and Name ({e!r})", "Copy it from the archive again."
        ) from e
    if not names or numbers != list(range(1, len(names) + 1)):
        raise DataError(f"{path}: Idx does not count 1, 2, 3, ...", "Copy it from the archive again.")
    odd = [n for n in names if not n or names.count(n) > 1]
    if odd or len(names) > 254:
        raise DataError(f"{path}: names must be there once each, at most 254 of them: {some(odd)}", "Rename them.")
    return names


def adapt(layout: SegmentationLayout, root: Path) -> Adaptation:
    """The layout with the classes that `objectInfo150.txt` of this copy names."""
    path = root / CLASS_FILE
    names = read_class_file(path) if path.is_file() else ADE20K_CLASSES
    if names == ADE20K_CLASSES:
        return Adaptation(layout=layout)
    if sorted(names) == sorted(ADE20K_CLASSES):
        raise DataError(
            f"{path}: the 150 classes in another order, but values on disk follow the original's", "Restore the file."
        )
    k = len(names)
    return Adaptation(
        layout=replace(layout, classes=names, raw_to_train={i + 1: i for i in range(k)}),
        notes={f"other classes ({k})": f"{CLASS_FILE} names {k} other classes: {some(names)}"},
    )


reader = FolderReader(
    INFO=ReaderInfo(
        name="ade20k",
        title="ADE20k (SceneParse150): 150 classes; linear segmentation",
        default_split="validation",
        splits=tuple(COUNTS),
        licence="research and education only, as stated on the project page; labels BSD-3",
        how_to_get="Described at github.com/CSAILVision/sceneparsing; one archive, ADEChallengeData2016.zip.",
        layout=LAYOUT_TEXT,
        expected={"images": COUNTS["validation"], "classes": len(ADE20K_CLASSES)},
    ),
    layout=LAYOUT,
    adapt=adapt,
)

INFO, inspect = reader.INFO, reader.inspect
