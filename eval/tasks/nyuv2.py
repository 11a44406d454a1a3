"""Task `nyuv2`: metric depth by a linear head on a frozen encoder, trained on one split and scored on the other.

The training split is part of the data: its files are in the content hash, its pictures in the fingerprint. What the
head is trained on comes from `mtv.eval.heads.depth_fast` (stored features) or `depth_online` (encoder in the loop).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv.encoders.base import Encoder
from mtv.encoders.preprocess import decode_rgb
from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import DepthSet, FileRef
from mtv.eval.datasets.common import some
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.depth_pictures import depth_row
from mtv.eval.features.request import FeatureRequest
from mtv.eval.heads.depth_fast import CachedBatches
from mtv.eval.heads.depth_online import EncodedBatches
from mtv.eval.heads.depth_scoring import (
    EvalSet,
    Scores,
    extremes_of,
    recipes_of,
    sample_table,
    score_head,
)
from mtv.eval.heads.depth_tap import DepthTap, describe_input, describe_tap, resolve_tap
from mtv.eval.heads.depth_training import Batches, DepthTrainer, train
from mtv.eval.heads.depth_views import MIRROR, PLAIN, MirrorPreparation, ViewPreparation, frame_of, view_id
from mtv.eval.heads.frame_store import FrameStore, open_frames
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.protocols_dense import NyuProtocol
from mtv.eval.task import Scored, Task, TaskRun, stable_subset
from mtv.hashing import sha256_json
from mtv.probes.depth_frames import TrainFrame
from mtv.probes.depth_schedule import DepthSchedule

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

_SHOWN = 8
"""Pictures at each end of the ranking that are drawn."""


@dataclass(frozen=True, kw_only=True)
class ProbeSet(DepthSet):
    """The test split, and the split that the head is trained on."""

    train: DepthSet
    """Training split."""

    @property
    def size(self) -> tuple[int, int]:
        """Width, height of the test pictures."""
        return next(iter(self.items.values())).size

    @property
    def train_size(self) -> tuple[int, int]:
        """Width, height of the training pictures."""
        return next(iter(self.train.items.values())).size


class NyuTask(Task[NyuProtocol, ProbeSet]):
    """NYUv2 depth probe."""

    needs_tokens = True

    def open(self, data: Path) -> ProbeSet:
        """Both splits, each cut to its limit.

        Raises:
            DataError: missing or wrong, a picture in both splits, or frames too small for the crops.
        """
        test, train_set = (_depth_set(data, split) for split in ("test", "train"))
        if both := sorted(set(test.images) & set(train_set.images)):
            raise DataError(
                f"nyuv2: {len(both)} pictures are in the test and in the train list: {some(both)}",
                "Use the published lists, which share no picture.",
            )
        fingerprint = sha256_json({"test": test.fingerprint, "train": train_set.fingerprint})
        label = _label(test, train_set)
        test, train_set = _limited(test, self.protocol.limit), _limited(train_set, self.protocol.train_limit)
        values = {f.name: getattr(test, f.name) for f in fields(DepthSet)}
        report = replace(test.report, fingerprint=fingerprint, label=label)
        found = ProbeSet(**{**values, "report": report}, train=train_set)
        frame_of(self.protocol, found.train_size)
        return found

    def files(self, dataset: ProbeSet) -> dict[str, tuple[FileRef, ...]]:
        """Pictures and depth of both splits."""
        return {
            f"{split}:{key}": (part.images[key], item.depth)
            for split, part in (("test", dataset), ("train", dataset.train))
            for key, item in part.items.items()
        }

    def counts(self, dataset: ProbeSet) -> dict[str, int]:
        """Pictures and groups that are scored, pictures that are trained on."""
        groups = {item.group for item in dataset.items.values()}
        return {"images": len(dataset.images), "groups": len(groups), "train images": len(dataset.train.images)}

    def requests(self, encoder: Encoder, dataset: ProbeSet) -> list[FeatureRequest]:
        """Whole test pictures with their mirror images; if cached, the views of the training pictures before them."""
        p, tap = self.protocol, resolve_tap(self.protocol, encoder)
        common: dict[str, Any] = {
            "data": self.name, "storage": p.storage, "tower_dtype": p.tower_dtype, **tap.request()
        }  # fmt: skip
        ends = (PLAIN, MIRROR) if p.tta_flip else (PLAIN,)
        test = FeatureRequest(
            files={f"{k}{end}": (ref,) for k, ref in dataset.images.items() for end in ends},
            preparation=MirrorPreparation(),
            **common,
        )
        if p.features == "online":
            return [test]
        views = FeatureRequest(
            files={view_id(k, n): (ref,) for k, ref in dataset.train.images.items() for n in range(p.views)},
            preparation=ViewPreparation(frame=frame_of(p, dataset.train_size), seed=p.seed),
            **common,
        )
        return [views, test]

    def score(self, run: TaskRun[ProbeSet]) -> Scored:
        """Train the head, then score it."""
        data, p = run.dataset, self.protocol
        tap = resolve_tap(p, run.encoder)
        test = EvalSet(protocol=p, data=data, features=run.sets[-1], tap=tap, patch=run.encoder.patch_size)
        frame = frame_of(p, data.train_size)
        trainer = DepthTrainer(p, width=run.encoder.width, n=len(data.train.items), device=run.encoder.device)
        online = p.features == "online"
        with open_frames(run.work, data.train, frame, pictures=online, tick=run.tick) as frames:
            batches = self._batches(run, tap, frame, frames)
            training = train(
                trainer,
                batches,
                work=run.work,
                tick=run.tick,
                every=p.eval_every,
                visit=lambda steps, training: self._visit(run, trainer, test, steps, training),
            )
            constant = frames.median()
        scores = score_head(trainer.head, test, lambda n, total: run.tick("evaluate", n, total, ""), constant=constant)
        _note(training, trainer.schedule.steps, scores)
        best = training.notes["best"] if p.eval_every else None
        recipes = recipes_of(p, scores.constant, has_best=best is not None)
        return Scored(
            table=sample_table(test, scores, best["rmse"] if best else None),
            recipes=recipes,
            diagnosis=_diagnosis(scores.mean("rmse"), recipes["rmse"].chance),
            details={
                **self._details(run, tap, frame, trainer.schedule),
                **_outcome(trainer, training, scores),
                "constant_depth_m": constant,
                "best_step": best["step"] if best else None,
            },
            pictures=lambda: _pictures(run, trainer, test, scores),
        )

    def _batches(self, run: TaskRun[ProbeSet], tap: DepthTap, frame: TrainFrame, frames: FrameStore) -> Batches[Any]:
        pictures = list(run.dataset.train.items)
        if self.protocol.features == "online":
            return EncodedBatches(
                protocol=self.protocol, encoder=run.encoder, tap=tap, pictures=pictures, frames=frames, frame=frame
            )
        return CachedBatches(
            protocol=self.protocol,
            features=run.sets[0],
            tap=tap,
            pictures=pictures,
            frames=frames,
            frame=frame,
            patch=run.encoder.patch_size,
            device=run.encoder.device,
        )

    def _visit(
        self, run: TaskRun[ProbeSet], trainer: DepthTrainer, test: EvalSet, steps: int, training: HeadTraining
    ) -> None:
        """An evaluation on the way."""
        stage = f"evaluate after {steps}"
        scores = score_head(trainer.head, test, lambda n, total: run.tick(stage, n, total, ""))
        _note(training, steps, scores)
        log.info("nyuv2: RMSE %.4f m after %d of %d steps", scores.mean("rmse"), steps, trainer.schedule.steps)

    def _details(
        self, run: TaskRun[ProbeSet], tap: DepthTap, frame: TrainFrame, schedule: DepthSchedule
    ) -> dict[str, Any]:
        data, patch = run.dataset, run.encoder.patch_size
        n = len(data.train.items)
        return {
            **describe_tap(tap, run.encoder),
            "input": describe_input((data.size[1], data.size[0]), patch),
            "train_input": describe_input(frame.output, patch),
            "train_images": n,
            "train_label": data.train.report.label,
            "steps": schedule.steps,
            "samples": schedule.samples,
            "epochs": round(schedule.samples / n, 3),
            "head_init": "uniform within 1 / sqrt(2 D), torch's default for a convolution",
            "seed": self.protocol.seed,
        }


def _depth_set(data: Path, split: str) -> DepthSet:
    found = open_dataset("nyuv2", data, split=split)
    if not isinstance(found, DepthSet):
        raise UsageError(f"nyuv2 {split}: the reader returned {type(found).__name__}")
    return found


def _label(test: DepthSet, train_set: DepthSet) -> str:
    """The test split's label, and what the training split's adds to it."""
    said = test.report.label.split(", ") if test.report.label else []
    more = [part for part in train_set.report.label.split(", ") if part and part not in said]
    return ", ".join([*said, *([f"trained on {', '.join(more)}"] if more else [])])


def _limited(data: DepthSet, n: int | None) -> DepthSet:
    """At most `n` pictures, spread over the groups."""
    if n is None or n >= len(data.items):
        return data
    ids = list(data.items)
    keep = {ids[i] for i in stable_subset(ids, [item.group for item in data.items.values()], n)}
    return replace(
        data,
        images={k: v for k, v in data.images.items() if k in keep},
        items={k: v for k, v in data.items.items() if k in keep},
        extra_files={f"{k}.depth": data.items[k].depth for k in data.items if k in keep},
    )


def _note(training: HeadTraining, steps: int, scores: Scores) -> None:
    """Add an evaluation to the curve, and remember the one that the reference would keep."""
    point = {"step": steps, "rmse": scores.mean("rmse"), "abs_rel": scores.mean("abs_rel")}
    curve = [c for c in training.notes.get("curve", []) if c["step"] != steps]
    training.notes["curve"] = [*curve, point]
    best = training.notes.get("best")
    if best is None or point["abs_rel"] < best["abs_rel"]:
        training.notes["best"] = {
            "step": steps, "abs_rel": point["abs_rel"], "rmse": scores.column("rmse").tolist()
        }  # fmt: skip


def _diagnosis(rmse: float, constant: float | None) -> list[str]:
    """A sentence about a head that has learnt nothing."""
    if constant is None or rmse < constant:
        return []
    return [
        f"RMSE {rmse:.3f} m is no better than a constant's {constant:.3f} m: train longer, or check the encoder's "
        "weights and normalisation."
    ]


def _outcome(trainer: DepthTrainer, training: HeadTraining, scores: Scores) -> dict[str, Any]:
    """What the record says about how the training went."""
    last = trainer.schedule.steps - 1
    return {
        "curve": training.notes["curve"],
        "final_loss": training.loss,
        "final_lr": trainer.schedule.lr_at(last),
        "chunks_without_depth": int(trainer.skipped.n),
        "n_empty": sum(s.n == 0 for s in scores.averaged),
    }


def _pictures(
    run: TaskRun[ProbeSet], trainer: DepthTrainer, test: EvalSet, scores: Scores
) -> Iterator[tuple[str, Image.Image]]:
    """Best and worst test pictures."""
    items = list(run.dataset.items.values())
    for name, position in extremes_of(scores, _SHOWN):
        item = items[position]
        depth_HW, valid_HW = test.truth(item)
        pred_HW, _ = test.predict(trainer.head, item)
        values = scores.averaged[position].values
        lines = [f"{item.id}: RMSE {values['rmse']:.3f} m, AbsRel {100 * values['abs_rel']:.1f} %"]
        yield name, depth_row(decode_rgb(run.dataset.images[item.id].read()), pred_HW, depth_HW, valid_HW, lines)
