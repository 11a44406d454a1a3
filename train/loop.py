"""The steps of one session of a run: guards, log, checkpoints, evaluation.

Notable choices:
* A stop by signal is agreed among the ranks, ends after the step in progress, and saves.
* Python's garbage collector runs every 150 steps on all ranks at once instead of whenever one of them likes.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.collectives import rank, world_size
from mtv.errors import NumericalError
from mtv.losses.names import unique_names
from mtv.train.checkpoint import RunState, save_checkpoint
from mtv.train.data.batch import Batch
from mtv.train.data.loader import Position
from mtv.train.evaluation import evaluation_root, run_evaluation
from mtv.train.flops import Work, count_work, peak_of
from mtv.train.learner import uses_bf16
from mtv.train.meter import Meter, memory_gib
from mtv.train.monitor import GradientMonitor
from mtv.train.ranks import from_all
from mtv.train.run_log import RunLog
from mtv.train.setup import Ready
from mtv.train.step import Stepper, StepReport
from mtv.train.stopping import StoppedError, StopRequest

log = logging.getLogger(__name__)
COLLECT_EVERY = 150
NAMED = 8
"""Samples of a failed step that the log names; `log.jsonl` has all."""


@dataclass(frozen=True, kw_only=True)
class _Rate:
    """What utilisation is reckoned from."""

    flops: float
    """Operations per image."""
    peak: float
    """Operations per second of all devices."""


class Loop:
    """The steps of one session.

    Args:
        ready: what `prepare` made, with the weights to go on from.
        run: folder of the run.
        data: `--data`.
        state: where the run stands.
        run_log: on rank 0.
        request: whether somebody wants the run to stop.
    """

    def __init__(
        self, ready: Ready, run: Path, data: Path, state: RunState, run_log: RunLog | None, request: StopRequest
    ) -> None:
        self.ready, self.run, self.state, self.request = ready, run, state, request
        self.recipe, self.parallel = ready.recipe, ready.parallel
        self.stepper = Stepper(ready.parallel, self.recipe.steps)
        self.log = run_log
        self.meter = Meter(self.recipe.batch, run_log.elapsed if run_log is not None else 0.0)
        self.monitor = GradientMonitor(ready.parallel) if self.recipe.log.gradients_every else None
        self.eval_root = evaluation_root(self.recipe.eval, data) if self.recipe.eval.every else None
        self.saved: int | None = state.step if state.step else None
        self._alarms = 0
        self._rate: _Rate | None = None
        peak = peak_of(self.parallel.device, bf16=uses_bf16(self.recipe, self.parallel.device.type))
        self._peak = peak * world_size() if peak is not None else None
        self._work: Work | None = count_work(self.recipe) if peak is not None else None

    def go(self, until: int) -> None:
        """Take steps until the run has had `until` of them.

        Raises:
            StoppedError: told to by a signal; saved.
            NumericalError: too many failed steps in a row.
        """
        self._begin()
        first = self.state.step
        made = self.ready.loader.batches(self.state.samples_seen, stop=self.recipe.steps * self.recipe.batch)
        with contextlib.closing(made), _collector():
            while self.state.step < until:
                self._advance(made)
                taken = self.state.step - first
                if taken == 1:
                    gc.collect()
                    gc.freeze()
                elif taken % COLLECT_EVERY == 0:
                    gc.collect()
                stopped = self.request.agreed(self.parallel.device)
                self._save_if_due(last=self.state.step >= until or stopped is not None)
                if stopped is not None and self.state.step < until:
                    self._stopped(stopped)
                self._evaluate_if_due()
        self._write("end", {"elapsed_s": self.meter.elapsed, "complete": self.state.step >= self.recipe.steps})
        done = "complete" if self.state.step >= self.recipe.steps else f"stopped at step {self.state.step}"
        log.info("%s: %s", self.run, done)

    def _begin(self) -> None:
        r, W = self.recipe, world_size()
        log.info(
            "%s: %s, %s, step %d of %d, %d images per step on %d x %s",
            self.run, r.name, "+".join(r.tasks), self.state.step, r.steps, r.batch, W, self.parallel.device,
        )  # fmt: skip
        self._write("start", {"recipe": r.name, "tasks": list(r.tasks), "recipe_hash": r.hash, "processes": W})

    def _advance(self, made: Iterator[tuple[Batch, Position]]) -> None:
        number = self.state.step
        pairs = [next(made) for _ in range(self.recipe.optim.accumulate)]
        batches, position = [b for b, _ in pairs], pairs[-1][1]
        if self.monitor is not None and number % self.recipe.log.gradients_every == 0:
            self._measure(batches, number)
        if self._work is not None and self._rate is None:
            self._rate = self._rated(batches)
        report = self.stepper.step(batches, number)
        self.meter.step()
        skipped = self.state.skipped_in_a_row + 1 if report.skipped else 0
        self.state = RunState(step=number + 1, samples_seen=position.samples_seen, skipped_in_a_row=skipped)
        self._log_step(report, position)
        if report.skipped:
            self._guard(report, batches)

    def _log_step(self, report: StepReport, position: Position) -> None:
        step, every = self.state.step, self.recipe.log.every
        if self.log is None:
            return
        self.log.progress(step)
        if step % every and step not in (1, self.recipe.steps):
            return
        speed = self.meter.take(self.ready.loader.take_waits(), self.recipe.steps - step)
        line: dict[str, Any] = {
            "epoch": position.epoch,
            "samples": position.samples_seen,
            "lr": report.lr,
            **({"tau_t": self.stepper.tau_t(step - 1)} if "ssl" in self.recipe.tasks else {}),
            **report.values,
            "gradient_norm": report.gradient_norm,
            "skipped": report.skipped,
            "img_s": speed.img_s,
            "mfu": self._rate.flops * speed.img_s / self._rate.peak if self._rate is not None else None,
            "data_wait": speed.data_wait,
            "data_wait_stage": speed.stage,
            "memory_gib": memory_gib(self.parallel.device),
            "bad_samples": len(self.ready.loader.bad),
            "eta_s": speed.eta_s,
            "elapsed_s": self.meter.elapsed,
        }
        self._write("step", line)
        self._watch(report)

    def _watch(self, report: StepReport) -> None:
        """Collapse alarms; warned of when they appear, written as long as they last."""
        ssl = self.parallel.learner.self_supervised
        alarms = ssl.collapsed(report.values) if ssl is not None and not report.skipped else []
        if alarms:
            self._write("alarm", {"alarms": alarms})
        if len(alarms) > self._alarms:
            log.warning("step %d: collapse? %s", self.state.step, "; ".join(alarms))
        self._alarms = len(alarms)

    def _guard(self, report: StepReport, batches: list[Batch]) -> None:
        """Name what failed; end the run if too many steps did in a row."""
        # A gradient can overflow although every loss is finite.
        keys = tuple(k for b in batches for k in b.keys)
        reports = from_all((rank(), report.wrong))
        failed = [(r, name, samples) for r, wrong in reports for name, samples in wrong.items()]
        if not failed:
            failed = [(r, "gradient", samples) for r, samples in from_all((rank(), keys))]
        self._write("skip", {"failed": [{"rank": r, "objective": n, "samples": list(s)} for r, n, s in failed]})
        named = "; ".join(f"rank {r}: {n}, samples {_listing(s)}" for r, n, s in failed[:NAMED])
        step, row, limit = self.state.step, self.state.skipped_in_a_row, self.recipe.optim.skip_limit
        if rank() == 0:
            log.warning("step %d skipped (%d in a row): not finite: %s", step, row, named)
        if row >= limit:
            raise NumericalError(
                f"step {step}: loss or gradient was not finite in {row} steps in a row (optim.skip_limit); {named}",
                f"The last checkpoint is {self._last_checkpoint()}; lower optim.lr, or look at these samples.",
            )

    def _last_checkpoint(self) -> str:
        return f"step {self.saved}" if self.saved is not None else "none yet"

    def _measure(self, batches: list[Batch], number: int) -> None:
        assert self.monitor is not None
        with self.meter.paused():
            values = self.monitor.measure(batches[0], self.stepper.contexts(batches, number)[0])
            self._write("gradients", values)

    def _rated(self, batches: list[Batch]) -> _Rate:
        """Operations per image with the number of region names of the first batch."""
        assert self._work is not None
        assert self._peak is not None
        names, batch = 0.0, batches[0]
        if batch.region_name_BR is not None and batch.region_valid_BR is not None:
            names = float(batch.region_name_BR.shape[1])
            if self.recipe.ground.unique_text:
                names = len(unique_names(batch.region_name_BR, batch.region_valid_BR).local_slots) / len(batch)
        return _Rate(flops=self._work.executed(names), peak=self._peak)

    def _save_if_due(self, *, last: bool) -> None:
        step = self.state.step
        every = (self.recipe.save.every, self.recipe.eval.every)
        if self.saved == step or not (last or any(n and step % n == 0 for n in every)):
            return
        with self.meter.paused():
            folder = save_checkpoint(
                self.run,
                self.parallel,
                self.state,
                tokenizer=self.ready.tokenizer,
                data_hash=self.ready.data_hash,
                pictures_hash=self.ready.pictures_hash,
                keep=self.recipe.save.keep,
            )
            self.saved = step
            self._write("checkpoint", {"folder": folder.name})

    def _evaluate_if_due(self) -> None:
        options, step = self.recipe.eval, self.state.step
        if self.eval_root is None or not (step % options.every == 0 or step == self.recipe.steps):
            return
        with self.meter.paused():
            folder = self.run / f"step_{step:07d}"
            values = run_evaluation(folder, options, self.eval_root, self.parallel.device)
            self._write("eval", values)
            numbers = {k: v for k, v in values.items() if isinstance(v, float)}
            log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in numbers.items()) or "no result")

    def _stopped(self, number: int) -> None:
        step = self.state.step
        raise StoppedError(
            number,
            f"stopped after step {step} of {self.recipe.steps}, which is saved",
            f"Go on with: mtv-train resume {self.run}",
        )

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(kind, self.state.step, values)


@contextlib.contextmanager
def _collector() -> Iterator[None]:
    """Garbage is collected by the loop alone."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def _listing(samples: tuple[str, ...]) -> str:
    more = f" and {len(samples) - NAMED} more" if len(samples) > NAMED else ""
    return ", ".join(samples[:NAMED]) + more
