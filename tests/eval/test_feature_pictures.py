"""Patch features as colours: against a singular value decomposition, and where they are drawn."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from mtv.eval.artefacts import match_lines
from mtv.eval.feature_pictures import as_picture, principal_colours


def maps(*sides: tuple[int, int], width: int = 12, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    stretch_D = torch.linspace(4, 0.1, width) ** 2
    return [torch.randn(h, w, width, generator=g) * stretch_D + 3 for h, w in sides]


def test_equals_the_components_of_both_maps_together() -> None:
    both = maps((7, 9), (5, 6))
    rows = torch.cat([m.flatten(0, 1) for m in both]).double().numpy()
    _, _, directions = np.linalg.svd(rows - rows.mean(0))
    scores = (rows - rows.mean(0)) @ directions[:3].T
    low, high = np.quantile(scores, (0.02, 0.98), axis=0)
    expected = np.clip((scores - low) / (high - low), 0, 1)
    found = torch.cat([c.flatten(0, 1) for c in principal_colours(both)]).numpy()
    for k in range(3):  # the sign of a component is free
        assert min(np.abs(found[:, k] - e).max() for e in (expected[:, k], 1 - expected[:, k])) < 1e-5


def test_equal_features_get_equal_colours_in_both_pictures_and_every_run() -> None:
    left = maps((6, 6))[0]
    right = left.flip(1)
    first, second = principal_colours([left, right])
    assert torch.equal(first, second.flip(1))
    again = principal_colours([right, left])
    assert torch.allclose(again[1], first, atol=1e-6)


def test_a_component_without_variance_is_grey() -> None:
    tenths = torch.full((5, 7, 8), 0.1)
    assert torch.equal(principal_colours([tenths])[0], torch.full((5, 7, 3), 0.5))
    flat = torch.ones(4, 4, 8)
    assert torch.equal(principal_colours([flat])[0], torch.full((4, 4, 3), 0.5))
    one = flat.clone()
    one[:2] = 3.0
    colours = principal_colours([one])[0]
    assert sorted(colours[..., 0].unique().tolist()) == [0.0, 1.0]
    assert bool((colours[..., 1:] == 0.5).all())
    assert principal_colours([torch.rand(3, 3, 2, dtype=torch.float16)])[0].shape == (3, 3, 3)


def test_tokens_stay_rectangles() -> None:
    picture = as_picture(torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]]), (8, 3))
    assert picture.size == (8, 3)
    assert {picture.getpixel((x, y)) for x in range(4) for y in range(3)} == {(255, 0, 0)}
    assert picture.getpixel((4, 0)) == (0, 0, 255)


def test_pairs_are_drawn_above_their_features() -> None:
    pictures = [Image.new("RGB", size, "white") for size in ((60, 40), (50, 44))]
    points = np.array([[0.5, 0.5]])
    plain = match_lines(*pictures, points, points, np.array([True]), ["text"])
    first, second = maps((4, 6), (4, 5))
    with_features = match_lines(*pictures, points, points, np.array([True]), ["text"], tokens=(first, second))
    assert with_features.height > plain.height + 40
    colours = np.rint(255 * principal_colours([first, second])[1].numpy())
    assert with_features.getpixel((60 + 8, 44 + 8)) == tuple(int(v) for v in colours[0, 0])
