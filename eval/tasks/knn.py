"""Task `knn`: leave-one-out nearest-neighbour classification on pooled features, for encoders with or without text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mtv.encoders.base import Encoder
from mtv.eval.artefacts import captioned
from mtv.eval.datasets.base import ClassificationSet, Dataset, KeypointPairSet, fingerprint_of
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.features.request import FeatureRequest
from mtv.eval.protocols import KnnProtocol
from mtv.eval.task import Scored, Task, TaskRun
from mtv.eval.tasks.common import extremes, limit_classification, pixels_of, pooled_request
from mtv.probes.knn import KnnOutcome, knn_leave_one_out
from mtv.recipes import Recipe

if TYPE_CHECKING:
    from PIL import Image


class KnnTask(Task[KnnProtocol, ClassificationSet]):
    """Accuracy of a weighted vote of the k most similar other pictures."""

    def open(self, data: Path) -> ClassificationSet:
        """The labelled set, limited per class."""
        found = open_dataset(self.protocol.data, data)
        labelled = by_category(cast(KeypointPairSet, found)) if self.protocol.data == "spair" else found
        return limit_classification(cast(ClassificationSet, labelled), self.protocol.limit)

    def counts(self, dataset: ClassificationSet) -> dict[str, int]:
        """Images and classes."""
        return {"images": len(dataset.images), "classes": len(dataset.classes)}

    def requests(self, encoder: Encoder, dataset: ClassificationSet) -> list[FeatureRequest]:
        """One pooled vector per picture."""
        p = self.protocol
        request = pooled_request(
            encoder,
            dataset.name,
            dataset.images,
            size=p.size,
            tower_dtype=p.tower_dtype,
            global_token=p.feature == "global",
        )
        return [request]

    def score(self, run: TaskRun[ClassificationSet]) -> Scored:
        """Vote of the other pictures for each picture."""
        data, p = run.dataset, self.protocol
        request = run.requests[0]
        features_ND = run.sets[0].stack(request.ids, request.outputs[0])
        labels_N = torch.from_numpy(data.labels)
        outcome = knn_leave_one_out(
            features_ND.to(run.encoder.device), labels_N, k=p.k, temperature=p.temperature, ids=request.ids
        )
        kept = outcome.kept_M.numpy()
        return Scored(
            table=_table(request.ids, data.labels, outcome),
            recipes=_recipes(data.labels[kept]),
            details={
                "n_left_out": outcome.n_left_out,
                "n_neighbours": outcome.n_neighbours,
                "n_classes": len(np.unique(data.labels[kept])),
                "labels": "category" if p.data == "spair" else "class",
            },
            pictures=lambda: _pictures(request, data, outcome),
        )


def by_category(found: KeypointPairSet) -> ClassificationSet:
    """The pictures of an SPair-layout set, labelled by category."""
    classes = tuple(sorted({a.category for a in found.annotations.values()}))
    labels = np.array([classes.index(found.annotations[i].category) for i in found.images], dtype=np.int64)
    rows = ((i, found.annotations[i].category) for i in found.images)
    common = {f: getattr(found, f) for f in Dataset.__dataclass_fields__}
    labelled = ClassificationSet(**common, labels=labels, classes=classes, class_indices=np.arange(len(classes)))
    # The reader counts pairs; here pictures count.
    label = found.report.label and f"{len(labels)} images, not the full set"
    return replace(labelled, report=replace(found.report, fingerprint=fingerprint_of(rows), label=label))


def _table(ids: list[str], labels: np.ndarray, outcome: KnnOutcome) -> dict[str, np.ndarray]:
    kept = outcome.kept_M.numpy()
    return {
        "sample_id": np.array(ids)[kept],
        "cluster_id": np.array(ids)[kept],
        "label": labels[kept],
        "predicted": outcome.predicted_M.numpy()[kept],
        "correct": outcome.correct_M.numpy()[kept],
        "vote_share": outcome.vote_share_M.numpy()[kept],
        "nearest": outcome.nearest_M.numpy()[kept],
        "nearest_score": outcome.nearest_score_M.numpy()[kept],
    }


def _recipes(labels: np.ndarray) -> dict[str, Recipe]:
    # Guessing: always the most frequent class.
    chance = 100 * float(np.bincount(labels).max() / len(labels))
    return {
        "top1": Recipe(
            kind="ratio",
            column="correct",
            chance=chance,
            headline=True,
            describe="leave-one-out vote of the k nearest; chance is the most frequent class",
        ),
        "mean_class_acc": Recipe(
            kind="ratio",
            column="correct",
            group="label",
            chance=100 / len(np.unique(labels)),
            describe="mean over classes of their accuracy",
        ),
    }


def _pictures(
    request: FeatureRequest, data: ClassificationSet, outcome: KnnOutcome
) -> Iterator[tuple[str, Image.Image]]:
    kept = np.flatnonzero(outcome.kept_M.numpy())
    signed = np.where(outcome.correct_M.numpy(), 1, -1) * outcome.vote_share_M.numpy()
    for kind, positions in zip(("best", "worst"), extremes(signed[kept]), strict=True):
        for turn, position in enumerate(positions):
            i = int(kept[position])
            pixels = pixels_of(request, request.ids[i])
            predicted = data.titles[int(outcome.predicted_M[i])]
            lines = [
                f"true: {data.titles[data.labels[i]]}",
                f"voted: {predicted}",
                f"nearest: {request.ids[int(outcome.nearest_M[i])]}",
            ]
            yield f"{kind}-{turn:02d}", captioned(pixels, lines)
