"""Pretraining shards: pictures with captions, and parallel label shards of regions and disparity (`mtv.shards`).

One chunk is one shard. Labels are the truth, so their names say `mini` and every region has the score 1; disparity is
1 / depth with 0 in the sky.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame
from mtv.miniworld.language.captions import captions
from mtv.miniworld.language.regions import regions
from mtv.miniworld.layouts.base import Layout, Row, Shot
from mtv.miniworld.layouts.encode import equal_area_size, jpeg
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.shards import layout as shard_layout
from mtv.shards.dataset import build_dataset
from mtv.shards.depth_code import encode_disparity
from mtv.shards.records import Region
from mtv.shards.writer import DepthShardWriter, ImageShardWriter, RegionShardWriter, write_manifest

SPLIT = "pretrain"
DEPTH, REGIONS = "depth-mini-v1", "regions-mini-v1"
_WRITTEN_S = 946_684_800
"""Time stamp of every shard (1 January 2000): the index holds time stamps, and equal worlds have equal bytes."""


def shard_regions(frame: Frame) -> list[Region]:
    """The named boxes of a picture in fractions of its sides."""
    width, height = frame.size
    return [
        Region(box=(r.box[0] / width, r.box[1] / height, r.box[2] / width, r.box[3] / height), name=r.name, score=1.0)
        for r in regions(frame)
    ]


class Pretrain(Layout):
    """Pictures of several objects with five captions, named boxes and disparity."""

    name = "pretrain"
    title = "pretraining shards: pictures, captions, regions, disparity"

    def chunk_length(self, scale: Scale) -> int:
        """Samples per shard."""
        return scale.shard

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """All pictures in order."""
        found = []
        for index in range(scale.pretrain):
            width, height = equal_area_size(spec, SPLIT, index)
            found.append(SceneRequest(split=SPLIT, index=index, purpose="several", width=width, height=height))
        return found

    def write_chunk(self, number: int, shots: Iterable[Shot], folder: SetFolder) -> list[Row]:
        """One shard: a tar of pictures and one per label set."""
        root, shard, samples = folder.root, f"{number:05d}", 0
        with (
            ImageShardWriter(root, shard) as images,
            RegionShardWriter(root, shard, labels=REGIONS) as boxes,
            DepthShardWriter(root, shard, labels=DEPTH) as depth,
        ):
            for shot in shots:
                key = f"mini_{shot.request.index:08d}"
                texts = captions(shot.frame, shot.draws("captions"))
                images.add(key, jpeg(shot.frame.rgb_HW3), captions=texts)
                boxes.add(key, shard_regions(shot.frame))
                depth.add(key, encode_disparity(shot.frame.disparity_HW))
                samples += 1
        depth_tar = shard_layout.label_tar(root, DEPTH, shard)
        paths = [shard_layout.image_tar(root, shard), shard_layout.label_tar(root, REGIONS, shard), depth_tar]
        # An index of an earlier shard with this number and the same time stamp would pass for this one's.
        shard_layout.index_file(root, shard).unlink(missing_ok=True)
        for path in (*paths, shard_layout.label_meta(depth_tar)):
            os.utime(path, (_WRITTEN_S, _WRITTEN_S))
            folder.record(path.relative_to(root).as_posix())
        return [{"shard": shard, "samples": samples}]

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """Manifests of the label sets, the index, and `dataset.json`."""
        root = folder.root
        for labels, rule in ((DEPTH, "1 / camera depth in metres, 0 in the sky"), (REGIONS, "named objects, score 1")):
            write_manifest(root, labels, {"labeller": "miniature world", "version": 1, "rule": rule})
            folder.record(shard_layout.manifest_file(root, labels).relative_to(root).as_posix())
        info = build_dataset(root)
        for entry in info.shards:
            folder.record(shard_layout.index_file(root, entry.name).relative_to(root).as_posix())
        folder.record(shard_layout.dataset_file(root).relative_to(root).as_posix())
        return {"samples": info.samples, "shards": len(rows)}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`images/*.tar`: `KEY.jpg`, `KEY.txt` (first caption), `KEY.json` (w, h, sha256, captions). "
            "Square, 4:3 or 3:4, each with the area of a square of the world's size.",
            f"`labels/{REGIONS}/*.tar`: `KEY.json`, a list of box (fractions of the sides), name, score.",
            f"`labels/{DEPTH}/*.tar`: `KEY.png`, disparity in 12 bits; `*.meta.jsonl` holds minimum and "
            "maximum. At the picture's size where its shorter side is at most 192, otherwise reduced to that.",
            "`index/*.idx`, `dataset.json`: offsets and counts (`mtv.shards`).",
        )
