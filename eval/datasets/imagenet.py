"""ImageNet-1k validation set: which copy this is, and whether its labels can be trusted.

Verdicts follow `protocols/zero_shot_and_retrieval.md` section 2.2 with the override of `harness.md` section 8: other
counts or fewer classes run under a label; labels that mean something else are refused. A set in ImageNet's layout with
classes of its own (the miniature world) names them in `classnames.txt` beside `val/` and runs as `other classes (n)`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, ClassificationSet, FileRef, fingerprint_of
from mtv.eval.datasets.common import Judgement, refuse, refuse_bad_headers, some, the_one
from mtv.eval.datasets.imagenet_classes import agreement_with_reassessed
from mtv.eval.datasets.imagenet_layouts import VAL_NAME, Item, Listing, candidates, read_listing
from mtv.eval.datasets.outcomes import missing
from mtv.eval.datasets.registry import ReaderInfo

TOTAL, PER_CLASS = 50_000, 50
TRAIN_PER_CLASS = 732
"""Smallest class of the training set."""
MIN_RATED = 20
"""Rated pictures below which the agreement with the reassessed labels says nothing."""

INFO = ReaderInfo(
    name="imagenet",
    title="ImageNet-1k (ILSVRC2012) validation set: 50,000 pictures of 1000 classes; zero-shot classification, kNN",
    default_split="val",
    splits=("val",),
    licence="ImageNet terms of access: non-commercial research and education only.",
    how_to_get=(
        "Described at image-net.org (ILSVRC2012; registration needed): ILSVRC2012_img_val.tar (6.3 GB) and\n"
        "ILSVRC2012_devkit_t12.tar.gz (2.5 MB). Sort the pictures into class folders, or extract the devkit beside\n"
        "val/. Shards made with clip_benchmark_export_wds are read as they are."
    ),
    layout=(
        "<data>/imagenet/\n"
        "  val/<wnid>/ILSVRC2012_val_########.JPEG   1000 folders x 50 pictures, 6.3 GB\n"
        "  classnames.txt                            for other classes than ImageNet's: lines `<wnid> <name>`\n"
        "or\n"
        "  val/ILSVRC2012_val_########.JPEG          50,000 pictures\n"
        "  ILSVRC2012_devkit_t12/data/{meta.mat, ILSVRC2012_validation_ground_truth.txt}\n"
        "or\n"
        "  classnames.txt, test/{nshards.txt, 0.tar, 1.tar, ...}   members <key>.webp|jpg|png + <key>.cls"
    ),
    expected={"images": TOTAL, "classes": 1000},
)


def inspect(data: Path, *, split: str) -> tuple[CheckReport, ClassificationSet | None]:
    """Look at the ImageNet copy below `data`.

    Args:
        data: root given as --data.
        split: `val`.

    Returns:
        The report, and the data set unless the verdict is `wrong` or `missing`. Order of the pictures: by sample id.
    """
    found = candidates(data)
    if not found:
        return missing(INFO, data, split=split), None
    listing: Listing | None = None
    try:
        listing = read_listing(the_one(found, "imagenet", data), data)
        items = _unique(listing)
        judgement = judge(listing)
        if judgement.verdict == "wrong":
            raise DataError("\n".join(judgement.problems), judgement.repair)
        refuse_bad_headers({i.id: i.file for i in items})
    except DataError as e:
        if listing is None:
            return refuse(INFO, split, e, root=found[0] if len(found) == 1 else None), None
        return refuse(INFO, split, e, root=listing.root, layout=listing.layout, found=_counts(listing.items)), None
    report = _report(listing, items, judgement, split)
    return report, _dataset(listing, items, report)


def _counts(items: Sequence[Item]) -> dict[str, int]:
    return {"images": len(items), "classes": len({i.index for i in items})}


def _unique(listing: Listing) -> list[Item]:
    items = sorted(listing.items, key=lambda i: i.id)
    if not items:
        raise DataError(f"{listing.root}: no pictures", "Extract ILSVRC2012_img_val.tar there.")
    twice = [(a, b) for a, b in itertools.pairwise(items) if a.id == b.id]
    if twice:
        pairs = some([f"{a.file.name} and {b.file.name}" for a, b in twice])
        raise DataError(f"{listing.root}: the same picture occurs twice: {pairs}", "Keep each picture exactly once.")
    return items


def judge(listing: Listing) -> Judgement:
    """Compare a listing with what is known about the validation set (section 2.2)."""
    counts = Counter(i.index for i in listing.items)
    n, wnids = len(listing.items), listing.wnids
    if listing.other is not None:
        problems = (f"{len(wnids)} classes of its own instead of ImageNet's 1000.", *_absent(listing, counts))
        shown = f"{len(counts)} of {len(wnids)}" if len(counts) < len(wnids) else len(wnids)
        return Judgement(verdict="ok-but", label=f"other classes ({shown})", problems=problems)
    by_class = [i for i in listing.items if i.file.path.name.startswith(f"{wnids[i.index]}_")]
    if 2 * len(by_class) > n and median(counts.values()) >= TRAIN_PER_CLASS:
        return Judgement(
            verdict="wrong",
            problems=(
                f"{listing.root}: training images: {n} files in {len(counts)} classes, names begin with the wnid "
                f"({by_class[0].file.path.name}), {min(counts.values())} to {max(counts.values())} per class.",
            ),
            repair="Use the validation set (ILSVRC2012_img_val.tar, names ILSVRC2012_val_*).",
        )
    balanced = len(counts) == 1000 and set(counts.values()) == {PER_CLASS}
    original = listing.layout.startswith("webdataset") or all(VAL_NAME.match(i.id) for i in listing.items)
    disagreement = _label_disagreement(listing)
    if disagreement and balanced:
        return Judgement(
            verdict="wrong",
            problems=(disagreement,),
            repair="Sort the pictures again with the devkit: meta.mat maps ILSVRC2012_ID to WNID.",
        )
    if balanced and original:
        return Judgement(verdict="ok")
    remarks = tuple(r for r in (disagreement, *_count_remarks(listing, counts)) if r)
    return Judgement(verdict="ok-but", label=_label(listing, counts, disagreement), problems=remarks)


def _label(listing: Listing, counts: Counter[int], disagreement: str) -> str:
    n = len(listing.items)
    if len(counts) == 1000 and set(counts.values()) == {1}:
        label = f"sample, not val (1000 of {TOTAL})"
    elif n < TOTAL:
        label = f"subset ({n} of {TOTAL})"
    elif n > TOTAL:
        label = f"{n} images instead of {TOTAL}"
    elif set(counts.values()) != {PER_CLASS}:
        label = f"{TOTAL} images, not {PER_CLASS} per class"
    else:
        label = f"{TOTAL} images with other names"
    return f"{label}, labels unlike the original" if disagreement else label


def _label_disagreement(listing: Listing) -> str:
    """A sentence when most pictures bear a label that human raters reject, else empty."""
    numbers = {int(m.group(1)): i.index for i in listing.items if (m := VAL_NAME.fullmatch(i.id))}
    accepted, rated = agreement_with_reassessed({k: v for k, v in numbers.items() if 1 <= k <= TOTAL})
    if rated < MIN_RATED or 2 * accepted >= rated:
        return ""
    return (
        f"{listing.root}: only {accepted} of {rated} pictures lie in a class that fits them (ReaL labels; in the "
        "original about 90 % do): the folders are permuted, or these are not the pictures that the names say."
    )


def _absent(listing: Listing, counts: Counter[int]) -> list[str]:
    absent = [w for i, w in enumerate(listing.wnids) if i not in counts]
    remarks = [f"{len(counts)} of {len(listing.wnids)} classes; missing: {some(absent)}."] if absent else []
    if listing.empty:
        remarks.append(f"class folders without a picture: {some(listing.empty)}.")
    return remarks


def _count_remarks(listing: Listing, counts: Counter[int]) -> list[str]:
    wnids, remarks = listing.wnids, _absent(listing, counts)
    odd = [f"{wnids[i]} has {c}" for i, c in sorted(counts.items()) if c != PER_CLASS]
    if odd and len(odd) < len(counts):
        remarks.append(f"{len(odd)} classes with other than {PER_CLASS} pictures: {some(odd)}.")
    elif odd:
        low, high = min(counts.values()), max(counts.values())
        remarks.append(f"{low if low == high else f'{low} to {high}'} pictures per class instead of {PER_CLASS}.")
    return remarks


def _report(listing: Listing, items: list[Item], judgement: Judgement, split: str) -> CheckReport:
    rows = [(i.id, listing.wnids[i.index]) for i in items]
    if listing.other is not None:
        # Names decide the number where the set brings them, so other names are another data set.
        rows += zip(listing.other.wnids, listing.other.names, strict=True)
    return CheckReport(
        name=INFO.name,
        verdict=judgement.verdict,
        root=listing.root,
        layout=listing.layout,
        split=split,
        found=_counts(items),
        expected=dict(INFO.expected) if listing.other is None else {},
        label=judgement.label,
        fingerprint=fingerprint_of(rows),
        problems=judgement.problems,
        repair=judgement.repair,
    )


def _dataset(listing: Listing, items: list[Item], report: CheckReport) -> ClassificationSet:
    present = sorted({i.index for i in items})
    position = {index: p for p, index in enumerate(present)}
    images: dict[str, FileRef] = {i.id: i.file for i in items}
    return ClassificationSet(
        name=INFO.name,
        split=report.split,
        report=report,
        images=images,
        labels=np.array([position[i.index] for i in items], dtype=np.int64),
        classes=tuple(listing.wnids[i] for i in present),
        class_indices=np.array(present, dtype=np.int64),
        class_names=None if listing.other is None else listing.other.names,
    )
