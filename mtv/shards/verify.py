"""Finds what is wrong with a corpus without stopping at the first problem.

Quick: the index is whole and matches `dataset.json`, every file exists with the size and time it was indexed with, no
shard was added since. Full: also the hash of every tar, of every image that carries one, and every label parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import DataError
from mtv.hashing import sha256_file
from mtv.shards import layout
from mtv.shards.dataset import DatasetInfo, read_dataset, read_index
from mtv.shards.depth_code import decode_disparity
from mtv.shards.index_file import ShardIndex, Source, Stamp
from mtv.shards.recent import OpenFile
from mtv.shards.records import image_size, parse_regions, parse_text


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    file: Path
    """The file."""
    key: str | None
    """The sample; None when it concerns the whole file."""
    message: str
    """What is wrong, for a reader who sees file and key beside it."""

    def __str__(self) -> str:
        return f"{self.file}: {'' if self.key is None else f'key {self.key!r}: '}{self.message}"


def verify_dataset(root: Path, *, full: bool = False) -> Iterator[Problem]:
    """Check a corpus with all its label sets; yields nothing when it is sound.

    Args:
        root: the corpus.
        full: read every byte.
    """
    try:
        info = read_dataset(root)
    except DataError as e:
        yield Problem(file=layout.dataset_file(root), key=None, message=e.message)
        return
    yield from _not_indexed(root, info)
    for entry in info.shards:
        try:
            index = read_index(root, entry)
        except DataError as e:
            yield Problem(file=layout.index_file(root, entry.name), key=None, message=e.message)
            continue
        for name, source in index.sources.items():
            tar = layout.source_tar(root, name, entry.name)
            yield from _check_file(tar, source.tar, full=full)
            if source.meta is not None:
                yield from _check_file(layout.label_meta(tar), source.meta, full=full)
            if full and tar.exists():
                yield from _check_samples(tar, index, source)


def _not_indexed(root: Path, info: DatasetInfo) -> Iterator[Problem]:
    contents = {entry.name: entry.content for entry in info.shards}
    folders = [layout.IMAGES, *map(layout.label_source, info.labels)]
    for source in folders:
        for name in layout.shard_names(root / source):
            if source not in contents.get(name, {}):
                tar = layout.source_tar(root, source, name)
                yield Problem(file=tar, key=None, message="is not in the index; build it again")
    for labels, version in info.labels.items():
        path = layout.manifest_file(root, labels)
        if (sha256_file(path) if path.exists() else None) != version.manifest_sha256:
            yield Problem(file=path, key=None, message="is not the manifest that was indexed; build the index again")


def _check_file(path: Path, stamp: Stamp, *, full: bool) -> Iterator[Problem]:
    try:
        difference = stamp.difference(path.stat())
        if not difference and full and sha256_file(path) != stamp.sha256:
            difference = "has other bytes than when it was indexed: its SHA-256 differs"
    except OSError as e:
        difference = f"cannot be read ({e.strerror or e})"
    if difference:
        yield Problem(file=path, key=None, message=difference)


def _check_samples(tar: Path, index: ShardIndex, source: Source) -> Iterator[Problem]:
    try:
        file = OpenFile(tar)
    except OSError:
        return
    for row, key in enumerate(index.keys):
        try:
            members = {ext: file.read(*place) for ext in source.members if (place := source.place(ext, row))}
            message = _image_problem(members) if source.name == layout.IMAGES else _label_problem(members, source, row)
        except OSError as e:
            message = f"cannot be read ({e.strerror or e})"
        except DataError as e:
            message = e.message
        if message:
            yield Problem(file=tar, key=key, message=message)


def _image_problem(members: dict[str, bytes]) -> str:
    text = parse_text(members.get("txt"), members.get("json"))
    image = next(members[e] for e in layout.IMAGE_EXTENSIONS if e in members)
    if text.sha256 is not None and hashlib.sha256(image).hexdigest() != text.sha256:
        return "the image is not the one whose SHA-256 stands in its .json"
    size = image_size(image)
    return "" if text.size in (None, size) else f"the image is {size}, its .json says {text.size}"


def _label_problem(members: dict[str, bytes], source: Source, row: int) -> str:
    if "json" in members:
        parse_regions(members["json"])
    if "png" in members:
        decode_disparity(members["png"], *(source.range(row) or (0.0, 0.0)))
    return ""
