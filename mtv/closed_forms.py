"""Closed forms of uncertainty: score intervals, exact and adjusted p values, and what a test set can resolve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtv.errors import UsageError

Z95 = 1.959963984540054
Z80_POWER = 0.8416212335729143


def wilson(k: float, n: int) -> tuple[float, float]:
    """95 % score interval of a binomial share (Wilson 1927), as fractions.

    Raises:
        UsageError: not 0 <= k <= n, or n < 1.
    """
    if n < 1 or not 0 <= k <= n:
        raise UsageError(f"wilson needs 0 <= k <= n and n >= 1, got k={k}, n={n}")
    p, z2 = k / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def mcnemar(n01: int, n10: int) -> float:
    """Exact two-sided p of equal error rates from the discordant counts; 1 when there are none."""
    # Python integers: the binomial coefficients of a few hundred discordant pairs overflow numpy's.
    m, low = int(n01) + int(n10), min(int(n01), int(n10))
    term = tail = 1
    for k in range(1, low + 1):
        term = term * (m - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / 2**m)


def newcombe(n11: int, n10: int, n01: int, n00: int) -> tuple[float, float]:
    """95 % interval of the paired difference (n01 - n10) / n, as fractions.

    Newcombe 1998, Statistics in Medicine 17:2635, method 10: Wilson intervals of both shares joined under their
    correlation, which is taken with continuity correction; without discordant pairs it does not shrink to a point.

    Args:
        n11: right in both models.
        n10: right in A only.
        n01: right in B only.
        n00: wrong in both.
    """
    n = n11 + n10 + n01 + n00
    a, b = (n11 + n10) / n, (n11 + n01) / n
    (la, ua), (lb, ub) = wilson(n11 + n10, n), wilson(n11 + n01, n)
    product = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    cross = n11 * n00 - n10 * n01
    phi = (max(cross - n / 2, 0) if cross > 0 else cross) / math.sqrt(product) if product else 0.0
    down = math.sqrt(max(0.0, (b - lb) ** 2 - 2 * phi * (b - lb) * (ua - a) + (ua - a) ** 2))
    up = math.sqrt(max(0.0, (ub - b) ** 2 - 2 * phi * (ub - b) * (a - la) + (a - la) ** 2))
    return b - a - down, b - a + up


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order of `ps`."""
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, k in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[k]))
        adjusted[k] = worst
    return adjusted


@dataclass(frozen=True, kw_only=True)
class Power:
    """When a difference of two models on the same samples shows."""

    delta: float
    """Difference in percentage points."""
    n: int
    """Independent samples."""
    visible: float
    """Largest share of discordant samples (percent) at which the paired 95 % interval of `delta` excludes 0."""
    power80: float
    """Largest share (percent) at which a true `delta` is found in 80 % of test sets."""
    half_width_10: float
    """Half-width in points of the paired interval with 10 % of the samples discordant."""
    smallest: float
    """Smallest difference in points that can reach p <= 0.05: six samples, all in favour of one model."""

    @property
    def possible(self) -> bool:
        """False when even the least discordance, all in one direction, leaves `delta` invisible."""
        return self.delta >= self.smallest and self.visible >= self.delta


def power(delta: float, n: int) -> Power:
    """The discordance at which a paired difference of `delta` points becomes visible with `n` independent samples.

    With a share q discordant the standard error is sqrt(q / n) under the null, so q <= n (delta / z)^2 shows.

    Raises:
        UsageError: `delta` is not in (0, 100] or `n` is below 1.
    """
    if not 0 < delta <= 100 or n < 1:
        raise UsageError(f"power needs 0 < delta <= 100 points and n >= 1, got delta={delta}, n={n}")
    share = delta / 100
    return Power(
        delta=delta,
        n=n,
        visible=min(100.0, 100 * n * (share / Z95) ** 2),
        power80=min(100.0, 100 * n * (share / (Z95 + Z80_POWER)) ** 2),
        half_width_10=100 * Z95 * math.sqrt(0.1 / n),
        smallest=600 / n,
    )
