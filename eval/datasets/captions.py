"""Caption sets: the parts that COCO and Flickr share. Captions stay raw here; cleaning belongs to the text tower."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtv.errors import DataError
from mtv.eval.datasets.base import CaptionSet, CheckReport, FileRef, fingerprint_of
from mtv.eval.datasets.common import Judgement, some
from mtv.eval.datasets.registry import OptionInfo
from mtv.eval.datasets.webdataset import read_samples, shard_paths, split_folder
from mtv.hashing import sha256_json

CAPTIONS = OptionInfo(
    choices=("all", "first5", "first1"),
    help="captions per picture: all, the first five, or the first; only `all` is comparable with published numbers",
)
_KEPT = {"all": None, "first5": 5, "first1": 1}
_TOKEN_LINE = re.compile(r"(?P<name>[^\t#]+)#\d+\t(?P<caption>.*)")


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """One picture of the split, whether or not its file is there."""

    id: str
    """Sample id."""
    wanted: str
    """The file name that the annotation asks for, for messages."""
    file: FileRef | None
    """The picture; None when no folder holds it."""
    captions: tuple[str, ...]
    """Raw strings in annotation order."""


def read_json(path: Path) -> Any:
    """Parsed JSON. Raises DataError naming the file and the position where it breaks off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read ({e})", "Copy the file again.") from e
    except json.JSONDecodeError as e:
        raise DataError(
            f"{path}: not valid JSON at line {e.lineno} column {e.colno} ({e.msg})", "The file is cut; copy it again."
        ) from e


def karpathy_images(path: Path, split: str) -> list[dict[str, Any]]:
    """Records of one split of a Karpathy file (`images[].split, filename, sentences[].raw`), in file order.

    Raises:
        DataError: a field is absent (names it and the record), or no picture has this split.
    """
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path}: no list `images`", "This is no Karpathy split file (dataset_*.json).")
    for i, image in enumerate(images):
        absent = [k for k in ("split", "filename", "sentences") if k not in image]
        if absent or any("raw" not in s for s in image["sentences"]):
            field = absent[0] if absent else "sentences[].raw"
            raise DataError(f"{path}: images[{i}] has no field `{field}`", "This is no Karpathy split file.")
    chosen = [image for image in images if image["split"] == split]
    if not chosen:
        found = some(sorted({str(image["split"]) for image in images}))
        raise DataError(f"{path}: no picture with split {split!r}; the file has: {found}", "Use the complete file.")
    return chosen


def read_caption_csv(path: Path) -> dict[str, list[str]]:
    """`image,caption` rows after a header: file name to captions, in file order.

    Quoted captions lose their quotes; captions with commas that were never quoted are kept whole.

    Raises:
        DataError: a line without file name and caption; names the line.
    """
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), 1):
        name, comma, rest = line.partition(",")
        if number == 1 and name.strip().lower() in ("image", "image_name", "filename", "file"):
            continue
        if not comma or "." not in name:
            raise DataError(f"{path}: line {number} is not `image,caption`: {line[:60]!r}", "Restore the CSV file.")
        captions.setdefault(name.strip(), []).append(_csv_field(rest))
    return captions


def _csv_field(rest: str) -> str:
    try:
        fields = next(csv.reader([rest], strict=True))
    except (csv.Error, StopIteration):
        return rest
    return fields[0] if len(fields) == 1 else rest


def read_caption_tokens(path: Path) -> dict[str, list[str]]:
    """`name.jpg#0<TAB>caption` lines of the original Flickr archives: file name to captions, in file order."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), 1):
        match = _TOKEN_LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}: line {number} is not `name#k<TAB>caption`: {line[:60]!r}", "Restore the file.")
        captions.setdefault(match["name"], []).append(match["caption"])
    return captions


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({e})", "Copy the file again.") from e
    # not splitlines(): a caption may hold a form feed or another character that it takes for a line end
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def read_caption_shards(root: Path, data: Path) -> list[Captioned]:
    """Pictures and captions of CLIP_benchmark retrieval shards, sorted by key."""
    folder = split_folder(root)
    assert folder is not None
    pictures = []
    for sample in read_samples(shard_paths(folder), data):
        lines = [line for line in sample.text("txt").split("\n") if line.strip()]
        image = sample.image()
        captions = tuple(line.replace("\\n", "\n") for line in lines)
        pictures.append(Captioned(id=sample.key, wanted=image.name, file=image, captions=captions))
    return pictures


def check_join(pictures: Sequence[Captioned], source: str) -> None:
    """Every picture has a file and a caption, and every id occurs once.

    Raises:
        DataError: lists the pictures without file, without caption, or twice.
    """
    lost = [p.wanted for p in pictures if p.file is None]
    silent = [p.wanted for p in pictures if not p.captions]
    seen: set[str] = set()
    twice = [p.id for p in pictures if p.id in seen or seen.add(p.id)]  # type: ignore[func-returns-value]
    problems = []
    if lost:
        problems.append(f"{source}: {len(lost)} of {len(pictures)} pictures have no file: {some(lost, 20)}")
    if silent:
        problems.append(f"{source}: {len(silent)} pictures have no caption: {some(silent, 20)}")
    if twice:
        problems.append(f"{source}: {len(twice)} ids occur twice: {some(twice, 20)}")
    if problems:
        raise DataError(
            "\n".join(problems), "Copy the missing files, or give a split file that names only what is there."
        )


def keep_captions(pictures: Sequence[Captioned], option: str) -> list[Captioned]:
    """The pictures with all captions, the first five or the first one of each."""
    return [replace(p, captions=p.captions[: _KEPT[option]]) for p in pictures]


def caption_fingerprint(pictures: Sequence[Captioned]) -> str:
    """Hash of ids and captions; white space is collapsed, because the layouts of one set differ in outer blanks."""
    return fingerprint_of((p.id, sha256_json([" ".join(c.split()) for c in p.captions])) for p in pictures)


def build_caption_set(name: str, report: CheckReport, pictures: Sequence[Captioned]) -> CaptionSet:
    """The data set in the order of `pictures`; caption k of picture `id` is called `id#k`."""
    images = {p.id: p.file for p in pictures if p.file is not None}
    return CaptionSet(
        name=name,
        split=report.split,
        report=report,
        images=images,
        captions=tuple(c for p in pictures for c in p.captions),
        caption_ids=tuple(f"{p.id}#{k}" for p in pictures for k in range(len(p.captions))),
        owner=np.repeat(np.arange(len(pictures), dtype=np.int64), [len(p.captions) for p in pictures]),
    )


def caption_counts(pictures: Sequence[Captioned]) -> dict[str, int]:
    """Counts as the check reports them."""
    return {"images": len(pictures), "captions": sum(len(p.captions) for p in pictures)}


def accept(
    name: str,
    split: str,
    *,
    root: Path,
    layout: str,
    pictures: Sequence[Captioned],
    judgement: Judgement,
    expected: dict[str, int],
) -> tuple[CheckReport, CaptionSet]:
    """The report and the data set of pictures that may be used."""
    report = CheckReport(
        name=name,
        verdict=judgement.verdict,
        root=root,
        layout=layout,
        split=split,
        found=caption_counts(pictures),
        expected=expected,
        label=judgement.label,
        fingerprint=caption_fingerprint(pictures),
        problems=judgement.problems,
        repair=judgement.repair,
    )
    return report, build_caption_set(name, report, pictures)
