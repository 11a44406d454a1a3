"""A depth head on the test pictures: one row per picture, and the metrics as recipes over the rows (`depth.md` 4).

Beside the head's number stands that of a constant: the median depth of the training frames everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtv.errors import DataError
from mtv.eval.datasets.base import DepthImage, DepthSet
from mtv.eval.datasets.dense_decode import read_depth_metres
from mtv.eval.features.api import FeatureSet
from mtv.eval.heads.depth_tap import DepthTap
from mtv.eval.heads.depth_views import MIRROR, PLAIN, box_of
from mtv.eval.heads.prefetch import prefetch
from mtv.eval.protocols_dense import NyuProtocol
from mtv.probes.depth_frames import FrameBox
from mtv.probes.depth_head import DepthHead, check_token_grid
from mtv.probes.depth_metrics import METRICS, ImageScore, ScoredPixels, flip_average, valid_mask
from mtv.recipes import Recipe

_NAMES = {"a1": "delta1", "a2": "delta2", "a3": "delta3"}
"""Metrics whose name differs from the probe's."""
_SHARES = ("a1", "a2", "a3", "abs_rel")
_WORDS = {
    "rmse": "mean over pictures of the RMSE within a picture",
    "a1": "pixels whose depth is off by a factor below 1.25, mean over pictures",
    "a2": "pixels whose depth is off by a factor below 1.25^2, mean over pictures",
    "a3": "pixels whose depth is off by a factor below 1.25^3, mean over pictures",
    "abs_rel": "mean absolute error over true depth, mean over pictures",
    "sq_rel": "mean squared error over true depth, mean over pictures",
    "log10": "mean absolute error of log10 depth, mean over pictures",
    "rmse_log": "RMSE of log depth within a picture, mean over pictures",
    "silog": "100 times the standard deviation of the log error within a picture, mean over pictures",
}


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Test pictures with stored features."""

    protocol: NyuProtocol
    """Range, box, flip averaging."""
    data: DepthSet
    """Pictures and truth."""
    features: FeatureSet
    """Of whole pictures and their mirror images."""
    tap: DepthTap
    """What was stored."""
    patch: int
    """Of the encoder."""

    @property
    def box(self) -> FrameBox:
        """The scored part."""
        return box_of(self.protocol.eval_box)

    def truth(self, item: DepthImage) -> tuple[Tensor, Tensor]:
        """Depth in metres and the scored pixels, both H,W."""
        depth_HW = torch.from_numpy(read_depth_metres(item.depth, self.data.depth_encoding))
        p = self.protocol
        return depth_HW, valid_mask(depth_HW, min_depth=p.min_depth, max_depth=p.max_depth, box=self.box)

    def predict(self, head: DepthHead, item: DepthImage) -> tuple[Tensor, Tensor]:
        """Depth H,W in metres on the CPU: averaged with the mirrored picture's (if the protocol says so), and plain."""
        size = (item.size[1], item.size[0])
        ids = [f"{item.id}{PLAIN}", f"{item.id}{MIRROR}"] if self.protocol.tta_flip else [f"{item.id}{PLAIN}"]
        tokens, global_name = self.tap.outputs
        tokens_BHWD = self.features.stack(ids, tokens).to(head.weight.device)
        check_token_grid(tokens_BHWD, size=size, patch=self.patch)
        global_BD = self.features.stack(ids, global_name).to(head.weight.device)
        depth_B1HW = head.predict(tokens_BHWD, global_BD, size).cpu()
        plain_HW = depth_B1HW[0, 0]
        if not self.protocol.tta_flip:
            return plain_HW, plain_HW
        return flip_average(depth_B1HW[:1], depth_B1HW[1:])[0, 0], plain_HW


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One head on all test pictures."""

    averaged: list[ImageScore]
    """With flip averaging, if the protocol says so."""
    plain: list[ImageScore]
    """Without."""
    constant: list[ImageScore]
    """What predicting one depth everywhere scores; empty if none was given."""

    def column(self, metric: str, *, plain: bool = False) -> np.ndarray:
        """float64 per picture; NaN where nothing is scored."""
        return np.array([s.values[metric] for s in (self.plain if plain else self.averaged)])

    def mean(self, metric: str) -> float:
        """Mean over the pictures with a scored pixel."""
        return float(np.nanmean(self.column(metric)))


def score_head(
    head: DepthHead, test: EvalSet, progress: Callable[[int, int], None], *, constant: float | None = None
) -> Scores:
    """Predict and score every picture; the truth is read once for all that is scored.

    Args:
        constant: depth in metres that is scored beside the head.

    Raises:
        NumericalError: a prediction that is not finite and positive; names the picture.
        DataError: a depth map that cannot be read, or no picture with a scored pixel.
    """
    items = list(test.data.items.values())
    scores = Scores(averaged=[], plain=[], constant=[])

    def scored(place: int) -> ScoredPixels:
        return ScoredPixels.of(*test.truth(items[place]), name=items[place].id)

    for place, truth in prefetch(range(len(items)), scored, head.weight.device):
        item = items[place]
        pred_HW, plain_HW = test.predict(head, item)
        averaged = truth.score(pred_HW, name=item.id)
        scores.averaged.append(averaged)
        scores.plain.append(truth.score(plain_HW, name=item.id) if test.protocol.tta_flip else averaged)
        if constant is not None:
            scores.constant.append(truth.score(torch.full(truth.shape, constant), name=item.id))
        progress(place + 1, len(items))
    if not any(s.n for s in scores.averaged):
        raise DataError(
            f"none of the {len(items)} test pictures has depth between {test.protocol.min_depth} and "
            f"{test.protocol.max_depth} m inside the scored part",
            "Check the depth maps and their unit.",
        )
    return scores


def sample_table(test: EvalSet, scores: Scores, best_rmse: Sequence[float] | None) -> dict[str, np.ndarray]:
    """One row per test picture.

    Args:
        best_rmse: per picture, of the evaluation that the reference would have kept; None without a curve.
    """
    items = list(test.data.items.values())
    n = np.array([s.n for s in scores.averaged], dtype=np.int64)
    table = {
        "sample_id": np.array([i.id for i in items], dtype=str),
        "cluster_id": np.array([cluster_of(i) for i in items], dtype=str),
        "group": np.array([i.group for i in items], dtype=str),
        "scored": n > 0,
        "pixels": n,
        **{key: scores.column(key) for key in METRICS},
        "rmse_noflip": scores.column("rmse", plain=True),
        "squares": np.where(n > 0, n * scores.column("rmse") ** 2, np.nan),
    }
    if best_rmse is not None:
        table["rmse_best"] = np.asarray(best_rmse, dtype=np.float64)
    return table


def cluster_of(item: DepthImage) -> str:
    """What intervals resample: the recorded scene, or the picture where its folder names a kind of room alone.

    Scenes are numbered (`kitchen_0028b`); the folders of the official test frames are not (`kitchen`).
    """
    return item.group if re.search(r"\d[a-z]?$", item.group) else item.id


def recipes_of(protocol: NyuProtocol, constant: Sequence[ImageScore], *, has_best: bool) -> dict[str, Recipe]:
    """All metrics; `chance` is the constant's."""
    chance = {key: _mean([s.values[key] for s in constant if s.n]) for key in METRICS}
    out = {
        _NAMES.get(key, key): _recipe(key, key, _WORDS[key], chance=chance[key], headline=key == "rmse")
        for key in ("rmse", *(k for k in METRICS if k != "rmse"))
    }
    if protocol.features == "cached":
        out["rmse_cached"] = _recipe("rmse", "rmse", "rmse, by the name of heads trained on stored features")
    if protocol.tta_flip:
        out["rmse_noflip"] = _recipe("rmse", "rmse_noflip", "rmse without averaging over the mirrored picture")
    if has_best:
        words = "rmse of the evaluation with the lowest abs_rel on the test set, which the reference keeps"
        out["rmse_best"] = _recipe("rmse", "rmse_best", words)
    squares = "squared error over all pixels of all pictures"
    out["mse_pooled"] = Recipe(
        kind="ratio", column="squares", weight="pixels", where={"scored": True}, scale=1.0, unit="m^2",
        higher_is_better=False, describe=f"mean {squares}",
    )  # fmt: skip
    out["rmse_pooled"] = Recipe(
        kind="root", of=("mse_pooled",), unit="m", higher_is_better=False,
        describe=f"root mean {squares}; not comparable with published numbers",
    )  # fmt: skip
    return out


def _recipe(key: str, column: str, words: str, *, chance: float | None = None, headline: bool = False) -> Recipe:
    """Mean of a column over the pictures with a scored pixel; `key` says which kind of number it is."""
    share = key in _SHARES
    units = {"rmse": "m", "sq_rel": "m"}
    return Recipe(
        kind="ratio",
        column=column,
        where={"scored": True},
        scale=100.0 if share else 1.0,
        unit="percent" if share else units.get(key, "1"),
        higher_is_better=key in _NAMES,
        chance=None if chance is None else chance * (100.0 if share else 1.0),
        headline=headline,
        describe=words,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def extremes_of(scores: Scores, n: int) -> Iterator[tuple[str, int]]:
    """(`best-00`, position), ... and (`worst-00`, position), ... by RMSE, among pictures with a scored pixel."""
    rmse = scores.column("rmse")
    order = [int(i) for i in np.argsort(rmse, kind="stable") if math.isfinite(rmse[i])]
    n = min(n, max(len(order) // 2, 1))
    for kind, positions in (("best", order[:n]), ("worst", order[::-1][:n])):
        yield from ((f"{kind}-{turn:02d}", i) for turn, i in enumerate(positions))
