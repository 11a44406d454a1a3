"""Who may work in the folder of a run: the same recipe, and one job at a time.

Beside what `run_folder` knows there are `run.json`, which says where the data are, and `run.lock` with pid and host of
rank 0. The kernel holds the lock, so that a killed run leaves nothing to clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mtv.atomic import atomic_write_json, cannot_write
from mtv.errors import CacheError, CheckpointError
from mtv.train.recipe import Recipe, differences
from mtv.train.run_folder import RECIPE, read_recipe, write_recipe

ORIGIN, LOCK = "run.json", "run.lock"


def read_origin(run: Path) -> Path:
    """The data that a run was started with.

    Raises:
        CheckpointError: the folder does not say.
    """
    path = run / ORIGIN
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path} does not say where the data are ({e})", "Name them: --data DIR") from e


def check_recipe(run: Path, recipe: Recipe) -> None:
    """Refuse a folder that holds a run of another recipe; one without a run is fine.

    Raises:
        CheckpointError: names the fields that differ.
    """
    if not (run / RECIPE).exists():
        return
    wrong = differences(read_recipe(run), recipe)
    if wrong:
        raise CheckpointError(
            f"{run} holds a run of another recipe: {'; '.join(wrong[:8])}{' ...' if len(wrong) > 8 else ''}",
            "Choose another --out for the new recipe, or go on with the old one: mtv-train resume RUN.",
        )


def describe(run: Path, recipe: Recipe, data: Path) -> None:
    """Write what the folder belongs to.

    Raises:
        CacheError: the folder cannot be written.
    """
    write_recipe(run, recipe)
    atomic_write_json(run / ORIGIN, {"data": str(data.resolve())})


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep others out of a run while it is in progress.

    A record lock: forked data workers do not inherit it, so it ends with the process that took it, even if that is
    killed and its workers live a little longer.

    Raises:
        CacheError: in progress elsewhere, or a folder that cannot be written.
    """
    path = run / LOCK
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise cannot_write(path, e) from e
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise CacheError(
                f"{run} is in progress: {os.pread(handle, 256, 0).decode(errors='replace') or 'by another process'}",
                "Wait until it is done, or stop that process; choose another --out for another run.",
            ) from e
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(run: Path) -> str | None:
    """Who works on a run right now, `pid P on HOST`; None if nobody does. Not for the process that holds the lock."""
    try:
        handle = os.open(run / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        return os.pread(handle, 256, 0).decode(errors="replace")
    finally:
        os.close(handle)
