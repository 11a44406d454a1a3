"""`train`: a recipe, data and a folder to a run, from its start or from its newest checkpoint.

Notable choice: a run is its folder. Started again with the same recipe it goes on from the newest checkpoint, by hand,
under Slurm and under torchrun's elastic agent alike; with another recipe it is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mtv.collectives import rank
from mtv.errors import CheckpointError
from mtv.train.checkpoint import RunState, load_checkpoint, newest_checkpoint
from mtv.train.claim import check_recipe, describe, locked
from mtv.train.loop import Loop
from mtv.train.parallel import local_device, process_group
from mtv.train.ranks import failures_explained
from mtv.train.recipe import Recipe
from mtv.train.run_folder import STATE
from mtv.train.run_log import RunLog
from mtv.train.setup import prepare
from mtv.train.stopping import stop_request
from mtv.train.whole import on_first


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    device: str | None = None,
    resume: bool,
    new_order: bool = False,
    stop_after: int | None = None,
    download: bool = False,
    live: bool = True,
) -> None:
    """Run a recipe to its end, or go on with it. Under torchrun every process calls this.

    Args:
        recipe: resolved.
        data: a corpus, or a miniature world.
        out: folder of the run, or one of its steps to go on from there.
        device: None takes a GPU of its own where there is one.
        resume: there must be a checkpoint to go on from; otherwise a run starts where there is none.
        new_order: go on although the data changed.
        stop_after: stop once the run has had so many steps, with a checkpoint.
        download: allow fetching the tokenizer from a hub.
        live: a panel, if stderr is a terminal.

    Raises:
        StoppedError: by a signal, after saving.
        MtvError: recipe, data or folder that do not fit; steps that fail in a row; a rank that is gone.
    """
    place = local_device(device)
    chosen = out if (out / STATE).is_file() else None
    run = out.parent if chosen is not None else out
    with failures_explained(), process_group(place), stop_request() as request, _claimed(run):
        on_first(lambda: check_recipe(run, recipe))
        start = chosen or on_first(lambda: newest_checkpoint(run))
        if resume and start is None:
            raise CheckpointError(f"{run} has no checkpoint to go on from", "Start it: mtv-train run RECIPE --out RUN")
        ready = prepare(recipe, data, place, fresh=start is None, download=download)
        state = RunState(step=0, samples_seen=0, skipped_in_a_row=0)
        if start is not None:
            state = load_checkpoint(start, ready.parallel, data_hash=ready.data_hash, new_order=new_order)
        on_first(lambda: describe(run, recipe, data))
        with _opened(run, recipe, state, live=live and rank() == 0) as run_log:
            Loop(ready, run, data, state, run_log, request).go(min(recipe.steps, stop_after or recipe.steps))


@contextlib.contextmanager
def _claimed(run: Path) -> Iterator[None]:
    """Rank 0 holds the lock; all fail if it cannot."""
    with contextlib.ExitStack() as stack:
        on_first(lambda: stack.enter_context(locked(run)))
        yield


@contextlib.contextmanager
def _opened(run: Path, recipe: Recipe, state: RunState, *, live: bool) -> Iterator[RunLog | None]:
    """The log, on rank 0."""
    found: list[RunLog] = []
    on_first(lambda: found.append(RunLog(run, recipe, step=state.step, live=live)))
    run_log = found[0] if found else None
    try:
        yield run_log
    finally:
        if run_log is not None:
            run_log.close()
