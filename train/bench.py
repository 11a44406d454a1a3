"""Times training steps on synthetic tensors or with the real loader (trainer_performance.md section 2).

Rows add one objective at a time; the price of an objective is the difference to the row before it, since passes are
shared. Every row builds its own model, and steps are real ones: forward, backward, clipping, optimiser, centres, EMA.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtv import __version__
from mtv.collectives import world_size
from mtv.losses.names import unique_names
from mtv.model.model import MtvModel, parameter_counts
from mtv.train.data.batch import Batch
from mtv.train.flops import Work, count_work, peak_of
from mtv.train.learner import Learner, uses_bf16
from mtv.train.meter import memory_gib
from mtv.train.parallel import Parallel
from mtv.train.recipe import Recipe
from mtv.train.step import Stepper

TAGS = 4585
"""Region names that synthetic batches draw from: the tags of RAM++."""
LARGEST_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement."""

    source: str
    """`tensors`, or `loader`."""
    tasks: str
    """Objectives, joined by +."""
    params: int
    """Trainable parameters."""
    ms: float
    """Median of a step, milliseconds."""
    added_ms: float
    """Difference to the row before."""
    img_s: float
    """Images per second of all processes."""
    executed_tflops: float
    """10^12 operations per second and process that were carried out."""
    literal_tflops: float
    """Those of the paper's formulation in the same time."""
    mfu: float | None
    """Executed over peak."""
    memory_gib: float
    """Peak of this process."""
    data_wait: float | None
    """Share of the time spent waiting for batches; with the loader."""


