"""Oracles: each vectorised metric against the double loops of `naive` on random input with planted ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtv.eval.selftest import naive
from mtv.eval.selftest.checks import Check, agree, differing
from mtv.eval.selftest.session import Session
from mtv.probes.classification import rank_classes
from mtv.probes.correspondence import NAVI, score_pair
from mtv.probes.knn import knn_leave_one_out
from mtv.probes.matching import Matches, ratio_matches, upsample_map
from mtv.probes.resample import Mode, SquareGrid
from mtv.probes.retrieval import RetrievalRanks, rank_retrieval
from mtv.probes.semantic import KeypointImage, match_keypoints, unit_map
from mtv.recipes import Recipe
from mtv.resampling import resample_counts
from mtv.stats import evaluate, paired_difference

NONE = "0 of {} differ"


def checks(session: Session) -> list[Check]:
    """Ranks, retrieval, kNN, matching, keypoint transfer, geometry, intervals."""
    del session  # these need no data
    return [
        _check("class ranks, bounds and ties, 40 x 12", 160, class_ranks),
        _check("retrieval ranks, bounds and ties, 12 x 40", 156, lambda: retrieval("own")),
        _check("retrieval ranks, positives=same_text", 156, lambda: retrieval("same_text")),
        _check("kNN votes, 45 images with duplicates", 45, knn_votes),
        _check("ratio matches, 40 x 50: neighbours, order", 80, matches),
        _check("bicubic lookup against torch, 12 x 12 x 3", 432, lookup),
        _check("keypoint cells, probe3d", 24, lambda: keypoints("probe3d")),
        _check("keypoint cells, centered", 24, lambda: keypoints("centered")),
        _check("3-D and 2-D transfer errors", 60, transfer),
        _check("macro recall, median and their bootstrap intervals", 6, intervals),
        _check("Wilson interval, exact McNemar", 3, closed_forms),
    ]


def _check(name: str, n: int, measure: Callable[[], str]) -> Check:
    return Check(layer="oracle", name=name, expected=NONE.format(n), measure=measure)


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _flat(rows: Any) -> list[Any]:
    return [v for row in rows for v in row]


def class_ranks() -> str:
    """Rank, both bounds and the prediction of 40 images among 12 classes, of which three pairs are equal."""
    images_ND, classes_CD = _random(0, 40, 8), _random(1, 12, 8)
    classes_CD[[7, 9, 11]] = classes_CD[[2, 9 - 5, 0]]
    labels_N = torch.randint(0, 12, (40,), generator=torch.Generator().manual_seed(2))
    got = rank_classes(images_ND, classes_CD, labels_N, block=7)
    columns = (got.rank_N, got.rank_lo_N, got.rank_hi_N, got.predicted_N)
    scores = [[naive.cosine(i, c) for c in classes_CD.tolist()] for i in images_ND.tolist()]
    expected = [
        (*naive.rank(s, t), max(range(12), key=lambda c, s=s: (s[c], -c)))  # type: ignore[misc]
        for s, t in zip(scores, labels_N.tolist(), strict=True)
    ]
    return differing(_flat(expected), _flat(zip(*(c.tolist() for c in columns), strict=True)))


def retrieval(positives: Any) -> str:
    """Rank and both bounds of 40 captions and 12 images; repeated captions, and two equal pictures."""
    images_ID, texts_UD = _random(3, 12, 6), _random(4, 30, 6)
    images_ID[5] = images_ID[1]
    owner_T = torch.arange(40) * 12 // 40
    text_T = torch.cat([torch.arange(30), torch.arange(10)])
    got = rank_retrieval(images_ID, texts_UD, owner_T, unique_texts=text_T, positives=positives, block=9)
    texts, owner = text_T.tolist(), owner_T.tolist()
    scores = [[naive.cosine(texts_UD[t].tolist(), i) for i in images_ID.tolist()] for t in texts]
    same = [[u for u in range(40) if texts[u] == texts[t]] if positives == "same_text" else [t] for t in range(40)]
    right = [sorted({owner[u] for u in members}) for members in same]
    expected = [naive.best_rank(s, p) for s, p in zip(scores, right, strict=True)]
    for i in range(12):
        own = [t for t in range(40) if i in right[t]]
        expected.append(naive.best_rank([scores[t][i] for t in range(40)], own))
    return differing(_flat(expected), _flat(_rank_rows(got)))


def _rank_rows(got: RetrievalRanks) -> list[tuple[int, int, int]]:
    t2i = zip(got.t2i_rank_T.tolist(), got.t2i_rank_lo_T.tolist(), got.t2i_rank_hi_T.tolist(), strict=True)
    i2t = zip(got.i2t_rank_I.tolist(), got.i2t_rank_lo_I.tolist(), got.i2t_rank_hi_I.tolist(), strict=True)
    return [*t2i, *i2t]


def knn_votes() -> str:
    """Leave-one-out predictions of 45 images of 5 classes, every fifth a copy of another class's image."""
    features_ND = _random(5, 45, 4)
    features_ND[4::5] = features_ND[::5]
    labels_N = torch.arange(45) % 5
    got = knn_leave_one_out(features_ND, labels_N, k=7, temperature=0.07, block=8)
    rows, labels = features_ND.tolist(), labels_N.tolist()
    scores = [[naive.cosine(a, b) for b in rows] for a in rows]
    expected = [naive.knn_vote(scores[i], labels, i, 7, 0.07) for i in range(45)]
    return differing(expected, got.predicted_M.tolist())


