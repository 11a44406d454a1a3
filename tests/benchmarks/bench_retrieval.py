"""Time and memory of `rank_retrieval` at full COCO size, beside a top-k reference with a one-hot truth matrix.

Run by hand:  OMP_NUM_THREADS=2 python tests/benchmarks/bench_retrieval.py [blocks|reference]
Each mode runs in its own process, because peak memory is a high-water mark. Linux only.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from mtv.probes.retrieval import rank_retrieval, recall_summary

N_IMAGES, N_CAPTIONS, WIDTH = 5000, 25010, 512


def features() -> tuple[Tensor, Tensor, Tensor]:
    """Images, captions that resemble their image somewhat, owners: five captions each, the first ten images six."""
    g = torch.Generator().manual_seed(0)
    images_ID = torch.randn(N_IMAGES, WIDTH, generator=g)
    owner_T = torch.cat([torch.arange(N_IMAGES).repeat_interleave(5), torch.arange(10)]).sort().values
    noise_TD = torch.randn(N_CAPTIONS, WIDTH, generator=g)
    return images_ID, images_ID[owner_T] * 0.2 + noise_TD, owner_T


def by_blocks(images_ID: Tensor, captions_TD: Tensor, owner_T: Tensor) -> dict[str, float]:
    """The probe."""
    summary = recall_summary(rank_retrieval(images_ID, captions_TD, owner_T))
    return {f"{d}_r{k}": summary[f"{d}_r{k}"] for d in ("t2i", "i2t") for k in (1, 5, 10)}  # type: ignore[literal-required]


def by_one_hot(images_ID: Tensor, captions_TD: Tensor, owner_T: Tensor) -> dict[str, float]:
    """All scores, a boolean truth matrix, top-k of every row, and hits through one-hot masks of the found items."""
    unit_ID = torch.nn.functional.normalize(images_ID, dim=1)
    unit_TD = torch.nn.functional.normalize(captions_TD, dim=1)
    scores_TI = unit_TD @ unit_ID.T
    truth_TI = torch.zeros(scores_TI.shape, dtype=torch.bool)
    truth_TI[torch.arange(len(owner_T)), owner_T] = True
    out = {}
    for name, scores, truth in (("t2i", scores_TI, truth_TI), ("i2t", scores_TI.T, truth_TI.T)):
        for k in (1, 5, 10):
            hits = []
            for rows, right in zip(scores.split(2048), truth.split(2048), strict=True):
                found = torch.nn.functional.one_hot(rows.topk(k, dim=1).indices, rows.shape[1]).sum(1) > 0
                hits.append((found & right).any(1))
            out[f"{name}_r{k}"] = 100.0 * torch.cat(hits).float().mean().item()
    return out


def resident_kb() -> int:
    """Memory held at present."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def measure(mode: str) -> dict[str, object]:
    """Seconds, extra peak memory in GB and the six numbers of one mode."""
    data = features()
    torch.mm(data[0][:64], data[0][:64].T)  # the first matmul starts the thread pool
    before = resident_kb()
    start = time.perf_counter()
    numbers = by_blocks(*data) if mode == "blocks" else by_one_hot(*data)
    seconds = time.perf_counter() - start
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    return {"mode": mode, "seconds": round(seconds, 2), "extra_gb": round(extra, 3), **numbers}


def main() -> None:
    """One mode in this process, or both in processes of their own."""
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(measure(sys.argv[1])) + "\n")
        return
    for mode in ("blocks", "reference"):
        subprocess.run([sys.executable, __file__, mode], check=True, env=os.environ)


if __name__ == "__main__":
    main()
