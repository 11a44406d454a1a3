"""Judges what `caption_reader` read against a frame's masks, depth and scene, by rules of its own.

A reading is true of a frame if its figures can be matched to different instances so that every claim holds. Nothing
here uses `mtv.miniworld.language`; limits are a little wider than the ones a caption must keep.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from caption_reader import CATEGORIES, Figure, Reading

from mtv.miniworld.frame import Frame
from mtv.miniworld.materials import Material
from mtv.miniworld.scene import Instance
from mtv.miniworld.shapes import SLOTS

T = TypeVar("T")


def _once(method: Callable[[Judge, Any], T]) -> Callable[[Judge, Any], T]:
    """Remember what a method of a judge found."""

    @wraps(method)
    def remembered(judge: Judge, key: Any) -> T:
        known = judge.memory.setdefault(method.__name__, {})
        if key not in known:
            known[key] = method(judge, key)
        return known[key]

    return remembered


class Judge:
    """Looks at one frame."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.scene = frame, frame.scene
        self.width = frame.instance_HW.shape[1]
        self.memory: dict[str, dict[Any, Any]] = {}

    def true(self, reading: Reading) -> bool:
        """Whether the reading holds for the frame."""
        if not all(self._scene_claim(k, v) for k, v in reading.scene if k not in ("behind all", "close-up")):
            return False
        options = [self.candidates(f) for f in reading.figures]
        return any(self._fits(reading, match) for match in itertools.product(*options))

    @_once
    def mask(self, i: int) -> np.ndarray:
        """bool [H,W] of an instance."""
        return self.frame.instance_HW == i + 1

    @_once
    def visible(self, name: str) -> list[int]:
        """Instances of a class with any visible pixel."""
        return [i for i, x in enumerate(self.scene.instances) if x.name == name and self.mask(i).any()]

    @_once
    def column(self, i: int) -> float:
        """Mean column of the mask."""
        return float(np.nonzero(self.mask(i))[1].mean())

    @_once
    def depth(self, i: int) -> float:
        """Median depth."""
        return float(np.median(self.frame.depth_HW[self.mask(i)]))

    @_once
    def box(self, i: int) -> tuple[int, int, int, int]:
        """Tight bounds of the mask."""
        rows, columns = np.nonzero(self.mask(i))
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    def longest(self, i: int) -> int:
        """Longer side of the box."""
        left, top, right, bottom = self.box(i)
        return max(right - left, bottom - top)

    @_once
    def centre(self, i: int) -> np.ndarray:
        """Middle of the instance's parts in the world."""
        instance = self.scene.instances[i]
        points = instance.to_world(instance.shape.corners.reshape(-1, 3))
        return (points.min(axis=0) + points.max(axis=0)) / 2

    @_once
    def extent(self, i: int) -> float:
        """Longest side in the object's own axes, metres."""
        instance = self.scene.instances[i]
        return instance.scale * float(np.ptp(instance.shape.corners.reshape(-1, 3), axis=0).max())

    def pigments(self, i: int) -> np.ndarray:
        """Codes of the pixels of an instance that show one pigment."""
        codes = self.frame.pigment_HW[self.mask(i)]
        return codes[codes > 0]

    @_once
    def shares(self, i: int) -> Counter[str]:
        """Visible share of every colour on an instance, by its name."""
        codes, counts = np.unique(self.pigments(i), return_counts=True)
        out: Counter[str] = Counter()
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            material = self.scene.instances[i].materials[SLOTS[(code - 1) // 2]]
            out[material.colour if code % 2 else material.second_colour] += count / counts.sum()
        return out

    @_once
    def coat(self, i: int) -> Material | None:
        """The material that covers more than half of what is seen of an instance, if there is one."""
        codes = self.pigments(i)
        for k, slot in enumerate(SLOTS):
            if np.isin(codes, (2 * k + 1, 2 * k + 2)).mean() > 0.5:
                return self.scene.instances[i].materials[slot]
        return None

    def patterned(self, i: int, pattern: object) -> bool:
        """Whether the coat has the pattern, in colours that are seen."""
        coat, shares = self.coat(i), self.shares(i)
        if coat is None or coat.pattern != pattern:
            return False
        return min(shares[coat.colour], shares[coat.second_colour]) > (0.1 if pattern != "plain" else 0.65)

    def coloured(self, i: int, colour: object) -> bool:
        """Whether most of what is seen has the colour."""
        shares = self.shares(i)
        return shares[str(colour)] > 0.45 and shares.most_common(1)[0][0] == colour

    def two_coloured(self, i: int, pair: object) -> bool:
        """Whether the two colours are the most frequent ones."""
        shares = self.shares(i)
        top = shares.most_common(2)
        return {c for c, _ in top} == pair and top[1][1] > 0.1 and top[0][1] + top[1][1] > 0.6

    def _scene_claim(self, kind: str, value: object) -> bool:
        if kind == "setting":
            return self.scene.setting == value
        if kind == "outdoor":
            return self.scene.outdoor == value
        if kind == "from above":
            return self.scene.camera.rotation[2][2] < -0.45
        raise AssertionError(kind)

    def candidates(self, figure: Figure) -> list[tuple[int, ...]]:
        """The instances, or the group of all instances of a class, of which all is true that is said of the figure."""
        shown = self.visible(figure.name)
        if figure.number:
            fits = len(shown) == figure.number and all(self._holds(figure, i) for i in shown)
            return [tuple(shown)] if fits else []
        least = 12 if figure.name in CATEGORIES else 0.01 * self.frame.instance_HW.size
        return [(i,) for i in shown if self.mask(i).sum() >= least and self._holds(figure, i)]

    def _holds(self, figure: Figure, i: int) -> bool:
        return all(
            _CLAIMS[kind](self, i, value) for kind, value in figure.claims if kind not in ("each", "position")
        ) and (
            all(
                self.placed(i, v) for k, v in figure.claims if k == "position" and v not in ("foreground", "background")
            )
        )

    def _fits(self, reading: Reading, match: Sequence[tuple[int, ...]]) -> bool:
        everyone = [i for group in match for i in group]
        if len(set(everyone)) < len(everyone):
            return False
        for name, first, second in reading.relations:
            if not all(_RELATIONS[name](self, a, b) for a in match[first] for b in match[second]):
                return False
        return self._each(reading, match) and self._grounds(reading, match) and self._view(reading, match)

    def _each(self, reading: Reading, match: Sequence[tuple[int, ...]]) -> bool:
        """`one red and one blue`."""
        for figure, group in zip(reading.figures, match, strict=True):
            for kind, value in figure.claims:
                if kind == "each":
                    options = itertools.permutations(value)  # type: ignore[call-overload]
                    if not any(all(map(self.coloured, group, order)) for order in options):
                        return False
        return True

    def _grounds(self, reading: Reading, match: Sequence[tuple[int, ...]]) -> bool:
        """Foreground is nearer than background."""
        depths: dict[object, list[float]] = {"foreground": [], "background": []}
        for figure, group in zip(reading.figures, match, strict=True):
            for kind, value in figure.claims:
                if kind == "position" and value in depths:
                    depths[value] += [self.depth(i) for i in group]
        near, far = depths["foreground"], depths["background"]
        return not near or not far or max(near) * 1.3 < min(far)

    def _view(self, reading: Reading, match: Sequence[tuple[int, ...]]) -> bool:
        """Scenery behind everything mentioned; close-ups."""
        for kind, value in reading.scene:
            if kind == "close-up":
                left, top, right, bottom = self.box(match[0][0])
                if (right - left) * (bottom - top) < 0.35 * self.frame.instance_HW.size:
                    return False
            if kind == "behind all":
                behind = set(value)  # type: ignore[call-overload]
                back = [self.depth(i) for f in behind for i in match[f]]
                front = [self.depth(i) for f, group in enumerate(match) if f not in behind for i in group]
                if max(front) > min(back):
                    return False
        return True

    def placed(self, i: int, place: object) -> bool:
        """Whether an instance is at the left, right or middle of the picture."""
        at = self.column(i) / self.width
        return {"left": at < 0.45, "right": at > 0.55, "middle": abs(at - 0.5) < 0.2}[str(place)]

    def faces(self, i: int, way: object) -> bool:
        """Where the object's x axis goes when the object moves along it a little."""
        instance = self.scene.instances[i]
        centre = self.centre(i)
        step = 0.01 * np.array(instance.rotation) @ np.array([1.0, 0, 0])
        x0, y0, z0 = self.scene.camera.project(centre)
        x1, y1, _ = self.scene.camera.project(centre + step)
        nearer = np.linalg.norm(centre + step - self.scene.camera.position) < np.linalg.norm(
            centre - self.scene.camera.position
        )
        across = np.hypot(x1 - x0, y1 - y0) * z0 / self.scene.camera.focal / 0.01
        sideways = abs(x1 - x0) * z0 / self.scene.camera.focal / 0.01
        if way in ("left", "right"):
            return bool(sideways > 0.6 and (x1 < x0) == (way == "left"))
        return bool(across < 0.8 and nearer == (way == "towards"))

    def has_trait(self, i: int, trait: object) -> bool:
        """Whether it has the part and a keypoint of it is in sight."""
        stems = [word.rstrip("s") for word in str(trait).split() if len(word) > 3]
        in_sight = any(k.visible and any(s in k.name for s in stems) for k in self.frame.keypoints(i))
        return str(trait) in self.scene.instances[i].shape.traits and in_sight

    def sized(self, i: int, size: object) -> bool:
        """Whether the only other one of its kind is smaller or larger."""
        rivals = [j for j in self.visible(self.scene.instances[i].name) if j != i]
        test = _RELATIONS["larger" if size == "large" else "smaller"]
        return len(rivals) == 1 and test(self, i, rivals[0])

    def overlap(self, a: int, b: int) -> float:
        """Shared columns of two boxes over those of the narrower one."""
        (l0, _, r0, _), (l1, _, r1, _) = self.box(a), self.box(b)
        return max(0, min(r0, r1) - max(l0, l1)) / min(r0 - l0, r1 - l1)


def _instance(judge: Judge, i: int) -> Instance:
    return judge.scene.instances[i]


_CLAIMS: dict[str, Callable[[Judge, int, object], bool]] = {
    "colour": Judge.coloured,
    "colours": Judge.two_coloured,
    "wears": lambda j, i, v: j.shares(i)[str(v)] > 0.1,
    "second": lambda j, i, v: j.shares(i)[str(v)] > 0.1,
    "pattern": Judge.patterned,
    "finish": lambda j, i, v: getattr(j.coat(i), "finish", None) == v,
    "size": Judge.sized,
    "trait": Judge.has_trait,
    "facing": Judge.faces,
}

_RELATIONS: dict[str, Callable[[Judge, int, int], bool]] = {
    "left": lambda j, a, b: j.column(a) + 0.04 * j.width < j.column(b),
    "right": lambda j, a, b: j.column(b) + 0.04 * j.width < j.column(a),
    "front": lambda j, a, b: 1.1 * j.depth(a) < j.depth(b) and j.overlap(a, b) > 0.4,
    "behind": lambda j, a, b: 1.1 * j.depth(b) < j.depth(a) and j.overlap(a, b) > 0.4,
    "on": lambda j, a, b: _instance(j, a).on == b and bool(j.centre(a)[2] > j.centre(b)[2]),
    "next": lambda j, a, b: float(np.linalg.norm(j.centre(a) - j.centre(b))) < 0.9 * (j.extent(a) + j.extent(b)),
    "nearer": lambda j, a, b: 1.1 * j.depth(a) < j.depth(b),
    "farther": lambda j, a, b: 1.1 * j.depth(b) < j.depth(a),
    "larger": lambda j, a, b: j.extent(a) > 1.3 * j.extent(b) and j.longest(a) > 1.3 * j.longest(b),
    "smaller": lambda j, a, b: j.extent(b) > 1.3 * j.extent(a) and j.longest(b) > 1.3 * j.longest(a),
}
