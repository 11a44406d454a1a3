"""The sets of the miniature world, one module per on-disk layout, and `LAYOUTS`, which names them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mtv.miniworld.layouts.ade20k import Ade20k
from mtv.miniworld.layouts.base import Layout
from mtv.miniworld.layouts.coco import Coco
from mtv.miniworld.layouts.cvbench import CvBench
from mtv.miniworld.layouts.flickr8k import Flickr8k
from mtv.miniworld.layouts.imagenet import ImageNet
from mtv.miniworld.layouts.kitti import Kitti
from mtv.miniworld.layouts.mmvp import Mmvp
from mtv.miniworld.layouts.navi import Navi
from mtv.miniworld.layouts.nyuv2 import Nyuv2
from mtv.miniworld.layouts.pretrain import Pretrain
from mtv.miniworld.layouts.spair import Spair

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Pretrain(),
            ImageNet(),
            Coco(),
            Flickr8k(),
            Navi(),
            Spair(),
            Ade20k(),
            Nyuv2(),
            Kitti(),
            CvBench(),
            Mmvp(),
        )
    }
)
"""Set name to layout, in the order in which they are made: the largest first, so that processes end together."""
