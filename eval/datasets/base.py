"""What every reader returns: typed items with stable ids, a fingerprint, and the verdict of the data check.

A reader looks at names, headers and annotation files; it never writes and never downloads. It decodes no picture,
except that the dense sets look into a few label or depth maps, whose headers cannot tell a wrong copy. Pictures are
read later, by id, through `FileRef.read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from mtv.errors import DataError
from mtv.hashing import sha256_lines

Verdict = Literal["ok", "ok-but", "wrong", "missing"]


@dataclass(frozen=True, kw_only=True)
class FileRef:
    """Bytes that can be read again: a file, or a member of an uncompressed tar."""

    path: Path
    """The file, or the tar that holds it."""
    name: str
    """Path relative to the data set's root (a tar member: `archive.tar/member`), `/`-separated; safe to print."""
    offset: int | None = None
    """First byte of the tar member; None for a plain file."""
    size: int | None = None
    """Bytes of the tar member; None for a plain file."""

    def read(self) -> bytes:
        """The bytes.

        Raises:
            DataError: the file cannot be read; names it.
        """
        try:
            with self.path.open("rb") as f:
                if self.offset is None:
                    return f.read()
                f.seek(self.offset)
                data = f.read(self.size)
        except OSError as e:
            raise DataError(f"{self.path}: cannot be read ({e.strerror or e})") from e
        if len(data) != self.size:
            raise DataError(f"{self.path}: ends inside member {self.name}", "The archive is truncated; copy it again.")
        return data


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `mtv-eval data check` says about one data set (`protocols/harness.md` section 8)."""

    name: str
    """Data set name: imagenet, coco, flickr8k, ..."""
    verdict: Verdict
    """`ok`; `ok-but`: runs, labelled; `wrong`: would falsify the number, refused; `missing`."""
    root: Path | None = None
    """The folder that was recognised."""
    layout: str = ""
    """Name of the recognised layout, in words."""
    split: str = ""
    """Split that was found."""
    found: dict[str, int] = field(default_factory=dict)
    """Counts found: images, captions, classes, pairs ..."""
    expected: dict[str, int] = field(default_factory=dict)
    """Counts of the full set."""
    label: str = ""
    """`subset (n of N)`, `filled`, ...: printed beside every number made from it; empty for the full set."""
    fingerprint: str = ""
    """SHA-256 of the sorted (sample id, label or caption hash)."""
    problems: tuple[str, ...] = ()
    """What is wrong, one sentence each, with file names."""
    repair: str = ""
    """One sentence that repairs it; for `missing` the expected layout as a tree."""
    checked: Literal["quick", "full"] = "quick"
    """`full` also decoded every file."""


class ContentCheck(Protocol):
    """How `data check --full` looks at one extra file. A picklable value: worker processes carry it."""

    def __call__(self, content: bytes, *, name: str) -> None:
        """Decode the bytes of the file called `name`. Raises DataError when they are not what they should be."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Common part of every opened data set."""

    name: str
    """Data set name."""
    split: str
    """Split."""
    report: CheckReport
    """The check that let it through."""
    images: dict[str, FileRef]
    """Sample id to picture, in canonical order (which the tie rule uses)."""
    extra_files: dict[str, FileRef] = field(default_factory=dict)
    """Other files whose bytes change the number (depth and label maps); annotations are in the fingerprint already."""
    checks: dict[str, ContentCheck] = field(default_factory=dict)
    """Key of `extra_files` to what `--full` does with its bytes; the others are only decoded, or must not be empty."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the sorted (sample id, label hash)."""
        return self.report.fingerprint


@dataclass(frozen=True, kw_only=True)
class ClassificationSet(Dataset):
    """Pictures with one label each."""

    labels: np.ndarray
    """int64, one per image in the order of `images`: index into `classes`."""
    classes: tuple[str, ...]
    """Class ids in index order (ImageNet: sorted wnids; of a subset, the classes that are there)."""
    class_indices: np.ndarray
    """int64: index of each of `classes` in the full label space (ImageNet 0..999)."""
    class_names: tuple[str, ...] | None = None
    """Names of the full label space in its order, where the data set brings its own; None for ImageNet's."""

    @property
    def titles(self) -> tuple[str, ...]:
        """What to call each of `classes` before people: its own name, else its id."""
        return self.classes if self.class_names is None else tuple(self.class_names[i] for i in self.class_indices)


@dataclass(frozen=True, kw_only=True)
class CaptionSet(Dataset):
    """Pictures with several captions each."""

    captions: tuple[str, ...]
    """Raw strings, grouped by image in the order of `images`, annotation order inside."""
    caption_ids: tuple[str, ...]
    """Stable id of each caption."""
    owner: np.ndarray
    """int64: position in `images` of each caption's picture; non-decreasing."""


@dataclass(frozen=True, kw_only=True)
class KeypointImage:
    """One picture of an SPair-layout set."""

    id: str
    """`class/stem`, key of `Dataset.images`."""
    category: str
    """Class."""
    size: tuple[int, int]
    """Width, height in pixels from the annotation."""
    bbox: tuple[float, float, float, float]
    """l, t, r, b in pixels."""
    keypoints: np.ndarray
    """float64 K,2: x, y in pixels; NaN where the point is absent. Row = keypoint index."""


@dataclass(frozen=True, kw_only=True)
class KeypointPair:
    """One pair annotation."""

    id: str
    """File stem, `000001-src-trg:class`."""
    category: str
    """Class."""
    source: str
    """Id of the source image."""
    target: str
    """Id of the target image."""
    viewpoint: int
    """`viewpoint_variation`, 0, 1 or 2."""


