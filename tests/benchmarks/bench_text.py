"""How much exact trimming saves: 12 classes x 80 prompts through the text tower of ViT-B/32, random weights.

Run by hand:  OMP_NUM_THREADS=2 python tests/benchmarks/bench_text.py
Target: at least 3.8 times faster, largest difference of normalised embeddings below 1e-6.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

from mtv.encoders import Encoder, load


def timed(encoder: Encoder, prompts: list[str], batch_size: int) -> tuple[float, float, torch.Tensor]:
    """Wall seconds, CPU seconds (steadier on a busy machine) and normalised embeddings, after one warm-up batch."""
    encoder.encode_text(prompts[:8], batch_size=batch_size)
    start, cpu = time.perf_counter(), time.process_time()
    out_ND = encoder.encode_text(prompts, batch_size=batch_size)
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return wall_s, cpu_s, torch.nn.functional.normalize(out_ND, dim=-1)


def main() -> int:
    """Print both times, their ratio and the difference; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="open_clip:ViT-B-32@random?seed=0", help="any spec whose text trims")
    parser.add_argument("--classes", type=int, default=12, help="evenly spaced ImageNet classes")
    parser.add_argument("--batch-size", type=int, default=256, help="texts per pass at full length")
    args = parser.parse_args()
    step = len(IMAGENET_CLASSNAMES) // args.classes
    names = IMAGENET_CLASSNAMES[::step][: args.classes]
    prompts = [template(name) for name in names for template in OPENAI_IMAGENET_TEMPLATES]
    full_s, full_cpu, full_ND = timed(load(args.model, overrides={"trim": False}), prompts, args.batch_size)
    trim_s, trim_cpu, trim_ND = timed(load(args.model), prompts, args.batch_size)
    difference = float((full_ND - trim_ND).abs().max())
    print(f"{len(prompts)} prompts, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"wall: full length {full_s:.2f} s, trimmed {trim_s:.2f} s, ratio {full_s / trim_s:.2f}")
    print(f"cpu:  full length {full_cpu:.2f} s, trimmed {trim_cpu:.2f} s, ratio {full_cpu / trim_cpu:.2f}")
    print(f"largest difference of normalised embeddings {difference:.1e}")
    return 0 if full_s / trim_s >= 3.8 and difference < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
