"""Random access to the samples of a corpus by global index, through byte offsets.

Notable choices: nothing is read on opening but `dataset.json`; indexes and tars are opened when a sample needs them,
and a bounded number stays open, per process, so that a data set can be shared by threads, forked and pickled; a tar is
checked against its index when it is opened (size and time), so that no sample comes from another file than the indexed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtv.errors import DataError, UsageError, unknown
from mtv.shards import layout
from mtv.shards.dataset import DatasetInfo, content_hash, read_dataset, read_index
from mtv.shards.index_file import REBUILD, ShardIndex, StaleIndexError, Stamp
from mtv.shards.recent import OpenFile, Recent
from mtv.shards.records import EncodedDepth, Region, ShardSample, image_size, parse_regions, parse_text
from mtv.shards.verify import Problem, verify_dataset

MAX_OPEN_TARS = 64
MAX_OPEN_INDEXES = 64


@dataclass(frozen=True, kw_only=True)
class ShardRange:
    """The global indices of a shard."""

    name: str
    """Shard name."""
    start: int
    """First index."""
    stop: int
    """Index after the last."""


class ShardDataset:
    """An indexed corpus with at most one depth and one region label set; see `open`.

    Attributes:
        root: the folder.
        labels: the label sets that samples carry.
        info: contents of `dataset.json`.
        shards: ranges of global indices in order; together they cover all.
        content_hash: hash of the images and these labels; adding other label sets to the corpus does not change it.
    """

    def __init__(self, root: Path, info: DatasetInfo, labels: Sequence[str]) -> None:
        self.root = root
        self.labels = tuple(labels)
        self.info = info
        sources = {layout.IMAGES, *map(layout.label_source, labels)}
        self.content_hash = content_hash(info.shards, sources)
        self.shards = tuple(ShardRange(name=s.name, start=s.end - s.samples, stop=s.end) for s in info.shards)
        self._ends = np.array([s.end for s in info.shards])
        kinds = {layout.label_kind(name): layout.label_source(name) for name in labels}
        self._depth, self._regions = kinds.get(layout.DEPTH), kinds.get(layout.REGIONS)
        self._indexes: Recent[int, ShardIndex] = Recent(MAX_OPEN_INDEXES)
        self._tars: Recent[str, OpenFile] = Recent(MAX_OPEN_TARS)

    @classmethod
    def open(cls, root: Path | str, *, labels: Sequence[str] = ()) -> ShardDataset:
        """Open an indexed corpus. Its tars are checked when they are first read; `verify` checks all at once.

        Args:
            root: the folder with `dataset.json`.
            labels: label sets to read, at most one `depth-...` and one `regions-...`.

        Raises:
            UsageError: an unknown label set, or two of a kind.
            DataError: no or a damaged `dataset.json`, or shards for which a label set has no tar; names them.
        """
        root = Path(root)
        info = read_dataset(root)
        kinds = [layout.label_kind(name) for name in labels]
        if len(set(kinds)) != len(kinds):
            raise UsageError(f"labels {', '.join(labels)}: at most one {layout.DEPTH} and one {layout.REGIONS} set")
        for name in labels:
            if name not in info.labels:
                raise unknown("label set", name, info.labels or ["none"])
            absent = [s.name for s in info.shards if layout.label_source(name) not in s.content]
            if absent:
                raise DataError(
                    f"{layout.label_tar(root, name, absent[0])} is missing from the index "
                    f"({len(absent)} of {len(info.shards)} shards)",
                    "Label these shards and build the index again; a tar without members stands for no labels.",
                )
        return cls(root, info, labels)

    def __len__(self) -> int:
        return self.info.samples

    def key(self, i: int) -> str:
        """Key of sample `i`."""
        at = self._locate(i)
        return at.index.keys[at.row]

    def sample(self, i: int) -> ShardSample:
        """Read sample `i`.

        Raises:
            IndexError: no such index.
            DataError: a file that is gone, truncated or newer than its index, or a member that cannot be parsed; names
                tar and key.
        """
        at = self._locate(i)
        members = {e: self._member(at, layout.IMAGES, e) for e in (*layout.IMAGE_EXTENSIONS, "txt", "json")}
        image = next(data for e in layout.IMAGE_EXTENSIONS if (data := members[e]) is not None)
        try:
            text = parse_text(members["txt"], members["json"])
            w, h = text.size or image_size(image)
        except DataError as e:
            raise self._at(e, at, layout.IMAGES) from e
        return ShardSample(
            key=at.index.keys[at.row],
            image=image,
            captions=text.captions,
            regions=self._read_regions(at),
            disparity=self._read_disparity(at),
            w=w,
            h=h,
        )

    def verify(self, *, full: bool = False) -> Iterator[Problem]:
        """Problems of the corpus with all its label sets; see `verify_dataset`."""
        return verify_dataset(self.root, full=full)

    def _locate(self, i: int) -> _Place:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = int(np.searchsorted(self._ends, i, side="right"))
        index = self._indexes.get(number, lambda: read_index(self.root, self.info.shards[number]))
        return _Place(index=index, row=i - self.shards[number].start)

    def _read_regions(self, at: _Place) -> tuple[Region, ...] | None:
        if self._regions is None or (data := self._member(at, self._regions, "json")) is None:
            return None
        try:
            return parse_regions(data)
        except DataError as e:
            raise self._at(e, at, self._regions) from e

    def _read_disparity(self, at: _Place) -> EncodedDepth | None:
        if self._depth is None or (found := at.index.sources[self._depth].range(at.row)) is None:
            return None
        png = self._member(at, self._depth, "png")
        return None if png is None else EncodedDepth(png=png, min=found[0], max=found[1], valid=True)

    def _member(self, at: _Place, source: str, ext: str) -> bytes | None:
        place = at.index.sources[source].place(ext, at.row)
        if place is None:
            return None
        path = str(layout.source_tar(self.root, source, at.index.shard))
        file = self._tars.get(path, lambda: _open_tar(path, at.index.sources[source].tar))
        try:
            return file.read(*place)
        except OSError as e:
            raise self._at(DataError(f"cannot be read ({e.strerror or e})"), at, source) from e

    def _at(self, e: DataError, at: _Place, source: str) -> DataError:
        tar = layout.source_tar(self.root, source, at.index.shard)
        return DataError(f"{tar}: key {at.index.keys[at.row]!r}: {e.message}", e.hint)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a sample is."""

    index: ShardIndex
    """Index of its shard."""
    row: int
    """Row in it."""


def _open_tar(path: str, stamp: Stamp) -> OpenFile:
    try:
        file = OpenFile(path)
    except OSError as e:
        raise DataError(
            f"{path}: cannot be read ({e.strerror or e})", "Copy it again, or build the index again."
        ) from e
    now = file.stat()
    if difference := stamp.difference(now):
        kind = StaleIndexError if now.st_size == stamp.bytes else DataError
        raise kind(f"{path} {difference}", REBUILD)
    return file
