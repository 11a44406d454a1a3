"""The learner: every parameter learns, passes are planned from needs, exact rewrites are exact, and it overfits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from synthetic import build, synthetic_batch, tiny_recipe

from mtv.model.config import OBJECTIVES
from mtv.train.learner import Learner
from mtv.train.objectives.base import Context
from mtv.train.parallel import Parallel
from mtv.train.step import Stepper

SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(OBJECTIVES, n)]


def gradients(parallel: Parallel, batch_seed: int = 0) -> dict[str, torch.Tensor]:
    """Gradients of one forward and backward pass."""
    learner = parallel.learner
    batch = synthetic_batch(learner.recipe, 6, batch_seed)
    outcomes = parallel.losses(batch, Context(step=0, tau_t=0.04), None)
    torch.stack([o.loss for o in outcomes.values()]).sum().backward()
    return {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tasks", SUBSETS, ids="+".join)
def test_every_trainable_parameter_gets_a_gradient(tasks: tuple[str, ...]) -> None:
    """A2, for each ablation row: replicas need no search for unused parameters."""
    parallel = build(tiny_recipe(tasks=tasks, ssl__koleo_group=2))
    found = gradients(parallel)
    assert set(found) == {n for n, p in parallel.learner.named_parameters() if p.requires_grad}
    assert (parallel.learner.teacher is not None) == ("ssl" in tasks)


@pytest.mark.parametrize(
    ("tasks", "needs", "passes"),
    [
        (("vl",), {}, {"pooled", "captions"}),
        (("ssl",), {"locals", "mask"}, {"pooled", "masked", "locals", "teacher"}),
        (("ground",), {"regions"}, set()),
        (("depth",), {"depth"}, {"taps"}),
        (("vl", "depth"), {"depth"}, {"pooled", "captions", "taps"}),
    ],
)
def test_passes_are_the_union_of_needs(tasks: tuple[str, ...], needs: set[str], passes: set[str]) -> None:
    learner = build(tiny_recipe(tasks=tasks)).learner
    assert {n for n, v in vars(learner.needs).items() if v} == set(needs)
    assert {n for n, v in vars(learner.passes).items() if v} == passes


@pytest.mark.parametrize("field", ["perf__fuse_views", "ground__unique_text"])
def test_exact_rewrites_change_nothing(field: str) -> None:
    """In float64: the rewrite and the literal form have the same gradients."""
    pairs = []
    for value in ("true", "false"):
        parallel = build(tiny_recipe(**{field: value}, ssl__koleo_group=2), dtype=torch.float64)
        batch = synthetic_batch(parallel.learner.recipe, 6, 0)
        floats = {n: v.double() for n, v in vars(batch).items() if torch.is_tensor(v) and v.is_floating_point()}
        outcomes = parallel.losses(replace(batch, **floats), Context(step=0, tau_t=0.04), None)
        torch.stack([o.loss for o in outcomes.values()]).sum().backward()
        pairs.append({n: p.grad for n, p in parallel.learner.named_parameters() if p.grad is not None})
    for name, gradient in pairs[0].items():
        torch.testing.assert_close(gradient, pairs[1][name], rtol=1e-6, atol=1e-9, msg=name)


def test_frozen_prototypes_get_a_gradient_of_zero() -> None:
    parallel = build(tiny_recipe(tasks=("ssl",), ssl__freeze_prototypes=1, ssl__koleo_group=2))
    found = gradients(parallel)
    last = {n: g for n, g in found.items() if "_head.last" in n}
    assert last
    assert all(not g.any() for g in last.values())
    assert any(g.any() for n, g in found.items() if "_head.fc3" in n)


def test_scale_is_limited_where_asked() -> None:
    parallel = build(tiny_recipe(tasks=("vl",), vl__max_log_scale=2.0))
    Stepper(parallel, 6).step([synthetic_batch(parallel.learner.recipe, 16, 0)], 0)
    assert parallel.learner.model.log_scale is not None
    assert parallel.learner.model.log_scale.item() == 2.0


@pytest.mark.parametrize("tasks", [("vl",), ("ssl",), ("ground",), ("depth",), OBJECTIVES], ids="+".join)
def test_sixteen_samples_are_overfitted(tasks: tuple[str, ...]) -> None:
    """X5 at nano size: VL, Ground and Depth fall below half; SSL stays finite and away from both collapses."""
    recipe = tiny_recipe(tasks=tasks, samples=16 * 70, optim__lr=3e-3, optim__warmup=10)
    parallel = build(recipe, bias=-10.0)
    stepper = Stepper(parallel, recipe.steps)
    batch = synthetic_batch(recipe, 16, 0)
    first = stepper.step([batch], 0).values
    for number in range(1, 69):
        stepper.step([batch], number)
    last = stepper.step([batch], 69).values
    for name in ("vl", "ground", "depth"):
        if name in tasks:
            assert last[f"loss/{name}"] < 0.5 * first[f"loss/{name}"], name
    ssl = parallel.learner.self_supervised
    if ssl is not None:
        assert ssl.collapsed(last) == []
        assert last["loss/ibot"] < first["loss/ibot"]


def test_collapse_is_named() -> None:
    ssl = build(tiny_recipe(tasks=("ssl",))).learner.self_supervised
    assert ssl is not None
    assert ssl.collapsed({}) == []
    uniform = {"ssl/dino_target_entropy": 3.8712, "ssl/dino_prototype_entropy": 3.8712}  # ln 48
    assert ["dino: targets are uniform" in a for a in ssl.collapsed(uniform)] == [True]
    single = {"ssl/ibot_target_entropy": 0.0, "ssl/ibot_prototype_entropy": 0.0}
    assert ["ibot: all samples share a prototype" in a for a in ssl.collapsed(single)] == [True]


def test_bf16_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtv.train.learner import uses_bf16

    recipe = tiny_recipe(perf__precision="auto")
    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda units=units: units)
        assert uses_bf16(recipe, "cpu") is units
        assert uses_bf16(recipe, "cuda")
    assert not uses_bf16(tiny_recipe(perf__precision="fp32"), "cuda")
    assert isinstance(build(recipe).learner, Learner)
