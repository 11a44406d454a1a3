"""Batches of the depth probe with the encoder in the loop: every picture is rotated, flipped, cropped and recoloured
anew (`depth.md` section 3.1).

Pictures stay uint8 until they are on the encoder's device, where augmentation and normalisation happen.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.errors import MtvError, UsageError
from mtv.eval.features.extract import auto_batch_size, free_memory, is_out_of_memory, prepare_pixels
from mtv.eval.heads.depth_tap import DepthTap
from mtv.eval.heads.depth_training import Batch, SampleOrder
from mtv.eval.heads.frame_store import FrameStore
from mtv.eval.protocols_dense import NyuProtocol
from mtv.probes.depth_augment import Augmentation, AugmentConfig, augment, draw_augmentation
from mtv.probes.depth_frames import TrainFrame
from mtv.probes.depth_head import check_token_grid
from mtv.probes.precision import fp32_matmul

log = logging.getLogger(__name__)

Raw = tuple[Tensor, Tensor, list[Augmentation]]
"""uint8 pictures, depth in metres, and what is to happen to them."""


def augment_config(protocol: NyuProtocol) -> AugmentConfig:
    """The augmentation of a protocol."""
    p = protocol
    gamma, brightness, channel = ((v[0], v[1]) for v in (p.gamma, p.brightness, p.channel))
    return AugmentConfig(
        rotate=p.rotate,
        degrees=p.degrees,
        flip=p.flip,
        colour=p.colour,
        gamma=gamma,
        brightness=brightness,
        channel=channel,
    )


@dataclass(kw_only=True)
class EncodedBatches:
    """Augmented pictures and their features."""

    protocol: NyuProtocol
    """Augmentation, seed, batch."""
    encoder: Encoder
    """Frozen, in evaluation mode."""
    tap: DepthTap
    """What is read."""
    pictures: Sequence[str]
    """Ids in the order of the frames."""
    frames: FrameStore
    """Pictures and depth."""
    frame: TrainFrame
    """Geometry."""
    _piece: int = field(default=0, init=False)
    """Pictures per forward pass; halved when memory runs out."""

    def __post_init__(self) -> None:
        if any(m.training for m in self.encoder.module.modules()):
            raise UsageError(f"{self.encoder.info.spec} is in training mode", "Call eval() on the module first.")
        self._piece = min(self.protocol.batch, auto_batch_size(self.encoder.device, self.frame.output))

    def read(self, step: int) -> Raw:
        """Pictures and depth of a step, and its draws."""
        p = self.protocol
        chosen = SampleOrder(n=len(self.pictures), batch=p.batch, seed=p.seed).at(step)
        rows = [row for row, _ in chosen]
        config = augment_config(p)
        drawn = [
            draw_augmentation(self.frame, seed=p.seed, epoch=epoch, sample=self.pictures[row], config=config)
            for row, epoch in chosen
        ]
        return self.frames.pictures(rows), self.frames.depth(rows), drawn

    def batch(self, raw: Raw) -> Batch:
        """Augment and encode on the device."""
        device = self.encoder.device
        rgb_B3HW, depth_B1HW = (x.to(device, non_blocking=True) for x in raw[:2])
        rgb_B3hw, depth_B1hw = augment(rgb_B3HW, depth_B1HW, raw[2], self.frame)
        tokens_BHWD, global_BD = self._encode(rgb_B3hw)
        check_token_grid(tokens_BHWD, size=self.frame.output, patch=self.encoder.patch_size)
        return Batch(tokens_BHWD=tokens_BHWD, global_BD=global_BD, depth_B1HW=depth_B1hw)

    def _encode(self, rgb_B3hw: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and global tokens, in as many forward passes as memory asks for."""
        while True:
            try:
                parts = [self._forward(part_B3hw) for part_B3hw in rgb_B3hw.split(self._piece)]
                return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
            except (RuntimeError, MemoryError) as e:
                if isinstance(e, MtvError) or not is_out_of_memory(e) or self._piece == 1:
                    raise
            self._piece //= 2
            log.warning("out of memory; going on with %d pictures per forward pass", self._piece)
            free_memory(self.encoder.device)

    @fp32_matmul()
    def _forward(self, rgb_B3hw: Tensor) -> tuple[Tensor, Tensor]:
        encoder, tap = self.encoder, self.tap
        record = encoder.info.image.with_(mean=tap.mean, std=tap.std)
        # A copy, because normalisation works in place and a second try needs the pixels again.
        x_B3hw = prepare_pixels(encoder, rgb_B3hw.clone(), record, pad=True)
        features = encoder.features(x_B3hw, layers=(tap.layer,), norm=tap.norm, pooled=not tap.class_token)
        tokens_BHWD, global_BD = tap.of(features)
        if global_BD is None:
            raise UsageError(f"{encoder.info.spec} gives no {tap.outputs[1]} vector, which {self.protocol.task} needs")
        return tokens_BHWD.float(), global_BD.float()
