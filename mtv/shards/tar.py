"""Plain uncompressed tars: written with equal bytes for equal content, read by header scan.

Members carry mode 0644, time 0 and no owner, so that a tar's hash depends on names, contents and their order alone.
`tarfile`, `webdataset` and `tar` read them. Reading takes any uncompressed tar (ustar, GNU, pax), checks that it is
whole, and extracts nothing.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mtv.errors import DataError

_TRUNCATED = "The archive is truncated or damaged; copy it again."


@dataclass(frozen=True, kw_only=True)
class Member:
    """One regular file inside a tar."""

    key: str
    """Path up to the first dot of the base name: members with equal keys form a sample."""
    ext: str
    """The rest, lower case, without the dot."""
    offset: int
    """First byte of the contents."""
    size: int
    """Bytes."""


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a member (the convention of webdataset); None for a name without either, such as `._x.jpg`.

    >>> split_name("./a/000003.seg.PNG")
    ('a/000003', 'seg.png')
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, ext = base.partition(".")
    return (folder + slash + stem, ext.lower()) if stem and dot and ext else None


def write_member(file: BinaryIO, name: str, data: bytes) -> None:
    """Append one member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
    file.write(data)
    file.write(b"\0" * (-len(data) % tarfile.BLOCKSIZE))


def write_end(file: BinaryIO) -> None:
    """Append the end-of-archive blocks, filled up to a whole record as `tar` does."""
    end = file.tell() + 2 * tarfile.BLOCKSIZE
    file.write(b"\0" * (2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))


def scan_tar(path: Path) -> list[Member]:
    """Regular members in archive order, from the headers alone; names that `split_name` refuses are left out.

    Raises:
        DataError: not an uncompressed tar, or it ends early; names the file.
    """
    members: list[Member] = []
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                named = split_name(info.name) if info.isreg() else None
                if named is not None:
                    members.append(Member(key=named[0], ext=named[1], offset=info.offset_data, size=info.size))
        with path.open("rb") as f:
            f.seek(end)
            mark = f.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as e:
        hint = _TRUNCATED if members or "end of data" in str(e) else "Use an uncompressed .tar; gunzip a .tar.gz."
        raise DataError(f"{path}: cannot be read as an uncompressed tar ({e})", hint) from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e
    # tarfile takes a cut between two members, and a damaged header, for the end: only the zero block proves the whole.
    if mark != b"\0" * tarfile.BLOCKSIZE:
        raise DataError(f"{path}: no end-of-archive block at byte {end}; members after it are lost", _TRUNCATED)
    return members
