"""Aggregates of the keypoint error table: class-macro recall per viewpoint and the three usual PCK conventions.

Everything is numpy on plain columns (one row per pair and keypoint), so that any alpha, class or viewpoint can be
derived later without the model. Percent throughout. Protocol `correspondence`, sections 3.2 and 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtv.errors import UsageError
from mtv.probes.semantic import select_pairs

Job = tuple[str, int | None]
"""(class, viewpoint variation); None stands for all viewpoints."""
VIEWPOINTS: tuple[int | None, ...] = (0, 1, 2, None)


@dataclass(frozen=True, kw_only=True)
class ViewpointRecall:
    """Class-macro recall for one viewpoint variation."""

    value: float | None
    """Unweighted mean over classes, percent; None when no class has pairs."""
    per_class: dict[str, float]
    """Recall of each class over all keypoints of its pairs, percent."""
    excluded: tuple[str, ...]
    """Classes without pairs (or without a shared keypoint) for this viewpoint."""


def select_jobs(
    stems: Sequence[str], classes: Sequence[str], viewpoints: Sequence[int], *, n: int | None = 200, seed: int = 20
) -> dict[Job, list[int]]:
    """Pair positions of every job: each class times viewpoint 0, 1, 2 and all; empty jobs included.

    Args:
        stems: pair file names; unique.
        classes, viewpoints: of each pair.
        n: pairs kept per job (`subset`), None for all.
    """
    if len(set(stems)) != len(stems) or not len(stems) == len(classes) == len(viewpoints):
        raise UsageError(f"need unique pair names with class and viewpoint, got {len(stems)} names")
    position = {stem: i for i, stem in enumerate(stems)}
    jobs: dict[Job, list[int]] = {}
    for name in sorted(set(classes)):
        for vp in VIEWPOINTS:
            members = [s for s, c, v in zip(stems, classes, viewpoints, strict=True) if c == name and vp in (None, v)]
            jobs[name, vp] = [position[s] for s in select_pairs(members, seed, n)]
    return jobs


def is_correct(error_R: np.ndarray, scale_R: np.ndarray, alpha: float, *, inclusive: bool = False) -> np.ndarray:
    """error < alpha * scale per row; `inclusive` (<=) for the HPF-style per-image number."""
    limit_R = alpha * np.asarray(scale_R)
    return np.asarray(error_R) <= limit_R if inclusive else np.asarray(error_R) < limit_R


def viewpoint_recall(
    correct_R: np.ndarray, pair_R: np.ndarray, jobs: Mapping[Job, Sequence[int]], viewpoint: int | None
) -> ViewpointRecall:
    """Recall over all keypoints of the job's pairs per class, then the mean over classes that have any.

    Args:
        correct_R: bool per row of the table.
        pair_R: pair position per row, as in `jobs`.
    """
    per_class: dict[str, float] = {}
    excluded: list[str] = []
    for name in sorted({c for c, _ in jobs}):
        rows = np.isin(pair_R, np.asarray(jobs[name, viewpoint], dtype=np.int64))
        if rows.any():
            per_class[name] = 100 * float(correct_R[rows].mean())
        else:
            excluded.append(name)
    value = float(np.mean(list(per_class.values()))) if per_class else None
    return ViewpointRecall(value=value, per_class=per_class, excluded=tuple(excluded))


def recall_table(
    correct_R: np.ndarray, pair_R: np.ndarray, jobs: Mapping[Job, Sequence[int]]
) -> tuple[dict[str, float | None], dict[int | None, ViewpointRecall]]:
    """`recall_vp0`, `recall_vp1`, `recall_vp2`, `recall_all`, `avg_recall` (vp 0, 1, 2), `avg_recall_4`; the details.

    A viewpoint without any pair is None and stays out of the averages.
    """
    details = {vp: viewpoint_recall(correct_R, pair_R, jobs, vp) for vp in VIEWPOINTS}
    values = [details[vp].value for vp in VIEWPOINTS]
    result: dict[str, float | None] = dict(zip(("recall_vp0", "recall_vp1", "recall_vp2"), values, strict=False))
    result["recall_all"] = values[3]
    result["avg_recall"] = _mean_defined(values[:3])
    result["avg_recall_4"] = _mean_defined(values)
    return result, details


def pck_point(correct_R: np.ndarray) -> float:
    """Correct keypoints of all pairs pooled, percent."""
    return 100 * float(_nonempty(correct_R).mean())


def pck_image(correct_R: np.ndarray, pair_R: np.ndarray) -> float:
    """Mean over pairs of their share of correct keypoints, percent; pairs without keypoints do not count."""
    return _grouped_mean(correct_R, pair_R)


def pck_class(correct_R: np.ndarray, class_R: npt.ArrayLike) -> float:
    """Mean over classes of their pooled share of correct keypoints, percent."""
    return _grouped_mean(correct_R, np.asarray(class_R))


def _grouped_mean(correct_R: np.ndarray, group_R: np.ndarray) -> float:
    _, group = np.unique(group_R, return_inverse=True)
    hits_G = np.bincount(group, weights=_nonempty(correct_R).astype(np.float64))
    return 100 * float((hits_G / np.bincount(group)).mean())


def _nonempty(correct_R: np.ndarray) -> np.ndarray:
    if not len(correct_R):
        raise UsageError("PCK needs at least one keypoint, got none")
    return correct_R


def _mean_defined(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None
