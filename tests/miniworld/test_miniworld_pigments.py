"""The pigment map says which colour shows: it covers the objects, and the picture's own colours bear it out."""

from __future__ import annotations

import itertools

import numpy as np
from language_frames import rendered_frames

from mtv.miniworld.frame import Frame
from mtv.miniworld.scene import Instance
from mtv.miniworld.shapes import SLOTS

BLENDS = ("marbled", "shaded")


def objects(frame: Frame) -> list[tuple[Instance, np.ndarray]]:
    pairs = ((x, frame.instance_HW == i + 1) for i, x in enumerate(frame.scene.instances) if x.is_object)
    return [(x, mask) for x, mask in pairs if mask.any()]


def pigment(instance: Instance, code: int) -> np.ndarray:
    material = instance.materials[SLOTS[(code - 1) // 2]]
    return np.array(material.pigment if code % 2 else material.second_pigment)


def test_pigments_lie_on_objects_and_name_slots_that_these_have() -> None:
    for frame in rendered_frames():
        everywhere = np.zeros_like(frame.instance_HW, dtype=bool)
        for instance, mask in objects(frame):
            everywhere |= mask
            slots = {p.slot for p in instance.shape.parts}
            codes = {int(c) for c in np.unique(frame.pigment_HW[mask])}
            assert {SLOTS[(c - 1) // 2] for c in codes - {0}} <= slots
            if not any(instance.materials[s].pattern in BLENDS for s in slots):
                assert 0 not in codes
            plain = {k for k, s in enumerate(SLOTS) if s in slots and instance.materials[s].pattern == "plain"}
            assert not any(2 * k + 2 in codes for k in plain)
        assert not frame.pigment_HW[~everywhere].any()


def test_the_picture_differs_the_way_the_pigments_do() -> None:
    """Between two pigments of one object the mean colour moves in the direction from the one to the other."""
    agree = []
    for frame in rendered_frames():
        for instance, mask in objects(frame):
            codes, counts = np.unique(frame.pigment_HW[mask], return_counts=True)
            for a, b in itertools.combinations(codes[(codes > 0) & (counts >= 20)].tolist(), 2):
                step = pigment(instance, b) - pigment(instance, a)
                if np.linalg.norm(step) < 0.3:
                    continue
                means = [frame.rgb_HW3[mask & (frame.pigment_HW == c)].mean(axis=0) for c in (a, b)]
                agree.append(float((means[1] - means[0]) @ step) > 0)
    assert len(agree) > 50
    assert np.mean(agree) > 0.95


def test_the_second_pigment_of_a_pattern_covers_less_than_the_first() -> None:
    first = second = 0
    for frame in rendered_frames():
        for instance, mask in objects(frame):
            for k, slot in enumerate(SLOTS):
                if slot in instance.materials and instance.materials[slot].pattern in ("striped", "checked", "dotted"):
                    first += int((frame.pigment_HW[mask] == 2 * k + 1).sum())
                    second += int((frame.pigment_HW[mask] == 2 * k + 2).sum())
    assert 0.25 < second / (first + second) < 0.5
