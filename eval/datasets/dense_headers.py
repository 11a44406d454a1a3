"""What headers tell about pictures that have a map of the same size: a label map or a depth map. Nothing is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef
from mtv.eval.datasets.images import picture_header, read_head

SAMPLE = 16
"""Maps that the quick check decodes, spread over the set."""

T = TypeVar("T")
HeaderSize = Callable[..., tuple[int, int]]
"""`(first 26 bytes, *, name) -> (width, height)`; raises DataError for another pixel format."""


@dataclass(frozen=True, kw_only=True)
class MapPair:
    """A picture and its map."""

    id: str
    """Key of `Dataset.images`."""
    image: FileRef
    """Picture."""
    target: FileRef
    """Label or depth PNG."""


def check_headers(
    pairs: Sequence[MapPair], map_size: HeaderSize, *, what: str
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Look at both headers of every pair.

    A picture with an EXIF orientation is refused: some readers would turn it, and its map never turns.

    Args:
        pairs: what to look at.
        map_size: reads the header of a map.
        what: `label map` or `depth map`, for messages.

    Returns:
        Width and height by id of the pairs that are as they should be, and one sentence per problem.
    """
    batches = [pairs[i : i + 256] for i in range(0, len(pairs), 256)]
    # threads, because on a network disk each small read waits
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = [r for batch in pool.map(lambda b: [_check(p, map_size, what) for p in b], batches) for r in batch]
    sizes = {p.id: r for p, r in zip(pairs, results, strict=True) if not isinstance(r, str)}
    return sizes, [r for r in results if isinstance(r, str)]


def spread(items: Sequence[T], n: int = SAMPLE) -> list[T]:
    """At most `n` of `items` at equal distances, the first and the last among them.

    >>> spread("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if len(items) <= n:
        return list(items)
    return [items[i * (len(items) - 1) // (n - 1)] for i in range(n)]


def _check(pair: MapPair, map_size: HeaderSize, what: str) -> tuple[int, int] | str:
    absent = [ref.name for ref in (pair.image, pair.target) if not ref.path.is_file()]
    if absent:
        return f"{' and '.join(absent)}: missing"
    try:
        size, orientation = picture_header(pair.image.path, name=pair.image.name)
        mapped = map_size(read_head(pair.target.path, name=pair.target.name), name=pair.target.name)
    except DataError as e:
        return e.message
    if orientation != 1:
        return f"{pair.image.name}: EXIF orientation {orientation}; its {what} would not turn with it"
    if mapped != size:
        return (
            f"{pair.target.name}: the {what} is {mapped[0]} x {mapped[1]}, its picture {size[0]} x {size[1]}; "
            "one of them was resized"
        )
    return size
