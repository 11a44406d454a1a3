"""COCO captions: the Karpathy 5k test split, and val2017 as a split of its own.

Canonical order: ascending COCO id, then annotation order. Verdicts follow `protocols/zero_shot_and_retrieval.md`
section 3.1 with the override of `harness.md` section 8: other counts or ids run under a label, the known wrong sets are
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtv.errors import DataError
from mtv.eval.datasets.base import CaptionSet, CheckReport
from mtv.eval.datasets.captions import (
    CAPTIONS,
    accept,
    caption_counts,
    check_join,
    keep_captions,
)
from mtv.eval.datasets.coco_files import ROOT_NAMES, Found, is_coco_root, read_karpathy_test, read_val2017
from mtv.eval.datasets.common import Judgement, refuse, refuse_bad_headers, roots_below, the_one
from mtv.eval.datasets.outcomes import missing
from mtv.eval.datasets.registry import ReaderInfo
from mtv.hashing import sha256_lines

KARPATHY_TEST = "0f892ba2fcb97da20443b3ce06d6bc972adb0e41ee6d338c22fa644350b3e2f7"
KARPATHY_VAL = "47164ec8e9a973fe67d97bcea616ce5fe707b347275d0e0ce4dbaed01a84a55f"
VAL2017 = "1d158ad41c99a053bef0f51e7468b7f183408dec16e5f8162fdfa2203104ba04"
WHOLE = {40_504: "all of val2014", 123_287: "all of train2014 and val2014", 113_287: "the Karpathy training split"}
EXPECTED = {
    "karpathy-test": {"images": 5_000, "captions": 25_010},
    "val2017": {"images": 5_000, "captions": 25_014},
}

INFO = ReaderInfo(
    name="coco",
    title="COCO captions, Karpathy 5k test split: image-text retrieval",
    default_split="karpathy-test",
    splits=("karpathy-test", "val2017"),
    options={"captions": CAPTIONS},
    licence="Annotations CC BY 4.0; the pictures are under their Flickr licences.",
    how_to_get=(
        "Described at cocodataset.org: val2014.zip (6 GB) and annotations_trainval2014.zip (240 MB), or 2017.\n"
        "Split: dataset_coco.json in caption_datasets.zip (Karpathy), coco_test_karpathy.json (mehdidc/\n"
        "retrieval_annotations), or karpathy_test_images.txt (peteanderson80/Up-Down-Captioner, data/coco_splits)."
    ),
    layout=(
        "<data>/coco/\n"
        "  val2014/COCO_val2014_############.jpg     40,504 pictures, 6 GB (or val2017/ + train2017/, 19 GB)\n"
        "  dataset_coco.json                         144 MB\n"
        "    or coco_test_karpathy.json\n"
        "    or karpathy_test_images.txt + annotations/captions_val2014.json\n"
        "or\n"
        "  dataset_type.txt, test/{nshards.txt, 0.tar, ...}   members <key>.jpg|webp|png + <key>.txt\n"
        "split val2017:\n"
        "  val2017/############.jpg                  5,000 pictures, 0.8 GB\n"
        "  annotations/captions_val2017.json"
    ),
    expected=EXPECTED["karpathy-test"],
)


def id_hash(ids: Sequence[int]) -> str:
    """SHA-256 of the ascending decimal ids joined by LF."""
    return sha256_lines(str(i) for i in sorted(ids))


def inspect(data: Path, *, split: str, captions: str = "all") -> tuple[CheckReport, CaptionSet | None]:
    """Look at the COCO copy below `data`.

    Args:
        data: root given as --data.
        split: `karpathy-test` or `val2017`.
        captions: `all`, `first5` or `first1`.

    Returns:
        The report, and the data set unless the verdict is `wrong` or `missing`.
    """
    roots = roots_below(data, lambda d: is_coco_root(d, data), ROOT_NAMES)
    if not roots:
        return missing(INFO, data, split=split), None
    expected, found, counts = EXPECTED[split], None, {}
    try:
        root = the_one(roots, "coco", data)
        found = read_karpathy_test(root, data) if split == "karpathy-test" else read_val2017(root, data)
        counts = caption_counts(found.pictures)
        judgement = judge(found, split, captions)
        if judgement.verdict == "wrong":
            raise DataError("\n".join(judgement.problems), judgement.repair)
        check_join(found.pictures, f"{root} ({found.layout})")
        refuse_bad_headers({p.id: p.file for p in found.pictures if p.file is not None})
    except DataError as e:
        root_or_none = roots[0] if len(roots) == 1 else None
        layout = found.layout if found else ""
        return refuse(INFO, split, e, root=root_or_none, layout=layout, found=counts, expected=expected), None
    pictures = keep_captions(found.pictures, captions)
    return accept(
        INFO.name,
        split,
        root=root,
        layout=found.layout,
        pictures=pictures,
        judgement=judgement,
        expected=expected,
    )


def judge(found: Found, split: str, option: str) -> Judgement:
    """Compare ids and counts with the known sets (section 3.1).

    Args:
        found: the split as read, with all its captions.
        split: the split that was asked for.
        option: `captions` option; anything but `all` makes another, labelled set.
    """
    n, m = (caption_counts(found.pictures)[k] for k in ("images", "captions"))
    digest = id_hash([int(p.id) for p in found.pictures]) if found.with_ids else ""
    if split == "karpathy-test":
        refusal = _known_wrong(n, m, digest)
        if refusal is not None:
            return refusal
        full = digest == KARPATHY_TEST or (not found.with_ids and n == EXPECTED[split]["images"])
    else:
        full = digest == VAL2017
    labels, remarks = _deviations(n, m, full, split, max(len(p.captions) for p in found.pictures))
    if option != "all":
        labels.append(f"captions={option}")
    return Judgement(verdict="ok-but" if labels else "ok", label=", ".join(labels), problems=tuple(remarks))


def _known_wrong(n: int, m: int, digest: str) -> Judgement | None:
    if digest == VAL2017 or (n, m) == (5_000, 25_014):
        return Judgement(
            verdict="wrong",
            problems=(
                f"this is val2017 ({n} pictures, {m} captions), not the Karpathy test split: also 5,000 pictures, but "
                "other ones.",
            ),
            repair="Measure it as itself with --set coco.split=val2017, or give the Karpathy test list.",
        )
    if digest == KARPATHY_VAL:
        return Judgement(
            verdict="wrong",
            problems=("this is the Karpathy validation split, not the test split: 5,000 other pictures.",),
            repair="Use the pictures with split `test` of dataset_coco.json (karpathy_test_images.txt).",
        )
    if n in WHOLE:
        return Judgement(
            verdict="wrong",
            problems=(f"{n} pictures: this is {WHOLE[n]}; the split file is missing or names everything `test`.",),
            repair="Give the Karpathy test list (dataset_coco.json, coco_test_karpathy.json or an id list).",
        )
    return None


def _deviations(n: int, m: int, full: bool, split: str, most: int) -> tuple[list[str], list[str]]:
    """Labels and remarks for a set that runs: other pictures, or other captions of the right pictures."""
    images, captions = EXPECTED[split]["images"], EXPECTED[split]["captions"]
    if not full:
        remark = [f"{n} pictures with {m} captions instead of {images} with {captions} of {split}."]
        if n == 1_000:
            remark.append("1,000 pictures: a 1k fold or a truncated list; recalls are far above those of the 5k pool.")
        if n < images:
            return [f"subset ({n} of {images})"], remark
        return [f"{n} other images, not {split}" if n == images else f"{n} images instead of {images}"], remark
    if m == captions:
        return [], []
    kept = {1: "captions=first1", 5: "captions=first5"}.get(most, "captions")
    return [f"{kept} ({m} of {captions})"], [f"{m} captions instead of {captions}: at most {most} per picture."]
