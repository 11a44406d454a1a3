"""Flickr30k and Flickr8k: the 1,000-picture Karpathy test splits for image-text retrieval.

Canonical order: ascending file name, then annotation order. Verdicts follow `protocols/zero_shot_and_retrieval.md`
section 3.2 with the override of `harness.md` section 8. Without a split file the test pictures cannot be told from the
rest: more than 1,000 pictures are refused, up to 1,000 run under a label that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from mtv.eval.datasets.common import Judgement, refuse, refuse_bad_headers, roots_below, the_one
from mtv.eval.datasets.flickr_files import FlickrLayout, Found, is_flickr_root, read_flickr
from mtv.eval.datasets.outcomes import missing
from mtv.eval.datasets.registry import ReaderInfo

IMAGES, PER_IMAGE = 1_000, 5
EXPECTED = {"images": IMAGES, "captions": IMAGES * PER_IMAGE}


@dataclass(frozen=True, kw_only=True)
class FlickrReader:
    """Reader of one of the two sets; `INFO` and `inspect` are what the registry asks for."""

    INFO: ReaderInfo
    """Description."""
    layout: FlickrLayout
    """File and folder names."""
    total: int
    """Pictures of the whole set."""
    landmarks: tuple[str, ...]
    """A few pictures of the official test split: a list of 1,000 without them is another one."""

    def inspect(self, data: Path, *, split: str, captions: str = "all") -> tuple[CheckReport, CaptionSet | None]:
        """Look at the copy below `data`.

        Args:
            data: root given as --data.
            split: `karpathy-test`.
            captions: `all`, `first5` or `first1`.

        Returns:
            The report, and the data set unless the verdict is `wrong` or `missing`.
        """
        roots = roots_below(data, lambda d: is_flickr_root(d, self.layout, data), self.layout.root_names)
        if not roots:
            return missing(self.INFO, data, split=split), None
        found: Found | None = None
        try:
            root = the_one(roots, self.INFO.name, data)
            found = read_flickr(root, self.layout, data)
            judgement = self.judge(found, captions)
            if judgement.verdict == "wrong":
                raise DataError("\n".join(judgement.problems), judgement.repair)
            check_join(found.pictures, f"{root} ({found.layout})")
            refuse_bad_headers({p.id: p.file for p in found.pictures if p.file is not None})
        except DataError as e:
            counts = caption_counts(found.pictures) if found else {}
            layout = found.layout if found else ""
            only = roots[0] if len(roots) == 1 else None
            return refuse(self.INFO, split, e, root=only, layout=layout, found=counts), None
        pictures = keep_captions(found.pictures, captions)
        return accept(
            self.INFO.name,
            split,
            root=root,
            layout=found.layout,
            pictures=pictures,
            judgement=judgement,
            expected=EXPECTED,
        )

    def judge(self, found: Found, option: str) -> Judgement:
        """Compare ids and counts with the official test split."""
        n, m = (caption_counts(found.pictures)[k] for k in ("images", "captions"))
        if n > IMAGES and (not found.with_split or n >= self.total * 3 // 4):
            what = "all pictures are taken for the test split" if found.with_split else "split file missing"
            return Judgement(
                verdict="wrong",
                problems=(f"{what}: {n} pictures, {m} captions; the test split has {IMAGES} of {self.total}.",),
                repair=f"Add one of {', '.join(self.layout.split_files)} to the folder.",
            )
        official = n == IMAGES and (not found.with_ids or set(self.landmarks) <= {p.id for p in found.pictures})
        labels, remarks = self._deviations(n, m, official, found.with_split)
        if option != "all":
            labels.append(f"captions={option}")
        return Judgement(verdict="ok-but" if labels else "ok", label=", ".join(labels), problems=tuple(remarks))

    def _deviations(self, n: int, m: int, official: bool, with_split: bool) -> tuple[list[str], list[str]]:
        if not official and not with_split:
            remark = f"no split file: all {n} pictures of the folder are used; the test split is another choice."
            return [f"no split file: {n} of {self.total} (not Karpathy test)"], [remark]
        if not official:
            remark = f"{n} pictures with {m} captions instead of {IMAGES} with {IMAGES * PER_IMAGE}."
            if n == IMAGES:
                remark = f"the split file names other pictures: {self.landmarks[0]} is in the official test split."
                return [f"{n} other images, not Karpathy test"], [remark]
            return [f"subset ({n} of {IMAGES})" if n < IMAGES else f"{n} images instead of {IMAGES}"], [remark]
        if m != IMAGES * PER_IMAGE:
            return [f"captions ({m} of {IMAGES * PER_IMAGE})"], [f"{m} captions instead of {IMAGES * PER_IMAGE}."]
        return [], []


flickr30k = FlickrReader(
    INFO=ReaderInfo(
        name="flickr30k",
        title="Flickr30k, Karpathy 1k test split: image-text retrieval",
        default_split="karpathy-test",
        splits=("karpathy-test",),
        options={"captions": CAPTIONS},
        licence="Research and education only; the pictures are under the Flickr terms of use.",
        how_to_get=(
            "Described at shannon.cs.illinois.edu/DenotationGraph (request form): flickr30k-images.tar.gz (4.4 GB).\n"
            "Split: dataset_flickr30k.json in caption_datasets.zip (Karpathy), or flickr30k_test_karpathy.txt\n"
            "(mehdidc/retrieval_annotations)."
        ),
        layout=(
            "<data>/flickr30k/\n"
            "  flickr30k-images/*.jpg          31,783 pictures, 4.4 GB (the 1,000 test pictures are enough)\n"
            "  dataset_flickr30k.json          37 MB, or flickr30k_test_karpathy.txt\n"
            "or\n"
            "  dataset_type.txt, test/{nshards.txt, 0.tar, ...}   members <key>.jpg|webp|png + <key>.txt"
        ),
        expected=EXPECTED,
    ),
    layout=FlickrLayout(
        root_names=("flickr30k", "flickr-30k", "wds_flickr30k"),
        other="8k",
        image_folders=("flickr30k-images", "flickr30k_images", "Images", "images"),
        karpathy="dataset_flickr30k*.json",
        test_captions="flickr30k_test_karpathy*.txt",
        tokens="results_20130124.token",
        test_names=None,
        split_files=("dataset_flickr30k.json", "flickr30k_test_karpathy.txt"),
    ),
    total=31_783,
    landmarks=("1007129816", "1009434119", "101362133"),
)
flickr8k = FlickrReader(
    INFO=ReaderInfo(
        name="flickr8k",
        title="Flickr8k, Karpathy 1k test split: image-text retrieval",
        default_split="karpathy-test",
        splits=("karpathy-test",),
        options={"captions": CAPTIONS},
        licence="Research and education only; the pictures are under the Flickr terms of use.",
        how_to_get=(
            "Described in Hodosh, Young, Hockenmaier (JAIR 2013): Flickr8k_Dataset.zip (1 GB) and Flickr8k_text.zip\n"
            "(Flickr8k.token.txt, Flickr_8k.testImages.txt). Split: that list, or dataset_flickr8k.json (Karpathy)."
        ),
        layout=(
            "<data>/flickr8k/\n"
            "  Images/*.jpg                    8,091 pictures, 1 GB (or Flicker8k_Dataset/)\n"
            "  captions.txt                    3 MB, CSV `image,caption` (or Flickr8k.token.txt)\n"
            "  Flickr_8k.testImages.txt        26 kB\n"
            "    or dataset_flickr8k.json      10 MB, captions and split in one\n"
            "or\n"
            "  dataset_type.txt, test/{nshards.txt, 0.tar, ...}   members <key>.jpg|webp|png + <key>.txt"
        ),
        expected=EXPECTED,
    ),
    layout=FlickrLayout(
        root_names=("flickr8k", "flickr-8k", "wds_flickr8k"),
        other="30k",
        image_folders=("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset"),
        karpathy="dataset_flickr8k*.json",
        test_captions="flickr8k_test_karpathy*.txt",
        tokens="Flickr8k.token.txt",
        test_names="Flickr_8k.testImages.txt",
        split_files=("Flickr_8k.testImages.txt", "dataset_flickr8k.json"),
    ),
    total=8_091,
    landmarks=(
        "3385593926_d3e9c21170",
        "2677656448_6b7e7702af",
        "311146855_0b65fdb169",
        "1258913059_07c613f7ff",
    ),
)
