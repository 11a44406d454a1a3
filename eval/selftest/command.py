"""`mtv-eval selftest`: run all checks, print one table and the versions; exit code 0 when all pass, else 1."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from mtv.eval.environment import hardware, versions
from mtv.eval.selftest import adapters, crash, hand, invariances, oracles, sensitivities
from mtv.eval.selftest.checks import LAYERS, Check, Outcome, run_checks
from mtv.eval.selftest.session import Make, Session
from mtv.eval.selftest.table import failures, table

LAYER_CHECKS: dict[str, Make] = {
    "hand": hand.checks,
    "oracle": oracles.checks,
    "invariance": invariances.checks,
    "sensitivity": sensitivities.checks,
    "crash": crash.checks,
    "adapter": adapters.checks,
}


def run_selftest(*, as_json: bool) -> int:
    """Run everything and print the outcome on stdout, progress on stderr.

    Args:
        as_json: print one JSON object instead of the table.

    Returns:
        0 when every check passed, else 1.
    """
    started = time.perf_counter()
    with Session() as session, _calm():
        outcomes = run_layers(session, progress=_Progress())
    seconds = time.perf_counter() - started
    if as_json:
        click.echo(json.dumps(report(outcomes, seconds), indent=1))
    else:
        click.echo(text_report(outcomes, seconds))
    return int(any(not o.passed for o in outcomes))


def run_layers(
    session: Session,
    *,
    layers: Sequence[str] = LAYERS,
    only: Callable[[Check], bool] = lambda _: True,
    progress: Callable[[int, int, Check | None], None] = lambda *_: None,
) -> list[Outcome]:
    """Run the checks of some layers.

    Args:
        session: open session.
        layers: names of layers, in order.
        only: leaves checks out.
        progress: called with (checks begun, checks in all, the check), and at the end with None.
    """
    chosen = [c for layer in layers for c in LAYER_CHECKS[layer](session) if only(c)]
    number = iter(range(1, len(chosen) + 1))
    outcomes = run_checks(chosen, lambda check: progress(next(number), len(chosen), check))
    progress(len(chosen), len(chosen), None)
    return outcomes


def text_report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The table, failures in full, versions, and the count as the last line."""
    failed = sum(not o.passed for o in outcomes)
    listed = "  ".join(f"{k} {v}" for k, v in versions().items() if v is not None)
    # A pipe has no width; a bug report should not be cut to 80 columns.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    parts = [
        *table(outcomes, width),
        *failures(outcomes),
        "",
        listed,
        f"{_device()}  {platform.platform()}",
        "",
        f"{len(outcomes) - failed} checks passed, {failed} failed in {seconds:.1f} s",
    ]
    return "\n".join(parts)


def report(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Plain values for `--json`."""
    return {
        "passed": sum(o.passed for o in outcomes),
        "failed": sum(not o.passed for o in outcomes),
        "seconds": round(seconds, 2),
        "checks": [asdict(o) | {"seconds": round(o.seconds, 3)} for o in outcomes],
        "versions": versions(),
        "device": _device(),
        "platform": platform.platform(),
    }


def _device() -> str:
    import torch

    name = f"cpu ({hardware('cpu')}, {torch.get_num_threads()} threads)"
    return f"{name}, unused: {hardware('cuda')}" if torch.cuda.is_available() else name


class _Progress:
    """One line that is overwritten on a terminal, one line per layer elsewhere."""

    def __init__(self) -> None:
        self._layer = ""

    def __call__(self, begun: int, total: int, check: Check | None) -> None:
        if sys.stderr.isatty():
            text = "" if check is None else f"[{begun}/{total}] {check.layer}: {check.name}"
            sys.stderr.write(f"\r{text[:78]:<78}\r" if check is None else f"\r{text[:78]:<78}")
            sys.stderr.flush()
        elif check is not None and check.layer != self._layer:
            self._layer = check.layer
            click.echo(f"[{begun}/{total}] {check.layer}", err=True)


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """No network, and none of the warnings that planted failures cause; exceptions stay visible at debug level."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    before = {k: os.environ.get(k) for k in offline}
    pipeline, own = logging.getLogger("mtv"), logging.getLogger("mtv.eval.selftest")
    levels = pipeline.level, own.level
    own.setLevel(own.getEffectiveLevel())
    pipeline.setLevel(logging.CRITICAL + 1)
    os.environ.update(offline)
    try:
        yield
    finally:
        pipeline.setLevel(levels[0])
        own.setLevel(levels[1])
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
