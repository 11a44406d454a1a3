"""Finished runs for others: as a `SiglipModel` directory, for open_clip, and as a summary."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mtv.atomic import atomic_write, cannot_write
from mtv.errors import CheckpointError, UsageError
from mtv.train.recipe import Recipe
from mtv.train.run_folder import (
    OPTIMIZER,
    STATE,
    find_checkpoint,
    flush,
    newest_checkpoint,
    read_recipe,
    read_state,
    step_folders,
    verify,
)

LOG = "log.jsonl"
_TAIL = 1 << 16
"""Bytes at the end of the log in which its last whole line is looked for."""


def export_run(
    run_or_step: Path, out: Path, to: Literal["hf", "open_clip"], *, towers_only: bool = False, half: bool = False
) -> None:
    """Write an export of a run's newest step, or of a step, after checking the step's hashes.

    Args:
        run_or_step: folder of a run or of one of its steps.
        out: made; must not exist, or be empty.
        to: `hf`: the `SiglipModel` part of the step as it is, with heads and teacher; `open_clip`: the towers.
        towers_only: for `hf`, leave out heads and teacher.
        half: for `hf`, write the towers in float16.

    Raises:
        UsageError: `out` holds files; a model that open_clip cannot build; half heads.
        CheckpointError: no checkpoint there, or a damaged one.
        CacheError: `out` cannot be written.
    """
    if ((half or towers_only) and to != "hf") or (half and not towers_only):
        raise UsageError("half needs towers_only, and both need --to hf", "Heads and teacher stay in float32.")
    from mtv.model.heads_file import FILE as HEADS
    from mtv.model.hf_export import WEIGHTS

    folder = find_checkpoint(run_or_step)
    state = read_state(folder)
    verify(folder, state)
    with _appearing(out) as temporary:
        if to == "hf":
            left_out = {OPTIMIZER} | ({HEADS} if towers_only else set())
            for name in sorted(set(state["files"]) - left_out):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(folder / name, temporary / name)
            if half:
                _halve(temporary / WEIGHTS)
        else:
            recipe = Recipe.from_dict(state["recipe"], where=str(folder / STATE))
            _open_clip(folder, recipe, temporary)


def inspect_run(run: Path) -> dict[str, Any]:
    """What a run is and how far it came; plain values, ready for JSON. Reads every byte of its checkpoints.

    Returns:
        `run`, `name`, `recipe`, `recipe_hash`; `step` and `steps` (of the whole run), `samples` and `samples_total`;
        `latest`; `parameters` by part (None before the first checkpoint); `log`: the last line of `log.jsonl` or None;
        `checkpoints`: for each `name`, `step`, `samples`, `bytes`, `sound`, `problem`.

    Raises:
        UsageError: no run there.
        CheckpointError: a damaged recipe.
    """
    recipe = read_recipe(run)
    checkpoints, states = [], []
    for number, folder in step_folders(run).items():
        entry, state = _inspected(number, folder)
        checkpoints.append(entry)
        states += [state] if state else []
    newest = states[-1] if states else {}
    return {
        "run": str(run),
        "name": recipe.name,
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "step": newest.get("step", 0),
        "steps": recipe.steps,
        "samples": newest.get("samples_seen", 0),
        "samples_total": recipe.samples,
        "latest": _latest(run),
        "parameters": newest.get("parameters"),
        "log": last_line(run / LOG),
        "checkpoints": checkpoints,
    }


def last_line(log: Path) -> dict[str, Any] | None:
    """The last whole line of a JSONL file, None without any; a line that a killed process cut short is passed over."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                return value
    return None


def _inspected(number: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    entry: dict[str, Any] = {"name": folder.name, "step": number, "samples": None, "bytes": size}
    state, problem = None, None
    try:
        state = read_state(folder)
        entry["samples"] = state["samples_seen"]
        verify(folder, state)
    except CheckpointError as e:
        problem = e.message
    return {**entry, "sound": problem is None, "problem": problem}, state


def _latest(run: Path) -> str | None:
    try:
        folder = newest_checkpoint(run)
    except CheckpointError as e:
        return f"unknown: {e.message}"
    return folder.name if folder else None


def _open_clip(folder: Path, recipe: Recipe, out: Path) -> None:
    if not recipe.objectives & {"vl", "ground"}:
        raise UsageError(f"{folder}: {', '.join(recipe.tasks)} trains no text tower, which open_clip needs", "Use hf.")
    from mtv.model.hf_import import load_export
    from mtv.model.open_clip_export import export_open_clip, open_clip_config
    from mtv.model.tokenizer import load_tokenizer

    open_clip_config(recipe.model)  # Refuses a size that open_clip cannot build before anything is read.
    tokenizer = load_tokenizer(str(folder), positions=recipe.model.text.positions)
    export_open_clip(load_export(folder), out, tokenizer=tokenizer)


def _halve(weights: Path) -> None:
    """Rewrite a safetensors file in float16.

    Raises:
        CheckpointError: a weight beyond float16's range; names the tensor.
    """
    from safetensors.torch import save_file

    from mtv.encoders.checkpoint import check_finite, read_state_dict

    state = {name: t.half() if t.is_floating_point() else t for name, t in read_state_dict(weights).items()}
    check_finite(state, f"{weights.name} in float16")
    # Not in place: safetensors gives a new file to its owner alone.
    atomic_write(weights, lambda p: save_file(state, p, metadata={"format": "pt"}))


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` on leaving, or goes on an error."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists already", "Name another directory, or remove it first.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as e:
        raise cannot_write(out, e) from e
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o755)
        temporary.replace(out)
    except OSError as e:
        raise cannot_write(out, e) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
