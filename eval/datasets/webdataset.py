"""Index of uncompressed tar shards, made from the tar headers alone: nothing is extracted, members are read by offset.

Layout of `LAION-AI/CLIP_benchmark` (`clip_benchmark/webdataset_builder.py`): `<root>/test/{nshards.txt, 0.tar, 1.tar,
...}` with members `s0000000.webp` + `s0000000.cls` (a class index) or `.txt` (one caption per line, newlines inside a
caption written as backslash-n), and `classnames.txt` or `dataset_type.txt` beside `test/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef
from mtv.eval.datasets.common import some
from mtv.shards.tar import scan_tar

SPLIT_FOLDERS = ("test", "val", "validation")
IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")


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
        for m in scan_tar(shard):
            files = samples.setdefault(m.key, Sample(key=m.key, files={})).files
            member = f"{name}/{m.key}.{m.ext}"
            if m.ext in files:
                raise DataError(
                    f"{member} occurs twice; first as {files[m.ext].name}", "Keys must be unique over all shards."
                )
            files[m.ext] = FileRef(path=shard, name=member, offset=m.offset, size=m.size)
    return [samples[key] for key in sorted(samples)]
