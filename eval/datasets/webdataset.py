"""Index of uncompressed tar shards, made from the tar headers alone: nothing is extracted, members are read by offset.

Layout of `LAION-AI/CLIP_benchmark` (`clip_benchmark/webdataset_builder.py`): `<root>/test/{nshards.txt, 0.tar, 1.tar,
...}` with members `s0000000.webp` + `s0000000.cls` (a class index) or `.txt` (one caption per line, newlines inside a
caption written as backslash-n), and `classnames.txt` or `dataset_type.txt` beside `test/`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef
from mtv.eval.datasets.common import some

SPLIT_FOLDERS = ("test", "val", "validation")
IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")
_BLOCK = 512
_TRUNCATED = "The archive is truncated; copy it again."


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside a tar."""

    key: str
    """Path up to the first dot of the base name: members with equal keys form a sample."""
    ext: str
    """The rest, lower case, without the dot."""
    offset: int
    """First byte of the contents."""
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """All members that share a key."""

    key: str
    """The key."""
    files: dict[str, FileRef]
    """Extension to contents."""

    def image(self) -> FileRef:
        """The picture. Raises DataError unless there is exactly one."""
        found = [self.files[e] for e in IMAGE_EXTENSIONS if e in self.files]
        if len(found) != 1:
            where = next(iter(self.files.values())).name
            raise DataError(
                f"{where}: sample {self.key} has {len(found)} pictures (members: {some(sorted(self.files))})",
                f"Each sample needs exactly one of .{', .'.join(IMAGE_EXTENSIONS)}; export the shards again.",
            )
        return found[0]

    def text(self, ext: str) -> str:
        """Contents of the member `.ext` as UTF-8. Raises DataError when it is absent or not text."""
        if ext not in self.files:
            where = next(iter(self.files.values())).name
            raise DataError(
                f"{where}: sample {self.key} has no .{ext} member (members: {some(sorted(self.files))})",
                "Export the shards again with clip_benchmark_export_wds.",
            )
        ref = self.files[ext]
        try:
            return ref.read().decode("utf-8")
        except UnicodeDecodeError as e:
            raise DataError(f"{ref.name}: not UTF-8 text ({e.reason})", "Export the shards again.") from e


def index_tar(path: Path) -> list[Member]:
    """Regular members of an uncompressed tar in archive order, from the headers alone.

    Raises:
        DataError: not an uncompressed tar, or it ends early; names the file.
    """
    members: list[Member] = []
    end = 0
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
                named = _split_name(info.name)
                if info.isreg() and named is not None:
                    members.append(Member(key=named[0], ext=named[1], offset=info.offset_data, size=info.size))
    except tarfile.ReadError as e:
        hint = _TRUNCATED if members or "end of data" in str(e) else "Use an uncompressed .tar; gunzip a .tar.gz."
        raise DataError(f"{path}: cannot be read as an uncompressed tar ({e})", hint) from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e
    _check_end(path, end, size)
    return members


def _check_end(path: Path, end: int, size: int) -> None:
    """tarfile takes a cut between two members for the end: only the zero block that must follow proves completeness."""
    with path.open("rb") as f:
        f.seek(end)
        mark = f.read(_BLOCK)
    if mark != b"\0" * _BLOCK:
        raise DataError(
            f"{path}: no end-of-archive block at byte {end} of {size}; members after it are lost", _TRUNCATED
        )


def _split_name(name: str) -> tuple[str, str] | None:
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, dot, ext = base.partition(".")
    if not stem or not dot:
        return None
    return folder + slash + stem, ext.lower()


def shard_paths(folder: Path) -> list[Path]:
    """`0.tar, 1.tar, ...` (or any `*.tar`) of a split folder in numerical order, checked against `nshards.txt`.

    Raises:
        DataError: a shard that `nshards.txt` announces is absent; names it.
    """
    tars = {p.name: p for p in folder.glob("*.tar") if not p.name.startswith(".")}
    announced = folder / "nshards.txt"
    if announced.is_file():
        text = announced.read_text(encoding="utf-8").strip()
        if not text.isdigit():
            raise DataError(f"{announced}: expected the number of shards, found {text[:40]!r}", "Write the number.")
        names = [f"{i}.tar" for i in range(int(text))]
        absent = [n for n in names if n not in tars]
        if absent:
            raise DataError(
                f"{folder}: {announced.name} announces {len(names)} shards, but {some(absent)} are missing",
                "Copy the missing shards.",
            )
        return [tars[n] for n in names]
    return [tars[n] for n in sorted(tars, key=lambda n: (len(n), n))]


def split_folder(root: Path) -> Path | None:
    """The folder with the test shards, or None."""
    for name in SPLIT_FOLDERS:
        if (root / name / "nshards.txt").is_file() or any((root / name).glob("*.tar")):
            return root / name
    return None


def read_samples(shards: Sequence[Path], data: Path) -> list[Sample]:
    """All samples of the shards, sorted by key.

    Args:
        shards: tar files.
        data: data root; member names are given relative to it.

    Raises:
        DataError: broken archive, or a member that occurs twice.
    """
    samples: dict[str, Sample] = {}
    for shard in shards:
        name = shard.relative_to(data).as_posix()
        for m in index_tar(shard):
            files = samples.setdefault(m.key, Sample(key=m.key, files={})).files
            member = f"{name}/{m.key}.{m.ext}"
            if m.ext in files:
                raise DataError(
                    f"{member} occurs twice; first as {files[m.ext].name}", "Keys must be unique over all shards."
                )
            files[m.ext] = FileRef(path=shard, name=member, offset=m.offset, size=m.size)
    return [samples[key] for key in sorted(samples)]
