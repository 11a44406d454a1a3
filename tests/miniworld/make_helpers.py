"""Small worlds of three sets: making, hashing, copying and damaging them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from mtv.miniworld.make import MadeSet, make_world
from mtv.miniworld.spec import WorldSpec

SPEC = WorldSpec(size=32)
SETS = ["pretrain", "imagenet", "kitti"]


def build(out: Path, *, sets: list[str] | None = None, spec: WorldSpec = SPEC, workers: int = 1) -> dict[str, MadeSet]:
    made = make_world(out, spec, scale="tiny", sets=sets or SETS, workers=workers)
    return {m.name: m for m in made}


def tree(out: Path) -> dict[str, str]:
    """Every file but the lock to the hash of its bytes."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name != "lock")
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Every file to its inode and time: both stay when nobody writes it."""
    return {
        p.relative_to(out).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()
    }


def copy_tree(source: Path, out: Path) -> Path:
    """A copy with the same time stamps."""
    subprocess.run(["cp", "-a", str(source), str(out)], check=True)
    return out


def damage(path: Path, harm: str) -> None:
    """Delete, flip a bit of, cut or empty a file."""
    data = path.read_bytes()
    path.unlink()
    if harm == "flip":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif harm in ("cut", "empty"):
        path.write_bytes(data[: len(data) // 2 if harm == "cut" else 0])
