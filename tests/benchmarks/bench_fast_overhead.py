"""What a dense probe on stored features costs beside its forward passes: the small real sets with `fast`, by hand.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_fast_overhead.py [--tasks nyuv2,camvid,nyu40] [--share 0.2]

For every task it prints the time of the whole task (hashing, decoding, passes, storing, training, scoring, writing),
the time of the bare passes over the same pictures at the same batch, and their ratio, which is to stay within 1.5.
`--share` takes a part of the pictures of both splits: training goes by epochs, so the ratio stays what it is, apart
from fixed costs. CPU seconds stand beside wall seconds: they move less when others use the machine. The bare passes run
before and after the task, so that a machine that slows down does not flatter us.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mtv.allocator import keep_freed_memory
from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.eval.features.extract import auto_batch_size
from mtv.eval.features.options import ExtractOptions
from mtv.eval.features.request import FeatureRequest
from mtv.eval.jobs import Job
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.store import ResultStore
from mtv.eval.task import make_task

TINY = "timm:vit_tiny_patch16_224@random?mean=0.5,0.5,0.5&std=0.5,0.5,0.5"
Spent = tuple[float, float]
"""Wall seconds, CPU seconds of this process and its loaders."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MTV_DATA", "../shared/data")))
    parser.add_argument("--model", default=TINY, help="a small one is the hard case: head training costs the same")
    parser.add_argument("--tasks", default="nyuv2,camvid,nyu40")
    parser.add_argument("--share", type=float, default=1.0, help="part of the pictures (default: 1, all)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    keep_freed_memory()  # as `mtv-eval run` does on a CPU
    encoder = load(options.model)
    names = ("task", "images", "whole s", "passes s", "ratio", "CPU ratio", "extract s", "score s", "drift")
    sys.stdout.write("".join(f"{name:>11}" for name in names) + "\n")
    for task in options.tasks.split(","):
        report(encoder, task, options.data, options.share)


def report(encoder: Encoder, task: str, data: Path, share: float) -> None:
    """One row."""
    job = make_job(task, data, share)
    planned = make_task(job.protocol)
    requests = planned.requests(encoder, planned.open(data))
    with tempfile.TemporaryDirectory() as scratch:
        extract = ExtractOptions(cache_dir=Path(scratch) / "cache")
        runner = Runner(data, ResultStore(Path(scratch) / "out"), RunOptions(extract=extract, quiet=True))

        def whole() -> None:
            runner.open([job])
            runner.run_model(encoder, [job])

        before = spent(lambda: bare_passes(encoder, requests))
        task_spent = spent(whole)
        after = spent(lambda: bare_passes(encoder, requests))
    result = runner.results[0]
    if result.status == "failed":
        raise SystemExit(f"{task} failed: {result.error}")
    wall, cpu = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    seconds = result.run["seconds"]
    row = (task_spent[0], wall, task_spent[0] / wall, task_spent[1] / cpu, seconds["extract"], seconds["score"])
    images = sum(len(r.files) for r in requests)
    numbers = "".join(f"{value:>11.2f}" for value in (*row, after[0] / before[0]))
    sys.stdout.write(f"{task:>11}{images:>11}{numbers}\n")
    sys.stdout.flush()


def make_job(task: str, data: Path, share: float) -> Job:
    """`fast` on a share of the pictures."""
    whole = Job(protocol=protocol_for(task, "fast", {}), preset="fast")
    if share == 1:
        return whole
    counts = make_task(whole.protocol).counts(make_task(whole.protocol).open(data))
    train = "train_limit" if task == "nyuv2" else "train_images"
    fields = {"limit": round(share * counts["images"]), train: round(share * counts["train images"])}
    return Job(protocol=protocol_for(task, "fast", fields), preset="fast")


def bare_passes(encoder: Encoder, requests: Sequence[FeatureRequest]) -> None:
    """All forward passes of the requests on pixels that are ready."""
    for request in requests:
        first, n = request.ids[0], len(request.files)
        pixels_3HW = request.preparation(first, [f.read() for f in request.files[first]])
        batch = auto_batch_size(encoder.device, tuple(pixels_3HW.shape))
        x_B3HW = encoder.normalize(pixels_3HW.expand(batch, -1, -1, -1))
        for start in range(0, n, batch):
            encoder.features(x_B3HW[: n - start], layers=request.layers, norm=request.norm, pooled=request.global_token)


def spent(work: Callable[[], object]) -> Spent:
    """What `work` takes."""

    def now() -> Spent:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in used)

    start = now()
    work()
    end = now()
    return end[0] - start[0], end[1] - start[1]


if __name__ == "__main__":
    main()
