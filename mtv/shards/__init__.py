"""Pretraining shards: plain tars of images with parallel tars of labels, an offset index, and random access to samples.

    writer.py      one shard at a time, atomic, equal bytes for equal content
    dataset.py     `build_dataset` indexes a corpus, our own or one made by img2dataset
    reader.py      `ShardDataset.open(root, labels=(...)).sample(i)` by global index
    verify.py      what is wrong with a corpus, by tar and key
    layout.py      the layout on disk; records.py the sample; depth_code.py the disparity code; index_file.py the index

numpy and Pillow only: nothing here imports torch.
"""

from mtv.shards.dataset import DatasetInfo, build_dataset, read_dataset
from mtv.shards.depth_code import decode_disparity, encode_disparity
from mtv.shards.index_file import StaleIndexError
from mtv.shards.reader import ShardDataset, ShardRange
from mtv.shards.records import EncodedDepth, Region, ShardSample
from mtv.shards.verify import Problem, verify_dataset
from mtv.shards.writer import DepthShardWriter, ImageShardWriter, RegionShardWriter, write_manifest

__all__ = [
    "DatasetInfo",
    "DepthShardWriter",
    "EncodedDepth",
    "ImageShardWriter",
    "Problem",
    "Region",
    "RegionShardWriter",
    "ShardDataset",
    "ShardRange",
    "ShardSample",
    "StaleIndexError",
    "build_dataset",
    "decode_disparity",
    "encode_disparity",
    "read_dataset",
    "verify_dataset",
    "write_manifest",
]
