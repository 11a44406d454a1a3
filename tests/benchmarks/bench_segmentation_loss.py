"""Losses of the segmentation head at 576 px and 150 classes: time and peak memory of one step; run by hand.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_segmentation_loss.py [--windows 2 4 8]

Each row is a process of its own, because peak memory is one number per process. `batch` upsamples all windows at once,
as mmsegmentation does; `pixel` is the loop over images; `patch` the loss on class counts; `trainer` is one step of
three heads with the patch loss on half-precision tokens of width 768. Protocol `segmentation` sections 9 and 11 give,
for 8 windows: batch 6.3 GB, pixel 0.65 GB and 7.7 s, patch 0.22 GB and 0.57 s on two CPU cores.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from mtv.probes.segmentation_head import HeadConfig
from mtv.probes.segmentation_loss import block_counts, loss_divisor, patch_loss, pixel_loss
from mtv.probes.segmentation_stream import HeadTrainer, StreamConfig, TokenBatch

CLASSES, GRID, SIDE = 150, 36, 576
CASES = ("batch", "pixel", "patch", "trainer")


def step_of(case: str, windows: int) -> Callable[[], object]:
    """One step: forward and gradient, for the trainer also the update."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (windows, SIDE, SIDE), generator=g, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=g) < 0.3] = 255
    if case == "trainer":
        tokens = torch.randn(windows, GRID, GRID, 768, generator=g).half()
        head = HeadConfig(width=768, n_classes=CLASSES)
        trainer = HeadTrainer(StreamConfig(head=head, iters=100))
        batch = TokenBatch(tokens_BhwD=tokens, labels_BHW=labels)
        return lambda: trainer.step(batch)
    logits = torch.randn(windows, CLASSES, GRID, GRID, generator=g, requires_grad=True)

    def batch_form() -> None:
        full = F.interpolate(logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        (F.cross_entropy(full, labels.long(), ignore_index=255, reduction="none").sum() / labels.numel()).backward()

    def patch_form() -> None:
        counts = block_counts(labels, (GRID, GRID), CLASSES)
        patch_loss(logits.permute(0, 2, 3, 1), counts, loss_divisor(labels, "all")).backward()

    forms = {"batch": batch_form, "pixel": lambda: pixel_loss(logits, labels).backward(), "patch": patch_form}
    return forms[case]


def measure(case: str, windows: int) -> tuple[float, float]:
    """Seconds of the faster of two steps, and peak memory in GB above that before them."""
    step = step_of(case, windows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--windows", type=int, nargs="+", default=[2, 4, 8], help="windows per step (default: 2 4 8)")
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES), help="what to run (default: all)")
    args = parser.parse_args()
    rows = [(case, windows) for case in args.cases for windows in args.windows]
    if len(rows) == 1:
        seconds, peak = measure(*rows[0])
        sys.stdout.write(f"{rows[0][0]:8} {rows[0][1]:3} windows  {seconds:7.3f} s  {peak:6.2f} GB\n")
        return
    for case, windows in rows:
        subprocess.run([sys.executable, __file__, "--cases", case, "--windows", str(windows)], check=True)


if __name__ == "__main__":
    main()
