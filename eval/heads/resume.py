"""Head training that can be killed at any moment: the loop's step counter, its state file, and its guard against NaN.

    training = HeadTraining(run.work, name="head", parts={"head": head, "optimiser": optimiser})
    for step in training.steps(total):      # goes on where an earlier process stopped
        loss = ...
        optimiser.step()
        training.done(step, loss)           # remembers the loss, saves when it is time

A resumed run ends with the same bits if a step is a function of `step` and of the parts alone: draws are keyed (seed,
epoch, sample), and schedules are set from `step`. Notable: saving goes by seconds, because a step takes from 5 ms to a
minute; losses are looked at in blocks, so that a GPU is not waited for at every step; nothing is saved before all
losses up to it were found finite, so what lies on disk is always good. State is read with `weights_only`.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mtv.atomic import atomic_write
from mtv.errors import CacheError, NumericalError

log = logging.getLogger(__name__)

_BLOCK = 20
"""Losses that stay on the device before they are looked at together."""


class Part(Protocol):
    """What a state file holds: a module, an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Inverse of `state_dict`."""


class HeadTraining:
    """Counts the steps of one training, keeps its state on disk, and stops when the loss is no longer finite.

    Args:
        folder: `TaskRun.work`, made when needed; None keeps nothing.
        name: of this training among those of the task: file `<name>.pt`, and what messages call it.
        parts: modules and optimisers on their devices, as initialised for step 0.
    """

    save_seconds: ClassVar[float] = 30.0
    """Least time between two saves; 0 saves after every step."""

    def __init__(self, folder: Path | None, *, name: str, parts: Mapping[str, Any]) -> None:
        self.name = name
        self.notes: dict[str, Any] = {}
        """Plain values (numbers, strings, lists, dicts) that are saved and restored with the parts, such as evaluations
        so far. What a step adds must be there before its `done`."""
        self.loss = math.nan
        """The last loss that was looked at; NaN before the first."""
        self._path = None if folder is None else folder / f"{name}.pt"
        self._parts: Mapping[str, Part] = parts
        self._saved_at = time.monotonic()
        self._saved_steps = 0
        self._pending: list[tuple[int, Tensor]] = []
        self._total = 0

    def steps(self, total: int) -> Iterator[int]:
        """The steps of `total` that are left: all, or those after the state on disk, which is loaded first.

        When the last one is done, every loss has been looked at and the final state is on disk.
        """
        self._total = total
        self._saved_steps = self._restore()
        self._saved_at = time.monotonic()
        yield from range(self._saved_steps, total)

    def done(self, step: int, loss: Tensor) -> None:
        """Step `step` is finished, optimiser included.

        Args:
            loss: scalar on any device; it is not waited for at every step.

        Raises:
            NumericalError: a loss or a weight is not finite; names the first such step and the last good state.
            CacheError: the state cannot be written.
        """
        self._pending.append((step, loss.detach()))
        last = step + 1 == self._total
        due = last or time.monotonic() - self._saved_at >= self.save_seconds
        if due or len(self._pending) >= _BLOCK or loss.device.type == "cpu":
            self.check(step)
        if due:
            self._save(step + 1)

    def check(self, step: int, *losses: Tensor) -> None:
        """Wait for all losses so far, and for those of `step` given here; to be called before a head is used.

        Raises:
            NumericalError: as `done`.
        """
        self._pending += [(step, loss.detach()) for loss in losses]
        if not self._pending:
            return
        values = torch.stack([loss.float() for _, loss in self._pending]).tolist()
        for (bad, _), value in zip(self._pending, values, strict=True):
            if not math.isfinite(value):
                raise self.diverged(bad, f"the loss is {value}")
        self.loss = values[-1]
        self._pending.clear()
        modules = {k: p for k, p in self._parts.items() if isinstance(p, nn.Module)}
        for key, module in modules.items():
            if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
                raise self.diverged(step, f"{key} has weights that are not finite")

    def diverged(self, step: int, what: str) -> NumericalError:
        """The error for step `step` that went wrong as `what` says; it names the last good state."""
        kept = "no earlier state was kept"
        if self._saved_steps and self._path is not None:
            kept = f"the last good state, after {self._saved_steps} steps, is {self._path}"
        return NumericalError(
            f"training of {self.name} diverged at step {step}: {what}; {kept}",
            "Lower the learning rate, and look at the features of this encoder (storage=fp32, tower_dtype=fp32).",
        )

    def _save(self, steps: int) -> None:
        self._saved_at = time.monotonic()
        if self._path is None or steps == self._saved_steps:
            return
        state = {
            "steps": steps,
            "loss": self.loss,
            "notes": self.notes,
            "parts": {key: part.state_dict() for key, part in self._parts.items()},
        }
        atomic_write(self._path, lambda p: torch.save(state, p))
        self._saved_steps = steps

    def _restore(self) -> int:
        """Load the parts and return how many steps they have seen; 0 without a usable state."""
        if self._path is None or not self._path.exists():
            return 0
        try:
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            for key, part in self._parts.items():
                part.load_state_dict(state["parts"][key])
            self.notes, self.loss, steps = dict(state["notes"]), float(state["loss"]), int(state["steps"])
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as e:
            raise CacheError(
                f"cannot go on with the training state {self._path}: {e}", "Delete this file to train from the start."
            ) from e
        log.info("%s: going on after step %d of %d", self.name, steps, self._total)
        return steps
