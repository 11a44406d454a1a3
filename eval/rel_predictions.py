"""Pictures through a model's depth head, batch by batch, and the prediction at the size of the truth.

Nothing is kept: a prediction is cheaper than storing it. Batches hold frames of one input size; one that does not fit
the memory is halved. TF32 and autocast are off.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.encoders.placement import DTYPES
from mtv.errors import UsageError
from mtv.eval.datasets.base import DepthSet
from mtv.eval.features.extract import auto_batch_size, free_memory, is_out_of_memory
from mtv.eval.protocols_rel import RelDepthProtocol
from mtv.eval.rel_frames import DepthFrame, frames, input_record, input_size, model_input
from mtv.probes.bilinear import resize_map
from mtv.probes.precision import fp32_matmul

log = logging.getLogger(__name__)


def predictions(
    encoder: Encoder, dataset: DepthSet, ids: Sequence[str], protocol: RelDepthProtocol
) -> Iterator[tuple[DepthFrame, Tensor]]:
    """Frames in the order of `ids` with their prediction, float32 at the size of the cropped frame, on the device.

    Raises:
        UsageError: an encoder without depth head or in another dtype than the protocol's, a size that it cannot take.
        DataError: a frame that cannot be used, after those before it were given out.
    """
    if encoder.dtype != DTYPES[protocol.tower_dtype]:
        raise UsageError(
            f"{protocol.task} asks for a tower in {protocol.tower_dtype}, {encoder.info.spec} is in {encoder.dtype}",
            "Load the model in that dtype.",
        )
    for batch in _batches(encoder, dataset, ids, protocol):
        yield from _predict(encoder, batch, protocol)


def _batches(
    encoder: Encoder, dataset: DepthSet, ids: Sequence[str], protocol: RelDepthProtocol
) -> Iterator[list[DepthFrame]]:
    """Consecutive frames of one input size."""
    stream = frames(dataset, ids, protocol)
    for size, same in itertools.groupby(stream, key=lambda frame: input_size(frame.size, encoder, protocol)):
        largest = auto_batch_size(encoder.device, size)
        while batch := list(itertools.islice(same, largest)):
            yield batch


def _predict(
    encoder: Encoder, batch: Sequence[DepthFrame], protocol: RelDepthProtocol
) -> Iterator[tuple[DepthFrame, Tensor]]:
    try:
        maps = _forward(encoder, batch, protocol)
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e) or len(batch) == 1:
            raise
        maps = []
    if maps:
        yield from zip(batch, maps, strict=True)
        return
    # Outside the handler: the exception holds the tensors of the failed pass.
    free_memory(encoder.device)
    half = len(batch) // 2
    log.warning("out of memory with %d pictures of %s; trying %d", len(batch), protocol.task, half)
    yield from _predict(encoder, batch[:half], protocol)
    yield from _predict(encoder, batch[half:], protocol)


@fp32_matmul()
def _forward(encoder: Encoder, batch: Sequence[DepthFrame], protocol: RelDepthProtocol) -> list[Tensor]:
    record = input_record(encoder, protocol)
    size = input_size(batch[0].size, encoder, protocol)
    pixels_B3HW = torch.stack([model_input(frame, size, record) for frame in batch])
    maps_BHW = encoder.predict_depth(encoder.normalize(pixels_B3HW, record))
    return [resize_map(map_HW[None, None], frame.size)[0, 0] for map_HW, frame in zip(maps_BHW, batch, strict=True)]
