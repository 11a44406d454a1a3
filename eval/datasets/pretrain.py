"""Pretraining shards: image tars with parallel label tars (`protocols/trainer_performance.md` section 5).

No benchmark reads them; they are here so that `data check` verifies them. There is no full set to compare with, so a
sound corpus is always `ok-but`, labelled with its extent.
"""

from __future__ import annotations

from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, Dataset, FileRef, fingerprint_of
from mtv.eval.datasets.outcomes import ambiguous, folders, missing, outermost, wrong
from mtv.eval.datasets.registry import ReaderInfo
from mtv.shards import layout
from mtv.shards.dataset import read_dataset, read_index
from mtv.shards.verify import verify_dataset

INFO = ReaderInfo(
    name="pretrain",
    title="Pretraining shards: pictures with captions, regions and disparity",
    default_split="train",
    splits=("train",),
    licence="that of the pictures; the miniature world's are yours",
    how_to_get="`mtv-eval data make-mini` makes a small corpus; any img2dataset corpus becomes one when it is indexed.",
    layout="""\
pretrain/                                    any name
  dataset.json                               shard list, counts, label versions
  index/00000.idx ...                        offsets of every member
  images/00000.tar ...                       KEY.jpg, KEY.txt, KEY.json
  labels/{regions,depth}-<name>/00000.tar    same keys; labels may be missing for a key""",
    expected={},
)


def inspect(data: Path, *, split: str = "train") -> tuple[CheckReport, Dataset | None]:
    """Compare sizes and index of a corpus under `data`; pictures are decoded by the full check.

    Args:
        data: the corpus or up to two levels above it.
        split: only `train`.

    Returns:
        The report, and the set unless the verdict is `wrong` or `missing`.
    """
    roots = outermost([d for d in folders(data) if (d / "dataset.json").is_file() and (d / "images").is_dir()])
    if not roots:
        return missing(INFO, data, split=split), None
    if len(roots) > 1:
        return ambiguous(INFO, roots, split=split), None
    root = roots[0]
    try:
        problems = [str(p) for p in verify_dataset(root)]
        images = {} if problems else _pictures(root)
    except DataError as e:
        problems = [e.message]
    if problems:
        repair = "Copy the files named above again; for a miniature world, run make-mini again, which rebuilds them."
        return wrong(INFO, split=split, root=root, problems=problems, repair=repair), None
    info = read_dataset(root)
    report = CheckReport(
        name=INFO.name,
        verdict="ok-but",
        root=root,
        layout=f"shards with {', '.join(sorted(info.labels)) or 'no labels'}",
        split=split,
        found={"images": len(images), "shards": len(info.shards)},
        label=f"{len(images)} samples",
        fingerprint=fingerprint_of((key, info.index_hash) for key in images),
    )
    return report, Dataset(name=INFO.name, split=split, report=report, images=images)


def _pictures(root: Path) -> dict[str, FileRef]:
    """Key to the bytes of its picture inside a tar, in the order of the shards."""
    out: dict[str, FileRef] = {}
    for shard in read_dataset(root).shards:
        index = read_index(root, shard)
        tar = layout.source_tar(root, layout.IMAGES, index.shard)
        for row, key in enumerate(index.keys):
            places = ((e, index.sources[layout.IMAGES].place(e, row)) for e in layout.IMAGE_EXTENSIONS)
            ext, (offset, size) = next((e, p) for e, p in places if p is not None)
            name = f"{tar.relative_to(root).as_posix()}/{key}.{ext}"
            out[key] = FileRef(path=tar, name=name, offset=offset, size=size)
    return out
