"""What a task is: open the data, say which features it needs, turn features into a per-sample table and recipes.

A task writes no files and renders no text; the runner does. Everything a task reads of a model goes through the feature
provider, so that one forward pass per unique picture serves all tasks.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mtv.errors import UsageError, unknown
from mtv.eval.datasets.base import Dataset, FileRef
from mtv.eval.features.request import FeatureRequest
from mtv.eval.protocol import Protocol
from mtv.recipes import Recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mtv.encoders.base import Encoder
    from mtv.eval.features.api import FeatureProvider, FeatureSet

D = TypeVar("D", bound=Dataset)
P = TypeVar("P", bound=Protocol)

TASKS: dict[str, str] = {
    "imagenet": "mtv.eval.tasks.classification:ImageNetTask",
    "knn": "mtv.eval.tasks.knn:KnnTask",
    "coco": "mtv.eval.tasks.retrieval:RetrievalTask",
    "flickr30k": "mtv.eval.tasks.retrieval:RetrievalTask",
    "flickr8k": "mtv.eval.tasks.retrieval:RetrievalTask",
    "navi": "mtv.eval.tasks.navi:NaviTask",
    "spair": "mtv.eval.tasks.semantic:SpairTask",
    "sevenscenes": "mtv.eval.tasks.sevenscenes:SevenScenesTask",
    "ade20k": "mtv.eval.tasks.segmentation:SegmentationTask",
    "camvid": "mtv.eval.tasks.segmentation:SegmentationTask",
    "nyu40": "mtv.eval.tasks.segmentation:SegmentationTask",
    "nyuv2": "mtv.eval.tasks.nyuv2:NyuTask",
    "rel_nyu": "mtv.eval.tasks.rel_depth:RelDepthTask",
    "rel_kitti": "mtv.eval.tasks.rel_depth:RelDepthTask",
}
"""Task name to `module:class`, imported only when used."""

Tick = Callable[[str, int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a task hands to the runner."""

    table: dict[str, np.ndarray]
    """Per-sample outcomes: `sample_id`, `cluster_id`, and what the recipes read. All columns have one length."""
    recipes: dict[str, Recipe]
    """Metric name without the task prefix to its recipe; one of them is the headline."""
    ties: dict[str, dict[str, float]] = field(default_factory=dict)
    """Headline name to `n_tied, lo, hi`."""
    details: dict[str, Any] = field(default_factory=dict)
    """Bookkeeping: hashes of pair lists, resolved tap, counts (JSON values)."""
    diagnosis: list[str] = field(default_factory=list)
    """Findings, one sentence each."""
    pictures: Callable[[], Iterator[tuple[str, Image.Image]]] | None = None
    """Best and worst samples as pictures, made lazily."""


@dataclass(frozen=True, kw_only=True)
class TaskRun(Generic[D]):
    """What `Task.score` may use."""

    encoder: Encoder
    """The loaded model."""
    dataset: D
    """What `Task.open` returned."""
    requests: list[FeatureRequest]
    """What `Task.requests` returned."""
    sets: list[FeatureSet]
    """Their features, one set per request."""
    features: FeatureProvider
    """For text embeddings and classifiers, which are cached like pictures."""
    tick: Tick
    """Progress of long scoring: stage, done, total, detail."""
    work: Path | None = None
    """Directory of its own for state that lets interrupted head training go on: keyed by model, protocol and bytes of
    the data, so whatever lies there belongs to this very number. None without a cache. Removed with the result's
    arrival."""


class Task(abc.ABC, Generic[P, D]):
    """One benchmark under one protocol."""

    needs_text: ClassVar[bool] = False
    """Whether the encoder must have a text tower."""
    needs_tokens: ClassVar[bool] = False
    """Whether the encoder must give dense tokens."""

    def __init__(self, protocol: P) -> None:
        self.protocol = protocol

    @property
    def name(self) -> str:
        """Task name, also the prefix of its metrics."""
        return self.protocol.task

    @abc.abstractmethod
    def open(self, data: Path) -> D:
        """Open and check the data set, and apply `protocol.limit`.

        Raises:
            DataError: missing or wrong; the message says how to repair it.
        """

    @abc.abstractmethod
    def requests(self, encoder: Encoder, dataset: D) -> list[FeatureRequest]:
        """The feature passes the task needs."""

    @abc.abstractmethod
    def score(self, run: TaskRun[D]) -> Scored:
        """Features to outcomes."""

    def files(self, dataset: D) -> dict[str, tuple[FileRef, ...]]:
        """Every file whose bytes change the number; annotations are in the fingerprint already."""
        out: dict[str, tuple[FileRef, ...]] = {k: (v,) for k, v in dataset.images.items()}
        out.update({f"extra:{k}": (v,) for k, v in dataset.extra_files.items()})
        return out

    def counts(self, dataset: D) -> dict[str, int]:
        """Numbers of what was measured, for the record."""
        return {"images": len(dataset.images)}

    def applicable(self, encoder: Encoder) -> str:
        """Empty when the task suits the encoder, else the reason why not."""
        if self.needs_text and not encoder.has_text:
            return f"{encoder.info.spec} has no text tower"
        if self.needs_tokens and encoder.depth == 0:
            return f"{encoder.info.spec} gives no dense tokens"
        return ""


def make_task(protocol: Protocol) -> Task[Any, Any]:
    """The task that runs `protocol`.

    Raises:
        UsageError: no such task.
    """
    if protocol.task not in TASKS:
        raise unknown("task", protocol.task, TASKS)
    module, _, attribute = TASKS[protocol.task].partition(":")
    task = getattr(importlib.import_module(module), attribute)(protocol)
    if not isinstance(task, Task):
        raise UsageError(f"{TASKS[protocol.task]} is no Task")
    return task


def stable_subset(ids: list[str], strata: list[str], n: int) -> list[int]:
    """Positions of `n` samples, spread evenly over the strata, chosen by a hash of the id: the same whatever the order.

    Positions come back sorted, so canonical order is kept.
    """
    from mtv.hashing import sha256_text

    by_stratum: dict[str, list[tuple[str, int]]] = {}
    for position, (sample, stratum) in enumerate(zip(ids, strata, strict=True)):
        by_stratum.setdefault(stratum, []).append((sha256_text(sample), position))
    rounds = [
        (turn, sha256_text(stratum), position)
        for stratum, members in by_stratum.items()
        for turn, (_, position) in enumerate(sorted(members))
    ]
    return sorted(position for _, _, position in sorted(rounds)[:n])