def header(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """What was measured on: `about`, and the first two lines of the table as `text`."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    about = {
        "recipe": recipe.name,
        "device": where,
        "processes": world_size(),
        "precision": "bf16" if uses_bf16(recipe, device.type) else "fp32",
        "depth_precision": recipe.depth.precision,
        "compile": recipe.perf.compile,
        "torch": torch.__version__,
        "mtv": __version__,
    }
    columns = f"{'source':<8} {'objectives':<20} {'ms/step':>9} {'+ms':>8} {'img/s':>8} {'executed':>9} {'literal':>9}"
    text = ", ".join(f"{k} {v}" for k, v in about.items())
    return {"about": about, "text": f"{text}\n{columns} TFLOP/s {'MFU':>5} {'GiB':>7} {'wait':>5}"}


def row_text(row: Row) -> str:
    """A row under `header`."""
    mfu = "-" if row.mfu is None else f"{row.mfu:.0%}"
    wait = "-" if row.data_wait is None else f"{row.data_wait:.0%}"
    return (
        f"{row.source:<8} {row.tasks:<20} {row.ms:9.1f} {row.added_ms:8.1f} {row.img_s:8.1f} "
        f"{row.executed_tflops:9.3f} {row.literal_tflops:9.3f}         {mfu:>5} {row.memory_gib:7.2f} {wait:>5}"
    )


def measure(
    recipe: Recipe,
    device: torch.device,
    *,
    batch: int | None,
    data: Path | None,
    warmup: int,
    steps: int,
    download: bool = False,
) -> Iterator[Row]:
    """Rows, each as soon as it is there. All ranks must iterate.

    Args:
        recipe: its objectives are added one by one.
        device: of this process.
        batch: images per process; None: the recipe's, up to 256.
        data: also with the loader on this corpus.
        warmup: steps before timing.
        steps: timed steps.
        download: allow fetching the tokenizer.
    """
    size = batch or min(recipe.batch // world_size(), LARGEST_BATCH)
    total = size * world_size()
    optim = replace(recipe.optim, global_batch=total, accumulate=1)
    sized = replace(recipe, optim=optim, samples=total * (warmup + steps))
    work = count_work(sized)
    for folder in [None, data] if data is not None else [None]:
        before = 0.0
        for count in range(1, len(recipe.tasks) + 1):
            own = replace(sized, tasks=recipe.tasks[:count])
            row = _row(own, work.only(own.tasks), device, folder, warmup=warmup, before=before, download=download)
            before = row.ms
            yield row


def synthetic_batch(recipe: Recipe, rows: int, device: torch.device, *, seed: int) -> Batch:
    """`rows` random samples with every view and label, on the device."""
    g = torch.Generator(device=device).manual_seed(seed)
    vision, text, views = recipe.model.vision, recipe.model.text, recipe.views
    side, small, R, T = vision.image_size, views.local_size, views.regions, text.positions

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, device=device)

    def tokens(*shape: int) -> Tensor:
        return torch.randint(2, text.vocab_size, shape, generator=g, device=device)

    name_BR = torch.randint(1, TAGS + 1, (rows, R), generator=g, device=device)
    low_BR2 = 0.5 * uniform(rows, R, 2)
    return Batch(
        keys=tuple(map(str, range(rows))),
        global_BCHW=2 * uniform(rows, 3, side, side) - 1,
        local_BMCHW=2 * uniform(rows, views.local_crops, 3, small, small) - 1,
        mask_BN=uniform(rows, vision.patches).argsort(1) < int(views.mask_ratio * vision.patches),
        text_BT=tokens(rows, T),
        box_BR4=torch.cat([low_BR2, low_BR2 + 0.1 + 0.4 * uniform(rows, R, 2)], -1),
        region_text_BRT=tokens(TAGS + 1, T)[name_BR],
        region_valid_BR=torch.ones(rows, R, dtype=torch.bool, device=device),
        region_name_BR=name_BR,
        depth_BHW=uniform(rows, side, side),
        depth_valid_B=torch.ones(rows, dtype=torch.bool, device=device),
    )


def _row(
    recipe: Recipe,
    work: Work,
    device: torch.device,
    data: Path | None,
    *,
    warmup: int,
    before: float,
    download: bool,
) -> Row:
    _fresh(device)
    rows = recipe.batch // world_size()
    if data is None:
        model = MtvModel(recipe.model, recipe.objectives, recipe.heads, recipe.prompter, seed=recipe.seed)
        parallel = Parallel(Learner(recipe, model), device)
        batch = synthetic_batch(recipe, rows, device, seed=recipe.seed)
        seconds, wait = _timed(parallel, iter([batch] * recipe.steps), recipe.steps), None
    else:
        from mtv.train.setup import prepare

        ready = prepare(recipe, data, device, fresh=True, download=download)
        parallel = ready.parallel
        made = ready.loader.batches(0, stop=recipe.samples)
        batch, _ = next(made)
        seconds = _timed(parallel, (b for b, _ in made), recipe.steps - 1)
        waits = ready.loader.take_waits()
        wait = min(1.0, waits.seconds / sum(seconds))
    step = statistics.median(seconds[warmup - (data is not None) :])
    names = 0.0
    if "ground" in recipe.tasks and batch.region_name_BR is not None and batch.region_valid_BR is not None:
        names = len(unique_names(batch.region_name_BR, batch.region_valid_BR).local_slots) / rows
        names = names if recipe.ground.unique_text else work.regions
    rate, peak = rows / step, peak_of(device, bf16=uses_bf16(recipe, device.type))
    return Row(
        source="tensors" if data is None else "loader",
        tasks="+".join(recipe.tasks),
        params=parameter_counts(parallel.learner.model)["total"],
        ms=1e3 * step,
        added_ms=1e3 * step - before,
        img_s=rate * world_size(),
        executed_tflops=work.executed(names) * rate / 1e12,
        literal_tflops=work.literal() * rate / 1e12,
        mfu=None if peak is None else work.executed(names) * rate / peak,
        memory_gib=memory_gib(device),
        data_wait=wait,
    )


def _timed(parallel: Parallel, batches: Iterator[Batch], steps: int) -> Sequence[float]:
    """Seconds of each step, the wait for its batch included."""
    stepper, seconds = Stepper(parallel, steps), []
    for number in range(steps):
        start = time.perf_counter()
        stepper.step([next(batches)], number)
        if parallel.device.type == "cuda":
            torch.cuda.synchronize(parallel.device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _fresh(device: torch.device) -> None:
    """Nothing of the row before: neither its compiled code nor its memory."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
