"""What `rel_nyu` and `rel_kitti` know of one picture, the table made of it, and its state on disk.

Beside the model's score stands that of a constant prediction under the same fit: the chance level.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtv.atomic import atomic_write_json
from mtv.eval.rel_frames import DepthFrame
from mtv.probes.depth_align import AlignConfig, Fit, RelativeScore, score_relative
from mtv.probes.depth_metrics import METRICS, ImageScore
from mtv.recipes import Recipe

log = logging.getLogger(__name__)

FILE = "rel_depth.json"
SAVE_EVERY = 50
"""Pictures between two saves."""
DELTAS = {"delta1": "a1", "delta2": "a2", "delta3": "a3"}
"""Column to key of `ImageScore`."""
PLAIN = ("rmse", "log10", "silog")
"""Columns that are called as in `ImageScore`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One picture."""

    group: str
    """Scene or drive."""
    model: RelativeScore
    """Of the model's prediction."""
    constant: RelativeScore
    """Of the same value everywhere."""


def outcome_of(frame: DepthFrame, pred_HW: Tensor, config: AlignConfig) -> Outcome:
    """Score a prediction at the frame's size, in float64 on its device (on the CPU where the device has none)."""
    if pred_HW.device.type == "mps":
        pred_HW = pred_HW.cpu()
    depth_HW, valid_HW = frame.depth_HW.to(pred_HW.device), frame.valid_HW.to(pred_HW.device)
    model = score_relative(pred_HW, depth_HW, valid_HW, config=config, name=frame.id)
    constant = score_relative(torch.ones_like(pred_HW), depth_HW, valid_HW, config=config, name=frame.id)
    return Outcome(group=frame.group, model=model, constant=constant)


def save_outcomes(folder: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Write the state atomically."""
    atomic_write_json(folder / FILE, {k: _plain(asdict(v)) for k, v in outcomes.items()})


def load_outcomes(folder: Path | None) -> dict[str, Outcome]:
    """What an earlier process scored; nothing where there is no state, or where it cannot be read."""
    if folder is None or not (folder / FILE).is_file():
        return {}
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {k: _outcome(v) for k, v in content.items()}
    except (OSError, ValueError, KeyError, TypeError) as e:
        log.warning("%s cannot be read (%s); all pictures are scored again", FILE, e)
        return {}


def _plain(value: Any) -> Any:
    """JSON has no NaN, which stands in the scores of pictures without a valid pixel."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _outcome(state: Mapping[str, Any]) -> Outcome:
    return Outcome(group=state["group"], model=_score(state["model"]), constant=_score(state["constant"]))


def _score(state: Mapping[str, Any]) -> RelativeScore:
    image = state["image"]
    return RelativeScore(
        absrel=state["absrel"],
        image=ImageScore(
            n=image["n"], values={k: math.nan if image["n"] == 0 else image["values"][k] for k in METRICS}
        ),
        fit=None if state["fit"] is None else Fit(**state["fit"]),
        dropped=state["dropped"],
    )


def table_of(outcomes: Mapping[str, Outcome]) -> dict[str, np.ndarray]:
    """One row per picture with a valid pixel; shares, not percent."""
    rows = [(k, o, o.model.fit) for k, o in outcomes.items() if o.model.fit is not None]
    fits = [fit for _, _, fit in rows if fit is not None]
    table: dict[str, np.ndarray] = {
        "sample_id": np.array([k for k, _, _ in rows], dtype=str),
        "cluster_id": np.array([o.group for _, o, _ in rows], dtype=str),
        "n_pixels": np.array([o.model.image.n for _, o, _ in rows], dtype=np.int64),
    }
    for key in absrel_keys(outcomes):
        table[key] = np.array([o.model.absrel[key] for _, o, _ in rows], dtype=np.float64)
    for column, key in {**DELTAS, **{k: k for k in PLAIN}}.items():
        table[column] = np.array([o.model.image.values[key] for _, o, _ in rows], dtype=np.float64)
    table["scale"] = np.array([fit.scale for fit in fits], dtype=np.float64)
    table["shift"] = np.array([fit.shift for fit in fits], dtype=np.float64)
    table["scale_positive"] = np.array([fit.scale > 0 for fit in fits], dtype=bool)
    table["constant"] = np.array([fit.constant for fit in fits], dtype=bool)
    table["fit_dropped"] = np.array([o.model.dropped for _, o, _ in rows], dtype=np.float64)
    return table


def absrel_keys(outcomes: Mapping[str, Outcome]) -> list[str]:
    """The AbsRel variants that were computed, the headline first."""
    return next((list(o.model.absrel) for o in outcomes.values() if o.model.fit is not None), [])


_ABSREL = {
    "absrel_depth": "fitted in disparity, compared in depth after clipping",
    "absrel_disp": "fitted in disparity over all valid pixels, compared there, unclipped",
    "absrel_depth_cap": "as absrel_depth, but no farther than the farthest truth, which it must know: no headline",
    "absrel_depth_ls": "fitted in depth, compared there after clipping",
}
HEADLINES = ("absrel_depth", "absrel_depth_ls")


def recipes_of(outcomes: Mapping[str, Outcome]) -> dict[str, Recipe]:
    """Means over pictures, with the score of a constant prediction as chance."""
    scored = [o.constant for o in outcomes.values() if o.constant.fit is not None]
    means = {key: math.fsum(s.absrel[key] for s in scored) / len(scored) for key in absrel_keys(outcomes)}
    means |= {key: math.fsum(s.image.values[key] for s in scored) / len(scored) for key in METRICS}
    out: dict[str, Recipe] = {}
    for key in absrel_keys(outcomes):
        out[key] = Recipe(
            kind="ratio",
            column=key,
            higher_is_better=False,
            chance=100 * means[key],
            headline=key in HEADLINES,
            describe=f"mean over pictures of |error| / truth, {_ABSREL[key]}; chance is a constant prediction",
        )
    for place, (column, key) in enumerate(DELTAS.items(), 1):
        words = f"mean over pictures of the share of pixels with max ratio below 1.25^{place}"
        out[column] = Recipe(kind="ratio", column=column, chance=100 * means[key], describe=words)
    units = {"rmse": ("m", 1.0), "log10": ("log10", 1.0), "silog": ("percent", 1.0)}
    for column, (unit, scale) in units.items():
        out[column] = Recipe(
            kind="ratio",
            column=column,
            scale=scale,
            unit=unit,
            higher_is_better=False,
            chance=scale * means[column],
            describe=f"mean over pictures of {column} of the aligned depth",
        )
    out["positive_scale"] = Recipe(kind="ratio", column="scale_positive", describe="pictures with a positive scale")
    out["fit_dropped"] = Recipe(
        kind="ratio", column="fit_dropped", higher_is_better=False, describe="valid pixels that the fit left out"
    )
    return out


def inverted(outcomes: Sequence[Outcome]) -> int:
    """Pictures whose fitted scale is not positive."""
    return sum(o.model.fit.inverted for o in outcomes if o.model.fit is not None)
