"""The category shows in the shape, not in the colours: a colour-histogram classifier stays near chance."""

from __future__ import annotations

import numpy as np

from mtv.miniworld.compose import make_scene
from mtv.miniworld.render import render
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES

PER_CLASS, SIDE, BINS, NEIGHBOURS = 14, 48, 4, 10


def leave_one_out(features_ND: np.ndarray, labels_N: np.ndarray) -> float:
    """Share of pictures whose nearest others vote for their class."""
    unit_ND = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
    alike_NN = unit_ND @ unit_ND.T
    np.fill_diagonal(alike_NN, -np.inf)
    nearest_NK = np.argsort(-alike_NN, axis=1)[:, :NEIGHBOURS]
    votes = [np.bincount(labels_N[row], minlength=len(CATEGORIES)).argmax() for row in nearest_NK]
    return float((np.array(votes) == labels_N).mean())


def test_a_colour_histogram_stays_near_chance_and_shape_does_not() -> None:
    requests = [
        SceneRequest(split="difficulty", index=i, purpose="single", width=SIDE, height=SIDE, category=category)
        for i, category in enumerate(CATEGORIES * PER_CLASS)
    ]
    frames = render([make_scene(WorldSpec(), r) for r in requests])
    labels_N = np.arange(len(frames)) % len(CATEGORIES)
    histograms, shapes = [], []
    for frame in frames:
        level = (frame.rgb_HW3.astype(int) * BINS // 256).reshape(-1, 3) @ (BINS * BINS, BINS, 1)
        histograms.append(np.sqrt(np.bincount(level, minlength=BINS**3)))
        left, top, right, bottom = frame.seen[0].box or (0, 0, SIDE, SIDE)
        rows = np.linspace(top, bottom - 1, 12).astype(int)
        columns = np.linspace(left, right - 1, 12).astype(int)
        shapes.append((frame.instance_HW[np.ix_(rows, columns)] == 1).ravel() + 1e-3)
    chance = 1 / len(CATEGORIES)
    colour = leave_one_out(np.array(histograms, dtype=float), labels_N)
    shape = leave_one_out(np.array(shapes, dtype=float), labels_N)
    # 224 pictures: three standard deviations of guessing are 4.9 %.
    assert colour < chance + 0.05
    assert shape > 3 * chance
