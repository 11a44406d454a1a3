"""Our parts in mmsegmentation's registries: frozen encoder, linear head, data set, loading steps, metric.

Imported after `import_mmseg` only. Notable: the encoder is no submodule of the backbone's, so that nothing trains,
switches or saves it; pictures and labels are read by our readers (archives, errors that name files, the table from
values to classes), and everything after that is mmsegmentation's; a training sample is a function of its number,
because its draws come from generators seeded with it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from mmcv.cnn import build_norm_layer
from mmcv.transforms import BaseTransform
from mmengine.model import BaseModule
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mtv.draws import Draws
from mtv.encoders.base import Encoder, Tap
from mtv.encoders.preprocess import decode_rgb
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.dense_decode import LabelCheck
from mtv.eval.heads.segmentation_tap import SegmentationTap
from mtv.eval.preparations import named
from mtv.probes.precision import check_finite
from mtv.probes.segmentation_head import HeadConfig, LinearHead
from mtv.probes.segmentation_metric import AreaCounts, count_areas
from mtv.probes.segmentation_order import batch_positions


@MODELS.register_module()
class MtvBackbone(BaseModule):
    """A frozen encoder.

    Args:
        encoder: in evaluation mode; it stays so, and on its device.
        tap: what is read.
        piece: most pictures per forward pass.
    """

    def __init__(self, encoder: Encoder, tap: SegmentationTap, piece: int) -> None:
        super().__init__()
        self.encoder, self.tap, self.piece = encoder, tap, piece

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        """Normalised pixels to one map, float32 B,D,h,w.

        Raises:
            NumericalError: a map that is not finite, at test time; in training the loss tells.
        """
        map_BDhw = torch.cat([self._map(part_B3HW) for part_B3HW in images_B3HW.split(self.piece)])
        if not self.training:
            check_finite(map_BDhw, what=f"tokens of {self.encoder.info.spec} in a test window")
        return [map_BDhw]

    def _map(self, images_B3HW: Tensor) -> Tensor:
        tap = self.tap
        features = self.encoder.features(
            images_B3HW.to(self.encoder.dtype),
            layers=tap.layers,
            norm=cast(Tap, tap.norm),
            pooled=tap.concat_global,
        )
        maps = [features.tokens[i] for i in tap.layers]
        if tap.concat_global:
            assert features.global_token is not None, "was asked for"
            maps.append(features.global_token[:, None, None].expand(*maps[0].shape[:3], -1))
        return torch.cat(maps, dim=-1).float().permute(0, 3, 1, 2).contiguous()


@MODELS.register_module()
class MtvLinearHead(BaseDecodeHead):
    """Batch norm and a 1x1 convolution, with the initial weights of `LinearHead`.

    Args:
        width: channels of the map.
        num_classes: classes.
        bn: batch norm before the convolution.
        seed: of the initial weights.
        loss_decode: mmsegmentation's cross entropy.
    """

    def __init__(self, *, width: int, num_classes: int, bn: bool, seed: int, loss_decode: dict[str, Any]) -> None:
        super().__init__(
            width, width, num_classes=num_classes, out_channels=num_classes, in_index=0, dropout_ratio=0,
            loss_decode=loss_decode, align_corners=False, init_cfg=None,
        )  # fmt: skip
        start = LinearHead(HeadConfig(width=width, n_classes=num_classes, bn=bn), seed=seed)
        self.conv_seg.load_state_dict(start.conv.state_dict())
        self.norm = build_norm_layer({"type": "BN"}, width)[1] if bn else None

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Logits B,C,h,w."""
        map_BDhw = self._transform_inputs(inputs)
        logits_BChw: Tensor = self.cls_seg(map_BDhw if self.norm is None else self.norm(map_BDhw))
        return logits_BChw

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """mmsegmentation's loss, picture by picture: full-size logits of one exist at a time, and gradients are those
        of the whole batch (BN has seen all of it before)."""
        labels_B1HW = self._stack_batch_gt(batch_data_samples)
        losses_B = torch.stack(
            [
                checkpoint(self._loss_of, logits_Chw[None], label_1HW, use_reentrant=False, preserve_rng_state=False)
                for logits_Chw, label_1HW in zip(seg_logits, labels_B1HW, strict=True)
            ]
        )
        if not self.loss_decode.avg_non_ignore:
            return {"loss_ce": losses_B.mean()}
        valid_B = (labels_B1HW != self.ignore_index).flatten(1).sum(1)
        return {"loss_ce": (losses_B * valid_B).sum() / valid_B.sum().clamp(min=1)}

    def _loss_of(self, logits_1Chw: Tensor, label_1HW: Tensor) -> Tensor:
        full_1CHW = resize(logits_1Chw, size=label_1HW.shape[1:], mode="bilinear", align_corners=self.align_corners)
        loss: Tensor = self.loss_decode(full_1CHW, label_1HW, ignore_index=self.ignore_index)
        return loss


