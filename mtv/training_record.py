"""What a checkpoint of the trainer says about its training: which objectives, which seed, how many samples.

It lies as `mtv_training.json` in every checkpoint and export, beside the resolved recipe. An encoder read from such a
folder carries it, and so does every result about that encoder: tables of objectives, synergy and scaling curves group
results by it. It decides no number, so it is part of no fingerprint. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtv.errors import CheckpointError

FILE = "mtv_training.json"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Where a checkpoint comes from."""

    recipe: str
    """Name of the recipe."""
    recipe_hash: str
    """Of everything in the recipe that decides what is learnt, objectives and seed among it."""
    study_hash: str
    """The same without objectives and seed: runs of one study share it and differ in these two only."""
    size: str
    """Name of the model size, such as `b16`."""
    objectives: tuple[str, ...]
    """Trained ones, in the order vl, ssl, ground, depth."""
    seed: int
    """Of initial weights, order and every draw."""
    samples: int
    """Samples seen up to this checkpoint."""
    samples_total: int
    """Samples of the whole run; the schedules were made for it."""
    data_hash: str
    """Of the training pictures; label sets do not count, since which are read depends on the objectives."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))

    @property
    def finished(self) -> bool:
        """Whether this is the end of the run."""
        return self.samples == self.samples_total

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "objectives": list(self.objectives)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, where: str) -> TrainingRecord:
        """The inverse of `to_dict`.

        Raises:
            CheckpointError: missing or unknown fields; names `where`.
        """
        try:
            return cls(**value)
        except TypeError as e:
            raise CheckpointError(f"{where}: not a training record of this version ({e})") from e


def read_training(folder: Path) -> TrainingRecord | None:
    """The record in the folder of a checkpoint or export; None where it has none.

    Raises:
        CheckpointError: a file that cannot be read as one; names it.
    """
    file = folder / FILE
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{file} cannot be read: {e}") from e
    if not isinstance(value, dict) or not isinstance(value.get("training"), dict):
        return None
    return TrainingRecord.from_dict(value["training"], where=str(file))
