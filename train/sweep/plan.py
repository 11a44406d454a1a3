"""What a sweep trains: recipes times seeds times sets of objectives. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mtv.errors import UsageError
from mtv.model.config import OBJECTIVES, check_objectives
from mtv.train.recipe import Recipe
from mtv.train.recipes import get_recipe

LATTICE = "lattice"
Objectives = tuple[str, ...]
"""In the order vl, ssl, ground, depth."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    recipe: Recipe
    """Resolved, with the objectives and the seed of this run."""

    @property
    def name(self) -> str:
        """Place below `runs/`: `mini/vl+ssl/seed0`."""
        return f"{self.recipe.name}/{'+'.join(self.recipe.tasks)}/seed{self.recipe.seed}"

    @property
    def alias(self) -> str:
        """Name in results and tables: `mini-vl-ssl-seed0`."""
        return "-".join([self.recipe.name, *self.recipe.tasks, f"seed{self.recipe.seed}"])

    def run(self, out: Path) -> Path:
        """Folder of the run, which belongs to the trainer."""
        return out / "runs" / self.name

    def notes(self, out: Path) -> Path:
        """Folder of the sweep's own files about this run: lock, logs, what was measured."""
        return out / "cells" / self.name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides what a sweep makes."""

    recipes: tuple[Recipe, ...]
    """Resolved; their own objectives and seed do not matter."""
    settings: tuple[str, ...]
    """`--set` of all recipes, as given."""
    subsets: tuple[Objectives, ...]
    """Sets of objectives."""
    seeds: tuple[int, ...]
    """Rising."""
    data: Path
    """Corpus, or miniature world."""
    eval_data: Path
    """Root of the benchmarks."""
    suite: tuple[str, ...]
    """Tasks and suites to measure."""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Seed by seed, so that a whole lattice is there before the next seed begins."""
        axes = itertools.product(self.seeds, self.recipes, self.subsets)
        return tuple(Cell(recipe=replace(r, tasks=tasks, seed=seed)) for seed, r, tasks in axes)

    @property
    def objectives(self) -> frozenset[str]:
        """Of any cell."""
        return frozenset(itertools.chain.from_iterable(self.subsets))


def parse_subsets(text: str) -> tuple[Objectives, ...]:
    """`lattice`, or sets of objectives as in `vl;vl,ssl;vl,ssl,ground,depth`; fewer objectives first.

    Raises:
        UsageError: no set, an unknown objective, or the same set twice; names it.
    """
    if text.strip() == LATTICE:
        others = [o for o in OBJECTIVES if o != "vl"]
        combined = itertools.chain.from_iterable(itertools.combinations(others, n) for n in range(len(others) + 1))
        return tuple(("vl", *chosen) for chosen in combined)
    found: list[Objectives] = []
    for part in text.split(";"):
        names = [name.strip() for name in part.split(",") if name.strip()]
        if not names:
            raise UsageError(f"--tasks {text}: a set of objectives is empty", "Example: --tasks 'vl;vl,ssl'")
        check_objectives(frozenset(names))
        subset = tuple(o for o in OBJECTIVES if o in names)
        if subset in found:
            raise UsageError(f"--tasks {text}: {','.join(subset)} stands there twice")
        found.append(subset)
    return tuple(sorted(found, key=lambda s: (len(s), [OBJECTIVES.index(o) for o in s])))


def make_recipes(names: Sequence[str], settings: Sequence[str]) -> tuple[Recipe, ...]:
    """The recipes of a sweep.

    Args:
        names: as in `mtv-train recipes`.
        settings: `field=value`, for all of them.

    Raises:
        UsageError: a name that is unknown or stands twice, a field that is unknown or an axis of the sweep.
    """
    for setting in settings:
        field = setting.partition("=")[0].strip()
        if field in ("tasks", "seed"):
            raise UsageError(f"--set {setting}: {field} is what a sweep varies", f"Use --{field.rstrip('s')}s.")
    twice = [n for n in dict.fromkeys(names) if list(names).count(n) > 1]
    if twice:
        raise UsageError(f"--recipe {twice[0]} stands there twice")
    return tuple(get_recipe(name).set(settings) for name in names)
