"""Recipes travel through JSON unchanged and refuse what makes no sense."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.recipes import Recipe

names = st.text("abc_/@0.", min_size=1, max_size=8)


@given(
    column=names,
    threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    strict=st.booleans(),
    weight=st.none() | names,
    where=st.dictionaries(names, st.text(max_size=3) | st.integers() | st.booleans(), max_size=3),
    group=st.none() | names,
    scale=st.floats(0.001, 1000),
    chance=st.none() | st.floats(0, 100),
    headline=st.booleans(),
)
def test_ratio_recipe_survives_json(column, threshold, strict, weight, where, group, scale, chance, headline) -> None:
    recipe = Recipe(
        kind="ratio",
        column=column,
        at_most=None if strict else threshold,
        below=threshold if strict else None,
        weight=weight,
        where=where,
        group=group,
        scale=scale,
        chance=chance,
        headline=headline,
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_combination_survives_json_as_a_tuple() -> None:
    recipe = Recipe(kind="average", of=("navi/recall_1cm", "navi/recall_2cm"), headline=True)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.of == ("navi/recall_1cm", "navi/recall_2cm")


def test_only_fields_that_differ_from_their_default_are_stored() -> None:
    assert Recipe(kind="ratio", column="hit").to_dict() == {"kind": "ratio", "column": "hit"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"kind": "ratio"}, "column"),
        ({"kind": "average"}, "of"),
        ({"kind": "root", "of": ("a", "b")}, "takes one metric"),
        ({"kind": "sum", "of": ("a",), "column": "x"}, "column"),
        ({"kind": "ratio", "column": "x", "of": ("a",)}, "of"),
        ({"kind": "ratio", "column": "x", "at_most": 1.0, "below": 1.0}, "at_most"),
    ],
)
def test_contradictory_recipes_name_the_field(fields: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Recipe(**fields)


def test_unknown_field_of_a_newer_version_is_refused() -> None:
    with pytest.raises(UsageError, match="quantile"):
        Recipe.from_dict({"kind": "ratio", "column": "x", "quantile": 0.9})