@dataclass(frozen=True, kw_only=True)
class KeypointPairSet(Dataset):
    """SPair-71k and sets in its layout."""

    annotations: dict[str, KeypointImage]
    """Image id to annotation."""
    pairs: tuple[KeypointPair, ...]
    """All pairs of the split, ordered by file name."""
    categories: tuple[str, ...]
    """Sorted classes that have a pair."""


@dataclass(frozen=True, kw_only=True)
class PosedImage:
    """One picture with depth and a camera. NAVI (object poses) and posed RGB-D scenes."""

    id: str
    """Key of `Dataset.images`."""
    group: str
    """Object (NAVI) or scene: pairs stay inside a group."""
    depth: FileRef
    """Depth PNG; `PosedSet.depth_encoding` says how to read it."""
    world_to_camera: np.ndarray
    """float64 4,4: X_cam = W X_world, metres; x right, y down, z forward."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels of the full-resolution picture (after EXIF transposition)."""
    size: tuple[int, int]
    """Width, height of that picture."""
    downsampled: bool = False
    """NAVI: `images` and `depth` point to the 1024-px cache files that lie beside the originals."""


@dataclass(frozen=True, kw_only=True)
class PosedSet(Dataset):
    """NAVI wild set, 7-Scenes and the like."""

    posed: dict[str, PosedImage]
    """Image id to pose and depth, in canonical order."""
    depth_encoding: Literal["navi_disparity", "millimetres"]
    """`navi_disparity`: metres = 655.350 / code; `millimetres`: code / 1000, 0 and 65535 invalid."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Candidate pairs given by the set (posed RGB-D with a pairs file); empty where the protocol draws them."""


@dataclass(frozen=True, kw_only=True)
class DepthImage:
    """One picture with a depth map of the same size. NYUv2 and KITTI."""

    id: str
    """Key of `Dataset.images`."""
    group: str
    """Scene (NYUv2) or drive (KITTI): the unit that intervals resample."""
    depth: FileRef
    """16-bit depth PNG; `DepthSet.depth_encoding` says how to read it."""
    size: tuple[int, int]
    """Width, height in pixels of picture and depth map."""
    focal: float | None
    """Focal length in pixels as the list gives it; None where the layout has none."""


@dataclass(frozen=True, kw_only=True)
class DepthSet(Dataset):
    """Pictures with metric depth; `mtv.eval.datasets.dense_decode.read_depth_metres` decodes it."""

    items: dict[str, DepthImage]
    """Image id to depth map, in canonical order."""
    depth_encoding: Literal["millimetres", "metres_256"]
    """NYUv2: code / 1000; KITTI: code / 256 metres. Code 0 is missing in both."""


@dataclass(frozen=True, kw_only=True)
class SegmentationSet(Dataset):
    """Pictures with one class index per pixel; `mtv.eval.datasets.dense_decode.read_labels` decodes and maps it."""

    labels: dict[str, FileRef]
    """Image id to label PNG as it is on disk, values not yet mapped; also in `extra_files` as `<id>.label`."""
    sizes: dict[str, tuple[int, int]]
    """Image id to width, height of the picture, which the label map shares."""
    classes: tuple[str, ...]
    """Class names, stripped; the position is the index that `read_labels` returns."""
    raw_to_train: np.ndarray
    """int16, 256: value on disk to class index; `ignore_index` where unlabelled, -1 where the value must not occur."""
    ignore_index: int = 255
    """Index of pixels that are neither trained on nor scored."""


def fingerprint_of(rows: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over sorted `id<TAB>label` lines: the order of files on disk does not matter."""
    return sha256_lines(sorted(f"{a}\t{b}" for a, b in rows))


def find_root(data: Path, marks: Sequence[str | Sequence[str]], names: Sequence[str] = ()) -> list[Path]:
    """Folders at most two levels below `data` (itself included) that hold all entries of one of the `marks`.

    Args:
        data: what the user gave as --data.
        marks: alternatives; each a relative path, or several that must all exist.
        names: folder names to prefer; when any candidate bears one, only those are returned.

    Returns:
        Candidates in sorted order; the caller treats two as an error that lists both.
    """
    if not data.is_dir():
        raise DataError(f"--data {data}: no such directory", "Name the folder that holds the data sets.")
    level1 = sorted(p for p in data.iterdir() if p.is_dir() and not p.name.startswith("."))
    level2 = sorted(q for p in level1 for q in p.iterdir() if q.is_dir() and not q.name.startswith("."))
    wanted = [[m] if isinstance(m, str) else list(m) for m in marks]
    found = [d for d in [data, *level1, *level2] if any(all((d / m).exists() for m in group) for group in wanted)]
    named = [d for d in found if d.name.lower() in {n.lower() for n in names}]
    return named or found


def describe_counts(found: dict[str, int], expected: dict[str, int]) -> str:
    """`images 79 of 5000, captions 395 of 25010`, for messages."""
    return ", ".join(f"{k} {found.get(k, 0)} of {v}" for k, v in expected.items())


def as_dict(report: CheckReport) -> dict[str, Any]:
    """The report without absolute paths, for JSON output and the result record."""
    return {
        "name": report.name,
        "verdict": report.verdict,
        "layout": report.layout,
        "split": report.split,
        "found": report.found,
        "expected": report.expected,
        "label": report.label,
        "fingerprint": report.fingerprint,
        "problems": list(report.problems),
        "repair": report.repair,
        "checked": report.checked,
    }
