"""Where the parts of a COCO caption set lie: split files, annotation files and pictures, in the layouts people have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.captions import Captioned, karpathy_images, read_caption_shards, read_json
from mtv.eval.datasets.common import file_ref, names_in, some
from mtv.eval.datasets.webdataset import split_folder

ROOT_NAMES = ("coco", "mscoco", "ms-coco", "coco2014", "coco2017", "mscoco_captions", "wds_mscoco_captions")
SPLIT_PLACES = (".", "annotations", "karpathy", "splits")
YEARS = ("val2014", "val2017", "train2014", "train2017")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One split as some layout gives it."""

    layout: str
    """In words."""
    pictures: tuple[Captioned, ...]
    """Ascending COCO id (shards: ascending key)."""
    with_ids: bool = True
    """False for shards, whose keys are no COCO ids."""


def is_coco_root(folder: Path, data: Path) -> bool:
    """Whether a folder holds COCO annotations, a Karpathy file, val2014/val2017 or caption shards."""
    if any((folder / "annotations" / f"captions_{year}.json").is_file() for year in YEARS):
        return True
    if any((folder / name).is_dir() for name in ("val2014", "val2017", "images/val2014", "images/val2017")):
        return True
    if karpathy_files(folder) or _caption_style_files(folder):
        return True
    return is_shard_root(folder) and (folder == data or folder.name.lower() in ROOT_NAMES)


def is_shard_root(folder: Path) -> bool:
    """Retrieval shards of CLIP_benchmark."""
    kind = folder / "dataset_type.txt"
    return kind.is_file() and kind.read_text(encoding="utf-8").strip() == "retrieval" and bool(split_folder(folder))


def karpathy_files(root: Path) -> list[Path]:
    """`dataset_coco*.json`; the full file alone where it is there."""
    found = _in_places(root, "dataset_coco*.json")
    full = [p for p in found if p.name == "dataset_coco.json"]
    return full or found


def _caption_style_files(root: Path) -> list[Path]:
    return _in_places(root, "coco_test_karpathy*.json")


def id_lists(root: Path) -> list[Path]:
    """Text files that list the Karpathy test ids."""
    return _in_places(root, "*karpathy_test*.txt")


def _in_places(root: Path, pattern: str) -> list[Path]:
    places = [root / place for place in SPLIT_PLACES]
    return sorted(p for place in places if place.is_dir() for p in place.glob(pattern) if not p.name.startswith("."))


