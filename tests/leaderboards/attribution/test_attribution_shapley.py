"""Shapley values and interactions: axioms in exact arithmetic, independent formulas, studies with planted effects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.leaderboards.attribution.cells import draw_cells
from mtv.leaderboards.attribution.shapley import (
    attribution_of,
    increments,
    interaction_indices,
    shapley_values,
    study_shapley,
    subsets_of,
)

Skills = Callable[[Sequence[str]], float]
Exact = Mapping[frozenset[str], Fraction]
FEW = settings(max_examples=40)
NUMBER = st.integers(-1000, 1000).map(Fraction)


@st.composite
def games(draw: st.DrawFn, least: int = 1, most: int = 4) -> tuple[tuple[str, ...], dict[frozenset[str], Fraction]]:
    players = tuple("abcd"[: draw(st.integers(least, most))])
    return players, {s: draw(NUMBER) for s in subsets_of(players)}


def by_permutations(players: Sequence[str], game: Exact) -> dict[str, Fraction]:
    orders = list(itertools.permutations(players))
    total = dict.fromkeys(players, Fraction(0))
    for order in orders:
        for k, p in enumerate(order):
            total[p] += game[frozenset(order[: k + 1])] - game[frozenset(order[:k])]
    return {p: t / len(orders) for p, t in total.items()}


def dividends(players: Sequence[str], game: Exact) -> dict[frozenset[str], Fraction]:
    """Harsanyi dividends: what each subset adds that none of its parts has."""
    return {
        s: sum(((-1) ** (len(s) - len(t)) * game[t] for t in subsets_of(tuple(s))), Fraction(0))
        for s in subsets_of(players)
    }


@FEW
@given(games())
def test_values_are_means_over_all_orders(game: tuple[tuple[str, ...], Exact]) -> None:
    players, values = game
    assert shapley_values(players, values) == by_permutations(players, values)


@FEW
@given(games())
def test_values_share_every_dividend_equally(game: tuple[tuple[str, ...], Exact]) -> None:
    players, values = game
    shares = dividends(players, values)
    expected = {p: sum((m / len(s) for s, m in shares.items() if p in s), Fraction(0)) for p in players}
    assert shapley_values(players, values) == expected


@FEW
@given(games())
def test_values_are_efficient(game: tuple[tuple[str, ...], Exact]) -> None:
    players, values = game
    assert sum(shapley_values(players, values).values()) == values[frozenset(players)] - values[frozenset()]


@FEW
@given(games(least=2))
def test_players_who_do_the_same_get_the_same(game: tuple[tuple[str, ...], Exact]) -> None:
    players, values = game
    swap = {players[0]: players[1], players[1]: players[0]}
    symmetric = {s: values[s] + values[frozenset(swap.get(p, p) for p in s)] for s in values}
    found = shapley_values(players, symmetric)
    assert found[players[0]] == found[players[1]]


@FEW
@given(games(most=3), NUMBER)
def test_a_dummy_gets_what_it_has_alone(game: tuple[tuple[str, ...], Exact], own: Fraction) -> None:
    players, values = game
    more = {s: values[s - {"z"}] + own * ("z" in s) for s in subsets_of((*players, "z"))}
    found = shapley_values((*players, "z"), more)
    assert found.pop("z") == own
    assert found == shapley_values(players, values)
    pairs = interaction_indices((*players, "z"), more)
    assert all(v == 0 for p, v in pairs.items() if "z" in p)


@FEW
@given(st.data())
def test_games_add(data: st.DataObject) -> None:
    players, one = data.draw(games())
    two = {s: data.draw(NUMBER) for s in one}
    both = shapley_values(players, {s: one[s] + two[s] for s in one})
    first, second = shapley_values(players, one), shapley_values(players, two)
    assert both == {p: first[p] + second[p] for p in players}


@FEW
@given(games(least=2))
def test_interaction_is_the_shared_dividend_of_both(game: tuple[tuple[str, ...], Exact]) -> None:
    players, values = game
    shares = dividends(players, values)
    for (a, b), found in interaction_indices(players, values).items():
        assert found == sum((m / (len(s) - 1) for s, m in shares.items() if {a, b} <= s), Fraction(0))


@FEW
@given(games(least=2))
def test_interaction_is_the_change_of_a_value_when_the_partner_joins(game: tuple[tuple[str, ...], Exact]) -> None:
    players, values = game
    a, b = players[:2]
    rest = tuple(p for p in players if p != b)
    without = {s: values[s] for s in subsets_of(rest)}
    given_b = {s: values[s | {b}] for s in subsets_of(rest)}
    expected = shapley_values(rest, given_b)[a] - shapley_values(rest, without)[a]
    assert interaction_indices(players, values)[a, b] == expected


def test_two_players_by_hand() -> None:
    game = {frozenset(): 10.0, frozenset("a"): 14.0, frozenset("b"): 12.0, frozenset("ab"): 17.0}
    assert shapley_values("ab", game) == {"a": 4.5, "b": 2.5}
    assert interaction_indices("ab", game) == {("a", "b"): 1.0}
    assert increments("ab", game) == {"a": 4.0, "b": 3.0}
    assert increments("ba", game) == {"b": 2.0, "a": 5.0}


def test_arrays_of_resamples_are_values_too() -> None:
    rng = np.random.default_rng(0)
    players = ("ssl", "ground", "depth")
    game = {s: rng.normal(size=7) for s in subsets_of(players)}
    found = shapley_values(players, game)
    for k in range(7):
        one = shapley_values(players, {s: float(v[k]) for s, v in game.items()})
        assert {p: float(v[k]) for p, v in found.items()} == pytest.approx(one)


def test_missing_subsets_and_doubled_players_are_named() -> None:
    game = {s: 0.0 for s in subsets_of(("ssl", "ground", "depth")) if len(s) != 2}
    names = r"missing: \{ssl, ground\}, \{ssl, depth\}, \{ground, depth\}"
    with pytest.raises(UsageError, match=names):
        shapley_values(("ssl", "ground", "depth"), game)
    with pytest.raises(UsageError, match=names):
        interaction_indices(("ssl", "ground", "depth"), game)
    with pytest.raises(UsageError, match=r"missing: \{depth, ssl\}"):
        increments(("depth", "ssl", "ground"), game)
    with pytest.raises(UsageError, match="each once"):
        shapley_values(("ssl", "ssl"), game)


def test_a_study_is_attributed_with_intervals(writer: Any, skills: Skills) -> None:
    writer.lattice(skills, ["nyuv2"], seeds=[0, 1])
    study = writer.study()
    found = study_shapley(study, "nyuv2/rmse", resamples=300)
    assert found.unit == "m"
    assert found.seeds == (0, 1)
    values = {c.objective: c.shapley for c in found.contributions}
    # Skill lowers RMSE by 0.8 of itself; overlap and support are shared by their pairs.
    assert values["ssl"].value == pytest.approx(0.8 * (0.2 - 0.03), abs=0.01)
    assert values["ground"].value == pytest.approx(0.8 * 0.12, abs=0.01)
    assert values["depth"].value == pytest.approx(0.8 * (0.05 + 0.03), abs=0.01)
    assert found.total is not None
    assert sum(v.value for v in values.values()) == pytest.approx(found.total.value, abs=1e-12)
    indices = {i.pair: i.index for i in found.interactions}
    assert indices["ssl", "ground"].value == pytest.approx(-0.8 * 0.06, abs=0.015)
    assert indices["ground", "depth"].value == pytest.approx(0.8 * 0.06, abs=0.015)
    for e in (*values.values(), *indices.values()):
        assert e.ci95 is not None
        assert e.ci95[0] < e.value < e.ci95[1]


def test_intervals_are_those_of_the_joint_resamples(writer: Any, skills: Skills) -> None:
    writer.lattice(skills, ["imagenet"])
    draws = draw_cells(writer.study(), "imagenet/top1", resamples=150)
    found = attribution_of(draws)
    order = ("ssl", "ground", "depth")

    def value(subset: frozenset[str], k: int) -> float:
        return float(draws.drawn[("vl", *(o for o in order if o in subset)), 0][k])

    games = [{s: value(s, k) for s in subsets_of(order)} for k in range(150)]
    for c in found.contributions:
        own = [by_permutations(order, g)[c.objective] for g in games]  # type: ignore[arg-type]
        assert c.shapley.ci95 == pytest.approx(tuple(np.percentile([float(v) for v in own], [2.5, 97.5])))


def test_the_papers_order_is_one_of_all(writer: Any, skills: Skills) -> None:
    writer.lattice(skills, ["imagenet"])
    study = writer.study()
    found = study_shapley(study, "imagenet/top1", resamples=20)
    top1 = {o: study.cells[o, 0].metric("imagenet/top1").value for o in study.subsets}  # type: ignore[union-attr]
    path = [("vl",), ("vl", "ssl"), ("vl", "ssl", "ground"), ("vl", "ssl", "ground", "depth")]
    for c, before, after in zip(found.contributions, path, path[1:], strict=False):
        assert c.paper_order.value == pytest.approx(top1[after] - top1[before])  # type: ignore[operator]
        assert c.by_order["ssl", "ground", "depth"] == pytest.approx(c.paper_order.value)
        assert len(c.by_order) == 6
        assert c.span[0] <= c.shapley.value <= c.span[1]
        assert c.shapley.value == pytest.approx(np.mean(list(c.by_order.values())))


def test_holes_in_the_lattice_are_named(writer: Any, table_of: Any) -> None:
    for objectives in (("vl",), ("vl", "ssl"), ("vl", "depth"), ("vl", "ssl", "depth")):
        writer.cell(objectives, {"imagenet": table_of("imagenet", 0.2 + 0.1 * len(objectives))})
    study = writer.study()
    found = study_shapley(study, "imagenet/top1", resamples=20)
    assert found.total is None
    assert found.contributions == found.interactions == ()
    assert found.reason == ("VL + Ground, VL + SSL + Ground, VL + Ground + Depth, VL + SSL + Ground + Depth: not run")
    smaller = study_shapley(study, "imagenet/top1", players=("ssl", "depth"), resamples=20)
    assert smaller.reason == ""
    assert [c.objective for c in smaller.contributions] == ["ssl", "depth"]
    with pytest.raises(UsageError, match="players: different ones of ssl, ground, depth"):
        study_shapley(study, "imagenet/top1", players=("vl", "ssl"))
