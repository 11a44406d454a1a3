"""Suites: named lists of tasks with the fields and the preset they bring. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mtv.errors import unknown
from mtv.eval.protocols import PLANNED, PROTOCOLS, not_available

SUITES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"imagenet": {}, "coco": {}, "navi": {}, "spair": {}, "nyuv2": {}, "ade20k": {}, "vqa": {}},
    "mini": {
        "imagenet": {},
        "knn": {},
        "coco": {},
        "flickr8k": {},
        "navi": {},
        "spair": {},
        "ade20k": {},
        "nyuv2": {},
        "rel_nyu": {},
        "rel_kitti": {},
        "vqa": {},
    },
    "depth": {"rel_nyu": {}, "rel_kitti": {}},
    "real": {
        "imagenet": {"templates": "one"},
        "knn": {"data": "spair"},
        "coco": {},
        "flickr8k": {},
        "spair": {},
        "sevenscenes": {},
        "camvid": {"base": 384},
        "nyu40": {"base": 384},
        "nyuv2": {},
    },
}
"""Suite to its tasks, in order, with the fields it sets. `real` is made for the small real data sets."""

SUITE_PRESETS: dict[str, str] = {"mini": "mini"}
"""Suite to the preset of its tasks where --protocol names none; `paper` for the others."""

TASK_PRESETS: dict[str, dict[str, str]] = {"real": {"camvid": "mini", "nyu40": "mini", "nyuv2": "fast"}}
"""Suite to tasks that have a preset of their own in it: heads that are trained in minutes on small data."""


@dataclass(frozen=True, kw_only=True)
class TaskChoice:
    """One task of a run."""

    task: str
    """Task name."""
    overrides: dict[str, Any]
    """Fields set by the suite."""
    preset: str = "paper"
    """Preset it runs under unless the user names one: that of its suite."""
    suite: str = ""
    """Suite that brought it, empty for a task asked for by name. The record of a result keeps it."""

    @property
    def from_suite(self) -> bool:
        """Whether a suite brought it: then it is skipped for encoders it does not suit, instead of failing."""
        return bool(self.suite)


def expand_tasks(names: list[str]) -> list[TaskChoice]:
    """Tasks in the order given, suites expanded, each task once; a task asked for by name wins over its suite.

    What a suite names but cannot run yet is left out; `unavailable` tells which tasks these are.

    Raises:
        UsageError: neither a task nor a suite, or a task that is only planned.
    """
    out: dict[str, TaskChoice] = {}
    for name in names:
        if name in PROTOCOLS:
            out[name] = TaskChoice(task=name, overrides={})
        elif name in SUITES:
            preset = SUITE_PRESETS.get(name, "paper")
            for task, fields in SUITES[name].items():
                if task in PLANNED:
                    continue
                own = TASK_PRESETS.get(name, {}).get(task, preset)
                out.setdefault(task, TaskChoice(task=task, overrides=fields, preset=own, suite=name))
        elif name in PLANNED:
            raise not_available(name)
        else:
            raise unknown("task or suite", name, [*PROTOCOLS, *SUITES])
    return list(out.values())


def unavailable(names: Iterable[str]) -> dict[str, str]:
    """Tasks of the suites among `names` that cannot run yet, each with the reason that logs and tables give.

    Args:
        names: tasks and suites; other names are passed over.
    """
    return {task: "task not available" for name in names for task in SUITES.get(name, ()) if task in PLANNED}
