"""Regions are tight boxes of the instance masks with true names at every level."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from caption_judge import Judge
from caption_reader import SCENERY, read
from language_frames import Block, frame_of, plain, random_frame, rendered_frames

from mtv.draws import Draws
from mtv.miniworld.frame import Frame
from mtv.miniworld.language import Region, regions


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [random_frame(Draws("regions", i)) for i in range(120)] + list(rendered_frames())


def by_instance(frame: Frame) -> dict[int, list[Region]]:
    out = defaultdict(list)
    for region in regions(frame):
        out[region.index].append(region)
    return out


def test_boxes_are_the_tight_bounds_of_the_masks(frames: list[Frame]) -> None:
    for frame in frames:
        for region in regions(frame):
            rows, columns = np.nonzero(frame.instance_HW == region.index + 1)
            assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_names_are_true_of_their_own_instance(frames: list[Frame]) -> None:
    for frame in frames:
        judge = Judge(frame)
        for region in regions(frame):
            (figure,) = read(region.name).figures
            assert (region.index,) in judge.candidates(figure), (frame.scene.id, region)


def test_levels_rise_from_the_category(frames: list[Frame]) -> None:
    seen = set()
    for frame in frames:
        for index, named in by_instance(frame).items():
            name = frame.scene.instances[index].name
            assert [r.level for r in named] == list(range(len(named)))
            assert named[0].name == name
            assert all(r.name.endswith(f" {name}") for r in named[1:])
            assert all(long.name.endswith(short.name) for short, long in pairwise(named))
            seen.add(len(named))
            if name in SCENERY:
                assert len(named) == 1
    assert seen == {1, 2, 3}


def test_every_nameable_object_and_nothing_else(frames: list[Frame]) -> None:
    for frame in frames:
        found = {i for i in by_instance(frame) if frame.scene.instances[i].is_object}
        wanted = {s.index for _, s in frame.objects() if s.pixels >= 0.0012 * frame.instance_HW.size}
        assert found == wanted


def test_most_objects_have_two_levels() -> None:
    levels = [
        len(named) for f in rendered_frames() for i, named in by_instance(f).items() if f.scene.instances[i].is_object
    ]
    assert sum(n >= 2 for n in levels) > 0.6 * len(levels)


def test_slivers_and_hidden_objects_have_no_region() -> None:
    mug = Block(name="mug", rect=(20, 20, 60, 60), depth=4, material=plain("red"))
    cover = Block(name="dog", rect=(20, 20, 60, 54), depth=2, material=plain("blue"))
    sliver = Block(name="car", rect=(80, 80, 83, 83), depth=2, material=plain("grey"))
    crumb = Block(name="window", rect=(0, 0, 6, 6), depth=9, material=plain("white"))
    pane = Block(name="window", rect=(70, 0, 90, 20), depth=9, material=plain("white"))
    found = regions(frame_of(mug, cover, sliver, crumb, pane))
    assert {r.index for r in found} == {1, 4}
    assert [r.name for r in found] == ["dog", "blue dog", "window"]


def test_patterned_names() -> None:
    striped = plain("red", second_colour="white", pattern="striped")
    (bottle,) = by_instance(frame_of(Block(name="bottle", rect=(20, 20, 60, 80), depth=2, material=striped))).values()
    assert [r.name for r in bottle] == ["bottle", "red bottle", "striped red bottle"]
