"""Three layouts of the ImageNet validation set, each read into a `Listing`: class folders, flat + devkit, shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef
from mtv.eval.datasets.common import file_refs, names_in, roots_below, some
from mtv.eval.datasets.imagenet_classes import (
    CLASS_NAMES,
    WNID,
    OtherClasses,
    check_class_names,
    imagenet_wnids,
    other_classes,
)
from mtv.eval.datasets.webdataset import read_samples, shard_paths, split_folder

VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")
ROOT_NAMES = ("imagenet", "imagenet1k", "imagenet-1k", "imagenet2012", "ilsvrc2012", "ilsvrc", "wds_imagenet1k")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SORTING = (
    f"Extract ILSVRC2012_devkit_t12 beside val/ (meta.mat and {GROUND_TRUTH} give the labels), or move every picture "
    "into val/<wnid>/: line k of the ground truth holds the devkit id of ILSVRC2012_val_<k>, and meta.mat turns that "
    "id into the wnid."
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One labelled picture."""

    id: str
    """Sample id: `ILSVRC2012_val_########`, otherwise `wnid/name` or the webdataset key."""
    index: int
    """Class index: 0..999, or the place in the set's own classes."""
    file: FileRef
    """The picture."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a layout holds."""

    root: Path
    """Folder that was recognised."""
    layout: str
    """In words."""
    items: tuple[Item, ...]
    """All pictures."""
    empty: tuple[str, ...] = ()
    """Class folders without a picture."""
    other: OtherClasses | None = None
    """Classes of the set's own; None for ImageNet's 1000."""

    @property
    def wnids(self) -> tuple[str, ...]:
        """Class index to wnid."""
        return imagenet_wnids() if self.other is None else self.other.wnids


def candidates(data: Path) -> list[Path]:
    """Folders that hold the validation set: image folders, or webdataset roots. Prefers roots named like ImageNet."""

    def likely(root: Path) -> bool:
        return root == data or root.name.lower() in ROOT_NAMES

    roots = roots_below(data, lambda d: _image_folder(d, likely(d)) is not None, ROOT_NAMES)
    found = {f for root in roots if (f := _image_folder(root, likely(root))) is not None}
    # a user may also point --data at val/ itself
    return sorted(found) or ([data] if _is_image_folder(data, likely=False) else [])


def _image_folder(root: Path, likely: bool) -> Path | None:
    if (root / CLASS_NAMES).is_file() and split_folder(root) is not None:
        return root
    val = root / "val"
    return val if val.is_dir() and _is_image_folder(val, likely) else None


def _is_image_folder(folder: Path, likely: bool) -> bool:
    folders, pictures = names_in(folder)
    if any(VAL_NAME.match(p) for p in pictures) or any(WNID.fullmatch(f) for f in folders):
        return True
    if sum(f.isdigit() for f in folders) >= 100:
        return True
    # a few numbered or named class folders could be any data set, unless the root says that it is ImageNet
    return likely and (bool(pictures) or any(names_in(folder / f)[1] for f in folders))


def read_listing(folder: Path, data: Path) -> Listing:
    """Read whichever layout `folder` has.

    Raises:
        DataError: a layout in which the labels are unknown or mean something else.
    """
    if (folder / CLASS_NAMES).is_file() and split_folder(folder) is not None:
        return read_webdataset(folder, data)
    folders, pictures = names_in(folder)
    if not folders:
        return read_flat(folder, pictures, data)
    if pictures:
        raise DataError(
            f"{folder}: {len(pictures)} pictures lie beside the class folders: {some(pictures)}",
            "Move each into the folder of its wnid.",
        )
    return read_class_folders(folder, folders, data)


def read_class_folders(folder: Path, folders: Sequence[str], data: Path) -> Listing:
    """`val/<wnid>/*`. Raises DataError for folders that are no class of ImageNet-1k, nor of `classnames.txt`."""
    other = other_classes(folder.parent / CLASS_NAMES)
    index = {w: i for i, w in enumerate(imagenet_wnids() if other is None else other.wnids)}
    content = {name: names_in(folder / name) for name in folders}
    strange = [name for name, (inner, pics) in content.items() if (inner or pics) and name not in index]
    if strange and other is not None:
        raise DataError(
            f"{folder}: class folders that {CLASS_NAMES} beside it does not name: {some(strange)}",
            f"Add a line `<wnid> <name>` for each to {CLASS_NAMES}, or remove them.",
        )
    _check_folder_names(folder, strange)
    items = tuple(
        Item(id=m.group() if (m := VAL_NAME.match(name)) else f"{wnid}/{name}", index=index[wnid], file=ref)
        for wnid, (_, pictures) in content.items()
        for name, ref in zip(pictures, file_refs(data, folder / wnid, pictures), strict=True)
    )
    empty = tuple(name for name, (_, pictures) in content.items() if not pictures and name in index)
    layout = "class folders named by wnid" + (f", own classes ({CLASS_NAMES})" if other is not None else "")
    return Listing(root=folder, layout=layout, items=items, empty=empty, other=other)


