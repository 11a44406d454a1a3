"""Streams are functions of their key, and their draws have the distributions they claim."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.materials import _HSV, Material, draw_material, draw_pigment
from mtv.miniworld.vocabulary import COLOURS, PATTERNS

KEYS = st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=4)), min_size=1, max_size=4)


@given(KEYS, KEYS)
def test_equal_keys_give_equal_streams_and_others_differ(a: list[int | str], b: list[int | str]) -> None:
    first, second = ([Draws(*k).uniform(0, 1) for _ in range(1)] for k in (a, b))
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (first == second) == same


def test_children_do_not_depend_on_what_was_drawn() -> None:
    fresh, used = Draws(0, "a"), Draws(0, "a")
    for _ in range(100):
        used.uniform(0, 1)
    assert fresh.child("b", 3).integer(0, 1 << 30) == used.child("b", 3).integer(0, 1 << 30)
    assert Draws(0, "a", "b").uniform(0, 1) == Draws(0, "a").child("b").uniform(0, 1)


def test_golden_draws() -> None:
    """Worlds made by different versions of Python agree: the stream is part of the format."""
    draws = Draws(0, "golden")
    assert [draws.integer(0, 1000) for _ in range(10)] == [453, 872, 213, 704, 80, 561, 177, 166, 609, 526]


def test_uniform_and_normal_distributions() -> None:
    draws = Draws("distribution")
    assert stats.kstest([draws.uniform(2, 5) for _ in range(4000)], "uniform", (2, 3)).pvalue > 1e-3
    assert stats.kstest([draws.normal(1, 2) for _ in range(4000)], "norm", (1, 2)).pvalue > 1e-3


def test_choices_follow_their_weights() -> None:
    draws = Draws("weights")
    counts = np.bincount([draws.choice((0, 1, 2), (1, 0, 3)) for _ in range(4000)], minlength=3)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2]], [1000, 3000]).pvalue > 1e-3
    shuffles = [tuple(draws.shuffled("abc")) for _ in range(3000)]
    assert stats.chisquare([shuffles.count(s) for s in set(shuffles)]).pvalue > 1e-3
    assert len(set(shuffles)) == 6
    picked = draws.sample(range(9), 4)
    assert len(set(picked)) == 4
    assert set(picked) <= set(range(9))


@pytest.mark.parametrize("colour", COLOURS)
def test_pigments_bear_their_name(colour: str) -> None:
    """A pigment drawn for a name lies in that name's ranges and in no other's."""
    draws = Draws("pigments", colour)
    for _ in range(200):
        hue, saturation, value = colorsys.rgb_to_hsv(*draw_pigment(draws, colour))
        names = [
            name
            for name, ((h0, h1), (s0, s1), (v0, v1)) in _HSV.items()
            if any(h0 - 1e-9 <= hue + k <= h1 + 1e-9 for k in (-1, 0, 1) if saturation > 1e-6 or name == colour)
            and s0 - 1e-9 <= saturation <= s1 + 1e-9
            and v0 - 1e-9 <= value <= v1 + 1e-9
        ]
        assert names == [colour]


def test_materials_are_valid_and_varied() -> None:
    draws = Draws("materials")
    made = [draw_material(draws, period=(0.1, 0.2)) for _ in range(800)]
    assert {m.colour for m in made} == set(COLOURS)
    assert {m.pattern for m in made} == set(PATTERNS)
    assert all(math.isclose(sum(c * c for c in m.axis), 1, abs_tol=1e-6) for m in made)
    assert all((m.pattern == "plain") == (m.colour == m.second_colour) for m in made)
    only = [draw_material(draws, period=(0.1, 0.2), patterns=("striped",)) for _ in range(20)]
    assert {m.pattern for m in only} == {"striped"}
    with pytest.raises(UsageError, match=r"Material\.colour"):
        Material(colour="mauve", pigment=(0, 0, 0), second_colour="red", second_pigment=(0, 0, 0))
