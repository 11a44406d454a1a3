"""The planted knowledge: which identity scores how much against which class name or caption, and where that is tested.

Scores are chosen here as numbers; `mtv.eval.selftest.planted` turns them into weights, the worlds into pictures and
annotation files, and `mtv.eval.selftest.hand` states what must come out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtv.eval.selftest.pictures import N_IDENTITIES

CLASSES = ("tench", "goldfish", "great white shark", "tiger shark")
"""The first four ImageNet classes, as open_clip names them."""
IMAGENET_SCORES = {0: (3, 2, 1, 0), 1: (1, 3, 2, 0), 2: (3, 1, 2, 0), 19: (0.2, 0.5, 0.5, 0.1)}
"""Identity to its scores against `CLASSES`; identity 19 ties (test Z3)."""
IMAGENET_FILES = ((0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 1), (1, 0), (2, 2))
"""(class, identity) of each picture: class 0 is right 5 of 5, class 1 1 of 2, class 2 0 of 1."""
TIE_FILES = ((1, 19), (1, 19), (2, 19))
"""The same for the set with ties; not symmetric, so that another tie rule gives another number."""

COCO_IDENTITIES = (3, 4)
COCO_CAPTIONS = (
    (0, "A red kite over the beach.", (0.9, 0.1)),
    (0, "Two kites.", (0.3, 0.4)),
    (1, "A black dog runs.", (0.2, 0.8)),
    (1, "An animal outside.", (0.6, 0.5)),
)
"""Owner, caption, cosines with the two images: test R1."""

FLICKR8K_IDENTITIES = (5, 6)
FLICKR8K_CAPTIONS = ((0, 'A boy, a ball and a "dog" .'), (1, '  A boy, a  ball and a "dog" . '))
"""One text in two spellings on both images, best for both: tests R3 and R7."""

FLICKR30K_IDENTITIES = tuple(range(7, 19))
FLICKR30K_CAPTIONS = tuple(f"Scene number {k} of twelve." for k in range(12))
"""Caption k belongs to image k; every caption prefers image 0 to 1 to 2 ..., every image caption 0 to 1 to 2 ..."""

_COCO, _REST, _FLICKR8K, _FLICKR30K, UNKNOWN, WIDTH = 4, 6, 7, 9, 21, 22


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What the planted weights hold."""

    image_codes: np.ndarray
    """float32 identities, WIDTH."""
    phrases: tuple[str, ...]
    """Strings that the text tower knows; the last row of `phrase_codes` is for all others."""
    phrase_codes: np.ndarray
    """float32 len(phrases) + 1, WIDTH."""


def knowledge() -> Knowledge:
    """All scores as vectors: images and phrases whose inner products are the numbers above."""
    images = np.zeros((N_IDENTITIES, WIDTH))
    for identity, scores in IMAGENET_SCORES.items():
        images[identity, : len(CLASSES)] = scores
    for start, members in ((_COCO, COCO_IDENTITIES), (_FLICKR8K, FLICKR8K_IDENTITIES)):
        for offset, identity in enumerate(members):
            images[identity, start + offset] = 1
    for offset, identity in enumerate(FLICKR30K_IDENTITIES):
        images[identity, _FLICKR30K + offset] = 1
    images[~images.any(axis=1), UNKNOWN] = 1
    phrases = _phrases()
    return Knowledge(
        image_codes=images.astype(np.float32),
        phrases=tuple(phrases),
        phrase_codes=np.stack([*phrases.values(), np.eye(WIDTH)[UNKNOWN]]).astype(np.float32),
    )


def _phrases() -> dict[str, np.ndarray]:
    out = {name: np.eye(WIDTH)[k] for k, name in enumerate(CLASSES)}
    for _, caption, scores in COCO_CAPTIONS:
        vector = np.zeros(WIDTH)
        vector[_COCO : _COCO + 2] = scores
        # The rest makes every caption a unit vector, so that the scores above are its cosines.
        vector[_REST] = np.sqrt(1 - np.square(scores).sum())
        out[caption] = vector
    shared = np.zeros(WIDTH)
    shared[_FLICKR8K : _FLICKR8K + 2] = 1
    out[FLICKR8K_CAPTIONS[0][1]] = shared
    for k, caption in enumerate(FLICKR30K_CAPTIONS):
        vector = np.zeros(WIDTH)
        vector[_FLICKR30K : _FLICKR30K + 12] = np.arange(12, 0, -1)
        # A longer rest lowers all cosines of a later caption: images rank the captions in their order too.
        vector[_REST] = 2 * k
        out[caption] = vector
    return out
