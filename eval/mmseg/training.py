"""Training of the head by mmsegmentation's model, optimiser and schedulers, in a loop that can be killed at any moment.

mmengine's `Runner` is not used: it writes logs and checkpoints, which torch refuses to load safely, seeds the whole
process, and its samples depend on how many were drawn before. The loop has the same order: forward, backward, step,
schedulers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.eval.heads.resume import HeadTraining
from mtv.eval.mmseg.config import Setup, build_optimiser
from mtv.eval.mmseg.loading import Samples
from mtv.probes.precision import fp32_matmul

if TYPE_CHECKING:
    from mtv.eval.task import Tick


def train_head(
    model: Any, setup: Setup, windows: Any, *, work: Path | None, tick: Tick, workers: int = 0
) -> HeadTraining:
    """All iterations, from the state in `work` where there is one.

    Args:
        model: from `build_model`; its head is trained, and left in evaluation mode.
        windows: data set of `setup.iters` times `batch` samples.
        work: folder of the state; None keeps none.
        workers: loader processes.

    Returns:
        The training, with the rate of the last iteration in `notes["lr"]`.

    Raises:
        NumericalError: a loss or weight is not finite; names the step and the last good state.
        DataError: a picture or label map that cannot be used.
    """
    wrapper, schedulers = build_optimiser(setup, model)
    states = {f"schedule{k}": scheduler for k, scheduler in enumerate(schedulers)}
    parts = {"head": model.decode_head, "optimiser": wrapper.optimizer, **states}
    training = HeadTraining(work, name="mmseg_head", parts=parts)
    batch, total = setup.protocol.batch, setup.iters
    first: int | None = None
    model.train()
    with Samples(windows, workers) as samples:
        for step, data in samples.batches(training.steps(total), batch):
            first = step if first is None else first
            training.notes["lr"] = wrapper.get_lr()["lr"][0]
            with fp32_matmul():
                logs = model.train_step(data, wrapper)
            for scheduler in schedulers:
                scheduler.step()
            training.done(step, logs["loss"])
            known = f", loss {training.loss:.3f}" if math.isfinite(training.loss) else ""
            tick("train", step + 1 - first, total - first, f"step {step + 1} of {total}{known}")
    model.eval()
    return training
