"""Tasks `ade20k`, `camvid`, `nyu40`: linear segmentation on a frozen encoder, trained on one split, scored on another.

With `engine=native` every window of training and test pictures goes through the feature provider, so that another head
needs no forward pass; heads are trained on the stored maps, and one of them is chosen on held-out training pictures.
With `engine=mmseg` the whole work is mmsegmentation's (`mtv.eval.mmseg`, an extra).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mtv.encoders.base import Encoder
from mtv.eval.datasets.base import FileRef, SegmentationSet
from mtv.eval.features.request import FeatureRequest
from mtv.eval.heads.segmentation_pair import SegmentationPair, open_pair
from mtv.eval.heads.segmentation_scoring import (
    EvalPictures,
    class_table,
    recipes_of,
    sample_table,
    score_pictures,
    total_of,
)
from mtv.eval.heads.segmentation_tap import SegmentationTap, WindowTokens, describe_tap, resolve_tap
from mtv.eval.heads.segmentation_training import (
    Outcome,
    TrainingWindows,
    WindowBatches,
    held_out_counts,
    label_counts,
    make_trainer,
    open_labels,
    train_heads,
    training_windows,
)
from mtv.eval.heads.segmentation_views import (
    AugmentedPreparation,
    EvalGrid,
    EvalPreparation,
    PlainPreparation,
    eval_grid,
    eval_id,
    fill_of,
    geometry_of,
    train_id,
)
from mtv.eval.mmseg import engine as mmseg
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.eval.task import Scored, Task, TaskRun
from mtv.eval.tasks.segmentation_report import describe_training, describe_windows, diagnosis, feature_picture, pictures
from mtv.probes.segmentation_metric import constant_areas, score_areas
from mtv.probes.segmentation_selection import best_head
from mtv.probes.segmentation_windows import WindowGeometry

Files = dict[str, tuple[FileRef, ...]]
"""Sample id to the files that make its pixels."""


class SegmentationTask(Task[SegmentationProtocol, SegmentationPair]):
    """Linear segmentation."""

    needs_tokens = True

    def open(self, data: Path) -> SegmentationPair:
        """Both splits, each cut to its limit.

        Raises:
            DataError: missing or wrong, or splits with different classes.
        """
        return open_pair(self.protocol, data)

    def files(self, dataset: SegmentationPair) -> dict[str, tuple[FileRef, ...]]:
        """Pictures and label maps of both splits."""
        return {
            f"{split}:{key}": (part.images[key], part.labels[key])
            for split, part in (("test", dataset), ("train", dataset.train))
            for key in part.images
        }

    def counts(self, dataset: SegmentationPair) -> dict[str, int]:
        """Pictures that are scored, pictures that are trained on, classes."""
        return {
            "images": len(dataset.images),
            "train images": len(dataset.train.images),
            "classes": len(dataset.classes),
        }

    def requests(self, encoder: Encoder, dataset: SegmentationPair) -> list[FeatureRequest]:
        """If native: plain training windows, augmented ones, and test windows by their size (nearly always one)."""
        p = self.protocol
        if p.engine == "mmseg":
            mmseg.require(p, encoder)
            return []
        tap = resolve_tap(p, encoder)
        common: dict[str, Any] = {
            "data": self.name, "storage": p.storage, "tower_dtype": p.tower_dtype, **tap.request()
        }  # fmt: skip
        plain, augmented = self._preparations(encoder, dataset, tap)
        images, labels = dataset.train.images, dataset.train.labels
        first: Files = {}
        others: Files = {}
        for picture, number in training_windows(p, list(images)).all:
            blobs = (images[picture],) if number == 0 else (images[picture], labels[picture])
            (others if number else first)[train_id(picture, number)] = blobs
        found = [FeatureRequest(files=first, preparation=plain, **common)]
        if others:
            found.append(FeatureRequest(files=others, preparation=augmented, **common))
        by_window: dict[tuple[int, int], Files] = {}
        for picture, grid in _grids(dataset, plain.geometry, p).items():
            own = {eval_id(picture, k): (dataset.images[picture],) for k in range(len(grid.windows))}
            by_window.setdefault(grid.window, {}).update(own)
        for window, files in sorted(by_window.items()):
            preparation = EvalPreparation(geometry=plain.geometry, infer=p.infer, window=window, fill=plain.fill)
            found.append(FeatureRequest(files=files, preparation=preparation, **common))
        return found

    def score(self, run: TaskRun[SegmentationPair]) -> Scored:
        """Train the heads, choose one, and score it."""
        p, data = self.protocol, run.dataset
        if p.engine == "mmseg":
            return mmseg.score(p, run)
        tap = resolve_tap(p, run.encoder)
        tokens = WindowTokens(run.sets, tap)
        geometry = geometry_of(p, run.encoder.patch_size)
        windows = training_windows(p, list(data.train.images))
        outcome = self._train(run, tap, tokens, windows)
        test = EvalPictures(data=data, grids=_grids(data, geometry, p), tokens=tokens)
        areas = score_pictures(outcome.head, test, lambda n, total: run.tick("evaluate", n, total, ""))
        total = total_of(areas)
        constant = score_areas(constant_areas(total, outcome.frequent))
        return Scored(
            table=sample_table(list(data.images), areas),
            recipes=recipes_of(constant),
            details={
                "engine": p.engine,
                **describe_tap(tap, run.encoder),
                **describe_windows(geometry, test.grids, windows),
                **describe_training(outcome, data.classes),
                "train_images": len(data.train.images),
                "train_label": data.train.report.label,
                "iou": class_table(total, data.classes),
            },
            diagnosis=diagnosis(score_areas(total).miou, constant.miou, data.classes[outcome.frequent]),
            pictures=lambda: pictures(data, test.predictor(outcome.head), areas, partial(feature_picture, test)),
        )

    def _train(
        self, run: TaskRun[SegmentationPair], tap: SegmentationTap, tokens: WindowTokens, windows: TrainingWindows
    ) -> Outcome:
        p, train, encoder = self.protocol, run.dataset.train, run.encoder
        plain, augmented = self._preparations(encoder, run.dataset, tap)
        trainer = make_trainer(
            p,
            width=tap.width(encoder),
            n_classes=len(train.classes),
            n_windows=len(windows.train),
            device=encoder.device,
        )
        with open_labels(run.work, train, windows.all, plain=plain, augmented=augmented, tick=run.tick) as labels_NHW:
            frequent = int(label_counts(labels_NHW, len(train.classes)).argmax())
            batches = WindowBatches(
                protocol=p, windows=windows, tokens=tokens, labels_NHW=labels_NHW, device=encoder.device
            )
            training = train_heads(trainer, batches, work=run.work, tick=run.tick)
            held_out = held_out_counts(trainer, batches, run.tick)
        chosen = best_head(held_out) if held_out else 0
        return Outcome(trainer=trainer, training=training, held_out=held_out, chosen=chosen, frequent=frequent)

    def _preparations(
        self, encoder: Encoder, dataset: SegmentationPair, tap: SegmentationTap
    ) -> tuple[PlainPreparation, AugmentedPreparation]:
        """How training windows are cut."""
        p, train, fill = self.protocol, dataset.train, fill_of(tap.mean)
        geometry = geometry_of(p, encoder.patch_size)
        return (
            PlainPreparation(geometry=geometry, seed=p.seed, fill=fill),
            AugmentedPreparation(
                geometry=geometry, protocol=p, raw_to_train=train.raw_to_train, sizes=train.sizes, fill=fill
            ),
        )


def _grids(data: SegmentationSet, geometry: WindowGeometry, protocol: SegmentationProtocol) -> dict[str, EvalGrid]:
    """The windows of every test picture."""
    return {k: eval_grid((data.sizes[k][1], data.sizes[k][0]), geometry, protocol.infer) for k in data.images}
