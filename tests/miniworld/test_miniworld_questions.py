"""Questions have one right answer, which an independent judge finds in masks, depth and scene; answers are balanced."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
from caption_judge import Judge
from language_frames import SETTINGS, Block, frame_of, plain, random_frame, rendered_frames
from question_judge import resolve, right_choices

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.frame import Frame
from mtv.miniworld.language import PairQuestion, Question, pair_questions, questions
from mtv.miniworld.language.items import TASKS
from mtv.miniworld.language.pairs import PairKind

FRAMES = 200


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [random_frame(Draws("questions", i)) for i in range(FRAMES)] + list(rendered_frames())


@pytest.fixture(scope="module")
def asked(frames: list[Frame]) -> list[tuple[Frame, Question]]:
    return [(f, q) for i, f in enumerate(frames) for n in range(3) for q in questions(f, Draws("ask", i, n))]


def near(share: float, expected: float, count: int) -> bool:
    """Whether a share of `count` draws lies within four standard deviations."""
    return abs(share - expected) < 4 * (expected * (1 - expected) / count) ** 0.5


def test_the_judge_finds_exactly_the_answer_that_is_given(asked: list[tuple[Frame, Question]]) -> None:
    assert set(TASKS) == {q.kind for _, q in asked}
    judges = {id(f): Judge(f) for f, _ in asked}
    for frame, q in asked:
        assert right_choices(judges[id(frame)], q.question, q.choices) == [q.choices[q.answer]], q


def test_colours_that_are_wrong_are_nowhere_on_the_object() -> None:
    mixed = plain("red", second_colour="white", pattern="striped")
    frame = frame_of(Block(name="mug", rect=(20, 20, 60, 60), depth=2, material=mixed))
    for n in range(50):
        (q,) = [q for q in questions(frame, Draws(n)) if q.kind == "colour"]
        assert q.choices[q.answer] == "red"
        assert "white" not in q.choices


def test_positions_are_balanced(asked: list[tuple[Frame, Question]]) -> None:
    places: dict[int, Counter[int]] = defaultdict(Counter)
    for _, q in asked:
        places[len(q.choices)][q.answer] += 1
    for choices, counts in places.items():
        total = counts.total()
        assert all(near(counts[place] / total, 1 / choices, total) for place in range(choices)), (choices, counts)


@pytest.mark.parametrize(
    ("kind", "answers"),
    [("existence", ("Yes", "No")), ("side", ("left", "right")), ("front", ("in front", "behind"))],
)
def test_answers_are_balanced(asked: list[tuple[Frame, Question]], kind: str, answers: tuple[str, str]) -> None:
    found = Counter(q.choices[q.answer] for _, q in asked if q.kind == kind)
    assert set(found) == set(answers)
    assert near(found[answers[0]] / found.total(), 0.5, found.total()), found


def test_first_named_object_is_the_answer_half_of_the_time(asked: list[tuple[Frame, Question]]) -> None:
    for kind in ("depth", "distance"):
        firsts = [
            q.question.index(q.choices[q.answer]) < q.question.index(q.choices[1 - q.answer])
            for _, q in asked
            if q.kind == kind and all(c in q.question for c in q.choices)
        ]
        assert near(sum(firsts) / len(firsts), 0.5, len(firsts)), kind


def test_the_nearer_object_is_as_often_the_larger_one() -> None:
    """Otherwise sizes would give depth away: small objects stand nearer in this world."""
    larger = []
    for i, frame in enumerate(rendered_frames()):
        judge = Judge(frame)
        for q in (q for n in range(4) for q in questions(frame, Draws("size", i, n)) if q.kind == "depth"):
            a, b = (resolve(judge, c) for c in q.choices)
            larger.append((judge.extent(a) > judge.extent(b)) == (judge.depth(a) < judge.depth(b)))
    assert near(sum(larger) / len(larger), 0.5, len(larger) // 4)


def test_no_question_about_an_object_of_which_a_sliver_has_a_rival() -> None:
    """A second mug of four pixels makes both the count and `the mug` uncertain."""
    mug = Block(name="mug", rect=(10, 30, 50, 70), depth=2, material=plain("red"))
    dog = Block(name="dog", rect=(60, 30, 90, 70), depth=4, material=plain("blue"))
    sliver = Block(name="mug", rect=(70, 5, 72, 7), depth=3, material=plain("red"))
    without = [q for n in range(30) for q in questions(frame_of(mug, dog), Draws(n))]
    withal = [q for n in range(30) for q in questions(frame_of(mug, dog, sliver), Draws(n))]
    assert {"side", "depth", "colour"} <= {q.kind for q in without}
    assert any("mugs" in q.question for q in without)
    assert not any("mugs" in q.question for q in withal)
    assert not any(q.kind in ("side", "depth") for q in withal)
    assert not any(q.kind == "colour" and "mug" in q.question for q in withal)


@pytest.mark.parametrize(("gap", "told"), [(8, False), (12, True)])
def test_left_and_right_need_a_tenth_of_the_width(gap: int, told: bool) -> None:
    first = Block(name="mug", rect=(30, 10, 36, 30), depth=2, material=plain("red"))
    second = Block(name="dog", rect=(30 + gap, 60, 36 + gap, 90), depth=2, material=plain("blue"))
    assert ("side" in {q.kind for q in questions(frame_of(first, second), Draws(0))}) == told


@pytest.mark.parametrize(("depth", "told"), [(2.25, False), (2.35, True)])
def test_depth_needs_fifteen_percent(depth: float, told: bool) -> None:
    first = Block(name="mug", rect=(10, 10, 40, 40), depth=2, material=plain("red"))
    second = Block(name="dog", rect=(50, 50, 90, 90), depth=depth, material=plain("blue"))
    assert any(q.kind == "depth" for n in range(20) for q in questions(frame_of(first, second), Draws(n))) == told


def test_questions_are_a_pure_function_of_frame_and_stream(frames: list[Frame]) -> None:
    for frame in frames[:20]:
        used = Draws("again")
        used.uniform(0, 1)
        assert questions(frame, Draws("again")) == questions(frame, used)


def test_cvbench_names() -> None:
    item = Question(kind="distance", question="?", choices=("a", "b"), answer=0)
    assert (item.type, item.task) == ("3D", "Distance")
    assert {task for kind, (_, task) in TASKS.items() if kind not in ("existence", "colour")} == {
        "Count",
        "Relation",
        "Depth",
        "Distance",
    }


def test_an_item_whose_answer_is_no_choice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Question\.answer"):
        Question(kind="count", question="?", choices=("1", "2"), answer=2)
    with pytest.raises(UsageError, match=r"PairQuestion\.answers"):
        PairQuestion(kind="count", question="?", choices=("1", "2"), answers=(1, 1))


def variants(i: int) -> tuple[Frame, Frame]:
    """Two random frames of the same three kinds of objects: similar pictures."""
    draws = Draws("pair", i)
    kinds, pair = draws.sample(("mug", "dog", "table", "car"), 3), []
    for side in (0, 1):
        d = draws.child(side)
        blocks = []
        for k, kind in enumerate(kinds):
            left, top = d.integer(0, 60), d.integer(0, 60)
            on = k - 1 if k and d.chance(0.3) else None
            depth = d.uniform(1, 6)
            if on is not None:
                left, top, depth = blocks[on].rect[0], blocks[on].rect[1] - 30, blocks[on].depth - 0.01
            options = {} if d.chance(0.4) else {"second_colour": "black", "pattern": "striped"}
            material = plain(d.choice(("red", "blue", "green")), **options)
            rect = (left, top, left + d.integer(15, 35), top + 30)
            blocks.append(Block(name=kind, rect=rect, depth=depth, material=material, on=on, heading=d.uniform(0, 360)))
        if d.chance(0.3):
            blocks.append(replace(blocks[0], rect=(60, 64, 94, 94)))
        blocks = blocks[: d.integer(2, len(blocks) + 1)]
        pair.append(frame_of(*blocks, setting=d.choice(SETTINGS[1:]), pitch=d.choice((0.0, 20.0, 40.0))))
    return pair[0], pair[1]


def test_paired_answers_are_right_and_opposite() -> None:
    kinds: Counter[str] = Counter()
    flips: Counter[int] = Counter()
    for i in range(250):
        first, second = variants(i)
        item = pair_questions(first, second, Draws(i))
        if item is None:
            continue
        kinds[item.kind] += 1
        flips[item.answers[0]] += 1
        for frame, answer in zip((first, second), item.answers, strict=True):
            assert right_choices(Judge(frame), item.question, item.choices) == [item.choices[answer]], item
    assert set(kinds) == set(get_args(PairKind)), kinds
    assert near(flips[0] / flips.total(), 0.5, flips.total())


def test_paired_answers_on_real_frames() -> None:
    frames = rendered_frames()
    for i, (first, second) in enumerate(pairwise(frames)):
        for n in range(5):
            item = pair_questions(first, second, Draws(i, n))
            if item is not None:
                for frame, answer in zip((first, second), item.answers, strict=True):
                    assert right_choices(Judge(frame), item.question, item.choices) == [item.choices[answer]], item


def test_only_the_wanted_kinds_of_pairs() -> None:
    first, second = (f for f in variants(2))
    every = {item.kind for n in range(40) if (item := pair_questions(first, second, Draws(n)))}
    assert len(every) > 1
    for kind in every:
        assert all(pair_questions(first, second, Draws(n), {kind}).kind == kind for n in range(5))  # type: ignore[union-attr]
    assert pair_questions(first, second, Draws(0), ()) is None


def test_equal_pictures_have_no_paired_question(frames: list[Frame]) -> None:
    assert all(pair_questions(f, f, Draws(0)) is None for f in frames[:50])
