"""Scenes are pure functions of their request, and blind to the category wherever it could leak."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from scene_samples import WORLD, objects, request, scenes

from mtv.errors import UsageError
from mtv.miniworld.blocks import hull_points
from mtv.miniworld.clutter import CLUTTER
from mtv.miniworld.compose import make_scene
from mtv.miniworld.scene import Instance, Scene
from mtv.miniworld.settings import HELD_OUT_PATTERNS, SETTINGS
from mtv.miniworld.settings.outdoors import ROAD, SEA
from mtv.miniworld.spec import PURPOSES, Purpose, SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES, COLOURS, PATTERNS

SHIFTED = WorldSpec(shift=True)
SINGLES = 600


def bits(scene: Scene) -> bytes:
    return repr(scene).encode()


# --- purity ---


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_scene_depends_on_nothing_but_its_request(purpose: Purpose) -> None:
    forward = [bits(make_scene(WORLD, request(purpose, i))) for i in range(6)]
    backward = [bits(make_scene(WORLD, request(purpose, i))) for i in (5, 3, 1)]
    assert backward == [forward[5], forward[3], forward[1]]
    assert len(set(forward)) == 6


def test_another_process_makes_the_same_scene() -> None:
    code = (
        "import sys, hashlib\n"
        "from mtv.miniworld.compose import make_scene\n"
        "from mtv.miniworld.spec import *\n"
        "for p in PURPOSES:\n"
        "    r = SceneRequest(split='t', index=3, purpose=p, width=318 if p == 'road' else 96, height=96)\n"
        "    sys.stdout.write(repr(make_scene(WorldSpec(), r)) + '\\n')\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
    ).stdout
    assert out.splitlines() == [repr(make_scene(WORLD, request(p, 3))) for p in PURPOSES]


def test_splits_and_seeds_and_indices_share_no_scene() -> None:
    drawn = [
        make_scene(WorldSpec(seed=seed), request("several", index, split=split))
        for seed in (0, 1)
        for split in ("coco/train", "coco/val", "coco")
        for index in (0, 1, 11)
    ]
    cameras = {s.camera.position + s.camera.rotation[2] for s in drawn}
    assert len(cameras) == len(drawn)
    assert len({bits(s).split(b"setting=", 1)[1] for s in drawn}) == len(drawn)


def test_scenes_survive_pickling() -> None:
    scene = scenes("several", 3)[2]
    assert repr(pickle.loads(pickle.dumps(scene))) == repr(scene)


# --- shift, quiet, individuals ---


def patterns_of(scene: Scene) -> Iterable[str]:
    yield from (s.material.pattern for s in scene.surfaces)
    for instance in scene.instances:
        yield from (m.pattern for slot, m in instance.materials.items() if slot != "dark")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_shift_keeps_settings_and_patterns_for_the_test(purpose: Purpose) -> None:
    held = {s.name for s in SETTINGS if s.held_out}
    train, test = scenes(purpose, 25, SHIFTED, False), scenes(purpose, 25, SHIFTED, True)
    assert not {s.setting for s in train} & held
    assert {s.setting for s in test} <= held
    assert not {p for s in train for p in patterns_of(s)} & set(HELD_OUT_PATTERNS)
    assert {p for s in test for p in patterns_of(s)} <= set(HELD_OUT_PATTERNS)


def test_without_shift_both_sides_use_everything() -> None:
    drawn = scenes("several", 120)
    assert {s.setting for s in drawn} == {s.name for s in SETTINGS}
    assert {p for s in drawn for p in patterns_of(s)} == set(PATTERNS)


def test_settings_name_clutter_that_exists() -> None:
    for setting in SETTINGS:
        kinds = [k for k, _ in setting.near] + [a.kind for a in (*setting.mounted, *setting.far)]
        assert set(kinds) <= set(CLUTTER), setting.name
    assert len({s.name for s in SETTINGS}) == len(SETTINGS) >= 14
    assert {s.outdoor for s in SETTINGS if s.held_out} == {True, False}
    assert {s.held_out for s in SETTINGS if s.strip == "road"} == {True, False}


def test_every_look_serves_both_sides_of_a_shift() -> None:
    looks = [x for s in SETTINGS for x in (s.ground, s.wall, s.ceiling) if x is not None]
    looks += [x for c in CLUTTER.values() for x in c.looks.values()] + [ROAD, SEA]
    for look in looks:
        names = {p for p, _ in look.patterns}
        assert names & set(HELD_OUT_PATTERNS), look.name
        assert names - set(HELD_OUT_PATTERNS), look.name


def test_individuals_keep_shape_and_materials() -> None:
    def main(index: int, individual: int, **more: object) -> Instance:
        return make_scene(WORLD, request("model", index, category="chair", individual=individual, **more)).instances[0]

    first = [main(i, 4) for i in range(5)] + [main(0, 4, split="other/split")]
    assert len({repr((m.shape, m.materials, m.scale, m.identity)) for m in first}) == 1
    assert len({repr(m.rotation) for m in first}) > 3
    others = [main(0, n) for n in range(4)] + [first[0], main(0, 4, test=True)]
    assert len({repr(m.shape) for m in others}) == len(others)
    assert len({m.identity for m in others}) == len(others)
    assert len({s.setting for s in scenes("model", 60)}) > 8


# --- nothing gives the category away ---


def excess(pairs: list[tuple[str, str]]) -> float:
    """Chi-square statistic of independence, in standard deviations above its expectation."""
    rows, columns = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
    table = np.zeros((len(rows), len(columns)))
    for a, b in pairs:
        table[rows.index(a), columns.index(b)] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    freedom = (len(rows) - 1) * (len(columns) - 1)
    return float((((table - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


def test_category_tells_nothing_about_surroundings_colour_or_pattern() -> None:
    mains = [(s, s.instances[0]) for s in scenes("single", SINGLES)]
    # One object per crowd: others may share its colour.
    crowd = [(s, objects(s)[0]) for p in ("several", "indoor") for s in scenes(p, 120)]  # type: ignore[arg-type]
    assert excess([(o.name, s.setting) for s, o in mains]) < 4
    assert excess([(o.name, o.colour) for _, o in mains + crowd]) < 4
    assert excess([(o.name, o.materials["main"].pattern) for _, o in mains + crowd]) < 4
    assert excess([(o.name, str(len(s.instances))) for s, o in mains if len(s.instances) < 10]) < 4


def test_category_tells_nothing_about_the_colour_of_the_ground() -> None:
    hues: dict[str, list[float]] = {c: [] for c in CATEGORIES}
    for scene in scenes("single", SINGLES):
        hues[scene.instances[0].name].append(sum(scene.surfaces[0].material.pigment) / 3)
    every = np.concatenate(list(hues.values()))
    deviations = [(np.mean(h) - every.mean()) / (every.std() / math.sqrt(len(h))) for h in hues.values()]
    assert max(map(abs, deviations)) < 4


def test_the_bound_on_independence_can_fail() -> None:
    """A mild leak (a tenth of the mugs, chairs ... turned red) in as many scenes is found."""
    rng = np.random.default_rng(0)
    fair = [(str(rng.choice(CATEGORIES)), str(rng.choice(COLOURS))) for _ in range(SINGLES)]
    assert excess(fair) < 4
    assert excess([(a, "red" if a < "h" and rng.random() < 0.25 else b) for a, b in fair]) > 4


def test_picture_size_is_alike_for_every_category() -> None:
    sides: dict[str, list[float]] = {c: [] for c in CATEGORIES}
    for scene in scenes("single", SINGLES):
        main = scene.instances[0]
        spots = scene.camera.project(main.to_world(hull_points(main.shape)))[:, :2]
        sides[main.name].append(float(np.ptp(spots, axis=0).max()) / 96)
    means = [np.mean(s) for s in sides.values()]
    assert max(means) - min(means) < 0.12


def test_categories_and_settings_are_about_equally_likely() -> None:
    drawn = scenes("single", SINGLES)
    for counts, kinds in (
        (Counter(s.instances[0].name for s in drawn), len(CATEGORIES)),
        (Counter(s.setting for s in drawn), len(SETTINGS)),
    ):
        assert len(counts) == kinds
        fair = SINGLES / kinds
        assert all(abs(n - fair) < 4.5 * math.sqrt(fair) for n in counts.values()), counts


# --- errors ---


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"purpose": "single", "category": "muggs"}, "did you mean mug"),
        ({"purpose": "several", "category": "mug"}, "category is for single and model"),
        ({"purpose": "single", "individual": 2}, "individual is for model"),
        ({"purpose": "model", "individual": -1}, "must not be negative"),
    ],
)
def test_impossible_requests_are_refused(more: dict[str, object], message: str) -> None:
    asked = SceneRequest(**{"split": "t", "index": 0, "width": 96, "height": 96, **more})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        make_scene(WORLD, asked)
