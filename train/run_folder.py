"""The folder of a run: `recipe.json`, step folders that appear whole or not at all, and `latest`. No torch here.

A step folder is filled under a temporary name, every file is flushed to the disk, then the folder is renamed; `latest`
follows, and only then old steps go. Whatever is killed when, `latest` names a whole checkpoint; what a killed process
left behind has a temporary name, which nothing reads and the next save removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mtv.atomic import atomic_write_bytes, atomic_write_json, cannot_write
from mtv.errors import CheckpointError, UsageError
from mtv.hashing import sha256_file, sha256_json
from mtv.train.recipe import Recipe

LATEST = "latest"
RECIPE = "recipe.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
FORMAT = 1
"""Of `state.json` and of the files it names; a checkpoint of another format is refused."""
_STEP = re.compile(r"step_(\d{7,})")
_LEFTOVER = re.compile(r"\.step_\d{7,}\.(new|old)|\.(latest|recipe\.json)\..*\.tmp")
_OLDER = "Choose an older step of the run, for example: mtv-train resume RUN/step_0000123."


def step_folders(run: Path) -> dict[int, Path]:
    """Finished steps by number, ascending; empty when there is no such folder."""
    if not run.is_dir():
        return {}
    found = ((_STEP.fullmatch(p.name), p) for p in run.iterdir() if p.is_dir())
    return dict(sorted((int(match[1]), p) for match, p in found if match))


def newest_checkpoint(run: Path) -> Path | None:
    """The step that `latest` names; without that file the last finished step; None before the first checkpoint.

    Raises:
        CheckpointError: `latest` names a step that is not there.
    """
    steps = step_folders(run)
    try:
        name = (run / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return steps[max(steps)] if steps else None
    except (OSError, UnicodeDecodeError) as e:
        raise CheckpointError(f"{run / LATEST} cannot be read: {e}", _OLDER) from e
    if run / name not in steps.values():
        listing = ", ".join(p.name for p in list(steps.values())[-8:]) or "none"
        raise CheckpointError(f"{run / LATEST} names {name!r}, which is not there; finished steps: {listing}", _OLDER)
    return run / name


def find_checkpoint(run_or_step: Path) -> Path:
    """A step folder itself, or the newest of a run.

    Raises:
        CheckpointError: neither, or a run without a finished checkpoint.
    """
    if (run_or_step / STATE).is_file():
        return run_or_step
    folder = newest_checkpoint(run_or_step)
    if folder is None:
        raise CheckpointError(
            f"{run_or_step} holds no finished checkpoint",
            "Give the --out directory of an mtv-train run, or one of its step folders.",
        )
    return folder


def read_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a step folder.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    file = folder / STATE
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise CheckpointError(f"{folder} is no finished checkpoint: it has no {STATE}", _OLDER) from e
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{file} is damaged: {e}", _OLDER) from e
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        written = value.get("mtv", "of another trainer") if isinstance(value, dict) else "of another trainer"
        raise CheckpointError(
            f"{file} has format {found!r}, this mtv reads format {FORMAT}", f"Use the version that wrote it: {written}."
        )
    if value.pop("checksum", None) != sha256_json(value):
        raise CheckpointError(f"{file} is damaged: it was changed after it was written", _OLDER)
    return value


def verify(folder: Path, state: dict[str, Any]) -> None:
    """Compare every file of a step folder with the hash that `read_state` gives for it.

    Raises:
        CheckpointError: names the first file that is missing or was changed.
    """
    for name, expected in state["files"].items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing", f"Copy the checkpoint again, or: {_OLDER}")
        if sha256_file(file) != expected:
            raise CheckpointError(
                f"{file} is damaged or was changed: its SHA-256 is not that of {STATE}",
                f"Copy the checkpoint again, or: {_OLDER}",
            )


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write the resolved recipe into the run."""
    atomic_write_json(run / RECIPE, recipe.to_dict())


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        UsageError: no run there.
        CheckpointError: a damaged file, or fields of another version.
    """
    file = run / RECIPE
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UsageError(f"{run} is no run: it has no {RECIPE}", "Give the --out directory of an mtv-train run.") from e
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{file} is damaged: {e}", f"Each step folder has the same recipe in its {STATE}.") from e
    return Recipe.from_dict(value, where=str(file))


@contextlib.contextmanager
def new_step(run: Path, step: int, *, keep: int) -> Iterator[Path]:
    """A temporary folder to fill; on leaving it becomes the newest checkpoint, on an error it is removed.

    Args:
        run: folder of the run.
        step: number of the step; a folder of the same step is replaced.
        keep: checkpoints that stay, this one included. Later steps (of a run that went back) are not counted.

    Raises:
        CacheError: the disk is full or not writable; earlier checkpoints stay as they are.
    """
    folder = run / f"step_{step:07d}"
    new, old = run / f".{folder.name}.new", run / f".{folder.name}.old"
    try:
        run.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(run)
        new.mkdir()
        yield new
        flush(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _fsync(run)
        atomic_write_bytes(run / LATEST, f"{folder.name}\n".encode())
        _prune(run, step, keep)
    except (OSError, SafetensorError) as e:
        raise cannot_write(folder, e if isinstance(e, OSError) else OSError(str(e))) from e
    finally:
        shutil.rmtree(new, ignore_errors=True)


def seal(folder: Path, state: dict[str, Any]) -> None:
    """Write `state.json` with the hashes of all files that are there and of itself."""
    files = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    sealed = {"format": FORMAT, **state, "files": files}
    atomic_write_json(folder / STATE, {**sealed, "checksum": sha256_json(sealed)})


def _prune(run: Path, step: int, keep: int) -> None:
    """Remove all but the newest. Renamed first: half a folder must not look like a checkpoint."""
    for folder in [p for n, p in step_folders(run).items() if n <= step][:-keep]:
        folder.rename(run / f".{folder.name}.old")
    _remove_leftovers(run)


def _remove_leftovers(run: Path) -> None:
    for path in run.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def flush(folder: Path) -> None:
    """Have everything in a folder, and its own list of names, on the disk."""
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