def matches() -> str:
    """Neighbour of each of 40 rows among 50, and the order by uniqueness."""
    a_ND, b_MD = (torch.nn.functional.normalize(_random(s, n, 5), dim=1) for s, n in ((6, 40), (7, 50)))
    got = ratio_matches(a_ND, b_MD, k=40, chunk=11)
    pairs = [naive.ratio_match(a, b_MD.tolist()) for a in a_ND.tolist()]
    order = sorted(range(40), key=lambda i: (-pairs[i][1], i))
    expected = [*order, *(pairs[i][0] for i in order)]
    return differing(expected, [*got.index0.tolist(), *got.index1.tolist()])


def lookup() -> str:
    """The upsampled map against torch's own bicubic interpolation."""
    map_HWD = _random(8, 5, 7, 3)
    up = torch.nn.functional.interpolate(
        map_HWD.permute(2, 0, 1)[None].double(), size=(12, 12), mode="bicubic", align_corners=False
    )
    expected = torch.nn.functional.normalize(up[0].permute(1, 2, 0), dim=-1)
    got = upsample_map(map_HWD, (12, 12))
    off = int(((expected - got).abs() > 1e-5).sum())
    return f"{off} of {got.numel()} differ"


def keypoints(mode: Mode) -> str:
    """Predicted cells (column, row) of 12 keypoints on 10 x 10 maps."""
    grid = SquareGrid(size=160, patch=16)
    maps = [unit_map(_random(s, 10, 10, 6)) for s in (9, 10)]
    rng = np.random.default_rng(0)
    size, points_K2 = (200, 150), rng.uniform(5, 145, (12, 2))
    boxes = [KeypointImage(tokens=m, keypoints=points_K2, size=size, box=(0, 0, 100, 80)) for m in maps]
    got = match_keypoints(boxes[0], boxes[1], grid, mode)
    scaled = points_K2 * 160 / 200
    places = np.trunc(scaled) / 160 * 9 if mode == "probe3d" else scaled / 16 - 0.5
    cells = [naive.keypoint_cell(maps[0].numpy(), maps[1].numpy(), (float(x), float(y))) for x, y in places]
    offset = 0.0 if mode == "probe3d" else 0.5
    expected = [[(c + offset) * 16 * 200 / 160, (r + offset) * 16 * 200 / 160] for c, r in cells]
    return differing(_flat(expected), _flat(got.predicted.tolist()))


