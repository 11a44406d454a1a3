"""The metrics a second time: double loops over Python floats in float64, written for reading. Up to about 50 items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    """Inner product over both lengths."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def rank(scores: Sequence[float], target: int) -> tuple[int, int, int]:
    """Rank of one item, and if all ties are lost or won."""
    greater = sum(s > scores[target] for s in scores)
    before = sum(s == scores[target] for s in scores[:target])
    equal = sum(s == scores[target] for s in scores) - 1
    return 1 + greater + before, 1 + greater + equal, 1 + greater


def best_rank(scores: Sequence[float], positives: Sequence[int]) -> tuple[int, int, int]:
    """Rank of the first best positive among the others, and if all ties with others are lost or won."""
    best = max(positives, key=lambda p: (scores[p], -p))
    others = [i for i in range(len(scores)) if i not in positives]
    greater = sum(scores[i] > scores[best] for i in others)
    before = sum(scores[i] == scores[best] and i < best for i in others)
    equal = sum(scores[i] == scores[best] for i in others)
    return 1 + greater + before, 1 + greater + equal, 1 + greater


def knn_vote(scores: Sequence[float], labels: Sequence[int], itself: int, k: int, temperature: float) -> int:
    """Class with the largest vote of the k nearest others; the lower class wins a tie."""
    others = [i for i in range(len(scores)) if i != itself]
    nearest = sorted(others, key=lambda i: (-scores[i], i))[:k]
    votes = dict.fromkeys(sorted(set(labels)), 0.0)
    for i in nearest:
        votes[labels[i]] += math.exp(scores[i] / temperature)
    return max(votes, key=lambda c: (votes[c], -c))


def ratio_match(a: Vector, others: Sequence[Vector]) -> tuple[int, float]:
    """Nearest of `others`, and 1 - d_1 / d_2 with d = max(1 - cosine, 1e-9)."""
    distances = [max(1 - cosine(a, b), 1e-9) for b in others]
    first = min(range(len(others)), key=lambda i: (distances[i], i))
    second = min(d for i, d in enumerate(distances) if i != first)
    return first, 1 - distances[first] / second


def keypoint_cell(source: np.ndarray, target: np.ndarray, place: tuple[float, float]) -> tuple[int, int]:
    """(column, row) of the target cell most like the source map at `place` (x, y in cells, bilinear).

    Args:
        source, target: g, g, D maps of unit vectors.
    """
    g = len(source)
    x, y = (min(max(p, 0.0), g - 1.0) for p in place)
    x0, y0 = math.floor(x), math.floor(y)
    x1, y1 = min(x0 + 1, g - 1), min(y0 + 1, g - 1)
    wanted = [0.0] * source.shape[2]
    for cx, cy, w in (
        (x0, y0, (x0 + 1 - x) * (y0 + 1 - y)),
        (x1, y0, (x - x0) * (y0 + 1 - y)),
        (x0, y1, (x0 + 1 - x) * (y - y0)),
        (x1, y1, (x - x0) * (y - y0)),
    ):
        wanted = [v + w * float(f) for v, f in zip(wanted, source[cy, cx], strict=True)]
    cells = [(c, r) for r in range(g) for c in range(g)]
    return max(cells, key=lambda cell: sum(w * float(f) for w, f in zip(wanted, target[cell[1], cell[0]], strict=True)))


def resampled_ratio(
    counts: Sequence[float], unit: Sequence[int], x: Sequence[float], weight: Sequence[float], group: Sequence[int]
) -> float:
    """Mean over the groups present of sum(w x) / sum(w d), each row counted as often as its unit was drawn, percent."""
    top: dict[int, float] = {}
    bottom: dict[int, float] = {}
    for row, u in enumerate(unit):
        for _ in range(int(counts[u])):
            top[group[row]] = top.get(group[row], 0.0) + x[row]
            bottom[group[row]] = bottom.get(group[row], 0.0) + weight[row]
    return 100 * sum(top[g] / bottom[g] for g in top) / len(top)


def resampled_median(counts: Sequence[float], unit: Sequence[int], x: Sequence[float]) -> float:
    """Ordinary median of the rows, each repeated as often as its unit was drawn."""
    values = sorted(v for row, v in enumerate(x) for _ in range(int(counts[unit[row]])))
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def mcnemar(n01: int, n10: int) -> float:
    """Two-sided exact binomial p of the discordant counts."""
    n = n01 + n10
    tail = sum(math.comb(n, k) for k in range(min(n01, n10) + 1)) / 2**n
    return min(1.0, 2 * tail)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, percent: the roots of (p - share)^2 = z^2 p (1 - p) / n."""
    z = 1.959963984540054
    a, b, c = 1 + z * z / n, -(2 * hits / n + z * z / n), (hits / n) ** 2
    root = math.sqrt(b * b - 4 * a * c)
    return 100 * (-b - root) / (2 * a), 100 * (-b + root) / (2 * a)
