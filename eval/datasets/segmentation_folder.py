"""Segmentation sets as folders of pictures and label PNGs: one engine, and a description per data set.

A `SegmentationLayout` says where pictures and label maps lie, how they pair, which value on disk means which class, and
how the full set looks. ADE20k, CamVid and NYUv2's 40 classes are such descriptions; Pascal VOC (list of stems, palette
PNGs) and Cityscapes (nested folders, 34 values mapped to 19) need no more.

* Pairing is by what the wildcards of the two patterns match; pictures are ordered by path, never by directory order.
* Values on disk go through a table: class index, ignored (255), or not allowed. What is not allowed is refused.
* The quick check reads all headers and decodes 16 label maps spread over the split; `--full` decodes all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import CheckReport, SegmentationSet, fingerprint_of
from mtv.eval.datasets.common import file_ref, refuse, roots_below, some
from mtv.eval.datasets.dense_decode import NOT_A_LABEL, LabelCheck, label_png_size
from mtv.eval.datasets.dense_headers import MapPair, check_headers
from mtv.eval.datasets.label_evidence import label_problems
from mtv.eval.datasets.outcomes import ambiguous, folders, missing, usable, wrong
from mtv.eval.datasets.registry import ReaderInfo
from mtv.hashing import sha256_json

IGNORE = 255
"""`SegmentationSet.ignore_index` of every set."""


@dataclass(frozen=True, kw_only=True)
class SegmentationLayout:
    """Where the files of a segmentation set lie and what the values on disk mean."""

    images: str
    """Pattern of the pictures below the root, without suffix, `{split}` filled from `folders`: `images/{split}/*`.
    A `*` stands for a part of one name; the picture's id is its path from the first part with a `*` on."""
    labels: str
    """Pattern of the label maps with as many `*`, which take over what those of `images` matched."""
    folders: Mapping[str, str]
    """Split to what `{split}` stands for."""
    counts: Mapping[str, int]
    """Split to pictures of the full set."""
    classes: tuple[str, ...]
    """Class names in index order."""
    raw_to_train: Mapping[int, int]
    """Value on disk to class index."""
    ignored: tuple[int, ...]
    """Values on disk that are neither trained on nor scored."""
    suffixes: tuple[str, ...] = (".jpg", ".png")
    """Suffixes of the pictures; the first is the original's, a set with another one is labelled."""
    list_file: str = ""
    """File with one picture per line (what its only `*` matches) where a split is a choice of the folder's pictures."""
    root_names: tuple[str, ...] = ()
    """Lower-case names to prefer when several folders fit."""
    other_sets: Mapping[str, str] = field(default_factory=dict)
    """Pattern below a root to the sentence that says which other set has such files."""

    def __post_init__(self) -> None:
        if self.images.count("*") != self.labels.count("*") or "*" not in self.images:
            raise UsageError(
                f"SegmentationLayout: images {self.images!r} and labels {self.labels!r} differ in wildcards"
            )
        if self.list_file and self.images.count("*") != 1:
            raise UsageError(f"SegmentationLayout: list_file needs exactly one * in images {self.images!r}")
        if set(self.folders) != set(self.counts):
            raise UsageError(f"SegmentationLayout: folders name {set(self.folders)}, counts {set(self.counts)}")
        if sorted(set(self.raw_to_train.values())) != list(range(len(self.classes))):
            raise UsageError(f"SegmentationLayout: raw_to_train does not map onto 0 .. {len(self.classes) - 1}")
        if not all(0 <= v <= 255 for v in (*self.raw_to_train, *self.ignored)) or len(self.classes) > IGNORE:
            raise UsageError("SegmentationLayout: raw_to_train and ignored hold 8-bit values, of at most 255 classes")
        if set(self.raw_to_train) & set(self.ignored):
            raise UsageError(f"SegmentationLayout: ignored {self.ignored} has values that raw_to_train maps")

    @property
    def table(self) -> np.ndarray:
        """int16, 256: as `SegmentationSet.raw_to_train`."""
        table = np.full(256, NOT_A_LABEL, np.int16)
        table[list(self.ignored)] = IGNORE
        table[list(self.raw_to_train)] = list(self.raw_to_train.values())
        return table


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A layout as one copy of the set has it."""

    layout: SegmentationLayout
    """The layout to use instead."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """A few words for the label, and the sentence that explains them."""


@dataclass(frozen=True, kw_only=True)
class FolderReader:
    """Reader of one described set; `INFO` and `inspect` are what the registry asks for."""

    INFO: ReaderInfo
    """Description for people."""
    layout: SegmentationLayout
    """Description for this engine."""
    adapt: Callable[[SegmentationLayout, Path], Adaptation] | None = None
    """Looks at the root and returns the layout of this copy; raises DataError when it contradicts itself."""

    def inspect(self, data: Path, *, split: str) -> tuple[CheckReport, SegmentationSet | None]:
        """Look at names and headers of the set under `data`, and into a few label maps.

        Args:
            data: root given as --data, or up to two levels above the set.
            split: one of `INFO.splits`.

        Returns:
            The report, and the set unless the verdict is `wrong` or `missing`.
        """
        marks = [_fixed_part(p, self.layout.folders[split]) for p in (self.layout.images, self.layout.labels)]
        roots = roots_below(data, lambda d: all((d / m).is_dir() for m in marks), self.layout.root_names)
        for folder in roots or folders(data):
            for pattern, sentence in self.layout.other_sets.items():
                hit = next(folder.glob(pattern), None)
                if hit is not None:
                    error = DataError(f"{hit}: {sentence}", f"Expected layout:\n{self.INFO.layout}")
                    return refuse(self.INFO, split, error, root=folder, expected=self._expected(split)), None
        if not roots:
            return missing(self.INFO, data, split=split), None
        if len(roots) > 1:
            return ambiguous(self.INFO, roots, split=split), None
        try:
            adapted = self.adapt(self.layout, roots[0]) if self.adapt else Adaptation(layout=self.layout)
            pairs = find_pairs(adapted.layout, roots[0], split)
        except DataError as e:
            return refuse(self.INFO, split, e, root=roots[0], expected=self._expected(split)), None
        return self._open(roots[0], split, adapted, pairs)

    def _open(
        self, root: Path, split: str, adapted: Adaptation, pairs: FoundPairs
    ) -> tuple[CheckReport, SegmentationSet | None]:
        layout, expected = adapted.layout, self._expected(split)
        if not pairs.pairs and not pairs.problems:
            return missing(self.INFO, root, split=split, detail=pairs.absent), None
        found = {"images": len(pairs.pairs), "classes": len(layout.classes)}
        sizes, problems = check_headers(pairs.pairs, label_png_size, what="label map")
        problems = pairs.problems + problems
        if not problems:
            problems = label_problems(pairs.pairs, layout.table)
        if problems:
            report = wrong(
                self.INFO,
                split=split,
                root=root,
                problems=problems,
                repair="Restore the files named above from the original archive, unscaled and unrenamed.",
                found=found,
            )
            return replace(report, expected=expected), None
        notes = {**adapted.notes, **_suffix_note(layout, pairs.pairs)}
        report = usable(
            self.INFO,
            split=split,
            root=root,
            layout=f"{layout.images} and {layout.labels}".replace("{split}", layout.folders[split]),
            found=found,
            expected=expected,
            unit="images",
            fingerprint=_fingerprint(layout, sizes),
            notes=tuple(notes.values()),
            labels=tuple(notes),
        )
        return report, _dataset(report, layout, pairs.pairs, sizes)

    def _expected(self, split: str) -> dict[str, int]:
        return {"images": self.layout.counts[split], "classes": len(self.layout.classes)}


@dataclass(frozen=True, kw_only=True)
class FoundPairs:
    """Pictures with their label maps."""

    pairs: list[MapPair]
    """Ordered by path."""
    problems: list[str]
    """Pictures and label maps without partner, one sentence each."""
    absent: str = ""
    """What is missing when there is no pair at all."""


def find_pairs(layout: SegmentationLayout, root: Path, split: str) -> FoundPairs:
    """Pictures and label maps of a split, paired by what their wildcards match.

    Raises:
        DataError: the list file cannot be read, or lists a picture twice.
    """
    folder = layout.folders[split]
    problems: list[str] = []
    images: dict[tuple[str, ...], Path] = {}
    for suffix in layout.suffixes:
        for key, path in _matches(root, layout.images.replace("{split}", folder), suffix):
            if key in images:
                problems.append(f"{path.relative_to(root)}: there with another suffix too, {images[key].name}")
            images[key] = path
    labels = dict(_matches(root, layout.labels.replace("{split}", folder), ".png"))
    if not images or not labels:
        what = "no label map" if images else "no picture"
        pattern = (layout.labels if images else layout.images).replace("{split}", folder)
        return FoundPairs(pairs=[], problems=[], absent=f"{root}: {what} called {pattern}")
    if layout.list_file:
        keys = _listed(root, layout.list_file.replace("{split}", folder))
        images = {k: images[k] for k in keys if k in images}
        labels = {k: labels[k] for k in keys if k in labels}
        problems += [f"{k[0]}: listed, but neither picture nor label map" for k in keys if k not in images | labels]
    problems += [f"{images[k].relative_to(root)}: no label map" for k in sorted(images.keys() - labels.keys())]
    problems += [f"{labels[k].relative_to(root)}: no picture" for k in sorted(labels.keys() - images.keys())]
    base = root / _fixed_part(layout.images, folder)
    pairs = [
        MapPair(
            id=path.relative_to(base).with_suffix("").as_posix(),
            image=file_ref(root, path),
            target=file_ref(root, labels[key]),
        )
        for key, path in images.items()
        if key in labels
    ]
    return FoundPairs(pairs=sorted(pairs, key=lambda p: p.id), problems=problems)


def _fixed_part(pattern: str, folder: str) -> str:
    """`images/validation` of `images/{split}/*`."""
    parts = PurePosixPath(pattern.replace("{split}", folder)).parts
    return "/".join(parts[: next(i for i, part in enumerate(parts) if "*" in part)])


def _matches(root: Path, pattern: str, suffix: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """What the wildcards match, and the file; hidden files such as `._x.jpg` are left out."""
    expression = re.compile("([^/]+)".join(re.escape(p) for p in f"{pattern}{suffix}".split("*")))
    for path in root.glob(f"{pattern}{suffix}"):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match and not path.name.startswith("."):
            yield match.groups(), path


def _listed(root: Path, name: str) -> list[tuple[str, ...]]:
    try:
        names = (root / name).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{name}: cannot be read ({e})", "The split is defined by this file; copy it too.") from e
    if len(set(names)) < len(names):
        raise DataError(f"{name}: lists a picture twice", "Copy the list again.")
    return [(n,) for n in names]


def _suffix_note(layout: SegmentationLayout, pairs: Sequence[MapPair]) -> dict[str, str]:
    other = sorted({PurePosixPath(p.image.name).suffix for p in pairs} - {layout.suffixes[0]})
    if not other:
        return {}
    text = some(other)
    return {f"{text} pictures": f"pictures are {text} files, the original has {layout.suffixes[0]}: other pixel values"}


def _fingerprint(layout: SegmentationLayout, sizes: Mapping[str, tuple[int, int]]) -> str:
    meaning = sha256_json([list(layout.classes), layout.table.tolist()])
    return fingerprint_of([("classes", meaning), *((f"image {k}", f"{w} x {h}") for k, (w, h) in sizes.items())])


def _dataset(
    report: CheckReport, layout: SegmentationLayout, pairs: Sequence[MapPair], sizes: dict[str, tuple[int, int]]
) -> SegmentationSet:
    table = layout.table
    return SegmentationSet(
        name=report.name,
        split=report.split,
        report=report,
        images={p.id: p.image for p in pairs},
        extra_files={f"{p.id}.label": p.target for p in pairs},
        checks={f"{p.id}.label": LabelCheck(raw_to_train=table, size=sizes[p.id]) for p in pairs},
        labels={p.id: p.target for p in pairs},
        sizes=sizes,
        classes=layout.classes,
        raw_to_train=table,
        ignore_index=IGNORE,
    )
