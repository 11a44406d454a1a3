"""Steps whose outcome must not depend on the number of processes, on the way they share parameters, or on the number of
micro-batches; run by one process in the test and by several in `step_worker.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from synthetic import build, micro_batches, synthetic_batch, tiny_recipe
from torch import Tensor

from mtv.collectives import rank, world_size
from mtv.train.data.batch import Batch
from mtv.train.step import Stepper

# A fresh depth head has gradients a thousand times larger than all others, which would hide them.
ALL = {"depth__weight": 0.01}
CACHED = {**ALL, "optim__accumulate": 2, "optim__accum": "cached"}
LOCAL = {**ALL, "optim__accumulate": 2}
SHARDED = {"perf__parallel": "fsdp"}
LITERAL = {"ground__unique_text": False, "perf__fuse_views": False, "ground__duplicates": "positive"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recipe on several processes, and what one process must show to be equal."""

    changes: dict[str, Any]
    """Of the recipe."""
    reference: dict[str, Any] = field(default_factory=lambda: ALL)
    """Changes of the recipe in one process."""
    empty: tuple[int, ...] = ()
    """Samples without regions and depth."""
    dtype: torch.dtype = torch.float64
    """float64 leaves no room for errors the size of rounding."""
    worlds: tuple[int, ...] = (2,)
    """Numbers of processes."""


CASES = {
    "replicas, half of them without labels": Case(changes=ALL, empty=tuple(range(8, 16)), worlds=(2, 4)),
    "replicas, float32": Case(changes=ALL, dtype=torch.float32),
    "replicas, literal forms": Case(changes={**ALL, **LITERAL}, reference={**ALL, **LITERAL}),
    "replicas, micro-batches": Case(changes=LOCAL, reference=LOCAL),
    "replicas, cached micro-batches": Case(changes=CACHED),
    "shards, cached micro-batches, one without labels": Case(
        changes={**CACHED, **SHARDED}, empty=(4, 5, 6, 7, 12, 13, 14, 15)
    ),
}


def outcome(case: Case, changes: dict[str, Any]) -> dict[str, Tensor]:
    """Values, gradients and the whole state after two steps, on rank 0 (elsewhere values alone)."""
    recipe = tiny_recipe(**changes)
    parallel = build(recipe, dtype=case.dtype)
    stepper = Stepper(parallel, recipe.steps)
    found = {}
    for number in range(2):
        batch = without_labels(synthetic_batch(recipe, recipe.batch, number), case.empty)
        report = stepper.step(micro_batches(recipe, batch, parallel), number)
        assert not report.skipped
        found |= {f"{name} {number}": torch.tensor(value) for name, value in report.values.items()}
        found[f"norm {number}"] = torch.tensor(report.gradient_norm)
    for name, parameter in parallel.learner.model.named_parameters():
        assert parameter.grad is not None, name
        found[f"d {name}"] = parallel.whole(parameter.grad)
    found |= {f"state {name}": parallel.whole(t).clone() for name, t in parallel.learner.state_dict().items()}
    return found


def without_labels(batch: Batch, rows: tuple[int, ...]) -> Batch:
    """The batch with neither regions nor depth in some rows."""
    assert batch.region_valid_BR is not None
    assert batch.depth_valid_B is not None
    valid_BR, depth_B = batch.region_valid_BR.clone(), batch.depth_valid_B.clone()
    valid_BR[list(rows)], depth_B[list(rows)] = False, False
    return replace(batch, region_valid_BR=valid_BR, depth_valid_B=depth_B)


def nan_on_the_last_rank() -> dict[str, Any]:
    """A step with a broken depth label on one rank: what each rank reports, and whether anything moved."""
    recipe = tiny_recipe(**ALL)
    parallel = build(recipe)
    before = {name: tensor.clone() for name, tensor in parallel.learner.state_dict().items()}
    (batch,) = micro_batches(recipe, synthetic_batch(recipe, recipe.batch, 0), parallel)
    if rank() == world_size() - 1:
        assert batch.depth_BHW is not None
        assert batch.depth_valid_B is not None
        batch.depth_valid_B[0] = True
        batch.depth_BHW[0, 0, 0] = torch.nan
    report = Stepper(parallel, recipe.steps).step([batch], 0)
    after = parallel.learner.state_dict()
    same = all(torch.equal(before[name], after[name]) for name in before)
    return {"skipped": report.skipped, "wrong": report.wrong, "keys": batch.keys, "same": same}
