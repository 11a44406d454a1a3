"""Task `imagenet`: zero-shot classification with prompt ensembles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mtv.encoders.base import Encoder
from mtv.errors import UsageError
from mtv.eval.artefacts import captioned
from mtv.eval.datasets.base import ClassificationSet
from mtv.eval.datasets.common import some
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.features.request import FeatureRequest
from mtv.eval.protocols import OWN_NAMES, ImageNetProtocol
from mtv.eval.task import Scored, Task, TaskRun
from mtv.eval.tasks.common import (
    extremes,
    limit_classification,
    n_truncated,
    normalised_batch,
    pixels_of,
    pooled_request,
)
from mtv.probes.classification import ClassRanks, classification_summary, rank_classes
from mtv.probes.diagnosis import diagnose_classification, near_chance
from mtv.probes.templates import fill, load_class_names, load_templates
from mtv.recipes import Recipe

if TYPE_CHECKING:
    from PIL import Image


class ImageNetTask(Task[ImageNetProtocol, ClassificationSet]):
    """Top-1 over the class names, averaged over a prompt ensemble."""

    needs_text = True

    def open(self, data: Path) -> ClassificationSet:
        """ImageNet val in any of its layouts, limited per class. Bad lists fail here, before hours of features."""
        found = cast(ClassificationSet, open_dataset("imagenet", data, split=self.protocol.split))
        self.candidates(found)
        load_templates(self.protocol.templates)
        return limit_classification(found, self.protocol.limit)

    def counts(self, dataset: ClassificationSet) -> dict[str, int]:
        """Images and classes."""
        return {"images": len(dataset.images), "classes": len(dataset.classes)}

    def requests(self, encoder: Encoder, dataset: ClassificationSet) -> list[FeatureRequest]:
        """One pooled vector per picture."""
        p = self.protocol
        return [pooled_request(encoder, dataset.name, dataset.images, size=p.size, tower_dtype=p.tower_dtype)]

    def candidates(self, dataset: ClassificationSet) -> tuple[list[str], np.ndarray]:
        """Names of the candidate classes, and the candidate of each image.

        Raises:
            UsageError: a list of names that fits neither the data set nor its full label space (ImageNet's 1000).
        """
        names = self._names(dataset)
        if len(names) == len(dataset.classes):
            return names, dataset.labels
        if len(names) <= int(dataset.class_indices.max()):
            raise UsageError(
                f"imagenet.classnames={self.protocol.classnames}: {len(names)} names, {len(dataset.classes)} classes",
                "Give one name per class folder in sorted order, or the full list of 1000.",
            )
        if self.protocol.classes == "all":
            return names, dataset.class_indices[dataset.labels]
        return [names[i] for i in dataset.class_indices], dataset.labels

    def _names(self, dataset: ClassificationSet) -> list[str]:
        choice, own = self.protocol.classnames, dataset.class_names
        if choice == OWN_NAMES:
            if own is None:
                raise UsageError(
                    f"imagenet.classnames={OWN_NAMES}: this data set brings no names, its classes are ImageNet's",
                    "Use --set imagenet.classnames=imagenet, or another preset than mini. A set of other classes names "
                    "them in classnames.txt beside val/, one line `<wnid> <name>` each.",
                )
            return list(own)
        if choice == "imagenet" and own is not None:
            raise UsageError(
                f"imagenet.classnames=imagenet: this data set has {len(own)} classes of its own ({some(own, 3)}); "
                "ImageNet's names do not fit them",
                f"Use --protocol mini, or --set imagenet.classnames={OWN_NAMES}.",
            )
        return list(load_class_names(choice))

    def score(self, run: TaskRun[ClassificationSet]) -> Scored:
        """Rank of the true class of every image."""
        data = run.dataset
        names, labels = self.candidates(data)
        request = run.requests[0]
        images_ND = run.sets[0].stack(request.ids, "pooled")
        templates = load_templates(self.protocol.templates)
        weights_CD = run.features.classifier(names, templates)
        labels_N = torch.from_numpy(labels)
        ranks = rank_classes(images_ND.to(run.encoder.device), weights_CD, labels_N, ids=request.ids)
        summary = classification_summary(ranks, labels_N)
        findings: list[str] = []
        if near_chance(summary["top1"], 100 / len(names)):
            prompts = [prompt for name in names for prompt in fill(templates[:1], name)]
            found = diagnose_classification(
                ranks,
                labels_N,
                images_ND=images_ND,
                classifier_CD=weights_CD,
                pixels_B3HW=normalised_batch(run.encoder, request),
                n_truncated=n_truncated(run.encoder, prompts, "prompt"),
                n_texts=len(prompts),
            )
            findings = [f.message for f in found]
        return Scored(
            table=_table(request.ids, labels, ranks),
            recipes=_recipes(len(names)),
            ties={"top1": dict(summary["ties"]._asdict())},
            details={"n_candidates": len(names), "n_predicted": summary["n_predicted"]},
            diagnosis=findings,
            pictures=lambda: self._pictures(request, names, labels, ranks),
        )

    def _pictures(
        self, request: FeatureRequest, names: list[str], labels: np.ndarray, ranks: ClassRanks
    ) -> Iterator[tuple[str, Image.Image]]:
        margin = (ranks.score_N - ranks.rival_score_N).numpy()
        for kind, positions in zip(("best", "worst"), extremes(margin), strict=True):
            for turn, i in enumerate(positions):
                pixels = pixels_of(request, request.ids[i])
                lines = [
                    f"true: {names[labels[i]]}",
                    f"best rival: {names[int(ranks.rival_N[i])]}",
                    f"margin {margin[i]:+.3f}",
                ]
                yield f"{kind}-{turn:02d}", captioned(pixels, lines)


def _table(ids: list[str], labels: np.ndarray, ranks: ClassRanks) -> dict[str, np.ndarray]:
    return {
        "sample_id": np.array(ids),
        "cluster_id": np.array(ids),
        "label": labels,
        "predicted": ranks.predicted_N.numpy(),
        "rank": ranks.rank_N.numpy(),
        "rank_lo": ranks.rank_lo_N.numpy(),
        "rank_hi": ranks.rank_hi_N.numpy(),
        "score": ranks.score_N.numpy(),
        "rival_score": ranks.rival_score_N.numpy(),
    }


def _recipes(n_classes: int) -> dict[str, Recipe]:
    chance = 100 / n_classes
    return {
        "top1": Recipe(
            kind="ratio",
            column="rank",
            at_most=1,
            chance=chance,
            headline=True,
            describe="share of images whose class ranks first",
        ),
        "top5": Recipe(
            kind="ratio", column="rank", at_most=5, chance=min(5 * chance, 100.0), describe="class among the first five"
        ),
        "mean_class_acc": Recipe(
            kind="ratio",
            column="rank",
            at_most=1,
            group="label",
            chance=chance,
            describe="mean over classes of their top-1",
        ),
    }
