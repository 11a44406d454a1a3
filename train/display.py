"""The panel of a run on a terminal: bar, losses, speed, time left. Elsewhere `run_log` writes plain lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from mtv.train.recipe import Recipe


class Display:
    """Shows the latest `step` line.

    Args:
        recipe: its name and number of steps.
        enabled: off for a plain log; it is off without a terminal in any case.
    """

    def __init__(self, recipe: Recipe, *, enabled: bool) -> None:
        self.steps = recipe.steps
        self.title = f"{recipe.name} · {'+'.join(recipe.tasks)}"
        self._line: Mapping[str, Any] | None = None
        self._step = 0
        self._live: Any = None
        self.active = enabled and sys.stderr.isatty()
        if self.active:
            self._start()

    def line(self, line: Mapping[str, Any]) -> None:
        """A new `step` line."""
        self._line = line
        self.progress(line["step"])

    def progress(self, step: int) -> None:
        """Updates done."""
        self._step = step

    def close(self) -> None:
        """Leave the last panel on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            _redirect_log()

    def __rich__(self) -> Any:
        """The panel."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        from mtv.train.run_log import speed_texts

        rows: list[Any] = [ProgressBar(total=self.steps, completed=self._step, width=48)]
        speed = [] if self._line is None else speed_texts(self._line)
        rows.append(Text(" · ".join([f"step {self._step:,} of {self.steps:,}", *speed])))
        if self._line is not None:
            losses = {k.removeprefix("loss/"): v for k, v in self._line.items() if k.startswith("loss")}
            rows.append(Text("   ".join(f"{name} {value:.4f}" for name, value in losses.items())))
        return Panel(Group(*rows), title=self.title, title_align="left")

    def _start(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(self, console=Console(stderr=True), refresh_per_second=2)
        self._live.start()
        _redirect_log()


def _redirect_log() -> None:
    """Log lines go to the present `sys.stderr`, which the panel replaces to print them above itself."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
