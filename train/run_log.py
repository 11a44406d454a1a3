"""`log.jsonl`, trackers and the terminal: what a run says about itself.

Every line is one JSON object with `kind` and `step` (updates done). Kinds: `start` (a session began), `step`, `skip`,
`alarm`, `gradients`, `eval`, `checkpoint`, `end`. A resumed run cuts off the lines after its checkpoint first, so that
the file is the log of the final trajectory. Only rank 0 writes.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtv.atomic import atomic_write_bytes, cannot_write
from mtv.console import duration
from mtv.train.display import Display
from mtv.train.export import LOG
from mtv.train.recipe import Recipe
from mtv.train.trackers import Tracker, open_trackers

log = logging.getLogger(__name__)


class RunLog:
    """Writes the log of a run.

    Args:
        run: its folder, which exists.
        recipe: resolved.
        step: updates done; later lines go.
        live: show a panel on a terminal.

    Attributes:
        elapsed: seconds of earlier sessions.

    Raises:
        UsageError: a tracker that is not installed.
        CacheError: the log cannot be written.
    """

    def __init__(self, run: Path, recipe: Recipe, *, step: int, live: bool) -> None:
        self.path = run / LOG
        self.steps = recipe.steps
        kept = cut_log(self.path, step)
        self.elapsed = max((line.get("elapsed_s") or 0.0 for line in kept), default=0.0)
        self._trackers: list[Tracker] = open_trackers(run, recipe, step=step)
        self._display = Display(recipe, enabled=live)
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as e:
            raise cannot_write(self.path, e) from e

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line; numbers go to the trackers too. What is not finite becomes null: JSON has no word for it."""
        line = {"kind": kind, "step": step, **values}
        try:
            self._file.write(json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as e:
            raise cannot_write(self.path, e) from e
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        for tracker in self._trackers:
            tracker.log({f"{kind}/{k}": v for k, v in numbers.items()}, step)
        if kind == "step":
            self._display.line(line)
            if not self._display.active:
                log.info(step_text(line, self.steps))

    def progress(self, step: int) -> None:
        """One more update is done; moves the bar."""
        self._display.progress(step)

    def close(self) -> None:
        """End trackers and panel."""
        self._display.close()
        for tracker in self._trackers:
            tracker.close()
        self._file.close()


def cut_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop what was logged after `step`, and what a killed process left of its last line; returns what stays.

    Raises:
        CacheError: the log cannot be read or written.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as e:
        raise cannot_write(path, e) from e
    parsed = [(raw, _parsed(raw)) for raw in lines]
    kept = [(raw, line) for raw, line in parsed if line is not None and line["step"] <= step and line["kind"] != "end"]
    if len(kept) < len(lines):
        atomic_write_bytes(path, b"".join(raw for raw, _ in kept))
    return [line for _, line in kept if line is not None]


def step_text(line: Mapping[str, Any], steps: int) -> str:
    """A `step` line for people."""
    losses = {k.removeprefix("loss/"): v for k, v in line.items() if k.startswith("loss/")}
    parts = [f"step {line['step']}/{steps}", f"loss {line['loss']:.3f}"]
    parts += [f"{name} {value:.3f}" for name, value in losses.items()] if len(losses) > 1 else []
    parts += [f"lr {line['lr']:.2e}", f"grad {line['gradient_norm']:.2f}"]
    return ", ".join([" ".join(parts), *speed_texts(line)])


def speed_texts(line: Mapping[str, Any]) -> list[str]:
    """Rate, utilisation, waiting and time left of a `step` line, where known."""
    parts = [] if line["img_s"] is None else [f"{line['img_s']:,.0f} img/s"]
    if line["mfu"] is not None:
        parts.append(f"MFU {line['mfu']:.0%}")
    if line["data_wait"] is not None:
        stage = f" ({line['data_wait_stage']})" if line["data_wait_stage"] else ""
        parts.append(f"data wait {line['data_wait']:.0%}{stage}")
    if line["eta_s"] is not None:
        parts.append(f"{duration(line['eta_s'])} left")
    return parts


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
        return line if isinstance(line, dict) and isinstance(line["step"], int) and "kind" in line else None
    except (ValueError, KeyError):
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
