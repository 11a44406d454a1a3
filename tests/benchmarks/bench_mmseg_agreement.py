"""mmsegmentation's head beside ours on the same stored windows, in order; run by hand.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_mmseg_agreement.py --data ../shared/data --mini WORLD [--iters 500]

Loss (per pixel), AdamW, schedule, initial weights and order of the windows are the same, at most 500 iterations at a
crop of at most 224; both must end within 0.5 mIoU. `native` and `mmseg` are trained and tested by their own side,
`swapped` is mmsegmentation's head in our test. WORLD is a miniature world (`mtv-eval data make-mini`).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "eval"))

from mtv.encoders import load
from mtv.eval.mmseg.installed import import_mmseg, installed

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
ALLOWED = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MTV_DATA", "../shared/data")))
    parser.add_argument("--mini", type=Path, help="a miniature world, for ade20k")
    parser.add_argument("--tasks", default="camvid,ade20k")
    parser.add_argument("--iters", type=int, default=500)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    import_mmseg(installed())
    from mmseg_agreement import agreement

    encoder = load(f"timm:{NAME}@{options.data / 'weights' / f'{NAME}.safetensors'}")
    names = ("task", "iters", "crop", "native", "mmseg", "swapped", "apart", "seconds")
    sys.stdout.write("".join(f"{name:>10}" for name in names) + "\n")
    worst = 0.0
    for task in options.tasks.split(","):
        place = options.mini if task == "ade20k" else options.data
        if place is None:
            parser.error("ade20k wants --mini")
        started = time.perf_counter()
        found = agreement(
            encoder, task, place, iters=options.iters, crop=options.crop, lr=(options.lr,), batch=options.batch
        )
        apart = abs(found.native - found.mmseg)
        worst = max(worst, apart)
        row = [f"{v:.3f}" for v in (found.native, found.mmseg, found.swapped, apart)]
        seconds = f"{time.perf_counter() - started:.0f}"
        cells = (task, options.iters, options.crop, *row, seconds)
        sys.stdout.write("".join(f"{cell:>10}" for cell in cells) + "\n")
    if worst > ALLOWED:
        raise SystemExit(f"{worst:.3f} mIoU apart, allowed are {ALLOWED}")


if __name__ == "__main__":
    main()
