"""k-nearest-neighbour classification on frozen features: cosine, votes weighted exp(s / temperature).

Deterministic to the last bit of a vote: among equally similar neighbours the lower index is taken, votes are added in
float64 from the nearest neighbour outwards, and of equally voted classes the lower one wins. Duplicate training images
score equally (they are scored once and copied).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.errors import DataError, UsageError
from mtv.probes.precision import fp32_matmul, l2_normalize
from mtv.probes.ties import equal_rows, target_ranks, top_k


@dataclass(frozen=True, kw_only=True)
class KnnOutcome:
    """Per-sample outcome, all on the CPU, in the order of the queries. Left-out queries hold -1, 0 or False."""

    kept_M: Tensor
    """bool: whether the query took part; False for the only image of a class in leave-one-out."""
    predicted_M: Tensor
    """int64: class with the largest vote, -1 where left out."""
    correct_M: Tensor
    """bool: prediction equals the label."""
    rank_M: Tensor
    """int32: rank of the true class by votes, 1 = best, 0 where left out. Classes without a vote tie at zero."""
    vote_share_M: Tensor
    """float32: share of all votes that the predicted class holds, 0..1."""
    nearest_M: Tensor
    """int64: index of the nearest neighbour among the training rows as given, -1 where left out."""
    nearest_score_M: Tensor
    """float32: its cosine."""
    n_left_out: int
    """Images left out; in leave-one-out also the number of classes left out, as each has one image."""
    n_neighbours: int
    """Neighbours that voted: k, or all there are when fewer."""

    @property
    def accuracy(self) -> float:
        """Percent correct of the queries that took part."""
        return 100.0 * int(self.correct_M.sum()) / int(self.kept_M.sum())


@torch.no_grad()
@fp32_matmul()
def knn_classify(
    train_ND: Tensor,
    train_labels_N: Tensor,
    test_MD: Tensor,
    test_labels_M: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    block: int = 2048,
    train_ids: Sequence[str] | None = None,
    test_ids: Sequence[str] | None = None,
) -> KnnOutcome:
    """Classify every test row by its k nearest training rows.

    Args:
        train_ND: features, not normalised, any floating dtype and device.
        train_labels_N: integers >= 0.
        test_MD: features of the queries.
        test_labels_M: their true classes; a class that training lacks can only be missed.
        k: neighbours that vote; all of them when there are fewer.
        temperature: of the votes exp(cosine / temperature).
        block: queries per matmul.
        train_ids: N names for error messages.
        test_ids: M names for error messages.

    Raises:
        UsageError: shapes, labels or options that do not fit.
        NumericalError: NaN or infinity, naming the first sample.

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (2018), section 3.4.
    """
    _check(train_ND, train_labels_N, k, temperature, block, "train")
    _check(test_MD, test_labels_M, k, temperature, block, "test")
    if train_ND.shape[1] != test_MD.shape[1]:
        raise UsageError(f"knn: training features have {train_ND.shape[1]} channels, test features {test_MD.shape[1]}")
    train_ND = l2_normalize(train_ND, ids=train_ids, what="training features")
    test_MD = l2_normalize(test_MD.to(train_ND.device), ids=test_ids, what="test features")
    voters = _Voters(train_ND, train_labels_N, int(max(train_labels_N.max(), test_labels_M.max())) + 1, temperature)
    k = min(k, len(train_ND))
    labels_M = test_labels_M.to(train_ND.device, torch.int64)
    parts = [
        voters.vote(voters.scores(rows_BD), labels_B, k)
        for rows_BD, labels_B in zip(test_MD.split(block), labels_M.split(block), strict=True)
    ]
    every_M = torch.arange(len(test_MD))
    return _outcome(parts, every_M, torch.arange(len(train_ND)), len(test_MD), k, test_labels_M)


@torch.no_grad()
@fp32_matmul()
def knn_leave_one_out(
    features_ND: Tensor,
    labels_N: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    block: int = 2048,
    ids: Sequence[str] | None = None,
) -> KnnOutcome:
    """Classify every image by its k nearest other images.

    Classes with a single image cannot be found: they are left out, as queries and as neighbours, and counted.

    Args:
        features_ND: features, not normalised.
        labels_N: integers >= 0.
        k: neighbours that vote; all others when there are fewer.
        temperature: of the votes exp(cosine / temperature).
        block: queries per matmul.
        ids: N names for error messages.

    Raises:
        UsageError: shapes, labels or options that do not fit.
        DataError: no class has two images.
        NumericalError: NaN or infinity, naming the first sample.
    """
    _check(features_ND, labels_N, k, temperature, block, "images")
    features_ND = l2_normalize(features_ND, ids=ids)
    labels_N = labels_N.to(features_ND.device, torch.int64)
    kept_K = (torch.bincount(labels_N)[labels_N] > 1).nonzero()[:, 0]
    if len(kept_K) == 0:
        raise DataError("leave-one-out kNN: every class has a single image", "Give a set with two images of a class.")
    rows_KD, labels_K = features_ND[kept_K], labels_N[kept_K]
    voters = _Voters(rows_KD, labels_K, int(labels_K.max()) + 1, temperature)
    k = min(k, len(kept_K) - 1)
    parts = []
    for start, stop in _spans(len(kept_K), block):
        scores_BN = voters.scores(rows_KD[start:stop])
        itself_B = torch.arange(start, stop, device=scores_BN.device)
        scores_BN.scatter_(1, itself_B[:, None], float("-inf"))
        parts.append(voters.vote(scores_BN, labels_K[start:stop], k))
    return _outcome(parts, kept_K.cpu(), kept_K.cpu(), len(features_ND), k, labels_N.cpu())


def _spans(n: int, block: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, block):
        yield start, min(start + block, n)


class _Voters:
    """Training rows and labels, ready to score and vote."""

    def __init__(self, train_ND: Tensor, labels_N: Tensor, n_classes: int, temperature: float) -> None:
        first_U, self.inverse_N = equal_rows(train_ND)
        self.unique_UD = train_ND[first_U]
        self.labels_N = labels_N.to(train_ND.device, torch.int64)
        self.n_classes, self.temperature = n_classes, temperature

    def scores(self, rows_BD: Tensor) -> Tensor:
        """Cosines of unit rows with all training rows, B,N; a fresh tensor."""
        scores_BU = rows_BD @ self.unique_UD.T
        return scores_BU if len(self.unique_UD) == len(self.inverse_N) else scores_BU[:, self.inverse_N]

    def vote(self, scores_BN: Tensor, labels_B: Tensor, k: int) -> tuple[Tensor, ...]:
        """Predicted class, rank of the label, share of the votes, nearest neighbour and its score."""
        values_Bk, index_Bk = top_k(scores_BN, k)
        # Relative to the nearest: a common factor changes no order, and no temperature overflows.
        weights_Bk = ((values_Bk.double() - values_Bk[:, :1].double()) / self.temperature).exp()
        votes_BC = torch.zeros(len(scores_BN), self.n_classes, dtype=torch.float64, device=scores_BN.device)
        for j in range(k):  # one neighbour at a time: no two additions meet in a cell, so their order is fixed
            votes_BC.scatter_add_(1, self.labels_N[index_Bk[:, j : j + 1]], weights_Bk[:, j : j + 1])
        best_B, predicted_B = votes_BC.max(dim=1)
        rank_B = target_ranks(votes_BC, labels_B).rank_Q
        return predicted_B, rank_B, (best_B / weights_Bk.sum(1)).float(), index_Bk[:, 0], values_Bk[:, 0]


def _outcome(
    parts: list[tuple[Tensor, ...]], query_K: Tensor, train_K: Tensor, n_queries: int, k: int, labels_M: Tensor
) -> KnnOutcome:
    """Spread the columns of the queries that took part over all of them."""
    columns = [torch.cat([part[i] for part in parts]).cpu() for i in range(5)]
    predicted_K, rank_K, share_K, nearest_K, score_K = columns

    def spread(column_K: Tensor, empty: int) -> Tensor:
        return torch.full((n_queries,), empty, dtype=column_K.dtype).index_copy(0, query_K, column_K)

    predicted_M = spread(predicted_K, -1)
    kept_M = spread(torch.ones(len(query_K), dtype=torch.bool), 0)
    return KnnOutcome(
        kept_M=kept_M,
        predicted_M=predicted_M,
        correct_M=kept_M & (predicted_M == labels_M.cpu()),
        rank_M=spread(rank_K, 0),
        vote_share_M=spread(share_K, 0),
        nearest_M=spread(train_K[nearest_K], -1),
        nearest_score_M=spread(score_K, 0),
        n_left_out=n_queries - len(query_K),
        n_neighbours=k,
    )


def _check(features: Tensor, labels: Tensor, k: int, temperature: float, block: int, what: str) -> None:
    shapes = f"features {tuple(features.shape)}, labels {tuple(labels.shape)}"
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
        raise UsageError(f"knn: need N,D {what} features with one label each, got {shapes}")
    if labels.is_floating_point() or int(labels.min()) < 0:
        raise UsageError(f"knn: {what} labels must be integers >= 0, got {labels.dtype} from {labels.min().item()}")
    if k < 1 or block < 1 or not temperature > 0:
        raise UsageError(f"knn: k={k} and block={block} must be at least 1, temperature={temperature} positive")