def transfer() -> str:
    """Errors of 30 matches in metres and pixels, point by point."""
    xyz0, xyz1 = (_random(s, 5, 6, 3) * 0.3 + torch.tensor([0, 0, 1.5]) for s in (11, 12))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.linalg.qr(_random(13, 3, 3).double()).Q
    pose[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    index = torch.arange(30)
    found = Matches(index0=index, index1=index.flip(0), weight=torch.ones(30), cosine=torch.ones(30))
    got = score_pair(found, xyz0, xyz1, pose, (600.0, 500.0), NAVI)
    expected_m, expected_px = [], []
    for a, b in zip(xyz0.reshape(-1, 3).tolist(), xyz1.reshape(-1, 3).flip(0).tolist(), strict=True):
        moved = [sum(float(pose[r, c]) * a[c] for c in range(3)) + float(pose[r, 3]) for r in range(3)]
        expected_m.append(sum((m - v) ** 2 for m, v in zip(moved, b, strict=True)) ** 0.5)
        gaps = [f * (moved[k] / max(moved[2], 1e-9) - b[k] / max(b[2], 1e-9)) for k, f in enumerate((600.0, 500.0))]
        expected_px.append((gaps[0] ** 2 + gaps[1] ** 2) ** 0.5)
    both = zip([*expected_m, *expected_px], [*got.errors_metres.tolist(), *got.errors_pixels.tolist()], strict=True)
    # Pixels of points beside the camera are huge; relative errors of float32 input are what remains.
    wrong = sum(abs(e - g) > 1e-5 * max(1.0, abs(e)) for e, g in both)
    return f"{wrong} of 60 differ"


def intervals() -> str:
    """Value and percentile bounds of a class-macro recall and a median over 12 clusters, resample by resample."""
    rng = np.random.default_rng(1)
    unit = np.sort(rng.integers(0, 12, 50))
    unit[:12] = np.arange(12)
    unit.sort()
    table = {
        "sample_id": np.array([f"s{i:02d}" for i in range(50)]),
        "cluster_id": np.array([f"c{u:02d}" for u in unit]),
        "hit": rng.integers(0, 3, 50),
        "n": rng.integers(3, 6, 50),
        "class": rng.integers(0, 4, 50),
    }
    recipes = {
        "macro": Recipe(kind="ratio", column="hit", weight="n", group="class"),
        "median": Recipe(kind="median", column="n", scale=1.0),
    }
    got = evaluate(recipes, table, n_resamples=100, seed=3)
    rows = np.concatenate(list(resample_counts(12, n_resamples=100, seed=3)))
    columns = (unit.tolist(), table["hit"].tolist(), table["n"].tolist(), table["class"].tolist())
    macro, *macros = [naive.resampled_ratio(counts, *columns) for counts in (np.ones(12), *rows)]
    median, *medians = [naive.resampled_median(counts, columns[0], columns[2]) for counts in (np.ones(12), *rows)]
    expected = [macro, *np.percentile(macros, [2.5, 97.5]), median, *np.percentile(medians, [2.5, 97.5])]
    measured = [v for name in recipes for v in (got[name].value, *(got[name].ci95 or (None, None)))]
    return differing([float(e) for e in expected], measured)


def closed_forms() -> str:
    """Interval of 13 hits of 20, and p of two models that differ on 9 of 20 samples, 7 to 2."""
    a = np.array([1] * 13 + [0] * 7)
    b = a.copy()
    b[:2], b[13:20] = 0, 1
    ids = np.array([f"s{i:02d}" for i in range(20)])
    tables = [{"sample_id": ids, "cluster_id": ids, "hit": x} for x in (a, b)]
    recipes = {"acc": Recipe(kind="ratio", column="hit")}
    value = evaluate(recipes, tables[0])["acc"]
    paired = paired_difference(recipes, "acc", *tables)
    measured = [*(value.ci95 or (None, None)), paired.p]
    expected = [*naive.wilson(13, 20), naive.mcnemar(7, 2)]
    return f"{sum(not agree(e, m) for e, m in zip(expected, measured, strict=True))} of 3 differ"
