"""Matching time per NAVI pair at 11,000 cells, D = 64 and 768; run by hand.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_correspondence.py [--device cuda]

Protocol `correspondence` section 5 gives 2.3 s (D = 64) and 5.1 s (D = 768) on two CPU cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from mtv.probes.matching import lookup_map, ratio_matches, upsample_map

CELLS = 11_000


def best_of(run: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Fastest of a few runs, seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--device", default="cpu", help="torch device, cpu or cuda (default: cpu)")
    device = parser.parse_args().device
    for width in (64, 768):
        maps = [torch.randn(32, 32, width, device=device) for _ in range(2)]
        grids = [upsample_map(m) for m in maps]
        cells = [g.flatten(0, 1)[:CELLS] for g in grids]
        row = {
            "upsample (one image)": best_of(lambda m=maps[0]: upsample_map(m), device),
            "lookup (one image)": best_of(lambda m=maps[0]: lookup_map(m, image_size=(512, 512), patch=16), device),
            "match (one pair)": best_of(lambda c=cells: ratio_matches(c[0], c[1]), device),
        }
        timings = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in row.items())
        sys.stdout.write(f"D = {width}, {CELLS} cells, {torch.get_num_threads()} threads, {device}: {timings}\n")


if __name__ == "__main__":
    main()