class Pictures:
    """Finds the file of a COCO id under any of the usual folders; each folder is listed once."""

    def __init__(self, root: Path, data: Path) -> None:
        self._root, self._data = root, data
        self._listed: dict[str, set[str]] = {}

    def find(self, coco_id: int | None, *given: str) -> Path | None:
        """The first existing path of: as given, then the 2014 and 2017 names below the root or its `images/`."""
        paths = [p for g in given if g for p in (g, f"images/{g}")]
        if coco_id is not None:
            for year in YEARS:
                name = f"{coco_id:012d}.jpg" if year.endswith("2017") else f"COCO_{year}_{coco_id:012d}.jpg"
                paths += [f"{year}/{name}", f"images/{year}/{name}"]
        return next((self._root / p for p in paths if self._exists(p)), None)

    def _exists(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            place = self._root / folder
            self._listed[folder] = set(names_in(place)[1]) if place.is_dir() else set()
        return name in self._listed[folder]

    def captioned(self, coco_id: int, captions: Sequence[str], *given: str) -> Captioned:
        """One picture of the split, with its file where there is one."""
        path = self.find(coco_id, *given)
        return Captioned(
            id=str(coco_id),
            wanted=next((g for g in given if g), f"{coco_id:012d}.jpg"),
            file=None if path is None else file_ref(self._data, path),
            captions=tuple(captions),
        )


def read_karpathy_test(root: Path, data: Path) -> Found:
    """The Karpathy test split from whichever file describes it.

    Raises:
        DataError: no split file (says which COCO parts are there instead), or a broken one.
    """
    pictures = Pictures(root, data)
    if files := karpathy_files(root):
        return _from_karpathy(_single(files), pictures)
    if files := _caption_style_files(root):
        path = _single(files)
        return _from_annotations([path], None, pictures, f"{path.name} (COCO caption format)")
    if files := id_lists(root):
        return _from_id_list(_single(files), root, pictures)
    if is_shard_root(root):
        found = tuple(read_caption_shards(root, data))
        return Found(layout="webdataset shards (CLIP_benchmark), recognised by counts", pictures=found, with_ids=False)
    raise _split_file_missing(root)


def read_val2017(root: Path, data: Path) -> Found:
    """All of val2017. Raises DataError without `annotations/captions_val2017.json`."""
    path = root / "annotations" / "captions_val2017.json"
    if not path.is_file():
        raise DataError(
            f"{path}: not there", "Extract annotations_trainval2017.zip, or use the default split (karpathy-test)."
        )
    return _from_annotations([path], None, Pictures(root, data), "val2017 with captions_val2017.json", folder="val2017")


def _from_karpathy(path: Path, pictures: Pictures) -> Found:
    records = karpathy_images(path, "test")
    without = [r["filename"] for r in records if not isinstance(r.get("cocoid"), int)]
    if without:
        raise DataError(f"{path}: no integer field `cocoid`: {some(without)}", "Use dataset_coco.json, not Flickr's.")
    found = [
        pictures.captioned(
            r["cocoid"],
            [s["raw"] for s in r["sentences"]],
            f"{r.get('filepath') or '.'}/{r['filename']}",
            r["filename"],
        )
        for r in records
    ]
    return Found(layout=f"Karpathy split file {path.name}", pictures=_by_id(found))


def _from_id_list(path: Path, root: Path, pictures: Pictures) -> Found:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    numbers = [re.findall(r"\d+", line) for line in lines]
    if bad := [line for line, found in zip(lines, numbers, strict=True) if not found]:
        raise DataError(f"{path}: line without a COCO id: {bad[0]!r}", "One picture per line, its id last.")
    ids = {int(found[-1]) for found in numbers}
    folder = root / "annotations"
    captions = [folder / "captions_val2014.json"]
    if not captions[0].is_file():
        captions = [p for p in (folder / f"captions_{y}2017.json" for y in ("val", "train")) if p.is_file()]
    if not captions:
        raise DataError(
            f"{path}: the id list needs captions, but {folder / 'captions_val2014.json'} is not there",
            "Extract annotations_trainval2014.zip, or use dataset_coco.json, which holds both.",
        )
    layout = f"id list {path.name} with {' + '.join(c.name for c in captions)}"
    return _from_annotations(captions, ids, pictures, layout)


def _from_annotations(
    paths: Sequence[Path], ids: set[int] | None, pictures: Pictures, layout: str, folder: str = ""
) -> Found:
    names: dict[int, str] = {}
    captions: dict[int, list[str]] = {}
    for path in paths:
        content = read_json(path)
        if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
            raise DataError(f"{path}: no `images` and `annotations`", "This is no COCO caption file.")
        try:
            names.update({i["id"]: i["file_name"] for i in content["images"]})
            for a in content["annotations"]:
                captions.setdefault(a["image_id"], []).append(a["caption"])
        except (KeyError, TypeError) as e:
            raise DataError(f"{path}: a record has no field {e}", "This is no COCO caption file.") from e
    listed = names.keys() | captions.keys()
    if strange := [i for i in listed if not isinstance(i, int)]:
        raise DataError(f"{paths[0]}: image ids are not integers: {some(strange)}", "This is no COCO caption file.")
    wanted = sorted(listed if ids is None else ids)
    found = [
        pictures.captioned(
            i, captions.get(i, []), f"{folder}/{names[i]}" if folder and i in names else "", names.get(i, "")
        )
        for i in wanted
    ]
    return Found(layout=layout, pictures=_by_id(found))


def _by_id(pictures: Sequence[Captioned]) -> tuple[Captioned, ...]:
    return tuple(sorted(pictures, key=lambda p: int(p.id)))


def _single(files: Sequence[Path]) -> Path:
    if len(files) > 1:
        raise DataError(f"several split files: {some([str(f) for f in files], 10)}", "Keep the one that is meant.")
    return files[0]


def _split_file_missing(root: Path) -> DataError:
    there = [y for y in YEARS if (root / y).is_dir() or (root / "annotations" / f"captions_{y}.json").is_file()]
    repair = (
        "Put dataset_coco.json (Karpathy), coco_test_karpathy.json or karpathy_test_images.txt into the COCO folder."
    )
    if "val2017" in there:
        repair = (
            "val2017 is another set of 5,000 pictures: measure it as itself with --set coco.split=val2017. " + repair
        )
    return DataError(f"{root}: split file missing: found {some(there) or 'nothing'}, but no Karpathy test list", repair)
