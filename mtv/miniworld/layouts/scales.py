"""How many pictures a world has: the named scales of `make-mini`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from mtv.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Counts per set."""

    pretrain: int
    """Pretraining pictures."""
    shard: int
    """Pretraining pictures per shard; large pictures come in smaller shards (`Pretrain.shard_length`)."""
    imagenet: int
    """Pictures per class."""
    coco: int
    """Pictures of the test split; a fifth of it is the val split."""
    flickr8k: int
    """Pictures of the test split; a fifth of it is the dev split."""
    ade20k_train: int
    """Training pictures."""
    ade20k_val: int
    """Validation pictures."""
    navi_objects: int
    """Individuals."""
    navi_views: int
    """Wild-set pictures per individual."""
    spair: int
    """Test pictures per category."""
    spair_other: int
    """Pictures per category in each of trn and val; 0 for empty splits."""
    spair_pairs: int
    """Most pairs per category and split."""
    nyuv2_train: int
    """Training pictures."""
    nyuv2_test: int
    """Test pictures."""
    kitti: int
    """Pictures."""
    cvbench: int
    """Pictures that are asked about."""
    mmvp: int
    """Pairs of pictures."""

    def __post_init__(self) -> None:
        for f in fields(self):
            least = {"spair": 2, "spair_other": 0}.get(f.name, 1)
            if getattr(self, f.name) < least:
                raise UsageError(f"Scale.{f.name} must be at least {least}, got {getattr(self, f.name)}")


SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "tiny": Scale(
            pretrain=24, shard=16, imagenet=2, coco=10, flickr8k=5,
            ade20k_train=6, ade20k_val=4, nyuv2_train=4, nyuv2_test=4, kitti=4,
            navi_objects=3, navi_views=4, spair=3, spair_other=0, spair_pairs=20,
            cvbench=10, mmvp=3,
        ),
        "small": Scale(
            pretrain=1_000, shard=125, imagenet=16, coco=120, flickr8k=80,
            ade20k_train=80, ade20k_val=40, nyuv2_train=56, nyuv2_test=40, kitti=32,
            navi_objects=8, navi_views=8, spair=5, spair_other=2, spair_pairs=100,
            cvbench=80, mmvp=20,
        ),
        "medium": Scale(
            pretrain=10_000, shard=250, imagenet=50, coco=1_000, flickr8k=500,
            ade20k_train=1_000, ade20k_val=300, nyuv2_train=600, nyuv2_test=200, kitti=200,
            navi_objects=24, navi_views=20, spair=20, spair_other=4, spair_pairs=300,
            cvbench=400, mmvp=100,
        ),
        "large": Scale(
            pretrain=100_000, shard=1_000, imagenet=100, coco=2_000, flickr8k=1_000,
            ade20k_train=4_000, ade20k_val=1_000, nyuv2_train=3_000, nyuv2_test=654, kitti=652,
            navi_objects=32, navi_views=40, spair=40, spair_other=6, spair_pairs=600,
            cvbench=1_300, mmvp=150,
        ),
    }
)  # fmt: skip
"""`small` for a first contact, `medium` for ablations, `large` for a GPU; `tiny` is for tests of the pipeline."""
