"""Values that change with the step: learning rate and temperature of the teacher. Pure functions of the step."""

from __future__ import annotations

import math

from mtv.train.options import OptimOptions, SslOptions


def learning_rate(step: int, steps: int, options: OptimOptions) -> float:
    """Of the update that follows `step` updates; warm-up gives lr (s + 1) / warmup.

    Args:
        step: updates done.
        steps: updates of the whole run.
        options: peak, warm-up, decay.
    """
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    if options.decay == "constant":
        return options.lr
    done = (step - options.warmup) / max(1, steps - options.warmup)
    return options.lr * (0.5 * (1 + math.cos(math.pi * done)) if options.decay == "cosine" else 1 - done)


def teacher_temperature(step: int, steps: int, options: SslOptions) -> float:
    """Rises linearly over the first `tau_t_warmup` of the steps, then stays."""
    low, high = options.tau_t
    length = math.floor(options.tau_t_warmup * steps)
    return high if step >= length else low + (high - low) * step / length
