"""The errors that a user sees: one sentence that names the thing, one that says what to do.

Everything raised on purpose derives from `MtvError`. The command line prints `str(error)` and exits with
`error.exit_code`; anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MtvError(Exception):
    """A problem that the user can act on.

    Args:
        message: names the file, field or option, and the offending value.
        hint: what to do about it, a full sentence; empty when the message already says it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint


class UsageError(MtvError):
    """A wrong name, option or value on the command line or in the Python API (exit code 2)."""

    exit_code = 2


class DataError(MtvError):
    """A data set that is missing, laid out wrongly or would falsify the number (exit code 3)."""

    exit_code = 3


class CheckpointError(MtvError):
    """Weights or a model configuration that cannot be used as they are."""


class CacheError(MtvError):
    """A feature cache or result store that cannot be read, written or locked."""


class NumericalError(MtvError):
    """NaN or infinity where a finite number belongs; the message names the first sample."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name: the nearest three spellings, or the whole list when it is short.

    >>> unknown("task", "imagnet", ["imagenet", "coco"]).message
    "unknown task 'imagnet'; did you mean imagenet?"
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return UsageError(f"unknown {kind} {name!r}; did you mean {', '.join(near)}?")
    listing = ", ".join(names) if len(names) <= 30 else f"{', '.join(names[:30])}, ..."
    return UsageError(f"unknown {kind} {name!r}; known: {listing}")
