"""What each objective contributes, whatever the order in which objectives are added.

The paper adds SSL, then Ground, then Depth; what each seems to give depends on that order. A Shapley value is the mean
of an objective's increment over all orders, computed exactly from every subset of the objectives together with VL.

Sources: L. S. Shapley, A value for n-person games (1953); pairwise interaction index: M. Grabisch and M. Roubens
(1999). Both work for any number of players and for any values that add: numbers, fractions, arrays of resamples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.attribution.cells import ADDED, CellDraws, Estimate, draw_cells, objectives_of
from mtv.leaderboards.study import Objectives, Study

Game = Mapping[frozenset[str], Any]
"""Every subset of the players to its value."""


def subsets_of(players: Sequence[str]) -> Iterator[frozenset[str]]:
    """All subsets, smaller first."""
    for size in range(len(players) + 1):
        yield from map(frozenset, itertools.combinations(players, size))


def shapley_values(players: Sequence[str], game: Game) -> dict[str, Any]:
    """Mean increment of each player over all orders; they sum to the value of all minus that of none.

    Args:
        players: names, each once.
        game: subset to value, all 2^n of them.

    Raises:
        UsageError: a player twice; missing subsets, named.
    """
    _check(players, game)
    n, out = len(players), {}
    for player in players:
        total: Any = 0
        for s in subsets_of([p for p in players if p != player]):
            # Integer weights, divided at the end: fractions stay exact.
            total = total + factorial(len(s)) * factorial(n - len(s) - 1) * (game[s | {player}] - game[s])
        out[player] = total / factorial(n)
    return out


def interaction_indices(players: Sequence[str], game: Game) -> dict[tuple[str, str], Any]:
    """Pairwise interaction: what a pair gives beyond the sum of both, averaged over what is there already.

    Above 0 the two support each other, below 0 they overlap or interfere. With two players this is
    v(ab) - v(a) - v(b) + v(none).

    Raises:
        UsageError: a player twice; missing subsets, named.
    """
    _check(players, game)
    n, out = len(players), {}
    for a, b in itertools.combinations(players, 2):
        total: Any = 0
        for s in subsets_of([p for p in players if p not in (a, b)]):
            beyond = game[s | {a, b}] - game[s | {a}] - game[s | {b}] + game[s]
            total = total + factorial(len(s)) * factorial(n - len(s) - 2) * beyond
        out[a, b] = total / factorial(n - 1)
    return out


def increments(order: Sequence[str], game: Game) -> dict[str, Any]:
    """What each player adds when players join in `order`.

    Raises:
        UsageError: a player twice; missing subsets on the way, named.
    """
    path = [frozenset(order[:k]) for k in range(len(order) + 1)]
    _check(order, game, path)
    return {p: game[after] - game[before] for p, before, after in zip(order, path, path[1:], strict=False)}


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one objective contributes to one metric over VL."""

    objective: str
    """Its name."""
    shapley: Estimate
    """Mean of its increment over all orders."""
    paper_order: Estimate
    """Its increment in the paper's order, SSL, Ground, Depth."""
    by_order: Mapping[tuple[str, ...], float]
    """Its increment in every order."""

    @property
    def span(self) -> tuple[float, float]:
        """Its smallest and largest increment over orders: how much a table with one order may mislead."""
        return min(self.by_order.values()), max(self.by_order.values())


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """Interaction index of two objectives."""

    pair: tuple[str, str]
    """The two objectives."""
    index: Estimate
    """In the unit of the metric; above 0 they support each other."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Attribution of one metric's gain over VL."""

    key: str
    """`task/metric`."""
    reason: str
    """What is missing of the lattice; empty where nothing is."""
    unit: str
    """Of all numbers here; they are in the direction of gain, so that a falling RMSE is positive."""
    seeds: tuple[int, ...]
    """Training seeds that entered; with several, intervals are over seeds and samples."""
    total: Estimate | None
    """Gain of all objectives over VL: the sum of the Shapley values. None where the lattice has holes."""
    contributions: tuple[Contribution, ...]
    """One per objective; empty where the lattice has holes."""
    interactions: tuple[Interaction, ...]
    """One per pair; empty where the lattice has holes."""


def study_shapley(
    study: Study, metric_key: str, *, players: Sequence[str] = ADDED, resamples: int = 2000, seed: int = 0
) -> Attribution:
    """Attribution of one metric in a study.

    Args:
        study: of `mtv.leaderboards.study.studies`.
        metric_key: `task/metric`.
        players: objectives besides VL, in the order whose increments are shown for comparison.
        resamples: joint bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        UsageError: unknown players; what `draw_cells` raises.
        CacheError: a sample table is missing, or does not give the recorded value.
    """
    return attribution_of(draw_cells(study, metric_key, resamples=resamples, seed=seed), players=players)


def attribution_of(draws: CellDraws, *, players: Sequence[str] = ADDED) -> Attribution:
    """The same from draws that are there already.

    Raises:
        UsageError: unknown players.
    """
    if len(set(players)) < len(players) or not set(players) <= set(ADDED):
        raise UsageError(f"players: different ones of {', '.join(ADDED)}, got {tuple(players)}")
    lattice: dict[frozenset[str], Objectives] = {s: objectives_of(tuple(s)) for s in subsets_of(players)}
    unit = draws.metric.unit if draws.metric else ""
    if reason := draws.missing(tuple(lattice.values())):
        return Attribution(
            key=draws.key, reason=reason, unit=unit, seeds=(), total=None, contributions=(), interactions=()
        )
    gains = draws.gains(tuple(lattice.values()))
    point = {s: gains.points[o] for s, o in lattice.items()}
    drawn = {s: gains.drawn[o] for s, o in lattice.items()}
    everyone = frozenset(players)
    of_point, of_drawn = interaction_indices(players, point), interaction_indices(players, drawn)
    return Attribution(
        key=draws.key,
        reason="",
        unit=unit,
        seeds=gains.seeds,
        total=draws.estimate(point[everyone], drawn[everyone]),
        contributions=_contributions(draws, players, point, drawn),
        interactions=tuple(Interaction(pair=p, index=draws.estimate(of_point[p], of_drawn[p])) for p in of_point),
    )


def _contributions(draws: CellDraws, players: Sequence[str], point: Game, drawn: Game) -> tuple[Contribution, ...]:
    of_point, of_drawn = shapley_values(players, point), shapley_values(players, drawn)
    step, drawn_step = increments(players, point), increments(players, drawn)
    orders = {order: increments(order, point) for order in itertools.permutations(players)}
    return tuple(
        Contribution(
            objective=p,
            shapley=draws.estimate(of_point[p], of_drawn[p]),
            paper_order=draws.estimate(step[p], drawn_step[p]),
            by_order={order: float(own[p]) for order, own in orders.items()},
        )
        for p in players
    )


def _check(players: Sequence[str], game: Game, needed: Sequence[frozenset[str]] | None = None) -> None:
    if len(set(players)) < len(players):
        raise UsageError(f"players: each once, got {tuple(players)}")
    wanted = subsets_of(players) if needed is None else needed
    if absent := [s for s in wanted if s not in game]:
        names = ", ".join("{" + ", ".join(p for p in players if p in s) + "}" for s in absent)
        raise UsageError(f"attribution needs every subset; missing: {names}")
