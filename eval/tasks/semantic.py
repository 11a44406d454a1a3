"""Task `spair`: semantic keypoint transfer on SPair-71k and sets in its layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mtv.encoders.base import Encoder
from mtv.eval.artefacts import match_lines
from mtv.eval.datasets.base import FileRef, KeypointPair, KeypointPairSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.features.request import FeatureRequest
from mtv.eval.preparations import SquarePreparation
from mtv.eval.protocols import SpairProtocol
from mtv.eval.task import Scored, Task, TaskRun, stable_subset
from mtv.eval.tasks.common import dense_request, extremes, pixels_of, tap_details, tokens_of
from mtv.hashing import sha256_lines
from mtv.probes.resample import SquareGrid
from mtv.probes.semantic import KeypointErrors, KeypointImage, match_keypoints, unit_map
from mtv.probes.semantic_scores import is_correct, select_jobs
from mtv.recipes import Recipe

if TYPE_CHECKING:
    from PIL import Image

ALPHAS = (0.05, 0.10, 0.15)
"""PCK thresholds, in units of the larger side of the target's box."""


@dataclass(frozen=True, kw_only=True)
class ChosenPairs(KeypointPairSet):
    """The pairs that the protocol's jobs draw from the whole set. A smaller set would give another draw."""

    in_vp: frozenset[str]
    """Pairs drawn for a viewpoint difference of their own."""
    in_all: frozenset[str]
    """Pairs drawn for `recall_all`."""


class SpairTask(Task[SpairProtocol, ChosenPairs]):
    """Recall at 0.1, class-macro, by viewpoint difference."""

    needs_tokens = True

    def open(self, data: Path) -> ChosenPairs:
        """The pair set, cut to the pairs of the protocol and the images they use."""
        found = cast(KeypointPairSet, open_dataset("spair", data, split=self.protocol.split))
        jobs = self._jobs(found)
        in_vp = frozenset(found.pairs[i].id for (_, vp), members in jobs.items() if vp is not None for i in members)
        in_all = frozenset(found.pairs[i].id for (_, vp), members in jobs.items() if vp is None for i in members)
        pairs = [p for p in found.pairs if p.id in in_vp | in_all]
        if self.protocol.limit is not None:
            keep = stable_subset([p.id for p in pairs], [p.category for p in pairs], self.protocol.limit)
            pairs = [pairs[i] for i in keep]
        used = {image for p in pairs for image in (p.source, p.target)}
        kept = {
            "pairs": tuple(pairs),
            "images": {k: v for k, v in found.images.items() if k in used},
            "categories": tuple(sorted({p.category for p in pairs})),
        }
        whole = {f.name: getattr(found, f.name) for f in fields(KeypointPairSet)}
        return ChosenPairs(**{**whole, **kept}, in_vp=in_vp, in_all=in_all)

    def counts(self, dataset: ChosenPairs) -> dict[str, int]:
        """Images, pairs and classes."""
        return {"images": len(dataset.images), "pairs": len(dataset.pairs), "classes": len(dataset.categories)}

    def requests(self, encoder: Encoder, dataset: ChosenPairs) -> list[FeatureRequest]:
        """One token map per picture."""
        files: dict[str, tuple[FileRef, ...]] = {k: (v,) for k, v in dataset.images.items()}
        return [dense_request(encoder, dataset.name, files, SquarePreparation(size=self.protocol.size), self.protocol)]

    def _jobs(self, dataset: KeypointPairSet) -> dict[Any, list[int]]:
        p = self.protocol
        return select_jobs(
            [q.id for q in dataset.pairs],
            [q.category for q in dataset.pairs],
            [q.viewpoint for q in dataset.pairs],
            n=p.pairs_per_job if p.pairs == "subset" else None,
            seed=p.seed,
        )

    def score(self, run: TaskRun[ChosenPairs]) -> Scored:
        """Transfer every shared keypoint of every pair."""
        data, p = run.dataset, self.protocol
        request = run.requests[0]
        features = run.sets[0]
        grid = SquareGrid(size=p.size, patch=run.encoder.patch_size)
        errors: dict[str, KeypointErrors] = {}
        for category in data.categories:
            pairs = [q for q in data.pairs if q.category == category]
            # One class at a time bounds the memory: its maps in float32, not those of the whole set.
            maps = {i: self._image(run, features.get(i)[request.outputs[0]], i) for i in _images_of(pairs)}
            for pair in pairs:
                errors[pair.id] = match_keypoints(maps[pair.source], maps[pair.target], grid, p.mode)
                run.tick("match", len(errors), len(data.pairs), category)
        table = self._table(data, errors)
        return Scored(
            table=table,
            recipes=_recipes(),
            details={
                **tap_details(run.encoder, p, request),
                "pair_sha256": sha256_lines(q.id for q in data.pairs),
                "n_pairs": len(data.pairs),
                "n_keypoints": len(table["sample_id"]),
                "pairs_without_keypoints": sum(not len(e.error) for e in errors.values()),
                "per_class": _per_class(table),
            },
            pictures=lambda: self._pictures(run, errors),
        )

    def _image(self, run: TaskRun[ChosenPairs], tokens: Any, image: str) -> KeypointImage:
        a = run.dataset.annotations[image]
        return KeypointImage(
            tokens=unit_map(tokens.to(run.encoder.device)), keypoints=a.keypoints, size=a.size, box=a.bbox
        )

    def _table(self, data: ChosenPairs, errors: dict[str, KeypointErrors]) -> dict[str, np.ndarray]:
        rows = [(q, errors[q.id], r) for q in data.pairs for r in range(len(errors[q.id].error))]
        error = np.array([e.error[r] for _, e, r in rows], dtype=np.float64)
        scale = np.array([e.scale for _, e, _ in rows], dtype=np.float64)
        category = np.array([q.category for q, _, _ in rows], dtype=str)
        return {
            "sample_id": np.array([f"{q.id}#{e.keypoint[r]}" for q, e, r in rows], dtype=str),
            "cluster_id": np.array([q.id for q, _, _ in rows], dtype=str),
            "stratum": category,
            "category": category,
            "vp": np.array([q.viewpoint for q, _, _ in rows], dtype=np.int64),
            "in_vp": np.array([q.id in data.in_vp for q, _, _ in rows], dtype=bool),
            "in_all": np.array([q.id in data.in_all for q, _, _ in rows], dtype=bool),
            "error": error,
            "scale": scale,
            "predicted_x": np.array([e.predicted[r, 0] for _, e, r in rows], dtype=np.float64),
            "predicted_y": np.array([e.predicted[r, 1] for _, e, r in rows], dtype=np.float64),
            **{f"hit_{a:.2f}": is_correct(error, scale, a) for a in ALPHAS},
            "hit_0.10_inclusive": is_correct(error, scale, 0.10, inclusive=True),
        }

    def _pictures(
        self, run: TaskRun[ChosenPairs], errors: dict[str, KeypointErrors]
    ) -> Iterator[tuple[str, Image.Image]]:
        scored = [q for q in run.dataset.pairs if len(errors[q.id].error)]
        mean_error = np.array([float(np.mean(errors[q.id].error / errors[q.id].scale)) for q in scored])
        for kind, positions in zip(("best", "worst"), extremes(-mean_error), strict=True):
            for turn, i in enumerate(positions):
                yield f"{kind}-{turn:02d}", _draw(run, scored[i], errors[scored[i].id])


