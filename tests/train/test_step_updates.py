"""One optimiser step in one process: micro-batches, teacher and centres (S10), and steps that are skipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from synthetic import build, synthetic_batch, take_steps, tiny_recipe
from torch import Tensor

from mtv.train.data.batch import Batch
from mtv.train.parallel import Parallel
from mtv.train.recipe import Recipe
from mtv.train.step import Stepper

ALL = ("vl", "ssl", "ground", "depth")


def run(recipe: Recipe, steps: int = 1) -> tuple[Parallel, dict[str, float], dict[str, Tensor]]:
    """Learner after some steps in float64, values and gradients of the last one."""
    parallel = build(recipe, dtype=torch.float64)
    report = take_steps(parallel, range(steps))[-1]
    gradients = {name: p.grad for name, p in parallel.learner.model.named_parameters() if p.grad is not None}
    return parallel, report.values, gradients


def state(parallel: Parallel) -> dict[str, Tensor]:
    moments = {
        f"{i} {key}": value
        for i, parameter in enumerate(parallel.parameters)
        for key, value in parallel.optimizer.state[parameter].items()
    }
    return {name: t.clone() for name, t in {**parallel.learner.state_dict(), **moments}.items()}


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Relative 1e-7; the true gradient of the depth head's last bias is 0, so what is there is rounding."""
    assert a.keys() == b.keys()
    for name in a:
        if "dpt.out3.bias" not in name:
            assert float((a[name] - b[name]).norm()) <= 1e-7 * float(b[name].norm()) + 1e-12, name


@pytest.mark.parametrize("tasks", [("vl", "ground"), ("vl", "ground", "depth"), ALL], ids="+".join)
@pytest.mark.parametrize("changes", [{}, {"ground__unique_text": False}, {"ground__duplicates": "positive"}], ids=str)
def test_cached_micro_batches_are_one_batch(tasks: tuple[str, ...], changes: dict[str, Any]) -> None:
    one = run(tiny_recipe(tasks=tasks, **changes), 2)
    two = run(tiny_recipe(tasks=tasks, optim__accumulate=2, optim__accum="cached", **changes), 2)
    assert_close(two[2], one[2])
    assert_close(two[0].learner.state_dict(), one[0].learner.state_dict())
    same = [name for name in one[1] if "prototype_entropy" not in name]
    assert [two[1][n] for n in same] == pytest.approx([one[1][n] for n in same], rel=1e-6, abs=1e-6)


def test_local_micro_batches_have_fewer_negatives() -> None:
    one, two = run(tiny_recipe(tasks=("vl",))), run(tiny_recipe(tasks=("vl",), optim__accumulate=2))
    # With the bias at -2 the 15 negatives of a row outweigh its positive, and 7 remain.
    assert two[1]["loss/vl"] < 0.8 * one[1]["loss/vl"]


def test_micro_batches_of_the_other_objectives_are_one_batch() -> None:
    one = run(tiny_recipe(tasks=("ssl", "depth")), 2)
    two = run(tiny_recipe(tasks=("ssl", "depth"), optim__accumulate=2), 2)
    assert_close(two[2], one[2])
    assert_close(two[0].learner.state_dict(), one[0].learner.state_dict())


@pytest.mark.parametrize("changes", [{"perf__checkpoint_blocks": True}, {"perf__fuse_views": False}], ids=str)
def test_options_of_speed_change_nothing(changes: dict[str, Any]) -> None:
    one, two = run(tiny_recipe()), run(tiny_recipe(**changes))
    assert_close(two[2], one[2])
    assert two[1] == pytest.approx(one[1], rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_one_update_of_teacher_and_centres_per_step(accumulate: int) -> None:
    recipe = tiny_recipe(tasks=("ssl",), optim__accumulate=accumulate)
    parallel = build(recipe, dtype=torch.float64)
    learner = parallel.learner
    teacher, centres = learner.teacher, learner.centres
    assert teacher is not None
    assert centres is not None
    images_BCHW = synthetic_batch(recipe, recipe.batch, 0).global_BCHW.double()
    mask_BN = synthetic_batch(recipe, recipe.batch, 0).mask_BN
    with torch.no_grad():
        seen = teacher.vision(images_BCHW)
        dino_K = teacher.dino_head(seen.pooled_BD).mean(0)
        ibot_K = teacher.ibot_head(teacher.vision.norm(seen.tokens_BND)[mask_BN]).mean(0)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    take_steps(parallel, range(1))
    student = dict(learner.model.named_parameters())
    for name, own in teacher.named_parameters():
        expected = 0.9 * before[name] + 0.1 * student[name].detach()
        torch.testing.assert_close(own.detach(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(centres.dino.value[0], 0.1 * dino_K, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(centres.ibot.value[0], 0.1 * ibot_K, rtol=1e-7, atol=1e-9)


def with_nan(batch: Batch, row: int) -> Batch:
    """One pixel of a depth label is NaN."""
    assert batch.depth_BHW is not None
    assert batch.depth_valid_B is not None
    depth_BHW, valid_B = batch.depth_BHW.clone(), batch.depth_valid_B.clone()
    depth_BHW[row, 3, 3], valid_B[row] = torch.nan, True
    return replace(batch, depth_BHW=depth_BHW, depth_valid_B=valid_B)


def test_a_loss_that_is_nan_skips_the_step_and_leaves_no_trace() -> None:
    recipe = tiny_recipe(optim__accumulate=2)
    disturbed, calm = build(recipe), build(recipe)
    take_steps(disturbed, range(2))
    take_steps(calm, range(2))
    before = state(disturbed)
    batches = [synthetic_batch(recipe, 8, 70), with_nan(synthetic_batch(recipe, 8, 71), 2)]
    report = Stepper(disturbed, recipe.steps).step(batches, 2)
    assert report.skipped
    assert report.wrong == {"depth": batches[1].keys}
    after = state(disturbed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Nothing that was collected on the way (gradients, rows for the centres) reaches the next step.
    assert take_steps(disturbed, range(2, 3)) == take_steps(calm, range(2, 3))
    assert all(torch.equal(a, b) for a, b in zip(state(disturbed).values(), state(calm).values(), strict=True))


def test_a_gradient_that_is_infinite_names_every_objective() -> None:
    recipe = tiny_recipe(tasks=("vl", "depth"))
    parallel = build(recipe)
    before = state(parallel)
    parallel.learner.model.vision.positions.register_hook(lambda gradient: gradient * torch.inf)
    batch = synthetic_batch(recipe, 16, 0)
    report = Stepper(parallel, recipe.steps).step([batch], 0)
    assert report.skipped
    assert report.wrong == {"vl": batch.keys, "depth": batch.keys}
    assert all(torch.equal(before[name], tensor) for name, tensor in state(parallel).items())
