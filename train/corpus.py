"""The training data of a run: the corpus below `--data`, and the label sets that the objectives need."""

from __future__ import annotations

from pathlib import Path

from mtv.errors import DataError, UsageError
from mtv.shards import DatasetInfo, ShardDataset, layout, read_dataset
from mtv.train.data.batch import Needs

PRETRAIN = "pretrain"
"""Where a miniature world keeps its pretraining shards."""


def corpus_root(data: Path) -> Path:
    """The folder with `dataset.json`: `data`, or `data/pretrain` of a miniature world.

    Raises:
        DataError: neither is an indexed corpus.
    """
    for root in (data, data / PRETRAIN):
        if layout.dataset_file(root).exists():
            return root
    if not data.is_dir():
        raise DataError(f"{data}: no such directory", "Name a folder of indexed shards, or a miniature world.")
    raise DataError(
        f"{data} is no indexed corpus: there is no dataset.json in it or in {PRETRAIN}/",
        f"Index its shards: mtv-train data index {data}",
    )


def open_corpus(data: Path, needs: Needs, labels: tuple[str, ...]) -> ShardDataset:
    """Open the corpus with one label set per kind that is needed.

    Args:
        data: `--data`.
        needs: of the active objectives.
        labels: `data.labels` of the recipe; a kind that it does not name must be there exactly once.

    Raises:
        DataError: no corpus, or a label set that is needed and missing.
        UsageError: label sets that do not exist, or several of a kind.
    """
    root = corpus_root(data)
    info = read_dataset(root)
    kinds = [(layout.DEPTH, needs.depth, "depth"), (layout.REGIONS, needs.regions, "ground")]
    return ShardDataset.open(root, labels=[_pick(root, info, k, labels, task) for k, need, task in kinds if need])


def _pick(root: Path, info: DatasetInfo, kind: str, asked: tuple[str, ...], task: str) -> str:
    named = [name for name in asked if layout.label_kind(name) == kind]
    found = named or [name for name in info.labels if layout.label_kind(name) == kind]
    if not found:
        there = ", ".join(info.labels) or "none"
        raise DataError(
            f"{root} has no label set {kind}-*, which objective {task} needs; its label sets: {there}",
            f"Label the corpus and index it again, or leave {task} out of --tasks.",
        )
    if len(found) > 1:
        raise UsageError(
            f"{root} has several {kind} label sets: {', '.join(found)}", f"Choose one: --set data.labels={found[0]}"
        )
    return found[0]
