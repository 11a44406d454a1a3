"""Carries a sweep out: every run is trained by one child process and then measured by another.

Notable choices:
* Measuring is `python -m mtv.eval run` in a process of its own, not `evaluate` in this one: what it needs of memory
  ends with it, a crash of one model is the failure of one run, each job gets its own GPU, and this process stays small.
* A run in progress is locked, and the lock lives as long as its children (`mtv.children.claimed`). A run that another
  sweep has in hand is put off once, behind all others, and waited for after that: sweeps share a folder.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from mtv.children import POLL_S, Stop, claimed, reason, run_child
from mtv.errors import MtvError
from mtv.train.sweep.board import Board
from mtv.train.sweep.plan import Cell, Plan
from mtv.train.sweep.state import RESULTS, remember_measured, seconds_left, state_of

TRAIN_LOG, EVAL_LOG = "train.log", "eval.log"


@dataclass(frozen=True, kw_only=True)
class Way:
    """How runs are carried out; nothing here changes the plan."""

    processes: int = 1
    """Of one run, under torchrun if several."""
    device: str | None = None
    """cpu, cuda ...; None: a GPU if there is one."""
    download: bool = False
    """Allow fetching tokenizers from a hub."""
    places: tuple[Mapping[str, str], ...] = field(default_factory=lambda: ({},))
    """Environment of each job; as many runs go on at the same time."""


@dataclass(frozen=True, kw_only=True)
class CellFailure:
    """A run that did not work."""

    cell: Cell
    """Which."""
    stage: str
    """`training` or `measuring`."""
    message: str
    """Why, as its log has it."""
    log: Path
    """Where to read more."""


class _StoppedError(Exception):
    """Told to stop; what ran is saved."""


class _BusyError(Exception):
    """Another sweep has the run in hand."""


class _FailedError(Exception):
    """A run did not work."""

    def __init__(self, failure: CellFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Work:
    """The runs of a sweep that are not done.

    Args:
        plan: the sweep.
        out: its folder.
        way: how runs are carried out.
        stop: whether somebody wants it to end.
        quiet: no progress.

    Attributes:
        failures: of runs, in the order in which they happened.
    """

    def __init__(self, plan: Plan, out: Path, way: Way, stop: Stop, *, quiet: bool) -> None:
        self.plan, self.out, self.way, self.stop = plan, out, way, stop
        self.failures: list[CellFailure] = []
        self.board = Board(enabled=not quiet)
        self._number = {cell.name: k for k, cell in enumerate(plan.cells, 1)}
        self._put_off: set[str] = set()

    def go(self, cells: Sequence[Cell]) -> None:
        """Train and measure what is missing of these; returns when all were tried, or after a stop."""
        queue = deque(cell for cell in cells if self._state(cell) != "done")
        jobs = max(1, min(len(self.way.places), len(queue)))
        self._estimate()
        with self.board, ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._serve, job, queue) for job in range(jobs)]
            # The main thread must wake up now and then: only it runs signal handlers.
            while wait(futures, timeout=POLL_S).not_done:
                pass
        for future in futures:
            future.result()

    def _serve(self, job: int, queue: deque[Cell]) -> None:
        with contextlib.suppress(IndexError, _StoppedError):
            while not self.stop.count:
                cell = queue.popleft()
                try:
                    self._finish(job, cell)
                except _BusyError:
                    self._put_off.add(cell.name)
                    queue.append(cell)

    def _finish(self, job: int, cell: Cell) -> None:
        title = f"cell {self._number[cell.name]} of {len(self.plan.cells)}, {cell.name}"
        try:
            lock = cell.notes(self.out) / "lock"
            with claimed(lock, waiting=lambda who: self._waiting(job, cell, title, who)) as handle:
                if self._state(cell) in ("missing", "begun"):
                    self._train(job, cell, title, handle)
                if self._state(cell) != "done":
                    self._measure(job, cell, title, handle)
            self.board.say(f"{title}: done")
        except _FailedError as e:
            self.failures.append(e.failure)
            self.board.say(f"{title}: {e.failure.stage} failed, the others go on: {e.failure.message}")
        finally:
            self.board.tell(job, "")
            self._estimate()

    def _train(self, job: int, cell: Cell, title: str, handle: int) -> None:
        log = cell.notes(self.out) / TRAIN_LOG
        self._child(job, cell, "training", f"{title}: training", self._training(cell), log, handle)
        if self._state(cell) not in ("trained", "done"):
            message = "it ended without a finished checkpoint of this recipe"
            raise _FailedError(CellFailure(cell=cell, stage="training", message=message, log=log))

    def _measure(self, job: int, cell: Cell, title: str, handle: int) -> None:
        started, log = time.monotonic(), cell.notes(self.out) / EVAL_LOG
        self._child(job, cell, "measuring", f"{title}: measuring", self._measuring(cell), log, handle)
        try:
            found = remember_measured(cell, self.out, self.plan.suite, seconds=time.monotonic() - started)
        except MtvError as e:
            raise _FailedError(CellFailure(cell=cell, stage="measuring", message=e.message, log=log)) from e
        if not found:
            message = f"no task of {', '.join(self.plan.suite)} gave a result"
            raise _FailedError(CellFailure(cell=cell, stage="measuring", message=message, log=log))
        shutil.rmtree(self._cache(cell), ignore_errors=True)

    def _child(
        self, job: int, cell: Cell, stage: str, title: str, command: Sequence[str], log: Path, handle: int
    ) -> None:
        self.board.say(title)
        code = run_child(
            command,
            log,
            self.stop,
            stop_with=signal.SIGTERM if stage == "training" else signal.SIGINT,
            env=self.way.places[job],
            pass_fds=(handle,),
            tell=lambda line: self.board.tell(job, f"{title}: {line}" if line else title),
        )
        if code and self.stop.count:
            raise _StoppedError
        if code:
            raise _FailedError(CellFailure(cell=cell, stage=stage, message=reason(log), log=log))

    def _training(self, cell: Cell) -> list[str]:
        start = [sys.executable, "-m"]
        if self.way.processes > 1:
            start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.way.processes), "-m"]
        words = [*start, "mtv.train", "run", cell.recipe.name]
        words += ["--data", str(self.plan.data), "--out", str(cell.run(self.out))]
        words += ["--tasks", ",".join(cell.recipe.tasks), "--seed", str(cell.recipe.seed)]
        for setting in self.plan.settings:
            words += ["--set", setting]
        return [*words, *self._shared()]

    def _measuring(self, cell: Cell) -> list[str]:
        run = cell.run(self.out)
        words = [sys.executable, "-m", "mtv.eval", "run", "-m", f"{cell.alias}=mtv:{run}"]
        for task in self.plan.suite:
            words += ["-t", task]
        words += ["--data", str(self.plan.eval_data), "--out", str(self.out / RESULTS)]
        return [*words, "--cache", str(self._cache(cell)), *self._shared()]

    def _shared(self) -> list[str]:
        device = ["--device", self.way.device] if self.way.device is not None else []
        return [*device, *(["--download"] if self.way.download else [])]

    def _cache(self, cell: Cell) -> Path:
        """Features of one run, kept while it is measured only: weights change from run to run."""
        return cell.notes(self.out) / "features"

    def _state(self, cell: Cell) -> str:
        return state_of(cell, self.out, self.plan.suite).state

    def _estimate(self) -> None:
        """Time left from the runs that are done; reads the disk, so only when one ends."""
        done = [cell for cell in self.plan.cells if self._state(cell) == "done"]
        left = [cell for cell in self.plan.cells if cell not in done]
        self.board.expect(seconds_left(left, done, self.out, jobs=len(self.way.places)))

    def _waiting(self, job: int, cell: Cell, title: str, who: str) -> None:
        if self.stop.count:
            raise _StoppedError
        if cell.name not in self._put_off:
            raise _BusyError
        self.board.tell(job, f"{title}: waiting, in progress by the sweep of {who}, or by what it left behind")
