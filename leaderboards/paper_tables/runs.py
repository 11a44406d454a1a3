"""Which run of the paper a measured study corresponds to.

A study stands beside the paper's numbers if its recipe is one of the paper's by name and size, and every checkpoint is
the end of a run of the paper's length. Everything else (miniature studies, shorter runs, checkpoints on the way) can be
shown beside a row of the paper for reference, but never as comparable with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mtv.errors import UsageError
from mtv.leaderboards.paper.cells import figure3
from mtv.leaderboards.study import Study
from mtv.training_record import TrainingRecord

SIZES = {"b16": "B/16", "l16": "L/16"}
"""Model size of a recipe to what the paper calls it."""
_SLACK = 1e-3
"""Share of the paper's samples by which a run may differ: whole batches never give them exactly."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One block of the paper's Table 3."""

    size: str
    """`B/16` or `L/16`."""
    data: str
    """`10M`, `50M` or `100M`."""

    def __str__(self) -> str:
        return f"{self.size} {self.data}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """The paper's block beside a study."""

    scale: Scale
    """Which."""
    reason: str
    """Why its numbers do not compare with the measured ones; empty where they do."""


def parse_scale(text: str, *, option: str = "--beside") -> Scale:
    """`B/16:10M`.

    Raises:
        UsageError: no block of the paper; lists them.
    """
    known = {f"{size}:{data}": Scale(size=size, data=data) for size in SIZES.values() for data in samples_seen()}
    if text not in known:
        raise UsageError(f"{option} {text}: no such block of the paper", f"Choose from {', '.join(known)}.")
    return known[text]


def samples_seen() -> dict[str, int]:
    """Data of the paper's runs to samples seen: distinct ones times epochs."""
    return {p.data: p.samples for p in figure3() if p.quantity == "point" and p.samples is not None}


def scale_of(training: TrainingRecord) -> Block | None:
    """The paper's run that a checkpoint repeats, or None if its recipe is none of the paper's."""
    named = re.fullmatch(r"mtv_(b16|l16)_(\d+m)", training.recipe)
    if named is None or named[1] != training.size or named[2].upper() not in samples_seen():
        return None
    scale = Scale(size=SIZES[named[1]], data=named[2].upper())
    wanted = samples_seen()[scale.data]
    reason = ""
    if not training.finished:
        reason = f"{training.samples:,} of {training.samples_total:,} samples"
    elif abs(training.samples_total - wanted) > _SLACK * wanted:
        reason = f"{training.samples_total:,} samples, the paper's run has {wanted:,}"
    return Block(scale=scale, reason=reason)


def block_of(study: Study, asked: Scale | None) -> Block | None:
    """The block to show beside a study: its own, or the one that was asked for.

    Args:
        study: a measured study.
        asked: shown for reference beside studies that repeat none of the paper's.
    """
    own = scale_of(next(iter(study.cells.values())).training)
    if own is not None or asked is None:
        return own
    return Block(scale=asked, reason=f"{study.title}: another model and other data")


def longest(found: Sequence[Study]) -> tuple[list[Study], int]:
    """The last measured point of every run, in table order, and how many earlier points are left out."""
    last: dict[tuple[str, str, int], Study] = {}
    for study in found:
        key = (study.study_hash, study.data_hash, study.samples_total)
        if key not in last or study.samples > last[key].samples:
            last[key] = study
    ordered = sorted(last.values(), key=lambda s: (s.size, s.samples_total, s.recipe, s.study_hash))
    return ordered, len(found) - len(ordered)


def study_title(study: Study) -> str:
    """Recipe, samples and, where there are several, training seeds."""
    seeds = f", seeds {', '.join(map(str, study.seeds))}" if len(study.seeds) > 1 else ""
    return f"{study.title}{seeds}"
