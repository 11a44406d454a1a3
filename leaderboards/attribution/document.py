"""Synergy, attribution and gradients of a result store as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mtv.leaderboards.attribution.analysis import StudyAnalysis
from mtv.leaderboards.attribution.gradients import GradientPoint
from mtv.leaderboards.attribution.scaling import ScalingPoint
from mtv.leaderboards.attribution.shapley import Attribution
from mtv.leaderboards.attribution.synergy import SynergyValue
from mtv.leaderboards.attribution.tables import GAIN_NOTE, RULE_NOTE, SYNERGY_NOTE, interval_note


def document(
    analyses: Sequence[StudyAnalysis], scaling: Sequence[ScalingPoint], gradients: Sequence[GradientPoint]
) -> dict[str, Any]:
    """Plain values for JSON. Synergies are fractions there, 0.5 for 50 %; everything else is in its metric's unit."""
    return {
        "studies": [_study(a) for a in analyses],
        "scaling": [asdict(p) for p in scaling],
        "gradients": [asdict(p) for p in gradients],
        "notes": [SYNERGY_NOTE, RULE_NOTE, GAIN_NOTE],
    }


def _study(analysis: StudyAnalysis) -> dict[str, Any]:
    s = analysis.study
    return {
        "title": s.title,
        "recipe": s.recipe,
        "size": s.size,
        "samples": s.samples,
        "samples_total": s.samples_total,
        "study_hash": s.study_hash,
        "data_hash": s.data_hash,
        "subsets": [list(o) for o in s.subsets],
        "seeds": list(s.seeds),
        "resamples": analysis.resamples,
        "bootstrap_seed": analysis.seed,
        "intervals": interval_note(analysis),
        "synergy": [_synergy(v) for v in analysis.synergies.values()],
        "average_synergy": [asdict(a) for a in analysis.averages.values()],
        "averaged": list(analysis.averaged),
        "attribution": [_attribution(a) for a in analysis.attributions.values()],
    }


def _synergy(v: SynergyValue) -> dict[str, Any]:
    names = (v.pair[0], v.pair[1], "both")
    return {
        "pair": list(v.pair),
        "metric": v.key,
        "value": v.value,
        "ci95": v.ci95,
        "reason": v.reason,
        "gains": {n: asdict(g) for n, g in zip(names, v.gains, strict=True)} if v.gains else None,
        "seeds": list(v.seeds),
        "undefined_share": v.undefined_share,
    }


def _attribution(a: Attribution) -> dict[str, Any]:
    return {
        "metric": a.key,
        "unit": a.unit,
        "reason": a.reason,
        "seeds": list(a.seeds),
        "gain_of_all": asdict(a.total) if a.total else None,
        "contributions": [
            {
                "objective": c.objective,
                "shapley": asdict(c.shapley),
                "paper_order": asdict(c.paper_order),
                "by_order": [{"order": list(o), "increment": v} for o, v in c.by_order.items()],
            }
            for c in a.contributions
        ],
        "interactions": [{"pair": list(i.pair), "index": asdict(i.index)} for i in a.interactions],
    }
