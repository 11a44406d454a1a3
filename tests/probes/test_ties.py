"""The tie rule against naive loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes import ties
from mtv.probes.ties import equal_rows, share_within, target_ranks, tie_bounds, top_k

score_rows = st.integers(1, 12).flatmap(
    lambda k: st.lists(st.lists(st.integers(-2, 2), min_size=k, max_size=k), min_size=1, max_size=6)
)


def test_z3_target_ranks_and_bounds() -> None:
    scores = torch.tensor([[0.2, 0.5, 0.5, 0.1]])
    for target, hit in ((2, 0.0), (1, 100.0)):
        ranks = target_ranks(scores, torch.tensor([target]))
        assert share_within(ranks.rank_Q, 1) == hit
        assert tie_bounds(ranks.rank_lo_Q, ranks.rank_hi_Q) == (1, 0.0, 100.0)


@given(rows=score_rows, data=st.data())
@settings(max_examples=100, deadline=None)
def test_target_ranks_against_loops(rows: list[list[int]], data: st.DataObject) -> None:
    targets = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    ranks = target_ranks(torch.tensor(rows, dtype=torch.float32), torch.tensor(targets))
    for q, (row, t) in enumerate(zip(rows, targets, strict=True)):
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))
        assert int(ranks.rank_Q[q]) == order.index(t) + 1
        assert int(ranks.rank_hi_Q[q]) == 1 + sum(s > row[t] for s in row)
        assert int(ranks.rank_lo_Q[q]) == sum(s >= row[t] for s in row)
    assert ranks.rank_Q.dtype == torch.int32


@given(rows=score_rows, data=st.data())
@settings(max_examples=100, deadline=None)
def test_top_k_against_sorting(rows: list[list[int]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(rows[0])))
    values, columns = top_k(torch.tensor(rows, dtype=torch.float32), k)
    for q, row in enumerate(rows):
        expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        assert columns[q].tolist() == expected
        assert values[q].tolist() == [row[i] for i in expected]


def test_top_k_of_a_thousand_equal_values() -> None:
    assert top_k(torch.ones(2, 1000), 20)[1].tolist() == [list(range(20))] * 2


@pytest.mark.parametrize("k", [0, 4])
def test_top_k_refuses_k_out_of_range(k: int) -> None:
    with pytest.raises(UsageError, match=f"k={k} is outside 1..3"):
        top_k(torch.ones(2, 3), k)


def groups(x: Tensor) -> tuple[list[int], list[int]]:
    """First rows and group of each row, by dictionary."""
    first: dict[tuple[float, ...], int] = {}
    for i, row in enumerate(x.tolist()):
        first.setdefault(tuple(row), i)
    order = list(first.values())
    return order, [order.index(first[tuple(row)]) for row in x.tolist()]


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_equal_rows_against_a_dictionary(rows: list[list[int]]) -> None:
    x = torch.tensor(rows, dtype=torch.float32)
    first, inverse = equal_rows(x)
    assert (first.tolist(), inverse.tolist()) == groups(x)


def test_equal_rows_with_colliding_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ties, "_row_hash", lambda x: torch.zeros(len(x), dtype=torch.int64))
    x = torch.tensor([[1.0], [2.0], [1.0], [3.0], [2.0]])
    first, inverse = equal_rows(x)
    assert torch.equal(x[first][inverse], x)  # nothing is merged wrongly; later twins may stand alone
    assert inverse[0] == inverse[2]


def test_equal_rows_at_size_spans_hash_chunks() -> None:
    x = torch.randn(9000, 33, generator=torch.Generator().manual_seed(0))
    x[8999], x[5000] = x[0], x[17]
    first, inverse = equal_rows(x)
    assert len(first) == 8998
    assert (int(inverse[8999]), int(inverse[5000])) == (0, 17)
    assert torch.equal(x[first][inverse], x)
