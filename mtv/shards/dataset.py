"""`dataset.json`: the shards of a corpus in order, and `build_dataset`, which indexes what is there.

The file is written last, so that its presence means a complete index. Shards that did not change are not read again:
an interrupted build goes on where it stopped, and a second build does nothing. `index_hash` depends on contents alone,
never on times or places.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtv.atomic import atomic_write_bytes, atomic_write_json
from mtv.errors import DataError, UsageError
from mtv.hashing import sha256_file, sha256_json
from mtv.shards import layout
from mtv.shards.index import build_index
from mtv.shards.index_file import REBUILD, ShardIndex, decode_index, encode_index

log = logging.getLogger(__name__)

FORMAT = "mtv-shards-1"


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard of a corpus."""

    name: str
    """Shard name."""
    samples: int
    """Number of samples."""
    end: int
    """Global index after its last sample: samples of this and all earlier shards."""
    index_sha256: str
    """Hash of its `.idx` file."""
    content: dict[str, dict[str, str]]
    """Source (`images`, `labels/NAME`) to the hashes of its tar and, for depth, of its ranges."""


@dataclass(frozen=True, kw_only=True)
class LabelEntry:
    """One label set of a corpus."""

    samples: int
    """Samples with a label."""
    manifest_sha256: str | None
    """Hash of the labeller's manifest; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The contents of `dataset.json`."""

    shards: tuple[ShardEntry, ...]
    """In order."""
    labels: dict[str, LabelEntry]
    """Label set name to its version."""
    index_hash: str
    """Hash of all shards, see `content_hash`."""

    @property
    def samples(self) -> int:
        """Samples in the corpus."""
        return self.shards[-1].end if self.shards else 0


def content_hash(shards: Sequence[ShardEntry], sources: Collection[str] | None = None) -> str:
    """Hash of the order, sizes and file hashes of the shards, for all sources or some of them."""
    kept = [{k: v for k, v in s.content.items() if sources is None or k in sources} for s in shards]
    return sha256_json([[s.name, s.samples, content] for s, content in zip(shards, kept, strict=True)])


def read_dataset(root: Path) -> DatasetInfo:
    """Read and check `dataset.json`.

    Raises:
        DataError: missing, damaged or inconsistent; names the file.
    """
    path = layout.dataset_file(root)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r}, expected {FORMAT!r}")
        info = DatasetInfo(
            shards=tuple(ShardEntry(**s) for s in fields["shards"]),
            labels={name: LabelEntry(**entry) for name, entry in fields["labels"].items()},
            index_hash=fields["index_hash"],
        )
        if [s.end for s in info.shards] != np.cumsum([s.samples for s in info.shards]).tolist():
            raise ValueError("the cumulative counts are not the sums of the shards' samples")
        if info.index_hash != content_hash(info.shards):
            raise ValueError("index_hash is not that of the shards")
    except FileNotFoundError as e:
        raise DataError(f"{path} does not exist: {root} is no indexed corpus", REBUILD) from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path}: damaged ({type(e).__name__}: {e})", REBUILD) from e
    return info


def read_index(root: Path, entry: ShardEntry) -> ShardIndex:
    """Read the index of a shard.

    Raises:
        DataError: missing, damaged, or not the one that `dataset.json` was written with; names the file.
    """
    path = layout.index_file(root, entry.name)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})", REBUILD) from e
    if hashlib.sha256(data).hexdigest() != entry.index_sha256:
        raise DataError(f"{path}: is not the index that dataset.json was written with", REBUILD)
    return decode_index(data, path=path)


