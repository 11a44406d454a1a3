"""TensorBoard and wandb beside `log.jsonl`; both optional, and nothing leaves the machine unless the user asks."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mtv.errors import UsageError
from mtv.train.recipe import Recipe


class Tracker(Protocol):
    """Somewhere to send numbers to."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one line."""

    def close(self) -> None:
        """Flush and end."""


def open_trackers(run: Path, recipe: Recipe, *, step: int) -> list[Tracker]:
    """The trackers of `log.trackers`.

    Args:
        run: folder of the run; they write below it.
        recipe: resolved.
        step: updates done; what they hold from later steps is superseded.

    Raises:
        UsageError: one that is not installed.
    """
    makers: dict[str, Callable[[Path, Recipe, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb}
    return [makers[name](run, recipe, step) for name in recipe.log.trackers]


class TensorBoard:
    """Event files in `RUN/tensorboard`."""

    def __init__(self, run: Path, recipe: Recipe, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise _missing("tensorboard") from e
        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and end."""
        self._writer.close()


class Wandb:
    """A wandb run named after the folder, written to `RUN/wandb`; offline unless WANDB_MODE says otherwise."""

    def __init__(self, run: Path, recipe: Recipe, step: int) -> None:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError as e:
            raise _missing("wandb") from e
        self._run: Any = wandb.init(
            project="mtv",
            name=run.name,
            id=f"{run.name}-{recipe.hash[:8]}",
            resume="allow",
            dir=str(run),
            config=recipe.to_dict(),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One row."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Flush and end."""
        self._run.finish()


def _missing(name: str) -> UsageError:
    return UsageError(f"log.trackers names {name}, which is not installed", "Install it: pip install 'mtv[track]'")
