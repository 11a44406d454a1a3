"""Writers of one shard: a context manager with `add`, streaming to a temporary file that becomes the shard at the end.

    with ImageShardWriter(root, "00012") as images, DepthShardWriter(root, "00012", labels="depth-truth-v1") as depth:
        for key, jpeg, captions, disparity_HW in scenes:
            images.add(key, jpeg, captions=captions)
            depth.add(key, encode_disparity(disparity_HW))

The final name exists only when the shard is whole: an exception in the block, or a kill, leaves none (and an earlier
shard untouched). Only keys and depth ranges are held in memory. Equal content gives equal bytes (`tar.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PIL import Image

from mtv.atomic import atomic_write, atomic_write_bytes, atomic_write_json, cannot_write
from mtv.errors import DataError, UsageError
from mtv.hashing import canonical_json
from mtv.shards import layout
from mtv.shards.records import EncodedDepth, Region, regions_to_json
from mtv.shards.tar import split_name, write_end, write_member

if TYPE_CHECKING:
    from typing_extensions import Self

_EXIF_ORIENTATION = 0x0112


class _TarWriter:
    """One tar, from its temporary name to its final one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part")
        except OSError as e:
            raise cannot_write(self.path, e) from e
        self._part = Path(name)
        self._file = os.fdopen(handle, "wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        try:
            if kind is None:
                write_end(self._file)
                self._file.close()
                self._commit()
        except OSError as e:
            raise cannot_write(self.path, e) from e
        finally:
            # After a full disk, closing fails again on what is still buffered; the first error is the one to show.
            with contextlib.suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _commit(self) -> None:
        atomic_write(self.path, self._part.replace)

    def _add(self, key: str, members: Mapping[str, bytes]) -> None:
        if split_name(f"{key}.x") != (key, "x") or not key.isprintable() or key.startswith("/"):
            raise UsageError(
                f"{self.path}: {key!r} cannot be a key",
                "A key is a file name without a dot; the tar's members are the key, a dot and the extension.",
            )
        if key in self._keys:
            raise DataError(f"{self.path}: key {key!r} is added twice", "Keys are unique in the corpus.")
        self._keys.add(key)
        try:
            for ext, data in members.items():
                write_member(self._file, f"{key}.{ext}", data)
        except OSError as e:
            raise cannot_write(self.path, e) from e


class ImageShardWriter(_TarWriter):
    """Writes `images/SHARD.tar`."""

    def __init__(self, root: Path, shard: str) -> None:
        super().__init__(layout.image_tar(root, shard))

    def add(self, key: str, jpeg: bytes, *, captions: Sequence[str]) -> None:
        """Append a sample.

        Args:
            key: unique in the corpus.
            jpeg: a JPEG file with its orientation applied, so that labellers and trainer see the same pixels.
            captions: texts, the first one also goes to the `.txt` member; may be empty.

        Raises:
            UsageError: an impossible key.
            DataError: a key added twice, no JPEG, a pending EXIF rotation, or a blank caption; names the key.
            CacheError: the disk is full.
        """
        w, h = self._size(key, jpeg)
        if isinstance(captions, str) or any(not isinstance(c, str) or not c.strip() for c in captions):
            raise DataError(f"{self.path}: captions of {key!r} are {captions!r}; expected a list of texts, none blank")
        digest = hashlib.sha256(jpeg).hexdigest()
        record = canonical_json({"w": w, "h": h, "sha256": digest, "captions": list(captions)})
        text = captions[0] if captions else ""
        self._add(key, {"jpg": jpeg, "txt": text.encode("utf-8"), "json": record.encode("utf-8")})

    def _size(self, key: str, jpeg: bytes) -> tuple[int, int]:
        try:
            with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
                orientation, size = image.getexif().get(_EXIF_ORIENTATION, 1), image.size
        except (OSError, SyntaxError, ValueError) as e:
            raise DataError(f"{self.path}: image of {key!r} is no JPEG ({e})", "Encode it as JPEG first.") from e
        if orientation != 1:
            raise DataError(
                f"{self.path}: image of {key!r} has the EXIF orientation {orientation}",
                "Rotate the pixels first (PIL.ImageOps.exif_transpose), or boxes and depth would not fit.",
            )
        return size


class DepthShardWriter(_TarWriter):
    """Writes `labels/depth-NAME/SHARD.tar` and the ranges beside it."""

    def __init__(self, root: Path, shard: str, *, labels: str) -> None:
        _expect_kind(labels, layout.DEPTH)
        super().__init__(layout.label_tar(root, labels, shard))
        self._ranges: list[str] = []

    def add(self, key: str, depth: EncodedDepth) -> None:
        """Append the label of `key`, in the order of the images. Errors as in `ImageShardWriter.add`."""
        self._add(key, {"png": depth.png})
        row = {"key": key, "min": depth.min, "max": depth.max, "valid": depth.valid}
        self._ranges.append(canonical_json(row) + "\n")

    def _commit(self) -> None:
        # Without the old tar first, a kill between the two renames would pair its maps with the new ranges.
        self.path.unlink(missing_ok=True)
        atomic_write_bytes(layout.label_meta(self.path), "".join(self._ranges).encode("utf-8"))
        super()._commit()


class RegionShardWriter(_TarWriter):
    """Writes `labels/regions-NAME/SHARD.tar`."""

    def __init__(self, root: Path, shard: str, *, labels: str) -> None:
        _expect_kind(labels, layout.REGIONS)
        super().__init__(layout.label_tar(root, labels, shard))

    def add(self, key: str, regions: Sequence[Region]) -> None:
        """Append the regions of `key` (possibly none), in the order of the images. Errors as above."""
        self._add(key, {"json": canonical_json(regions_to_json(regions)).encode("utf-8")})


def write_manifest(root: Path, labels: str, manifest: Mapping[str, Any]) -> None:
    """Write the labeller's manifest of a label set: model, weights hash, thresholds, input size, git revision.

    Raises:
        UsageError: the name of the set is neither depth-NAME nor regions-NAME.
        CacheError: the file cannot be written.
    """
    layout.label_kind(labels)
    atomic_write_json(layout.manifest_file(root, labels), dict(manifest))


def _expect_kind(labels: str, kind: str) -> None:
    if layout.label_kind(labels) != kind:
        raise UsageError(f"label set {labels!r} does not hold {kind}; its name must start with {kind}-")
