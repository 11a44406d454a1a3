"""Tasks `coco`, `flickr30k`, `flickr8k`: image-text retrieval in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from mtv.encoders.base import Encoder
from mtv.encoders.cleaning import clean
from mtv.eval.artefacts import captioned
from mtv.eval.datasets.base import CaptionSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.features.request import FeatureRequest
from mtv.eval.protocols import RetrievalProtocol
from mtv.eval.task import Scored, Task, TaskRun
from mtv.eval.tasks.common import extremes, limit_captions, n_truncated, normalised_batch, pixels_of, pooled_request
from mtv.probes.diagnosis import diagnose_retrieval, near_chance
from mtv.probes.retrieval import RetrievalRanks, rank_retrieval, recall_summary
from mtv.recipes import Recipe

if TYPE_CHECKING:
    from PIL import Image


class RetrievalTask(Task[RetrievalProtocol, CaptionSet]):
    """Recall of the own image among all images, and of any own caption among all captions."""

    needs_text = True

    def open(self, data: Path) -> CaptionSet:
        """The caption set; limited by images, which keep all their captions."""
        split = getattr(self.protocol, "split", None)
        found = open_dataset(self.name, data, split=split, captions=self.protocol.captions)
        return limit_captions(cast(CaptionSet, found), self.protocol.limit)

    def counts(self, dataset: CaptionSet) -> dict[str, int]:
        """Images and captions."""
        return {"images": len(dataset.images), "captions": len(dataset.captions)}

    def requests(self, encoder: Encoder, dataset: CaptionSet) -> list[FeatureRequest]:
        """One pooled vector per picture."""
        p = self.protocol
        return [pooled_request(encoder, dataset.name, dataset.images, size=p.size, tower_dtype=p.tower_dtype)]

    def texts(self, encoder: Encoder, dataset: CaptionSet) -> tuple[list[str], np.ndarray]:
        """One representative per distinct cleaned caption, and the representative of each caption.

        Captions that clean to the same string are embedded once, so they score equally and tie.
        """
        how = encoder.info.text.caption_cleaning if encoder.info.text else "none"
        first: dict[str, int] = {}
        unique: list[str] = []
        inverse = np.empty(len(dataset.captions), dtype=np.int64)
        for i, caption in enumerate(dataset.captions):
            raw = self.protocol.prefix + " ".join(caption.split())
            key = clean(raw, how)
            if key not in first:
                first[key] = len(unique)
                unique.append(raw)
            inverse[i] = first[key]
        return unique, inverse

    def score(self, run: TaskRun[CaptionSet]) -> Scored:
        """Ranks of both directions."""
        data, p = run.dataset, self.protocol
        request = run.requests[0]
        images_ID = run.sets[0].stack(request.ids, "pooled")
        unique, inverse = self.texts(run.encoder, data)
        captions_UD = run.features.text(unique, "caption")
        owner_T = torch.from_numpy(data.owner)
        ranks = rank_retrieval(
            images_ID.to(run.encoder.device),
            captions_UD,
            owner_T,
            unique_texts=torch.from_numpy(inverse),
            positives=p.positives,
            score=p.score,
            scale=p.dual_softmax_scale if p.score == "dual_softmax" else None,
            image_ids=request.ids,
        )
        summary = recall_summary(ranks)
        findings: list[str] = []
        if len(unique) > 1 and near_chance(summary["t2i_r1"], 100 / len(data.images)):
            found = diagnose_retrieval(
                images_ID,
                captions_UD[torch.from_numpy(inverse)],
                owner_T,
                pixels_B3HW=normalised_batch(run.encoder, request),
                n_truncated=n_truncated(run.encoder, unique, "caption"),
                n_texts=len(unique),
            )
            findings = [f.message for f in found]
        return Scored(
            table=_table(request.ids, data, ranks),
            recipes=_recipes(len(data.images), data),
            ties={k: dict(v._asdict()) for k, v in summary["ties"].items()},
            details={"unique_captions": len(unique)},
            diagnosis=findings,
            pictures=lambda: _pictures(request, data, ranks),
        )


def _table(ids: list[str], data: CaptionSet, ranks: RetrievalRanks) -> dict[str, np.ndarray]:
    """Caption queries (part `t2i`) and image queries (part `i2t`), clustered by image."""
    image_ids = np.array(ids)
    n_t, n_i = len(data.captions), len(ids)

    def both(t2i: Any, i2t: Any) -> np.ndarray:
        return np.concatenate([np.asarray(t2i), np.asarray(i2t)])

    return {
        "sample_id": both(np.array(data.caption_ids).astype(str), image_ids.astype(str)),
        "cluster_id": both(image_ids[data.owner], image_ids),
        "part": both(np.full(n_t, "t2i"), np.full(n_i, "i2t")),
        "rank": both(ranks.t2i_rank_T, ranks.i2t_rank_I),
        "rank_lo": both(ranks.t2i_rank_lo_T, ranks.i2t_rank_lo_I),
        "rank_hi": both(ranks.t2i_rank_hi_T, ranks.i2t_rank_hi_I),
        "score": both(ranks.t2i_score_T, ranks.i2t_score_I),
        "best_foreign": both(ranks.t2i_foreign_T, ranks.i2t_foreign_I),
        "best_foreign_score": both(ranks.t2i_foreign_score_T, ranks.i2t_foreign_score_I),
    }


def _recipes(n_images: int, data: CaptionSet) -> dict[str, Recipe]:
    out: dict[str, Recipe] = {}
    counts = np.bincount(data.owner, minlength=n_images)
    words = {"t2i": "caption queries, own image", "i2t": "image queries, any own caption"}
    for part in ("t2i", "i2t"):
        for k in (1, 5, 10):
            if part == "t2i":
                chance = 100 * min(k / n_images, 1.0)
            else:
                chance = 100 * float(np.mean([_any_of(len(data.captions), int(c), k) for c in counts]))
            out[f"{part}_r{k}"] = Recipe(
                kind="ratio",
                column="rank",
                at_most=k,
                where={"part": part},
                chance=chance,
                headline=(part, k) == ("t2i", 1),
                describe=f"recall@{k}: {words[part]} among the first {k}",
            )
        out[f"{part}_medr"] = Recipe(
            kind="median",
            column="rank",
            where={"part": part},
            scale=1.0,
            unit="rank",
            higher_is_better=False,
            describe=f"median rank: {words[part]}",
        )
    names = tuple(f"{part}_r{k}" for part in ("t2i", "i2t") for k in (1, 5, 10))
    out["rsum"] = Recipe(kind="sum", of=names, scale=1.0, describe="sum of the six recalls")
    return out


def _any_of(n: int, own: int, k: int) -> float:
    """Probability that one of `own` items is among the first `k` of a random order of `n`."""
    missed = 1.0
    for i in range(min(k, n)):
        missed *= max(n - own - i, 0) / (n - i)
    return 1 - missed


def _pictures(request: FeatureRequest, data: CaptionSet, ranks: RetrievalRanks) -> Iterator[tuple[str, Image.Image]]:
    margin = (ranks.t2i_score_T - ranks.t2i_foreign_score_T).numpy()
    for kind, positions in zip(("best", "worst"), extremes(margin), strict=True):
        for turn, t in enumerate(positions):
            sample = request.ids[int(data.owner[t])]
            pixels = pixels_of(request, sample)
            lines = [data.captions[t].strip(), f"rank {int(ranks.t2i_rank_T[t])} of {len(request.ids)}"]
            yield f"{kind}-{turn:02d}", captioned(pixels, lines)
