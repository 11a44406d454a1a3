"""Exact rewrites of the losses against their literal forms: CPU time and peak memory of one step; run by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_losses.py [--cases ground prototypes depth]

`ground`: 4,096 region slots of which 80% are valid, 300 distinct names (literal, unique). `prototypes`: 2,048 masked
rows against 32,768 prototypes (literal, chunked at several sizes); `mini-prototypes`: a miniature recipe's 1,152 rows
against 2,048. `trim`: the trimmed error of 64 disparity maps by sorting, by the k-th value as threshold, and as the
loss does. Each row is a process of its own, because peak memory is one number per process. CPU time, so that other
work on the machine does not count.
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
from torch import Tensor

from mtv.losses.depth import trimmed
from mtv.losses.grounding import region_loss, unique_region_loss
from mtv.losses.names import unique_names
from mtv.losses.prototypes import literal_prototype_cross_entropy, prototype_cross_entropy

ROWS = {
    "ground": ("literal", "unique"),
    "prototypes": ("literal", "2048", "512", "128", "32"),
    "mini-prototypes": ("literal", "2048", "512", "128", "32"),
    "trim": ("sort", "kth value", "trimmed"),
}


def ground_step(form: str) -> Callable[[], object]:
    """One step of the region loss at width 768; the text embeddings are given, so the text tower's saving is beside."""
    images, slots, names, width = 1024, 4, 300, 768
    u_BRD = torch.randn(images, slots, width, requires_grad=True)
    table_ND = torch.randn(names, width, requires_grad=True)
    which_BR, valid_BR = torch.randint(0, names, (images, slots)), torch.rand(images, slots) < 0.8
    pair = torch.tensor([2.3]), torch.tensor([-10.0])

    def literal() -> None:
        region_loss(u_BRD, table_ND[which_BR], which_BR, valid_BR, *pair)[0].backward()

    def unique() -> None:
        found = unique_names(which_BR, valid_BR)
        text_LD = table_ND[which_BR.flatten()[found.local_slots]]
        unique_region_loss(u_BRD, text_LD, found, valid_BR, *pair)[0].backward()

    return literal if form == "literal" else unique


def prototype_step(form: str, rows: int, prototypes: int, width: int) -> Callable[[], object]:
    """One step of the prototype cross-entropy: loss, gradient of the rows and of the matrix."""

    def unit(n: int) -> Tensor:
        return F.normalize(torch.randn(n, width), dim=-1)

    student_RC, student_W_KC = unit(rows).requires_grad_(), unit(prototypes).requires_grad_()
    others = unit(rows), unit(prototypes), torch.zeros(prototypes), torch.full((rows,), 1 / rows)
    both = {"tau_s": 0.1, "tau_t": 0.05}
    if form == "literal":
        return lambda: literal_prototype_cross_entropy(student_RC, student_W_KC, *others, **both)[0].backward()
    return lambda: prototype_cross_entropy(student_RC, student_W_KC, *others, **both, chunk_rows=int(form))[
        0
    ].backward()


def trim_step(form: str) -> Callable[[], object]:
    """Trimmed error of 64 maps of 224 x 224 and its gradient."""
    error_BHW = torch.randn(64, 224, 224, requires_grad=True)
    kept = 45_158

    def kth_value(x_BHW: Tensor) -> Tensor:
        x_Bn = x_BHW.flatten(1).abs()
        limit_B1 = x_Bn.detach().kthvalue(kept, dim=1, keepdim=True).values
        return (x_Bn * (x_Bn <= limit_B1)).sum(1)

    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "sort": lambda x: x.flatten(1).abs().sort(dim=1).values[:, :kept].sum(1),
        "kth value": kth_value,
        "trimmed": trimmed,
    }
    return lambda: forms[form](error_BHW).sum().backward()


def step_of(case: str, form: str) -> Callable[[], object]:
    torch.manual_seed(0)
    if case == "ground":
        return ground_step(form)
    if case == "trim":
        return trim_step(form)
    return prototype_step(form, *((1152, 2048, 64) if case == "mini-prototypes" else (2048, 32_768, 256)))


def measure(case: str, form: str) -> tuple[float, float]:
    """CPU seconds of the fastest of three steps, and peak memory in GB above that before them."""
    step = step_of(case, form)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(3):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--cases", choices=ROWS, nargs="+", default=list(ROWS), help="what to run (default: all)")
    parser.add_argument("--form", help="one form of one case, in this process")
    args = parser.parse_args()
    if args.form:
        seconds, peak = measure(args.cases[0], args.form)
        sys.stdout.write(f"{args.cases[0]:15} {args.form:9} {1e3 * seconds:9.1f} CPU ms  {peak:6.2f} GB\n")
        return
    for case in args.cases:
        for form in ROWS[case]:
            subprocess.run([sys.executable, __file__, "--cases", case, "--form", form], check=True)


if __name__ == "__main__":
    main()
