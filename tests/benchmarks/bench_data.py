"""Speed of the trainer's input per core: decoding, drawing, views on the CPU (a GPU where there is one), the loader.

    python tests/benchmarks/bench_data.py [--shards DIR] [--images 512]

Without --shards a small miniature world is made in a temporary folder. Target: above 1,500 images/s on one core for one
64 px view and four of 32 px from a canvas of 72 to 96 px, so that the miniature recipe does not wait for its data.
Figures are CPU time of one thread, the best of several runs; other load on the machine still shows in them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from mtv.allocator import keep_freed_memory
from mtv.shards import ShardDataset
from mtv.train.data.assemble import Assembler
from mtv.train.data.batch import Needs
from mtv.train.data.device import HostBatch, make_batch
from mtv.train.data.loader import Loader
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.data.survey import pick_labels

SETTINGS = {
    "mini  96 -> 1x64 + 4x32": (96, 64, 4, 32),
    "mini  72 -> 1x64 + 4x32": (72, 64, 4, 32),
    "mini  72 -> 1x48 + 4x24": (72, 48, 4, 24),
    "B/16 384 -> 1x224 + 6x96": (384, 224, 6, 96),
}


class Bytes:
    """A tokenizer that costs nothing worth measuring."""

    def encode(self, texts: list[str], /) -> np.ndarray:
        """The first 64 bytes of each text."""
        rows = [np.frombuffer(t.encode()[:64].ljust(64), np.uint8) for t in texts]
        return np.stack(rows).astype(np.int64)


def best(
    run: Callable[[], object], images: int, repeats: int = 5, clock: Callable[[], float] = time.thread_time
) -> str:
    """Images per second of the fastest of several runs."""
    run()
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    rate = images / min(seconds)
    return f"{rate:9,.0f} img/s {1e6 / rate:8.0f} us"


def corpus(shards: Path | None, scratch: Path) -> ShardDataset:
    """The given shards, or those of a new miniature world."""
    if shards is None:
        from mtv.miniworld.make import make_world
        from mtv.miniworld.spec import WorldSpec

        make_world(scratch / "world", WorldSpec(size=96), scale="tiny", sets=("pretrain",))
        shards = scratch / "world" / "pretrain"
    dataset = ShardDataset.open(shards)
    return ShardDataset.open(shards, labels=pick_labels(dataset.info))


def measure(name: str, dataset: ShardDataset, images: int) -> Iterator[str]:
    """The lines of one setting."""
    canvas, size, crops, local = SETTINGS[name]
    images = images if canvas < 200 else images // 8
    data = DataOptions(canvas=canvas, depth_canvas=min(192, canvas), cache=2 << 30, workers=0)
    loader = Loader(
        dataset,
        data=data,
        views=ViewOptions(local_crops=crops, local_size=local, min_side_px=3),
        needs=Needs(locals=True, mask=True, regions=True, depth=True),
        image_size=size,
        patch_size=8,
        seed=0,
        tokenizer=Bytes(),
        global_batch=images,
    )
    fresh = Loader(
        dataset,
        data=DataOptions(canvas=canvas, depth_canvas=min(192, canvas), workers=0),
        views=ViewOptions(local_crops=crops, local_size=local),
        needs=Needs(locals=True, mask=True, regions=True, depth=True),
        image_size=size,
        patch_size=8,
        seed=0,
        tokenizer=Bytes(),
        global_batch=images,
    )

    def assemble(made: Loader) -> HostBatch:
        assembler: Assembler = made._assemble
        return assembler(range(images))[0]

    yield f"{name}  read + decode + draw  {best(lambda: assemble(fresh), images, 2)}"
    yield f"{name}  draw, from the cache  {best(lambda: assemble(loader), images)}"
    host = assemble(loader)
    yield f"{name}  views on the CPU      {best(lambda: make_batch(host), images)}"
    stream = loader.batches()
    yield f"{name}  loader, cached        {best(lambda: next(stream), images)}"
    if torch.cuda.is_available():
        pinned = host.pin_memory()

        def on_gpu() -> None:
            make_batch(pinned, "cuda")
            torch.cuda.synchronize()

        yield f"{name}  views on the GPU      {best(on_gpu, images, clock=time.perf_counter)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, default=None, help="an indexed corpus")
    parser.add_argument("--images", type=int, default=512, help="images per run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the trainer does on a CPU
    with tempfile.TemporaryDirectory() as scratch:
        dataset = corpus(options.shards, Path(scratch))
        for name in SETTINGS:
            for line in measure(name, dataset, options.images):
                print(line)


if __name__ == "__main__":
    main()