def _images_of(pairs: list[KeypointPair]) -> list[str]:
    return sorted({image for q in pairs for image in (q.source, q.target)})


def _recipes() -> dict[str, Recipe]:
    hit = "hit_0.10"
    out = {
        f"recall_vp{v}": Recipe(
            kind="ratio",
            column=hit,
            where={"vp": v, "in_vp": True},
            group="category",
            describe=f"class-macro recall at 0.1, viewpoint difference {v}",
        )
        for v in (0, 1, 2)
    }
    out["recall_all"] = Recipe(
        kind="ratio",
        column=hit,
        where={"in_all": True},
        group="category",
        describe="class-macro recall at 0.1, any viewpoint",
    )
    vp = tuple(out)[:3]
    out["avg_recall"] = Recipe(
        kind="average", of=vp, scale=1.0, headline=True, describe="mean of recall_vp0, 1, 2 (those that have pairs)"
    )
    out["avg_recall_4"] = Recipe(kind="average", of=(*vp, "recall_all"), scale=1.0, describe="mean of all four")
    for a in ALPHAS:
        column = f"hit_{a:.2f}"
        out[f"pck_point@{a:.2f}"] = Recipe(
            kind="ratio", column=column, where={"in_all": True}, describe="pooled keypoints"
        )
        out[f"pck_image@{a:.2f}"] = Recipe(
            kind="ratio", column=column, where={"in_all": True}, within="cluster_id", describe="mean of per-pair rates"
        )
        out[f"pck_class@{a:.2f}"] = Recipe(
            kind="ratio", column=column, where={"in_all": True}, group="category", describe="mean of per-class rates"
        )
    out["pck_image_hpf@0.10"] = Recipe(
        kind="ratio",
        column="hit_0.10_inclusive",
        where={"in_all": True},
        within="cluster_id",
        describe="mean of per-pair rates with <=, the HPF convention",
    )
    return out


def _per_class(table: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    out = {}
    for name in sorted(set(table["category"].tolist())):
        rows = table["category"] == name
        pairs = len(set(table["cluster_id"][rows].tolist()))
        out[name] = {
            "recall": 100 * float(table["hit_0.10"][rows].mean()),
            "keypoints": int(rows.sum()),
            "pairs": pairs,
        }
    return out


def _draw(run: TaskRun[ChosenPairs], pair: KeypointPair, e: KeypointErrors) -> Image.Image:
    source, target = (run.dataset.annotations[i] for i in (pair.source, pair.target))
    pictures = [pixels_of(run.requests[0], i) for i in (pair.source, pair.target)]
    good = is_correct(e.error, np.full(len(e.error), e.scale), 0.10)
    return match_lines(
        pictures[0],
        pictures[1],
        source.keypoints[e.keypoint] / max(source.size),
        e.predicted / max(target.size),
        good,
        [f"{pair.category}: {int(good.sum())} of {len(good)} keypoints within 0.1 (rings: truth)"],
        truth_right_K2=target.keypoints[e.keypoint] / max(target.size),
        tokens=tokens_of(run, (pair.source, pair.target)),
    )