def _check_folder_names(folder: Path, strange: Sequence[str]) -> None:
    if not strange:
        return
    if all(n.isdigit() for n in strange):
        raise DataError(
            f"{folder}: class folders are integers ({some(strange)}): devkit ids or positions, not wnids; read in "
            "sorted order they score 0.1 %",
            "Rename each folder to its wnid: meta.mat of the devkit maps ILSVRC2012_ID to WNID.",
        )
    if any(WNID.fullmatch(n) for n in strange):
        raise DataError(
            f"{folder}: class folders that are not among the 1000 ImageNet-1k wnids: {some(strange)}",
            "Remove them, or use the ILSVRC2012 validation set; a set of other classes needs a line `<wnid> <name>` "
            f"for each of its classes in {CLASS_NAMES} beside {folder.name}/.",
        )
    raise DataError(
        f"{folder}: class folders are not wnids: {some(strange)}",
        "Rename each folder to its wnid (n and eight digits, such as n01440764 for tench); sorted class names give "
        "another label order.",
    )


def read_flat(folder: Path, pictures: Sequence[str], data: Path) -> Listing:
    """`val/ILSVRC2012_val_########.JPEG` with the devkit beside it. Raises DataError without the devkit."""
    strange = [p for p in pictures if not VAL_NAME.match(p)]
    if strange or not pictures:
        what = f"pictures without class folders: {some(strange)}" if strange else "neither class folders nor pictures"
        raise DataError(f"{folder}: {what}", SORTING)
    devkit = find_devkit(folder)
    if devkit is None:
        raise DataError(
            f"{folder}: flat folder, {len(pictures)} pictures without class folders and no devkit beside it, so the "
            "labels are unknown",
            SORTING,
        )
    truth = read_ground_truth(devkit / GROUND_TRUTH)
    wnid_of = read_devkit_ids(devkit / "meta.mat")
    index = {w: i for i, w in enumerate(imagenet_wnids())}
    items = []
    for name, ref in zip(pictures, file_refs(data, folder, pictures), strict=True):
        match = VAL_NAME.match(name)
        assert match is not None
        number = int(match.group(1))
        if not 1 <= number <= len(truth) or truth[number - 1] not in wnid_of:
            raise DataError(
                f"{folder / name}: no label in {GROUND_TRUTH} ({len(truth)} lines) or meta.mat for image {number}",
                "Use the devkit of ILSVRC2012, task 1 and 2 (t12).",
            )
        items.append(Item(id=match.group(), index=index[wnid_of[truth[number - 1]]], file=ref))
    return Listing(root=folder, layout="flat folder, labels from the devkit", items=tuple(items))


def find_devkit(folder: Path) -> Path | None:
    """Folder with `meta.mat` and the ground truth: in `folder`, beside it, or in a folder (or its `data/`) there."""
    parent = folder.parent
    near = [folder, parent, *(parent / n for n in names_in(parent)[0])]
    for place in [q for p in near for q in (p, p / "data")]:
        if (place / GROUND_TRUTH).is_file() and (place / "meta.mat").is_file():
            return place
    return None


def read_ground_truth(path: Path) -> list[int]:
    """Devkit id 1..1000 of each validation picture; line k belongs to `ILSVRC2012_val_<k>`."""
    lines = path.read_text(encoding="utf-8").split()
    bad = [i for i, line in enumerate(lines, 1) if not line.isdigit()]
    if bad:
        raise DataError(f"{path}: line {bad[0]} is no devkit id: {lines[bad[0] - 1]!r}", "Extract the devkit again.")
    return [int(line) for line in lines]


def read_devkit_ids(path: Path) -> dict[int, str]:
    """Devkit id to wnid of the 1000 leaf synsets in `meta.mat`.

    Raises:
        DataError: not the devkit's file, or its leaves are not the 1000 classes.
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        rows = [(int(s["ILSVRC2012_ID"]), str(s["WNID"]), int(s["num_children"])) for s in synsets]
    except Exception as e:  # scipy raises half a dozen types on a damaged file
        raise DataError(f"{path}: cannot be read as the devkit's meta.mat ({e})", "Extract the devkit again.") from e
    leaves = {number: wnid for number, wnid, children in rows if children == 0}
    strange = sorted(set(leaves.values()) - set(imagenet_wnids()))
    if strange or not leaves:
        raise DataError(
            f"{path}: {len(leaves)} leaf synsets; not ImageNet-1k classes: {some(strange) or 'none found'}",
            "Use meta.mat of ILSVRC2012_devkit_t12.",
        )
    return leaves


def read_webdataset(root: Path, data: Path) -> Listing:
    """CLIP_benchmark shards: pictures with a `.cls` member, an index into `classnames.txt`."""
    check_class_names(root / CLASS_NAMES)
    folder = split_folder(root)
    assert folder is not None
    items = []
    for sample in read_samples(shard_paths(folder), data):
        text = sample.text("cls").strip()
        if not text.isdigit() or int(text) > 999:
            raise DataError(
                f"{sample.files['cls'].name}: label {text[:40]!r} is no class index 0..999",
                "Export the shards of imagenet1k again.",
            )
        items.append(Item(id=sample.key, index=int(text), file=sample.image()))
    return Listing(root=root, layout="webdataset shards (CLIP_benchmark)", items=tuple(items))
