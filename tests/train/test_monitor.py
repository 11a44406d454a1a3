"""Gradients per objective: numbers against plain backward passes, and that looking changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from run_nano import lines, nano, trajectory, weights
from synthetic import synthetic_batch, tiny_recipe

from mtv.errors import UsageError
from mtv.model.model import MtvModel
from mtv.train.learner import Learner
from mtv.train.monitor import GradientMonitor, effective_rank
from mtv.train.parallel import Parallel
from mtv.train.run import train
from mtv.train.step import Stepper


def build(**changes: object) -> tuple[Parallel, Stepper]:
    """A learner of the tiny recipe on the CPU."""
    recipe = tiny_recipe(**changes)
    model = MtvModel(recipe.model, recipe.objectives, recipe.heads, recipe.prompter, seed=recipe.seed)
    parallel = Parallel(Learner(recipe, model), torch.device("cpu"))
    return parallel, Stepper(parallel, recipe.steps)


def test_a_watched_run_ends_bit_equal(mini_world: Path, tmp_path: Path) -> None:
    for name, every in (("plain", 0), ("watched", 2)):
        recipe = nano(f"log.gradients_every={every}", steps=5)
        train(recipe, mini_world, tmp_path / name, device="cpu", resume=False)
    assert weights(tmp_path / "plain") == weights(tmp_path / "watched")
    assert trajectory(tmp_path / "plain") == trajectory(tmp_path / "watched")
    found = lines(tmp_path / "watched", "gradients")
    assert [line["step"] for line in found] == [0, 2, 4]
    assert set(found[0]) >= {"norm/vl", "norm/ssl", "norm/ground", "norm/depth", "cosine/vl-ssl", "rank"}


def test_norms_and_cosines_are_those_of_separate_backward_passes() -> None:
    parallel, stepper = build()
    learner, batch = parallel.learner, synthetic_batch(parallel.learner.recipe, 16, 0)
    context = stepper.contexts([batch], 0)[0]
    before = {n: t.clone() for n, t in learner.state_dict().items()}
    values = GradientMonitor(parallel).measure(batch, context)
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())
    vectors = {}
    for name in learner.recipe.tasks:
        learner.zero_grad()
        outcomes = learner(batch, context)
        outcomes[name].loss.backward()
        own = [p for n, p in learner.model.vision.named_parameters() if n.startswith(("blocks.", "patch_", "posi"))]
        vectors[name] = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in own]).double()
        assert values[f"norm/{name}"] == pytest.approx(float(vectors[name].norm()), rel=1e-5)
    for a, b in (("vl", "ssl"), ("vl", "ground"), ("ssl", "depth"), ("ground", "depth")):
        cosine = float(torch.nn.functional.cosine_similarity(vectors[a], vectors[b], dim=0))
        assert values[f"cosine/{a}-{b}"] == pytest.approx(cosine, abs=1e-5)
    assert sum(k.startswith("cosine/") for k in values) == 6


@pytest.mark.parametrize("tasks", [("vl",), ("ground",), ("depth",)])
def test_any_subset_is_measured(tasks: tuple[str, ...]) -> None:
    parallel, stepper = build(tasks=tasks)
    batch = synthetic_batch(parallel.learner.recipe, 8, 0)
    values = GradientMonitor(parallel).measure(batch, stepper.contexts([batch], 0)[0])
    assert set(values) == {f"norm/{tasks[0]}", "rank"}
    assert values[f"norm/{tasks[0]}"] > 0
    assert 1 <= values["rank"] <= 8.01


def test_effective_rank_closed_forms() -> None:
    """k equal directions give k, one direction gives 1; a spectrum gives exp of its entropy."""
    assert effective_rank(3 * torch.eye(8)[:5]) == pytest.approx(5, rel=1e-4)
    assert effective_rank(torch.ones(16, 4)) == pytest.approx(1, rel=1e-4)
    share = torch.tensor([0.7, 0.2, 0.1])
    entropy = -sum(s * math.log(s) for s in share.tolist())
    assert effective_rank(share.diag()) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_shards_are_refused() -> None:
    parallel, _ = build(tasks=("vl",))
    parallel.sharded = True
    with pytest.raises(UsageError, match=r"log.gradients_every does not work with perf.parallel=fsdp"):
        GradientMonitor(parallel)
