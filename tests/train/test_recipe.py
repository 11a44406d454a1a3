"""Recipes: the paper's figures, changes by `--set`, round trips, and which differences matter."""

from __future__ import annotations

import json

import pytest
from synthetic import tiny_recipe

from mtv.errors import CheckpointError, UsageError
from mtv.train.options import OptimOptions, SslOptions
from mtv.train.recipe import Recipe, differences
from mtv.train.recipes import RECIPES, get_recipe
from mtv.train.schedules import learning_rate, teacher_temperature


@pytest.mark.parametrize(
    ("subset", "steps", "batch", "warmup"),
    [("10m", 48_828, 4096, 14_648), ("50m", 122_070, 4096, 36_621), ("100m", 390_625, 8192, 117_187)],
)
@pytest.mark.parametrize("size", ["b16", "l16"])
def test_paper_recipes_have_the_tabulated_steps(size: str, subset: str, steps: int, batch: int, warmup: int) -> None:
    recipe = get_recipe(f"mtv_{size}_{subset}")
    assert (recipe.steps, recipe.batch) == (steps, batch)
    assert recipe.ssl.koleo_group == {"b16": 256, "l16": 128}[size]
    before, after = (teacher_temperature(s, steps, recipe.ssl) for s in (warmup - 1, warmup))
    assert before < after == 0.07


def test_learning_rate_at_the_tabulated_steps() -> None:
    """X1: 5e-7 at step 0, 5e-4 at step 999, about 0 at the last."""
    options = OptimOptions()
    assert learning_rate(0, 48_828, options) == pytest.approx(5e-7)
    assert learning_rate(999, 48_828, options) == pytest.approx(5e-4)
    assert learning_rate(48_827, 48_828, options) < 1e-11
    linear = OptimOptions(decay="linear", warmup=0)
    assert [learning_rate(s, 4, linear) for s in range(4)] == pytest.approx([5e-4, 3.75e-4, 2.5e-4, 1.25e-4])
    assert learning_rate(5000, 6000, OptimOptions(decay="constant")) == 5e-4


def test_teacher_temperature_rises_over_thirty_per_cent() -> None:
    options = SslOptions()
    assert teacher_temperature(0, 1000, options) == 0.04
    assert teacher_temperature(150, 1000, options) == pytest.approx(0.055)
    assert teacher_temperature(300, 1000, options) == teacher_temperature(999, 1000, options) == 0.07
    assert teacher_temperature(0, 10, SslOptions(tau_t_warmup=0.0)) == 0.07


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("name", list(RECIPES))
def test_only_mini_decays_its_weights(name: str) -> None:
    """X2: the paper has no weight decay, and no recipe but `mini`, whose page says why (`miniature/trainer.md`)."""
    assert OptimOptions().weight_decay == 0
    assert get_recipe(name).optim.weight_decay == (0.5 if name == "mini" else 0)


def test_set_converts_and_checks() -> None:
    recipe = get_recipe("mini").set(["optim.lr=1e-2", "ssl.tau_t=0.05,0.06", "tasks=depth,vl"])
    assert (recipe.optim.lr, recipe.ssl.tau_t, recipe.tasks) == (0.01, (0.05, 0.06), ("vl", "depth"))
    for wrong, said in (
        ("optim.rl=1", "lr"),
        ("optim=1", "optim.lr"),
        ("optim.lr", "FIELD=VALUE"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.lr.x=1", "no fields"),
        ("optim.decay=slow", "optim.decay"),
        ("tasks=vl,sound", "sound"),
        ("samples=3", "optim.global_batch"),
        ("ssl.koleo_group=1", "koleo_group"),
    ):
        with pytest.raises(UsageError, match=said):
            get_recipe("mini").set([wrong])


def test_fields_that_must_fit_each_other_are_set_together() -> None:
    narrow = ["vision.width=128", "vision.heads=2", "vision.mlp_width=512", "text.width=128", "text.heads=2"]
    recipe = get_recipe("mini").set([f"model.{n}" for n in narrow])
    assert (recipe.model.vision.width, recipe.model.text.width, recipe.model.text.mlp_width) == (128, 128, 384)
    assert get_recipe("mini").set(["optim.lr=1", "optim.lr=2"]).optim.lr == 2
    with pytest.raises(UsageError, match=r"vision\.width=128 must be a multiple of vision\.heads"):
        get_recipe("mini").set(["model.vision.width=128"])


def test_only_what_is_learnt_counts_as_a_difference() -> None:
    recipe = tiny_recipe()
    assert differences(recipe, recipe.set(["perf.compile=true", "data.workers=3", "log.every=7", "save.keep=9"])) == []
    assert recipe.set(["perf.threads=1"]).hash == recipe.hash
    changed = recipe.set(["optim.lr=1", "views.local_size=24"])
    assert [d.split(":")[0] for d in differences(recipe, changed)] == ["optim.lr", "views.local_size"]
    assert changed.hash != recipe.hash


def test_a_recipe_of_another_version_is_refused_by_name() -> None:
    value = tiny_recipe().to_dict()
    value["optim"]["momentum"] = 0.9
    with pytest.raises(CheckpointError, match="momentum"):
        Recipe.from_dict(value)
