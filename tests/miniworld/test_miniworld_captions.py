"""Captions are read back word by word and judged against masks, depth and scene; they differ, in length too."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import Counter

import pytest
from caption_judge import Judge
from caption_reader import COLOURS, PHRASES, Reading, UnreadError, read
from language_frames import SETTINGS, Block, frame_of, plain, random_frame, rendered_frames

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.categories import CATALOGUE
from mtv.miniworld.frame import Frame
from mtv.miniworld.language import captions
from mtv.miniworld.language.words import plural, with_article
from mtv.miniworld.settings import SETTINGS as PLACES

TOY_FRAMES = 160


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [random_frame(Draws("captions", i)) for i in range(TOY_FRAMES)] + list(rendered_frames())


@pytest.fixture(scope="module")
def told(frames: list[Frame]) -> list[tuple[Frame, tuple[str, ...]]]:
    return [(f, captions(f, Draws("tell", i))) for i, f in enumerate(frames)]


def traits(frame: Frame) -> tuple[str, ...]:
    return tuple({t for i in frame.scene.instances for t in i.shape.traits})


def test_every_caption_is_understood_and_true(told: list[tuple[Frame, tuple[str, ...]]]) -> None:
    for frame, texts in told:
        judge = Judge(frame)
        for text in texts:
            assert judge.true(read(text, traits(frame))), f"{frame.scene.id}: {text}"


def test_captions_use_all_they_have(told: list[tuple[Frame, tuple[str, ...]]]) -> None:
    """Otherwise the test above would say little."""
    kinds: Counter[object] = Counter()
    for frame, texts in told:
        for reading in (read(text, traits(frame)) for text in texts):
            kinds.update(name for name, _, _ in reading.relations)
            kinds.update(kind for kind, _ in reading.scene)
            for figure in reading.figures:
                kinds.update(kind for kind, _ in figure.claims)
                kinds.update(value for kind, value in figure.claims if kind in ("position", "facing"))
                kinds.update(["number"] if figure.number else [])
    assert set(kinds) >= {
        *("left", "right", "front", "behind", "on", "next", "nearer", "farther", "larger", "smaller"),
        *("setting", "outdoor", "from above", "behind all", "close-up"),
        *("colour", "colours", "second", "pattern", "finish", "trait", "each", "number", "size"),
        *("middle", "foreground", "background", "towards", "away"),
    }


def corrupt(reading: Reading, frame: Frame) -> list[tuple[str, Reading]]:
    """The reading with one claim made false, in several ways."""
    out = []
    judge = Judge(frame)
    flips = {"left": "right", "right": "left", "front": "behind", "behind": "front", "nearer": "farther"}
    for r, (name, first, second) in enumerate(reading.relations):
        if name in flips:
            wrong = copy.deepcopy(reading)
            wrong.relations[r] = (flips[name], first, second)
            out.append(("relation", wrong))
    for f, figure in enumerate(reading.figures):
        wrong = copy.deepcopy(reading)
        wrong.figures[f].number = (figure.number or 5) + 3
        out.append(("number", wrong))
        if figure.name in CATALOGUE:
            shown = {c for i in judge.visible(figure.name) for c in judge.shares(i)}
            for colour in [c for c in COLOURS if c not in shown][:1]:
                wrong = copy.deepcopy(reading)
                wrong.figures[f].claims.append(("colour", colour))
                out.append(("colour", wrong))
    return out


def test_the_judge_rejects_what_is_false(told: list[tuple[Frame, tuple[str, ...]]]) -> None:
    verdicts: dict[str, Counter[bool]] = {"relation": Counter(), "number": Counter(), "colour": Counter()}
    for frame, texts in told[::3]:
        for text in texts:
            for kind, wrong in corrupt(read(text, traits(frame)), frame):
                verdicts[kind][Judge(frame).true(wrong)] += 1
    assert verdicts["number"][True] == verdicts["colour"][True] == 0 < min(v[False] for v in verdicts.values())
    # a swapped relation may hold between other objects of the same kinds
    assert verdicts["relation"][True] < 0.15 * verdicts["relation"].total()
    with pytest.raises(UnreadError):
        read("a wonderful mug")
    with pytest.raises(UnreadError):
        read("a mug in a castle")


def test_five_different_captions_of_three_to_thirty_words(told: list[tuple[Frame, tuple[str, ...]]]) -> None:
    lengths: Counter[int] = Counter()
    for _, texts in told:
        assert len(texts) == 5
        assert len({re.sub(r"\W+", " ", t.lower()).strip() for t in texts}) == 5
        lengths.update(len(t.split()) for t in texts)
    total = lengths.total()
    assert set(lengths) == set(range(3, 31))
    assert 0.03 < sum(lengths[n] for n in range(3, 6)) / total < 0.3
    assert 0.1 < sum(lengths[n] for n in range(18, 31)) / total < 0.4
    assert max(lengths.values()) < 0.12 * total


def test_written_in_different_hands(told: list[tuple[Frame, tuple[str, ...]]]) -> None:
    texts = [t for _, five in told for t in five]
    for share in (sum(t[0].isupper() for t in texts), sum(t.endswith(".") for t in texts)):
        assert 0.3 < share / len(texts) < 0.8
    assert not any(
        re.search(r"\ba [aeiou]|\ban [^aeiou]|\ba \w+s\b (?!of)", t.lower()) for t in texts if "glass" not in t
    )
    assert not any("  " in t or " ," in t or t != t.strip() for t in texts)


def test_captions_tell_pictures_apart(told: list[tuple[Frame, tuple[str, ...]]]) -> None:
    """Repeats over frames are rare, and few captions fit another one of the rendered frames."""
    real = [(f, five) for f, five in told[TOY_FRAMES:] if "several" in f.scene.id]
    texts = Counter(t.lower().rstrip(".") for _, five in real for t in five)
    assert sum(n for n in texts.values() if n > 1) < 0.05 * texts.total()
    judges = [Judge(f) for f, _ in real]
    fits = [
        any(judge.true(read(text, traits(frame))) for judge in judges if judge.frame is not frame)
        for frame, five in real
        for text in five
    ]
    assert sum(fits) < 0.25 * len(fits)


def test_captions_are_a_pure_function_of_frame_and_stream(frames: list[Frame]) -> None:
    for frame in frames[:20]:
        used = Draws("again")
        used.uniform(0, 1)
        assert captions(frame, Draws("again")) == captions(frame, used)
        assert captions(frame, Draws("again")) != captions(frame, Draws("other"))
        assert captions(frame, Draws("again"), 7)[:3] == captions(frame, Draws("again"), 3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_frame_without_objects_is_described_by_its_place(setting: tuple[str, str, bool]) -> None:
    bush = Block(name="bush", rect=(10, 40, 40, 80), depth=5, material=plain("green"))
    sliver = Block(name="mug", rect=(60, 60, 62, 62), depth=2, material=plain("red"))
    for frame in (frame_of(setting=setting), frame_of(bush, sliver, setting=setting)):
        texts = captions(frame, Draws(3), 12)
        assert all(Judge(frame).true(read(t)) and "mug" not in t for t in texts)
        assert all(setting[0] in t.lower() for t in texts)


def test_uncertain_counts_are_never_said() -> None:
    """Of three chairs one is a sliver: neither two nor three."""
    chairs = [Block(name="chair", rect=(x, 30, x + 30, 70), depth=3, material=plain("red")) for x in (5, 50)]
    sliver = Block(name="chair", rect=(90, 10, 92, 13), depth=3, material=plain("red"))
    sure = captions(frame_of(*chairs), Draws(0), 40)
    unsure = captions(frame_of(*chairs, sliver), Draws(0), 40)
    assert any(re.search(r"\b(two|pair)\b", t.lower()) for t in sure)
    assert not any(re.search(r"\b(two|three|pair|chairs)\b", t.lower()) for t in unsure)


def test_colour_of_what_shows_and_not_of_what_it_is_made_of() -> None:
    """A bottle of white and red stripes whose white ones alone are in view is never called red or striped."""
    striped = plain("red", second_colour="white", pattern="striped")
    frame = frame_of(Block(name="bottle", rect=(20, 20, 60, 80), depth=2, material=striped))
    white = frame.pigment_HW.copy()
    white[white == 1] = 2
    hidden = Frame(**{**vars(frame), "pigment_HW": white})
    assert any("red" in t.lower() for t in captions(frame, Draws(1), 20))
    texts = captions(hidden, Draws(1), 20)
    assert any("white" in t.lower() for t in texts)
    assert not any(re.search(r"\bred\b|strip", t.lower()) for t in texts)


def test_more_captions_than_there_are_give_an_error() -> None:
    with pytest.raises(UsageError, match="different captions"):
        captions(frame_of(), Draws(0), 30)


def test_words_agree_with_the_catalogue_and_the_settings() -> None:
    for name, category in CATALOGUE.items():
        assert plural(name) == category.plural
        assert with_article(name) == f"{category.article} {name}"
    assert {p.phrase: p.name for p in PLACES} == PHRASES


def test_language_needs_no_torch() -> None:
    code = "import sys, mtv.miniworld.language; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
