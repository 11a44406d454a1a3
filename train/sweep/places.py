"""Where the jobs of a sweep run: one GPU each, or a share of the CPU's cores."""

from __future__ import annotations

import os

from mtv.errors import UsageError


def places(jobs: int, processes: int, device: str | None) -> tuple[dict[str, str], ...]:
    """The environment of each job.

    Args:
        jobs: runs at the same time; a single one sees the machine as it is.
        processes: of one run; each gets a GPU.
        device: `--device`; with `cpu`, GPUs are not looked for.

    Raises:
        UsageError: more processes than GPUs.
    """
    if jobs == 1:
        return ({},)
    gpus = [] if device == "cpu" else visible_gpus()
    if not gpus:
        threads = max(1, (os.cpu_count() or 1) // (jobs * processes))
        return tuple({"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))} for _ in range(jobs))
    if jobs * processes > len(gpus):
        raise UsageError(
            f"--jobs {jobs} with {processes} processes each need {jobs * processes} GPUs, there are {len(gpus)}",
            f"Use --jobs {max(1, len(gpus) // processes)}, or --device cpu.",
        )
    shares = [gpus[k * processes : (k + 1) * processes] for k in range(jobs)]
    return tuple({"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares)


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]
