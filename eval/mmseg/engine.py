"""Linear segmentation by mmsegmentation, the encoder in the loop: from a task's run to what the runner stores.

Importing this module imports nothing of mmsegmentation. Protocol page `segmentation.md`, sections 4 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mtv.encoders.placement import DTYPES
from mtv.errors import DataError, UsageError
from mtv.eval.datasets.dense_decode import read_labels
from mtv.eval.heads.segmentation_pair import SegmentationPair
from mtv.eval.heads.segmentation_scoring import class_table, recipes_of, sample_table, total_of
from mtv.eval.heads.segmentation_tap import describe_tap, resolve_tap
from mtv.eval.heads.segmentation_training import iterations
from mtv.eval.heads.segmentation_views import eval_grid, geometry_of
from mtv.eval.mmseg.installed import import_mmseg, installed, quiet
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.eval.task import Scored, TaskRun
from mtv.eval.tasks.segmentation_report import diagnosis, pictures
from mtv.probes.segmentation_metric import constant_areas, score_areas

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder
    from mtv.eval.heads.resume import HeadTraining
    from mtv.eval.mmseg.config import Setup
    from mtv.eval.task import Tick


def require(protocol: SegmentationProtocol, encoder: Encoder) -> None:
    """Refuse what could not run, before anything does.

    Raises:
        UsageError: mmsegmentation is missing or of another version, a setting it does not have, a tower in another
            dtype than the protocol's.
    """
    p = protocol
    installed()
    wrong = {
        "loss": p.loss != "pixel" and "mmsegmentation's loss is per pixel",
        "views": p.views != 1 and "every window is drawn anew",
        "colour": p.colour not in (0, 0.5) and "mmsegmentation recolours with probability 0.5, or (0) not at all",
        "hue": p.colour != 0 and p.hue < 1 and "mmsegmentation needs at least 1",
    }
    for name, why in wrong.items():
        if why:
            raise UsageError(f"{p.task}.{name}={getattr(p, name)} does not go with engine=mmseg: {why}")
    if encoder.dtype != DTYPES[p.tower_dtype]:
        raise UsageError(
            f"{p.task} asks for a tower in {p.tower_dtype}, {encoder.info.spec} is in {encoder.dtype}",
            "Load the model in that dtype.",
        )


def score(protocol: SegmentationProtocol, run: TaskRun[SegmentationPair]) -> Scored:
    """Train the head, then score it.

    Raises:
        UsageError: as `require`.
        DataError: a picture or label map that cannot be used, or no labelled pixel to train on.
        NumericalError: training diverged, tokens are not finite, or the metrics of both sides disagree.
    """
    require(protocol, run.encoder)
    import_mmseg(installed())
    with quiet():
        return _score(protocol, run)


def _score(protocol: SegmentationProtocol, run: TaskRun[SegmentationPair]) -> Scored:
    from mtv.eval.mmseg.config import Setup, build_model, build_pictures, build_windows, model_config
    from mtv.eval.mmseg.scoring import score_pictures
    from mtv.eval.mmseg.training import train_head

    p, data, encoder = protocol, run.dataset, run.encoder
    if len(data.classes) < 2:
        raise UsageError(f"{p.task}: engine=mmseg takes a single class for foreground", "Use --protocol fast.")
    tap, workers = resolve_tap(p, encoder), run.features.options.n_workers
    setup = Setup(
        protocol=p,
        geometry=geometry_of(p, encoder.patch_size),
        iters=iterations(p, len(data.train.images)),
    )
    frequent = most_frequent(data, run.tick)
    model = build_model(model_config(setup, encoder, tap, len(data.classes)), encoder.device)
    windows, test = build_windows(setup, data.train), build_pictures(setup, data)
    training = train_head(model, setup, windows, work=run.work, tick=run.tick, workers=workers)
    areas, figures = score_pictures(model, test, lambda n, of: run.tick("evaluate", n, of, ""), workers=workers)
    total = total_of(areas)
    constant = score_areas(constant_areas(total, frequent))
    return Scored(
        table=sample_table(list(data.images), areas),
        recipes=recipes_of(constant),
        details={
            "engine": p.engine,
            **describe_tap(tap, encoder),
            **describe_sizes(setup, data),
            **_describe_training(setup, training, model, len(data.train.images)),
            "constant_class": data.classes[frequent],
            "train_images": len(data.train.images),
            "train_label": data.train.report.label,
            "mmseg": installed().record(),
            **{f"{name.lower()}_mmseg": round(value, 4) for name, value in figures.items()},
            "iou": class_table(total, data.classes),
        },
        diagnosis=diagnosis(score_areas(total).miou, constant.miou, data.classes[frequent]),
        pictures=lambda: pictures(data, _predictor(model, test, list(data.images)), areas),
    )


def most_frequent(data: SegmentationPair, tick: Tick) -> int:
    """The class with most pixels in the training label maps.

    Raises:
        DataError: a label map that cannot be used, or not a single labelled pixel.
    """
    counts, total = np.zeros(256, np.int64), len(data.train.labels)
    for n, key in enumerate(data.train.labels, 1):
        counts += np.bincount(read_labels(data.train, key).ravel(), minlength=256)
        tick("count labels", n, total, "")
    if not counts[: len(data.classes)].any():
        raise DataError("not a single labelled pixel in the training pictures", "Check the label maps.")
    return int(counts[: len(data.classes)].argmax())


def describe_sizes(setup: Setup, data: SegmentationPair) -> dict[str, Any]:
    """Effective sizes, which depend on the encoder's patch, and how pictures become windows."""
    p, g = setup.protocol, setup.geometry
    grids = [eval_grid((height, width), g, p.infer) for width, height in data.sizes.values()]
    details: dict[str, Any] = {
        "crop": g.crop,
        "stride": g.stride,
        "fit_into": [g.long_side, g.crop],
        "tokens": [g.crop // g.patch] * 2,
        "resize": f"cv2 {cv2.__version__}, bilinear without antialiasing",
        "padding": "zeros after normalisation, right and bottom",
        "test_windows": sum(len(grid.windows) for grid in grids),
        "train_windows": setup.iters * p.batch,
    }
    if p.crop == "auto" and g.crop != p.base:
        details["patch_rule"] = (
            f"patch {g.patch}: windows of {g.crop} instead of {p.base} pixels, a multiple of the patch"
            + (" with the tokens of patch 16" if g.patch == 14 else "")
        )
    return details


def _describe_training(setup: Setup, training: HeadTraining, model: Any, n: int) -> dict[str, Any]:
    p = setup.protocol
    return {
        "lr": p.lr[0],
        "final_lr": training.notes["lr"],
        "final_loss": training.loss,
        "iters": setup.iters,
        "epochs": round(setup.iters * p.batch / n, 3),
        "head_parameters": sum(x.numel() for x in model.decode_head.parameters()),
        "batch_norm": "over the whole batch, one process" if p.bn else None,
        "checkpoint": "final",
        "seed": p.seed,
    }


def _predictor(model: Any, test: Any, ids: list[str]) -> Callable[[str], np.ndarray]:
    """Classes of a test picture by its id."""
    from mtv.eval.mmseg.loading import Samples
    from mtv.eval.mmseg.scoring import predict

    def classes(key: str) -> np.ndarray:
        with Samples(test, 0) as samples, quiet():
            (found,) = predict(model, samples.read(ids.index(key), 1))
        predicted_HW: np.ndarray = found["pred_sem_seg"]["data"][0].numpy()
        return predicted_HW

    return classes
