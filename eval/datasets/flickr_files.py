"""Where the parts of a Flickr caption set lie: pictures, captions and the test list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mtv.errors import DataError
from mtv.eval.datasets.captions import (
    Captioned,
    karpathy_images,
    read_caption_csv,
    read_caption_shards,
    read_caption_tokens,
)
from mtv.eval.datasets.coco_files import is_shard_root
from mtv.eval.datasets.common import file_ref, names_in, some

TEXT_FOLDERS = (".", "Flickr8k_text", "annotations", "karpathy")
CSV_NAME = "captions.txt"


@dataclass(frozen=True, kw_only=True)
class FlickrLayout:
    """Names that the two sets use."""

    root_names: tuple[str, ...]
    """Lower-case folder names to prefer."""
    other: str
    """What the folder name of the other set contains."""
    image_folders: tuple[str, ...]
    """Possible folders of the pictures; the first that exists is used."""
    karpathy: str
    """Pattern of the Karpathy file: captions and split."""
    test_captions: str
    """Pattern of the file with the captions of the test split only (`name.jpg,caption`)."""
    tokens: str
    """Original caption file (`name.jpg#0<TAB>caption`)."""
    test_names: str | None
    """List of the test pictures; None where the set has no such file."""
    split_files: tuple[str, ...]
    """What to name when the split file is missing."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The split as some layout gives it."""

    layout: str
    """In words."""
    pictures: tuple[Captioned, ...]
    """Ascending sample id."""
    with_split: bool
    """Whether a file says which pictures are the test split."""
    with_ids: bool = True
    """False for shards, whose keys are no file names."""


def is_flickr_root(folder: Path, layout: FlickrLayout, data: Path) -> bool:
    """Whether a folder holds this set: a file or folder that only this set has, or captions beside pictures."""
    name = folder.name.lower()
    if is_shard_root(folder):
        return name in layout.root_names or (folder == data and layout.other not in name)
    if any(_matches(folder, p) for p in (layout.karpathy, layout.test_captions, layout.test_names)):
        return True
    own = [f for f in layout.image_folders if "flick" in f.lower()]
    if any((folder / f).is_dir() for f in own):
        return True
    if not _matches(folder, CSV_NAME) or layout.other in name:
        return False
    return _image_folder(folder, layout) is not None and (folder == data or name in layout.root_names)


def read_flickr(root: Path, layout: FlickrLayout, data: Path) -> Found:
    """The test split from whichever files describe it.

    Raises:
        DataError: no pictures, no captions, or a broken file.
    """
    if is_shard_root(root):
        pictures = tuple(read_caption_shards(root, data))
        words = "webdataset shards (CLIP_benchmark), recognised by counts"
        return Found(layout=words, pictures=pictures, with_split=True, with_ids=False)
    folder = _image_folder(root, layout)
    if folder is None:
        raise DataError(f"{root}: no picture folder ({', '.join(layout.image_folders)})", "Extract the pictures there.")
    names = set(names_in(folder)[1])
    if path := _first(root, layout.karpathy):
        captions = {i["filename"]: [s["raw"] for s in i["sentences"]] for i in karpathy_images(path, "test")}
        return _found(f"Karpathy split file {path.name}", captions, captions, names, folder, data, with_split=True)
    if path := _first(root, layout.test_captions):
        captions = read_caption_csv(path)
        return _found(path.name, captions, captions, names, folder, data, with_split=True)
    captions, source = _all_captions(root, layout)
    if path := _first(root, layout.test_names):
        wanted = [n if "." in n else f"{n}.jpg" for n in path.read_text(encoding="utf-8").split()]
        words = f"{source} with {path.name}"
        return _found(words, captions, wanted, names, folder, data, with_split=True)
    everything = captions.keys() | names
    return _found(f"{source} without a split file", captions, everything, names, folder, data, with_split=False)


def _all_captions(root: Path, layout: FlickrLayout) -> tuple[dict[str, list[str]], str]:
    if path := _first(root, CSV_NAME):
        return read_caption_csv(path), path.name
    if path := _first(root, layout.tokens):
        return read_caption_tokens(path), path.name
    raise DataError(
        f"{root}: pictures, but no captions ({CSV_NAME}, {layout.tokens} or {layout.split_files[-1]})",
        "Put the caption file beside the picture folder.",
    )


def _found(
    layout: str,
    captions: dict[str, list[str]],
    wanted: Iterable[str],
    names: set[str],
    folder: Path,
    data: Path,
    *,
    with_split: bool,
) -> Found:
    pictures = [
        Captioned(
            id=PurePosixPath(name).stem,
            wanted=name,
            file=file_ref(data, folder / name) if name in names else None,
            captions=tuple(captions.get(name, ())),
        )
        for name in wanted
    ]
    return Found(layout=layout, pictures=tuple(sorted(pictures, key=lambda p: p.id)), with_split=with_split)


def _image_folder(root: Path, layout: FlickrLayout) -> Path | None:
    return next((root / f for f in layout.image_folders if (root / f).is_dir()), None)


def _matches(root: Path, pattern: str | None) -> list[Path]:
    if pattern is None:
        return []
    found = (p for t in TEXT_FOLDERS if (root / t).is_dir() for p in (root / t).glob(pattern))
    return sorted(p for p in found if not p.name.startswith("."))


def _first(root: Path, pattern: str | None) -> Path | None:
    """The file of this pattern; among several the one without a suffix to the name, else an error that lists them."""
    found = _matches(root, pattern)
    exact = [p for p in found if p.name == (pattern or "").replace("*", "")]
    if len(found) > 1 and len(exact) != 1:
        listing = some([str(p) for p in found], 10)
        raise DataError(f"several files {pattern}: {listing}", "Keep the one that is meant.")
    chosen = exact or found
    return chosen[0] if chosen else None
