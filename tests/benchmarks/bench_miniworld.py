"""Speed of the miniature world: scenes, rendering and writing per picture, on the CPU and on a GPU where there is one.

    python tests/benchmarks/bench_miniworld.py [--count 512] [--size 96]

Target: 10,000 pictures at 96 px with all truth, written to disk, in 4 minutes on two cores (24 ms per picture), and at
least 20 times faster on a GPU. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from mtv.miniworld.compose import make_scene
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.make import make_world
from mtv.miniworld.render import render
from mtv.miniworld.spec import SceneRequest, WorldSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=512, help="pictures for the two first lines")
    parser.add_argument("--size", type=int, default=96, help="shorter side in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = WorldSpec(size=options.size)
    requests = [
        SceneRequest(split="bench", index=i, purpose="several", width=options.size, height=options.size)
        for i in range(options.count)
    ]
    start = time.perf_counter()
    scenes = [make_scene(spec, r) for r in requests]
    print(f"scenes   {(time.perf_counter() - start) / len(scenes) * 1e3:6.2f} ms per picture, one core")
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        render(scenes[:8], device=device)
        start = time.perf_counter()
        render(scenes, device=device)
        print(f"render   {(time.perf_counter() - start) / len(scenes) * 1e3:6.2f} ms per picture, {device}")
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        make_world(Path(scratch) / "world", spec, scale="small", sets=("pretrain",))
        seconds = time.perf_counter() - start
        pictures = SCALES["small"].pretrain
        print(f"written  {seconds / pictures * 1e3:6.2f} ms per picture, {os.cpu_count()} cores, pretraining shards")


if __name__ == "__main__":
    main()
