"""Score intervals, exact p values, Holm and power against scipy, enumeration and published examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from mtv.errors import UsageError
from mtv.stats import holm, mcnemar, newcombe, power, wilson


@given(st.integers(1, 60_000), st.floats(0, 1))
def test_wilson_agrees_with_scipy(n: int, share: float) -> None:
    k = round(share * n)
    expected = reference.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_touches_the_ends_only_with_all_or_nothing() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(UsageError, match=f"n={n}"):
        wilson(k, n)


def test_mcnemar_without_discordant_pairs_is_one() -> None:
    assert mcnemar(0, 0) == 1.0


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_mcnemar_agrees_with_the_binomial_test(n01: int, n10: int) -> None:
    expected = reference.binomtest(n01, n01 + n10, 0.5).pvalue if n01 + n10 else 1.0
    assert mcnemar(n01, n10) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(n01, n10) == mcnemar(n10, n01)


def test_mcnemar_by_enumerating_all_sign_patterns() -> None:
    for n01, n10 in itertools.product(range(6), range(6)):
        m = n01 + n10
        extreme = sum(abs(2 * sum(signs) - m) >= abs(n01 - n10) for signs in itertools.product((0, 1), repeat=m))
        assert mcnemar(n01, n10) == pytest.approx(extreme / 2**m, rel=1e-12)


def test_mcnemar_takes_counts_from_numpy() -> None:
    assert mcnemar(np.int64(89), np.int64(31)) == mcnemar(89, 31)


def test_mcnemar_at_imagenet_size() -> None:
    assert mcnemar(12_400, 12_600) == pytest.approx(2 * reference.binom.cdf(12_400, 25_000, 0.5), rel=1e-8)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe 1998, method 10.
        ((20, 12, 2, 16), (-0.3290, -0.0562)),
        # Airway hyper-responsiveness, Bentur et al. 2009, as in Fagerland, Lydersen, Laake 2014.
        ((1, 1, 7, 12), (0.026, 0.507)),
    ],
)
def test_newcombe_published_examples(table: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    assert newcombe(*table) == pytest.approx(expected, abs=6e-4)


@given(*[st.integers(0, 400)] * 4)
def test_newcombe_holds_the_difference_and_mirrors(n11: int, n10: int, n01: int, n00: int) -> None:
    n = n11 + n10 + n01 + n00
    if n == 0:
        return
    lo, hi = newcombe(n11, n10, n01, n00)
    assert -1 - 1e-9 <= lo <= (n01 - n10) / n <= hi <= 1 + 1e-9
    assert newcombe(n11, n01, n10, n00) == pytest.approx((-hi, -lo), abs=1e-12)


@pytest.mark.parametrize(
    ("p", "most"),
    # With one expected pair per discordant cell the method is known to be conservative.
    [((0.6, 0.1, 0.1, 0.2), 0.98), ((0.3, 0.05, 0.25, 0.4), 0.98), ((0.85, 0.05, 0.05, 0.05), 1.0)],
)
def test_newcombe_covers_95_percent_by_enumeration(p: tuple[float, float, float, float], most: float) -> None:
    n, covered = 25, 0.0
    for n11 in range(n + 1):
        for n10 in range(n + 1 - n11):
            for n01 in range(n + 1 - n11 - n10):
                counts = (n11, n10, n01, n - n11 - n10 - n01)
                lo, hi = newcombe(*counts)
                if lo <= p[2] - p[1] <= hi:
                    log_p = math.lgamma(n + 1) + sum(
                        c * math.log(q) - math.lgamma(c + 1) for c, q in zip(counts, p, strict=True)
                    )
                    covered += math.exp(log_p)
    assert 0.94 < covered < most


def test_newcombe_equals_the_plain_formula_for_large_samples() -> None:
    # Half-widths of `protocols/harness.md` section 6: 10 % discordant of n = 50,000 at 70 % and of n = 5,000 at 57 %.
    for n, share, expected in ((50_000, 0.70, 0.28), (5_000, 0.57, 0.88), (1_000, 0.82, 1.96)):
        half = round(0.05 * n)
        lo, hi = newcombe(round(share * n) - half, half, half, n - round(share * n) - half)
        assert 50 * (hi - lo) == pytest.approx(expected, rel=0.015)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_properties(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(q >= p and q <= 1 for p, q in zip(ps, adjusted, strict=True))
    order = np.argsort(ps, kind="stable")
    assert all(np.diff(np.asarray(adjusted)[order]) >= 0)
    # Step-down by definition: the k-th smallest is rejected at level a iff all smaller ones pass p (m - j) <= a.
    for a in (0.05, 0.3):
        rejected = set()
        for rank, k in enumerate(order):
            if ps[k] * (len(ps) - rank) > a:
                break
            rejected.add(k)
        assert rejected == {k for k in range(len(ps)) if adjusted[k] <= a}


def test_power_reproduces_the_table_of_half_widths() -> None:
    assert power(0.5, 50_000).half_width_10 == pytest.approx(0.28, abs=0.005)
    assert power(0.5, 5_000).half_width_10 == pytest.approx(0.88, abs=0.005)
    assert power(0.5, 1_000).half_width_10 == pytest.approx(1.96, abs=0.005)


def test_power_inverts_the_half_width() -> None:
    p = power(0.5, 50_000)
    assert 100 * 1.959964 * math.sqrt(p.visible / 100 / 50_000) == pytest.approx(0.5, abs=1e-6)
    assert p.power80 < p.visible


def test_power_80_is_the_share_of_test_sets_that_find_it() -> None:
    n, delta = 5_000, 2.0
    q = power(delta, n).power80 / 100
    rng = np.random.default_rng(0)
    better, worse = (q + delta / 100) / 2, (q - delta / 100) / 2
    draws = rng.multinomial(n, [better, worse, 1 - q], size=4000)
    found = [abs(a - b) > 1.959964 * math.sqrt(a + b) for a, b, _ in draws]
    assert np.mean(found) == pytest.approx(0.80, abs=0.03)


def test_smallest_visible_difference_is_six_one_sided_samples() -> None:
    assert mcnemar(6, 0) < 0.05 < mcnemar(5, 0)
    assert power(0.5, 5_000).smallest == pytest.approx(0.12)
    assert not power(0.1, 5_000).possible
    assert power(0.5, 50_000).possible


@pytest.mark.parametrize("delta", [0, -1, 101])
def test_power_refuses_impossible_differences(delta: float) -> None:
    with pytest.raises(UsageError, match="delta"):
        power(delta, 100)
