"""The figure of `mtv-eval depth-figure`: frames of a relative-depth task with the predictions of several models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.encoders.records import DepthHeadRecord
from mtv.encoders.spec import ModelSpec
from mtv.errors import DataError, UsageError, unknown
from mtv.eval.datasets.base import DepthSet
from mtv.eval.datasets.dense_headers import spread
from mtv.eval.protocol import with_overrides
from mtv.eval.protocols_rel import RelDepthProtocol
from mtv.eval.rel_frames import DepthFrame
from mtv.eval.rel_panels import PanelRow, Prediction, draw_rows, shown
from mtv.eval.rel_predictions import predictions
from mtv.eval.tasks.rel_depth import RelDepthTask, align_config
from mtv.probes.depth_align import score_relative

if TYPE_CHECKING:
    from PIL import Image


def depth_figure(
    specs: Sequence[ModelSpec],
    data: Path,
    protocol: RelDepthProtocol,
    *,
    ids: Sequence[str] = (),
    n: int = 4,
    device: str = "cpu",
    download: bool = False,
    tick: Callable[[str, int, int, str], None] = lambda stage, done, total, detail: None,
) -> Image.Image:
    """Draw picture, prediction of every model, truth and error of every model, a row per frame.

    Every prediction is aligned as its head asks for, whatever `protocol.align` says: in depth for heads that predict
    depth, in disparity for the others; its column says so.

    Args:
        specs: models, loaded one after the other.
        data: root of the data sets.
        protocol: of `rel_nyu` or `rel_kitti`: input size, crop, scored pixels.
        ids: frames by id; none for `n` of them, evenly spread.
        n: frames.
        device: where the models run.
        download: allow fetching weights.
        tick: progress.

    Raises:
        UsageError: an unknown id, no frame, or a model without depth head.
        DataError: missing data, or a frame without a scored pixel.
    """
    dataset = RelDepthTask(protocol).open(data)
    chosen = _chosen(dataset, ids, n)
    frames: dict[str, DepthFrame] = {}
    columns: list[list[Prediction]] = []
    titles: list[tuple[str, str]] = []
    for number, spec in enumerate(specs, 1):
        encoder = load(spec, device=device, download=download)
        head = encoder.info.depth_head
        if head is None:
            raise UsageError(
                f"{encoder.info.spec} has no depth head", "Fit one with mtv-eval depth-head, or leave this model out."
            )
        own = with_overrides(protocol, align="depth" if head.kind == "depth" else "disp")
        columns.append(_column(encoder, dataset, chosen, own, frames))
        name = spec.alias or encoder.info.spec
        titles.append((name, _title(name, encoder, head)))
        tick("models", number, len(specs), name)
    rows = [
        PanelRow(title=i, frame=frames[i], predictions=[column[k] for column in columns]) for k, i in enumerate(chosen)
    ]
    return draw_rows(rows, titles)


def _chosen(dataset: DepthSet, ids: Sequence[str], n: int) -> list[str]:
    for image_id in ids:
        if image_id not in dataset.images:
            raise unknown(f"picture of {dataset.name} {dataset.split}", image_id, dataset.images)
    if not ids and n < 1:
        raise UsageError(f"--n must be at least 1, got {n}")
    all_ids = list(dataset.images)
    return list(ids) or (spread(all_ids, n) if n > 1 else all_ids[:1])


def _column(
    encoder: Encoder, dataset: DepthSet, ids: Sequence[str], protocol: RelDepthProtocol, frames: dict[str, DepthFrame]
) -> list[Prediction]:
    config = align_config(protocol, encoder)
    out = []
    for frame, pred_HW in predictions(encoder, dataset, ids, protocol):
        score = score_relative(pred_HW.cpu(), frame.depth_HW, frame.valid_HW, config=config, name=frame.id)
        if score.fit is None:
            raise DataError(f"{frame.id}: no scored pixel, so a prediction cannot be aligned", "Choose other --ids.")
        frames[frame.id] = frame
        out.append(shown(frame, pred_HW, score, config))
    return out


def _title(name: str, encoder: Encoder, head: DepthHeadRecord) -> str:
    notes = [f"linear head fitted on {head.fitted_on}"] if head.fitted_on else []
    notes += ["aligned in depth"] if head.kind == "depth" else []
    notes += ["random init"] if encoder.info.random else []
    return name + (f" ({'; '.join(notes)})" if notes else "")
