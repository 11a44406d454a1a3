"""A segmentation protocol as mmsegmentation's configuration: plain dicts, and what is built from them.

No default scope and no `Runner`: every part is built from the registry that holds it, so that nothing global changes.
Protocol page `segmentation.md`, sections 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.optim import LinearLR, OptimWrapper, PolyLR, build_optim_wrapper
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

from mtv.encoders.base import Encoder
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.features.extract import auto_batch_size
from mtv.eval.heads.segmentation_tap import SegmentationTap
from mtv.eval.mmseg import parts  # noqa: F401  (registers our parts)
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.probes.segmentation_metric import IGNORE_INDEX
from mtv.probes.segmentation_windows import WindowGeometry

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every configuration depends on."""

    protocol: SegmentationProtocol
    """All settings."""
    geometry: WindowGeometry
    """Effective sizes."""
    iters: int
    """Iterations."""

    @property
    def scale(self) -> tuple[int, int]:
        """What pictures are fitted into at test time, long and short side."""
        return self.geometry.long_side, self.geometry.crop

    @property
    def warmup(self) -> int:
        """Iterations of warm-up."""
        return int(self.protocol.warmup * self.iters)


def train_pipeline(setup: Setup, data: SegmentationSet) -> list[Config]:
    """Load, scale, crop, mirror, recolour."""
    p, crop = setup.protocol, setup.geometry.crop
    colour = {
        "type": "PhotoMetricDistortion", "brightness_delta": p.brightness, "contrast_range": p.contrast,
        "saturation_range": p.saturation, "hue_delta": p.hue,
    }  # fmt: skip
    return [
        {"type": "MtvLoadPicture"},
        {"type": "MtvLoadLabels", "raw_to_train": data.raw_to_train},
        {"type": "RandomResize", "scale": setup.scale, "ratio_range": p.scale, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (crop, crop), "cat_max_ratio": p.cat_max},
        {"type": "RandomFlip", "prob": p.flip},
        *([colour] if p.colour else []),
        {"type": "PackSegInputs"},
    ]


def test_pipeline(setup: Setup, data: SegmentationSet) -> list[Config]:
    """Load and scale the picture; the label map, loaded after that, keeps its size."""
    return [
        {"type": "MtvLoadPicture"},
        {"type": "Resize", "scale": setup.scale, "keep_ratio": True},
        {"type": "MtvLoadLabels", "raw_to_train": data.raw_to_train},
        {"type": "PackSegInputs"},
    ]


def build_windows(setup: Setup, data: SegmentationSet) -> Any:
    """The training samples of all iterations, a `MtvWindows`."""
    p = setup.protocol
    pipeline = [TRANSFORMS.build(step) for step in train_pipeline(setup, data)]
    return DATASETS.build(
        {
            "type": "MtvWindows", "pictures": data, "pipeline": pipeline, "iters": setup.iters, "batch": p.batch,
            "seed": p.seed,
        }
    )  # fmt: skip


def build_pictures(setup: Setup, data: SegmentationSet) -> Any:
    """The test pictures, a `MtvPictures`."""
    pipeline = [TRANSFORMS.build(step) for step in test_pipeline(setup, data)]
    return DATASETS.build({"type": "MtvPictures", "pictures": data, "pipeline": pipeline})


def model_config(setup: Setup, encoder: Encoder, tap: SegmentationTap, n_classes: int) -> Config:
    """Segmentor of our backbone and head; padding comes after normalisation, at the right and the bottom."""
    p, g = setup.protocol, setup.geometry
    crop = (g.crop, g.crop)
    pixels = {
        "type": "SegDataPreProcessor",
        "mean": [255 * m for m in tap.mean],
        "std": [255 * s for s in tap.std],
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": IGNORE_INDEX,
        "size": crop,
        "test_cfg": {"size_divisor": g.patch},
    }
    head = {
        "type": "MtvLinearHead",
        "width": tap.width(encoder),
        "num_classes": n_classes,
        "bn": p.bn,
        "seed": p.seed,
        "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": p.loss_mean == "valid"},
    }
    piece = auto_batch_size(encoder.device, crop)
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": pixels,
        "backbone": {"type": "MtvBackbone", "encoder": encoder, "tap": tap, "piece": piece},
        "decode_head": head,
        "train_cfg": {},
        "test_cfg": {"mode": p.infer, "crop_size": crop, "stride": (g.stride, g.stride)},
    }


def build_model(config: Config, device: torch.device) -> Any:
    """The segmentor on `device`. The global generator, from which mmsegmentation's layers draw weights that ours
    replace, stays as it was."""
    own = {
        "data_preprocessor": MODELS.build(config["data_preprocessor"]),
        "test_cfg": ConfigDict(config["test_cfg"]),
    }
    with torch.random.fork_rng(devices=[]):
        return MODELS.build({**config, **own}).to(device)


def build_optimiser(setup: Setup, model: Any) -> tuple[OptimWrapper, list[Any]]:
    """AdamW with its schedulers. The encoder has no part in it: it is no submodule of the model."""
    p = setup.protocol
    adamw = {"type": "AdamW", "lr": p.lr[0], "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": p.wd}
    wrapper = build_optim_wrapper(model, {"type": "OptimWrapper", "optimizer": adamw})
    warmup = setup.warmup
    # A ramp of one iteration would leave mmengine's LinearLR at its start factor for good.
    ramp = [LinearLR(wrapper, start_factor=1e-6, begin=0, end=warmup, by_epoch=False)] if warmup > 1 else []
    decay = PolyLR(wrapper, power=1.0, eta_min=0.0, begin=warmup, end=setup.iters, by_epoch=False)
    return wrapper, [*ramp, decay]
