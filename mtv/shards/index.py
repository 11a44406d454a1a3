"""Makes the index of a shard: scans the headers of its tars and joins label tars to the images by key.

Notable choices: each tar is read once in full for its hash, then scanned by headers; a source whose size and time are
those of the previous index is taken over unread, so new labels never touch the images; what would train on wrong pairs
(a label for an unknown key, a key twice, another order) is an error that names key and tar.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mtv.errors import DataError
from mtv.hashing import sha256_file
from mtv.shards import layout
from mtv.shards.index_file import Keys, ShardIndex, Source, Stamp
from mtv.shards.tar import Member, scan_tar

_LABEL_EXTENSION = {layout.DEPTH: "png", layout.REGIONS: "json"}
_MAX_COLUMNS = 32


def build_index(root: Path, shard: str, *, labels: Sequence[str], previous: ShardIndex | None = None) -> ShardIndex:
    """Index a shard, reading only what changed since `previous`.

    Args:
        root: the corpus.
        shard: shard name, such as `00012`.
        labels: label sets of the corpus; those without a tar for this shard are left out.
        previous: an earlier index of the same shard.

    Returns:
        `previous` itself when nothing changed.

    Raises:
        DataError: a broken tar, no or several pictures for a key, a key twice, a label for an unknown key or out of
            order, ranges that do not fit their maps; names tar and key.
    """
    tar = layout.image_tar(root, shard)
    if previous is not None and _unchanged(previous.sources[layout.IMAGES].tar, tar):
        keys, images, known = previous.keys, previous.sources[layout.IMAGES], previous.sources
    else:
        keys, images = _index_images(tar)
        known = {}
    sources = {layout.IMAGES: images}
    rows: dict[str, int] = {}
    for name in sorted(labels):
        source, tar = layout.label_source(name), layout.label_tar(root, name, shard)
        if not tar.exists():
            continue
        if source in known and _same_label(known[source], tar):
            sources[source] = known[source]
        else:
            rows = rows or {key: row for row, key in enumerate(keys)}
            sources[source] = _index_label(tar, source=source, kind=layout.label_kind(name), rows=rows)
    taken_over = [name for name, s in sources.items() if name in known and s is known[name]]
    if previous is not None and len(taken_over) == len(sources) == len(known):
        return previous
    return ShardIndex(shard=shard, keys=keys, sources=sources)


def _unchanged(stamp: Stamp, path: Path) -> bool:
    try:
        return not stamp.difference(path.stat())
    except OSError:
        return False


def _same_label(source: Source, tar: Path) -> bool:
    return _unchanged(source.tar, tar) and (source.meta is None or _unchanged(source.meta, layout.label_meta(tar)))


def _stamp(path: Path) -> Stamp:
    try:
        stat = path.stat()
        return Stamp(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256_file(path))
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e


def _scan(tar: Path) -> tuple[Stamp, list[Member]]:
    # Hash first: it reads the file in one stream, and the headers then come from memory.
    stamp = _stamp(tar)
    members = scan_tar(tar)
    if not _unchanged(stamp, tar):
        raise DataError(f"{tar}: changed while it was indexed", "Build the index when nothing writes to the corpus.")
    return stamp, members


def _index_images(tar: Path) -> tuple[Keys, Source]:
    stamp, members = _scan(tar)
    rows = {key: row for row, key in enumerate(dict.fromkeys(m.key for m in members))}
    columns = _columns(tar, members, rows)
    keys = list(rows)
    if not keys:
        raise DataError(f"{tar}: holds no sample", "Delete it; a shard has at least one sample.")
    pictures_N = sum((columns[e][:, 0] >= 0).astype(int) for e in layout.IMAGE_EXTENSIONS if e in columns)
    wrong = np.flatnonzero(np.broadcast_to(pictures_N, len(keys)) != 1)
    if len(wrong):
        key = keys[wrong[0]]
        found = sorted(m.ext for m in members if m.key == key)
        raise DataError(
            f"{tar}: key {key!r} has the members {', '.join(found)} ({len(wrong)} such keys)",
            f"Each key needs exactly one of .{', .'.join(layout.IMAGE_EXTENSIONS)}.",
        )
    source = Source(name=layout.IMAGES, tar=stamp, meta=None, samples=len(keys), members=columns, range_N2=None)
    return Keys.of(keys), source


def _index_label(tar: Path, *, source: str, kind: str, rows: dict[str, int]) -> Source:
    meta = _stamp(layout.label_meta(tar)) if kind == layout.DEPTH else None
    stamp, members = _scan(tar)
    ext = _LABEL_EXTENSION[kind]
    last = -1
    for m in members:
        if m.ext != ext:
            raise DataError(f"{tar}: key {m.key!r} has a .{m.ext} member; a {kind} tar holds .{ext} members only")
        if m.key not in rows:
            raise DataError(
                f"{tar}: key {m.key!r} is not in the image tar", "Labels belong to the images they were made of."
            )
        if rows[m.key] < last:
            raise DataError(f"{tar}: key {m.key!r} is out of order", "Labels follow the order of the image tar.")
        last = rows[m.key]
    columns = _columns(tar, members, rows) or {ext: _empty(len(rows))}
    range_N2 = None
    if meta is not None:
        range_N2 = _read_ranges(layout.label_meta(tar), {m.key: rows[m.key] for m in members}, len(rows))
    return Source(name=source, tar=stamp, meta=meta, samples=len(members), members=columns, range_N2=range_N2)


def _empty(n: int) -> np.ndarray:
    return np.tile(np.array([-1, 0], dtype=np.int64), (n, 1))


def _columns(tar: Path, members: Iterable[Member], rows: dict[str, int]) -> dict[str, np.ndarray]:
    """Extension to offset and size per row.

    Raises:
        DataError: a member that occurs twice, or too many different extensions.
    """
    columns: dict[str, np.ndarray] = {}
    for m in members:
        if m.ext not in columns:
            if len(columns) == _MAX_COLUMNS:
                raise DataError(
                    f"{tar}: more than {_MAX_COLUMNS} different extensions, the last one .{m.ext} of key {m.key!r}",
                    "The key of a member ends at the first dot; file names with dots do not form samples.",
                )
            columns[m.ext] = _empty(len(rows))
        row = rows[m.key]
        if columns[m.ext][row, 0] >= 0:
            raise DataError(f"{tar}: key {m.key!r} has two .{m.ext} members", "Keys are unique in the corpus.")
        columns[m.ext][row] = m.offset, m.size
    return columns


def _read_ranges(path: Path, rows: dict[str, int], n: int) -> np.ndarray:
    """Ranges [n, 2] of the maps whose keys stand in `rows`; NaN for the others and for constant maps."""
    range_N2 = np.full((n, 2), np.nan)
    open_keys = dict(rows)
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            key, low, high, valid = entry["key"], entry["min"], entry["max"], entry["valid"]
            if key not in open_keys:
                raise DataError(f"{path}: key {key!r} occurs twice or has no map in {path.parent}")
            row = open_keys.pop(key)
            if valid:
                if not (math.isfinite(low) and math.isfinite(high) and low < high):
                    raise DataError(f"{path}: range of {key!r} is {low!r} to {high!r}, but it is marked valid")
                range_N2[row] = low, high
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: expected one JSON object with key, min, max, valid per line ({e!r})") from e
    if open_keys:
        raise DataError(f"{path}: no range for key {next(iter(open_keys))!r} ({len(open_keys)} such keys)")
    return range_N2
