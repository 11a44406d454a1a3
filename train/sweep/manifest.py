"""`sweep.json`: the plan of a folder. The first sweep writes it; later ones may add to it, not contradict it.

What is finished is not in it: that is read from the runs and results themselves (`state`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtv import __version__
from mtv.atomic import atomic_write_json, cannot_write
from mtv.errors import CheckpointError, UsageError
from mtv.model.config import OBJECTIVES
from mtv.shards import read_dataset
from mtv.shards.dataset import content_hash
from mtv.train.corpus import corpus_root
from mtv.train.recipe import Recipe, differences
from mtv.train.sweep.plan import Plan

FILE = "sweep.json"
FORMAT = 1
_SHOWN = 8


def claim(out: Path, plan: Plan, *, command: str) -> None:
    """Write the plan into a folder, or add to the one that is there.

    More recipes, seeds and sets of objectives may join; asking for fewer leaves the plan as it is.

    Args:
        out: folder of the sweep, made when it does not exist.
        plan: what is asked for.
        command: that asked for it.

    Raises:
        UsageError: the folder has another plan; names the fields that differ.
        CheckpointError: its plan cannot be read.
        DataError: no corpus.
        CacheError: the folder cannot be written.
    """
    with _locked(out):
        saved = _read(out)
        asked = _plain(plan)
        if saved is not None:
            wrong = _contradictions(saved, asked, where=str(out / FILE))
            if wrong:
                more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
                raise UsageError(
                    f"{out} holds a sweep of another plan: {'; '.join(wrong[:_SHOWN])}{more}",
                    "Choose another --out. Seeds, sets of objectives and recipes can be added to a plan; a place that "
                    f"only moved can be corrected in {FILE}.",
                )
            merged = _merged(saved, asked)
            if merged == {k: saved.get(k) for k in merged}:
                return
            asked = merged
        atomic_write_json(out / FILE, {"format": FORMAT, **asked, "command": command, "versions": _versions()})


def _plain(plan: Plan) -> dict[str, Any]:
    """The plan as JSON has it. The corpus is known by its pictures: it may move, and get more label sets."""
    return {
        "recipes": {r.name: r.to_dict() for r in plan.recipes},
        "settings": list(plan.settings),
        "tasks": [list(subset) for subset in plan.subsets],
        "seeds": list(plan.seeds),
        "data": str(plan.data.resolve()),
        "data_images": content_hash(read_dataset(corpus_root(plan.data)).shards, ("images",)),
        "eval_data": str(plan.eval_data.resolve()),
        "suite": list(plan.suite),
    }


def _contradictions(saved: Mapping[str, Any], asked: Mapping[str, Any], *, where: str) -> list[str]:
    """Fields that differ, as `field: saved -> asked`."""
    found = []
    if saved["data_images"] != asked["data_images"]:
        found.append(f"data: {saved['data']} -> {asked['data']}, other pictures")
    found += [f"{k}: {saved[k]!r} -> {asked[k]!r}" for k in ("eval_data", "suite") if saved[k] != asked[k]]
    for name in saved["recipes"].keys() & asked["recipes"].keys():
        a, b = (Recipe.from_dict(side["recipes"][name], where=where) for side in (saved, asked))
        found += [f"{name} {field}" for field in differences(a, b)]
    return found


def _merged(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The asked plan, and what the saved one has beside it."""
    subsets = {tuple(s) for s in [*saved["tasks"], *asked["tasks"]]}
    ordered = sorted(subsets, key=lambda s: (len(s), [OBJECTIVES.index(o) for o in s]))
    return {
        **asked,
        "recipes": {**saved["recipes"], **asked["recipes"]},
        "tasks": [list(s) for s in ordered],
        "seeds": sorted({*saved["seeds"], *asked["seeds"]}),
    }


def _read(out: Path) -> dict[str, Any] | None:
    path = out / FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read: {e}", "Remove it: finished runs and results stay.") from e
    keys = {"recipes", "settings", "tasks", "seeds", "data", "data_images", "eval_data", "suite"}
    if not isinstance(value, dict) or value.get("format") != FORMAT or not keys <= value.keys():
        raise CheckpointError(f"{path} is no plan of this version", "Choose another --out, or remove the file.")
    return value


def _versions() -> dict[str, str]:
    """What made the plan; without importing torch."""
    found = {"mtv": __version__, "python": platform.python_version()}
    with contextlib.suppress(PackageNotFoundError):
        found["torch"] = version("torch")
    return found


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One at a time: the jobs of an array start together."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / ".sweep.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise cannot_write(out / FILE, e) from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
