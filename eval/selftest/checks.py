"""One check: what is expected, how it is measured, whether the two agree. A failing check never stops the others."""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

LAYERS = ("hand", "oracle", "invariance", "sensitivity", "crash", "adapter")
"""In the order in which they run: hand answers first, because a failure there explains most others."""
TOLERANCE = 1e-6
"""Largest difference between a closed form and its floating-point value, relative to the larger of 1 and the form."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the table."""

    layer: str
    """One of `LAYERS`."""
    name: str
    """What is measured, with the id of the protocol page's test where there is one."""
    expected: Any
    """The answer: a number, None, a string, a bool, or a sequence of these. Shown as it is."""
    measure: Callable[[], Any]
    """The measured answer, in the same form."""
    agrees: Callable[[Any], bool] | None = None
    """Decides in place of equality, for checks such as "must differ"; `expected` then only says so in words."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a check."""

    layer: str
    """As in the check."""
    name: str
    """As in the check."""
    expected: str
    """As shown."""
    measured: str
    """As shown; for an exception its type and first line."""
    passed: bool
    """Whether they agree."""
    seconds: float
    """Wall time."""
    traceback: str = ""
    """Of an exception, else empty."""


def run_checks(checks: Iterable[Check], progress: Callable[[Check], None] = lambda _: None) -> list[Outcome]:
    """Run checks in order; exceptions become failures.

    Args:
        checks: what to run.
        progress: called before each check.
    """
    outcomes = []
    for check in checks:
        progress(check)
        outcomes.append(_run(check))
    return outcomes


def _run(check: Check) -> Outcome:
    started = time.perf_counter()
    trace = ""
    try:
        value = check.measure()
        passed = check.agrees(value) if check.agrees is not None else agree(check.expected, value)
        measured = show(value)
    except Exception as e:  # whatever breaks is what the table is for
        passed, measured, trace = False, _one_line(e), traceback.format_exc()
        log.debug("%s: %s\n%s", check.layer, check.name, trace)
    return Outcome(
        layer=check.layer,
        name=check.name,
        expected=show(check.expected),
        measured=measured,
        passed=bool(passed),
        seconds=time.perf_counter() - started,
        traceback=trace,
    )


def agree(expected: Any, measured: Any) -> bool:
    """Equality, with `TOLERANCE` for floats, element by element for sequences."""
    if isinstance(expected, (list, tuple)):
        if not isinstance(measured, (list, tuple)) or len(expected) != len(measured):
            return False
        return all(agree(e, m) for e, m in zip(expected, measured, strict=True))
    if isinstance(expected, bool) or isinstance(measured, bool):
        return expected is measured
    if not _both_numbers(expected, measured):
        return bool(expected == measured)
    return math.isfinite(measured) and abs(expected - measured) <= TOLERANCE * max(1.0, abs(expected))


def _both_numbers(a: Any, b: Any) -> bool:
    return isinstance(a, (int, float)) and isinstance(b, (int, float))


def show(value: Any) -> str:
    """Numbers with two decimals, below 1 with four digits; sequences joined by blanks."""
    if isinstance(value, (list, tuple)):
        return " ".join(show(v) for v in value)
    if value is None:
        return "none"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.4g}"
    return str(value)


def differs_from(value: Any) -> Callable[[Any], bool]:
    """For sensitivities: the measured answer must be another one."""
    return lambda measured: not agree(value, measured)


def differing(expected: Sequence[Any], measured: Sequence[Any]) -> str:
    """`0 of 40 differ`: how oracles and invariances report integers and strings."""
    if len(expected) != len(measured):
        return f"{len(measured)} values instead of {len(expected)}"
    wrong = sum(not agree(e, m) for e, m in zip(expected, measured, strict=True))
    return f"{wrong} of {len(expected)} differ"


def _one_line(e: BaseException) -> str:
    text = str(e).splitlines()
    return f"{type(e).__name__}: {text[0] if text else ''}"
