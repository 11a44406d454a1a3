"""Where everything of a corpus lies below its root, and which names are legal.

    images/00012.tar                {key}.jpg  {key}.txt (first caption)  {key}.json (w, h, sha256 of the jpg, captions)
    labels/depth-NAME/00012.tar     {key}.png; beside it 00012.meta.jsonl (key, min, max, valid)
    labels/regions-NAME/00012.tar   {key}.json ([{box, name, score}])
    labels/*/manifest.json          who made the labels: model, weights hash, thresholds, input size, git revision
    index/00012.idx                 key, offset and size of every member of each tar, counts, hashes (index_file.py)
    dataset.json                    shards in order, cumulative counts, label versions, index hash (dataset.py)

Shard names, keys and their order are those of the image tars. A label tar holds a subset of the keys in the same
order; a key that it lacks is an unlabelled sample, never a dropped one.
"""

from __future__ import annotations

from pathlib import Path

from mtv.errors import UsageError

IMAGES = "images"
LABELS = "labels"
DEPTH, REGIONS = "depth", "regions"
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
TAR_SUFFIX = ".tar"


def image_tar(root: Path, shard: str) -> Path:
    """The image tar of a shard."""
    return root / IMAGES / (shard + TAR_SUFFIX)


def label_tar(root: Path, labels: str, shard: str) -> Path:
    """The tar of a shard in the label set `labels` (a folder name such as `depth-dav2l-v1`)."""
    return root / LABELS / labels / (shard + TAR_SUFFIX)


def source_tar(root: Path, source: str, shard: str) -> Path:
    """The tar of a shard in a source: `images` or `labels/NAME`."""
    return root / source / (shard + TAR_SUFFIX)


def label_meta(tar: Path) -> Path:
    """The ranges beside a depth label tar."""
    return tar.with_suffix(".meta.jsonl")


def manifest_file(root: Path, labels: str) -> Path:
    """The labeller's manifest of a label set."""
    return root / LABELS / labels / "manifest.json"


def index_file(root: Path, shard: str) -> Path:
    """The index of a shard."""
    return root / "index" / (shard + ".idx")


def dataset_file(root: Path) -> Path:
    """The file that makes a folder a corpus; written last."""
    return root / "dataset.json"


def label_source(labels: str) -> str:
    """Source name of a label set."""
    return f"{LABELS}/{labels}"


def label_kind(labels: str) -> str:
    """`depth` or `regions`, from the folder name.

    Raises:
        UsageError: another prefix, or nothing after it.
    """
    kind, dash, version = labels.partition("-")
    if kind not in (DEPTH, REGIONS) or not dash or not version or "/" in labels:
        raise UsageError(
            f"label set {labels!r} is neither {DEPTH}-NAME nor {REGIONS}-NAME",
            "Label folders carry what they hold, the labeller and its version, for example depth-dav2l-v1.",
        )
    return kind


def shard_names(folder: Path) -> list[str]:
    """Names of the shards in a folder, in order (`00002` before `00010`, `2` before `10`); hidden files are none."""
    names = [p.name.removesuffix(TAR_SUFFIX) for p in folder.glob("*" + TAR_SUFFIX) if not p.name.startswith(".")]
    return sorted(names, key=lambda n: (len(n), n))