@TRANSFORMS.register_module()
class MtvLoadPicture(BaseTransform):
    """Decodes the picture, uint8 BGR."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        ref = results["image"]
        rgb_HW3 = np.asarray(named(ref.name, lambda: decode_rgb(ref.read())))
        results["img"] = np.ascontiguousarray(rgb_HW3[..., ::-1])
        results["img_shape"] = results["ori_shape"] = rgb_HW3.shape[:2]
        return results


@TRANSFORMS.register_module()
class MtvLoadLabels(BaseTransform):
    """Decodes the label map to classes, mapped exactly once.

    Args:
        raw_to_train: as in `SegmentationSet`.
    """

    def __init__(self, raw_to_train: np.ndarray) -> None:
        self.raw_to_train = raw_to_train

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        ref = results["label"]
        check = LabelCheck(raw_to_train=self.raw_to_train, size=results["size"])
        results["gt_seg_map"] = check.decode(ref.read(), name=ref.name)
        results["seg_fields"].append("gt_seg_map")
        return results


@DATASETS.register_module()
class MtvPictures(BaseSegDataset):
    """The pictures of one of our sets, in its order.

    Args:
        pictures: files, sizes, classes.
        pipeline: steps, built.
    """

    def __init__(self, pictures: SegmentationSet, pipeline: list[Any]) -> None:
        self.pictures = pictures
        super().__init__(
            data_root=None, metainfo={"classes": pictures.classes}, pipeline=pipeline, test_mode=True,
            ignore_index=pictures.ignore_index, reduce_zero_label=False, serialize_data=False,
        )  # fmt: skip

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry per picture."""
        return [
            {
                "picture": key, "image": ref, "label": self.pictures.labels[key], "size": self.pictures.sizes[key],
                "label_map": None, "reduce_zero_label": False, "seg_fields": [],
            }
            for key, ref in self.pictures.images.items()
        ]  # fmt: skip


@DATASETS.register_module()
class MtvWindows(MtvPictures):
    """Every training sample of a run: number `k` is picture `k % batch` of iteration `k // batch`.

    Args:
        pictures, pipeline: as `MtvPictures`; the pipeline draws from numpy's or Python's generator.
        iters: iterations.
        batch: samples per iteration.
        seed: of order and draws.
    """

    def __init__(self, pictures: SegmentationSet, pipeline: list[Any], iters: int, batch: int, seed: int) -> None:
        super().__init__(pictures, pipeline)
        self.iters, self.batch, self.seed = iters, batch, seed

    def __len__(self) -> int:
        return self.iters * self.batch

    def __getitem__(self, idx: int) -> dict[str, Any]:
        step, slot = divmod(idx, self.batch)
        row = batch_positions(step, n=len(self.pictures.images), batch=self.batch, seed=self.seed)[slot]
        with seeded(Draws("mmseg_sample", self.seed, step, slot).seed32()):
            sample: dict[str, Any] = self.prepare_data(int(row))
        return sample


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators of Python and numpy, which mmsegmentation's transforms use, start from `seed`;
    afterwards they are as before."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@METRICS.register_module()
class MtvIoUMetric(IoUMetric):
    """mmsegmentation's metric, and integer counts of each picture."""

    default_prefix = "mtv"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.areas: list[AreaCounts] = []
        """Counts of the pictures so far."""

    def process(self, data_batch: dict[str, Any], data_samples: list[dict[str, Any]]) -> None:
        """Count one batch."""
        super().process(data_batch, data_samples)
        for sample in data_samples:
            predicted_HW, label_HW = (sample[k]["data"][0] for k in ("pred_sem_seg", "gt_sem_seg"))
            self.areas.append(count_areas(predicted_HW, label_HW, len(self.dataset_meta["classes"])))
