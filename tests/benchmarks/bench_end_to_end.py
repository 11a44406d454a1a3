"""How close a run comes to the physical limit: pure forward passes over the same images (and texts), in one process.

For every task it prints the time of the whole task (checks, hashing, decoding, passes, storing, scoring, writing),
the time of the bare passes at the same batch and dtype, and their ratio. Text counts as passes too: the limit of a
retrieval task is images plus unique captions; the image phase alone is printed beside it. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.eval.features.options import ExtractOptions
from mtv.eval.jobs import Job
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.store import ResultStore
from mtv.eval.task import make_task

TWO_TOWERS, DENSE = "open_clip:ViT-B-16@random", "timm:vit_small_patch16_224@random?mean=0.5,0.5,0.5&std=0.5,0.5,0.5"
SETTINGS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "imagenet": (TWO_TOWERS, 16, {"templates": "one"}),
    "coco": (TWO_TOWERS, 16, {}),
    "flickr8k": (TWO_TOWERS, 16, {}),
    "spair": (DENSE, 1, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MTV_DATA", "../shared/data")))
    parser.add_argument("--limit", type=int, default=96)
    parser.add_argument("--tasks", default=",".join(SETTINGS))
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    encoders: dict[str, Encoder] = {}
    print(
        f"{'task':<10}{'images':>8}{'whole s':>10}{'image s':>10}{'limit s':>10}{'whole/limit':>13}{'image/limit':>13}"
    )
    for task in args.tasks.split(","):
        spec, batch, fields = SETTINGS[task]
        if spec not in encoders:
            encoders[spec] = load(spec)
        report(encoders[spec], task, {**fields, "limit": args.limit}, args.data, batch)


def report(encoder: Encoder, task: str, fields: dict[str, Any], data: Path, batch: int) -> None:
    """One row. The limit is timed before and after the run, so that a machine that slows down does not flatter us."""
    job = Job(protocol=protocol_for(task, "paper", fields), preset="paper")
    planned = make_task(job.protocol)
    dataset = planned.open(data)
    request = planned.requests(encoder, dataset)[0]
    before = limits(encoder, planned, dataset, request, batch)
    with tempfile.TemporaryDirectory() as scratch:
        options = RunOptions(extract=ExtractOptions(cache_dir=Path(scratch) / "cache", batch_size=batch), quiet=True)
        runner = Runner(data, ResultStore(Path(scratch) / "out"), options)
        whole = timed(lambda: (runner.open([job]), runner.run_model(encoder, [job])))
    result = runner.results[0]
    assert result.status != "failed", result.error
    after = limits(encoder, planned, dataset, request, batch)
    image_limit, text_limit = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    seconds = result.run["seconds"]
    image, limit = seconds["load"] + seconds["extract"], image_limit + text_limit
    numbers = f"{whole:>12.2f}{image:>12.2f}{limit:>12.2f}{whole / limit:>12.3f}{image / image_limit:>12.3f}"
    drift = sum(after) / sum(before)
    print(f"{task:<10}{len(request.files):>12}{numbers}   (limit after / before: {drift:.2f})", flush=True)


def limits(encoder: Encoder, task: Any, dataset: Any, request: Any, batch: int) -> tuple[float, float]:
    """Seconds of the bare image passes and of the bare text passes."""
    first = request.ids[0]
    shape = tuple(request.preparation(first, [f.read() for f in request.files[first]]).shape)
    images = image_passes(encoder, request, shape, len(request.files), batch)
    return images, text_passes(encoder, task, dataset) if encoder.has_text else 0.0


def image_passes(encoder: Encoder, request: Any, shape: tuple[int, ...], n: int, batch: int) -> float:
    """Seconds of n forward passes on ready, normalised pixels."""
    x = torch.randn(min(batch, n), *shape)

    def passes() -> None:
        for start in range(0, n, batch):
            encoder.features(
                x[: min(batch, n - start)], layers=request.layers, norm=request.norm, pooled=request.pooled
            )

    encoder.features(x[:1], layers=request.layers, norm=request.norm, pooled=request.pooled)
    return timed(passes)


def text_passes(encoder: Encoder, task: Any, dataset: Any) -> float:
    """Seconds of the text tower over the unique strings of the task."""
    if hasattr(task, "texts"):
        captions = task.texts(encoder, dataset)[0]
        return timed(lambda: encoder.encode_text(captions, kind="caption"))
    prompts = [f"a photo of {name}." for name in task.candidates(dataset)[0]]
    return timed(lambda: encoder.encode_text(prompts, kind="prompt"))


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of `work`."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
