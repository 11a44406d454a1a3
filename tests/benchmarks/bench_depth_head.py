"""Depth head at ViT-B width: convolve then upsample against upsample then convolve, in one run; run by hand.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_depth_head.py [--device cuda]

The goal is a step (forward, loss, backward) at least 6 times faster than the literal form; protocol `depth` section 6.1
gives 7.5 for the forward pass on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.probes.bilinear import resize_map
from mtv.probes.depth_head import DepthHead
from mtv.probes.depth_loss import depth_loss

WIDTH, GRID, TARGET = 768, (26, 34), (416, 544)


def literal(head: DepthHead, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
    """The head as the protocol words it, at 416 x 544."""
    both = torch.cat([tokens_BHWD, global_BD[:, None, None].expand_as(tokens_BHWD)], dim=-1).permute(0, 3, 1, 2)
    up = F.interpolate(both, scale_factor=4, mode="bilinear", align_corners=False)
    weights = F.conv2d(up, head.weight[..., None, None], head.bias).relu() + 0.1
    weights = weights / weights.sum(dim=1, keepdim=True)
    depth = torch.einsum("bkhw,k->bhw", weights, torch.linspace(0.001, 10, 256, device=weights.device))[:, None]
    return F.interpolate(depth, size=TARGET, mode="bilinear", align_corners=False)


def fast(head: DepthHead, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
    """The head as it runs, at 416 x 544."""
    return resize_map(head(tokens_BHWD, global_BD), TARGET)


def seconds(run: Callable[[], object], device: str) -> float:
    """Time of one call."""
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--device", default="cpu", help="torch device, cpu or cuda (default: cpu)")
    parser.add_argument("--batch", type=int, default=4, help="images per step (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each form, in turns; the best counts")
    options = parser.parse_args()
    device = options.device
    head = DepthHead(WIDTH).to(device)
    tokens = torch.randn(options.batch, *GRID, WIDTH, device=device)
    token = torch.randn(options.batch, WIDTH, device=device)
    target = 0.5 + 9 * torch.rand(options.batch, 1, *TARGET, device=device)

    def forward(form: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            form(head, tokens, token)

    def step(form: Callable[..., Tensor]) -> None:
        head.zero_grad()
        depth_loss(form(head, tokens, token), target, step=100).value.backward()

    for name, run in (("forward", forward), ("step", step)):
        times: dict[str, list[float]] = {"literal": [], "fast": []}
        for _ in range(options.repeats):  # in turns, so that a busy machine slows both
            times["literal"].append(seconds(lambda r=run: r(literal), device))
            times["fast"].append(seconds(lambda r=run: r(fast), device))
        slow, quick = min(times["literal"]), min(times["fast"])
        sys.stdout.write(
            f"{name}: upsample-convolve {slow:.4f} s, convolve-upsample {quick:.4f} s, ratio {slow / quick:.1f} "
            f"(batch {options.batch}, D = {WIDTH}, {torch.get_num_threads()} threads, {device})\n"
        )


if __name__ == "__main__":
    main()
