"""Steps of a longer command: k of n with the time left, and errors that name the step."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from mtv.console import duration
from mtv.errors import MtvError

log = logging.getLogger(__name__)
EVERY_S = 15.0
"""Between two lines about a step in progress."""


class StepError(MtvError):
    """A step did not work.

    Args:
        title: of the step.
        error: why; its exit code is kept.
        again: command that goes on.
    """

    def __init__(self, title: str, error: MtvError, again: str) -> None:
        hint = f"{error.hint}\n  " if error.hint else ""
        super().__init__(f"{title}: {error.message}", f"{hint}Then go on with: {again}")
        self.exit_code = error.exit_code


class Steps:
    """What there is to do, in order.

    Args:
        expected: step to the seconds it takes at first guess. Steps of one kind (`evaluate NAME`) share a first word;
            each one that ends corrects the guess for the others.
        again: command that goes on after an error.
    """

    def __init__(self, expected: dict[str, float], *, again: str) -> None:
        self._expected = dict(expected)
        self._again = again
        self._left = list(expected)
        self._last_line = time.monotonic()
        self._title = ""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step.

        Raises:
            MtvError: what was raised inside, with the step's name and the command that goes on.
        """
        number = len(self._expected) - len(self._left) + 1
        self._title = f"step {number} of {len(self._expected)}, {name}"
        left = sum(self._expected[n] for n in self._left)
        log.info("%s (about %s left in all)", self._title, duration(left))
        started = self._last_line = time.monotonic()
        try:
            yield
        except MtvError as e:
            raise StepError(self._title, e, self._again) from e
        spent = time.monotonic() - started
        log.info("%s: done in %s", self._title, duration(spent))
        self._left.remove(name)
        self._correct(name.split()[0], spent)

    def skip(self, name: str, why: str) -> None:
        """A step that is done already."""
        number = len(self._expected) - len(self._left) + 1
        log.info("step %d of %d, %s: %s", number, len(self._expected), name, why)
        self._left.remove(name)

    def tell(self, line: str) -> None:
        """What goes on inside a step; shown now and then."""
        now = time.monotonic()
        if line and now - self._last_line >= EVERY_S:
            self._last_line = now
            log.info("%s: %s", self._title, line)

    def _correct(self, kind: str, spent: float) -> None:
        for name in self._left:
            if name.split()[0] == kind:
                self._expected[name] = spent