def build_dataset(root: Path, *, on_shard: Callable[[int, int], object] | None = None) -> DatasetInfo:
    """Index every shard below `images/` with its labels, and write `dataset.json`.

    Args:
        root: the corpus; image tars may come from elsewhere (img2dataset), labels are optional.
        on_shard: called with (shards done, shards in all) after each, for a progress bar.

    Raises:
        DataError: what `build_index` refuses, a label shard without images, or a key in two shards; shards
            indexed before it are kept, and the next build goes on from there.
        CacheError: the index cannot be written.
    """
    names = layout.shard_names(root / layout.IMAGES)
    if not names:
        raise DataError(f"{root / layout.IMAGES}: holds no .tar", "Put the image tars there, or link them.")
    labels = _label_sets(root, set(names))
    entries: list[ShardEntry] = []
    labelled = dict.fromkeys(labels, 0)
    hashes: list[np.ndarray] = []
    for name in names:
        index, digest = _index_shard(root, name, labels)
        n = len(index.keys)
        end = n + (entries[-1].end if entries else 0)
        entries.append(ShardEntry(name=name, samples=n, end=end, index_sha256=digest, content=index.content()))
        for label in labels:
            source = index.sources.get(layout.label_source(label))
            labelled[label] += source.samples if source else 0
        hashes.append(np.fromiter(map(hash, index.keys), dtype=np.int64, count=n))
        if on_shard is not None:
            on_shard(len(entries), len(names))
    _check_unique(root, entries, np.concatenate(hashes))
    versions = {
        label: LabelEntry(samples=labelled[label], manifest_sha256=_manifest_hash(root, label)) for label in labels
    }
    info = DatasetInfo(shards=tuple(entries), labels=versions, index_hash=content_hash(entries))
    atomic_write_json(layout.dataset_file(root), {"format": FORMAT, **dataclasses.asdict(info)})
    return info


def _label_sets(root: Path, images: set[str]) -> list[str]:
    found: list[str] = []
    for folder in sorted(p for p in (root / layout.LABELS).glob("[!.]*") if p.is_dir()):
        try:
            layout.label_kind(folder.name)
        except UsageError as e:
            log.warning("%s is not indexed: %s", folder, e.message)
            continue
        alone = [s for s in layout.shard_names(folder) if s not in images]
        if alone:
            raise DataError(
                f"{layout.label_tar(root, folder.name, alone[0])}: there is no image shard of that name",
                "Label shards carry the names of the image shards they were made of.",
            )
        found.append(folder.name)
    return found


def _index_shard(root: Path, name: str, labels: Sequence[str]) -> tuple[ShardIndex, str]:
    """The current index of a shard and the hash of its file, written if it changed."""
    path = layout.index_file(root, name)
    data, previous = b"", None
    try:
        data = path.read_bytes()
        previous = decode_index(data, path=path)
        if previous.shard != name:  # tar and index were renamed together
            previous = None
    except FileNotFoundError:
        pass
    except (DataError, OSError) as e:
        log.warning("%s; the shard is indexed again", e)
    index = build_index(root, name, labels=labels, previous=previous)
    if index is not previous:
        data = encode_index(index)
        atomic_write_bytes(path, data)
        log.info("indexed shard %s: %d samples, %s", name, len(index.keys), ", ".join(index.sources))
    return index, hashlib.sha256(data).hexdigest()


def _manifest_hash(root: Path, labels: str) -> str | None:
    path = layout.manifest_file(root, labels)
    return sha256_file(path) if path.exists() else None


def _check_unique(root: Path, entries: Sequence[ShardEntry], hashes: np.ndarray) -> None:
    """Find a key that two shards share, by 64-bit hashes first: 100 million keys then take 0.8 GB, not 10."""
    hashes = np.sort(hashes)
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    first: dict[str, str] = {}
    for entry in entries if suspects else ():
        for key in read_index(root, entry).keys:
            if hash(key) in suspects and first.setdefault(key, entry.name) != entry.name:
                raise DataError(
                    f"{layout.image_tar(root, entry.name)}: key {key!r} is also in "
                    f"{layout.image_tar(root, first[key])}",
                    "Keys are unique in the corpus; rename the members of one shard.",
                )
