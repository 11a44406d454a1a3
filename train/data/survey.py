"""Looks at a corpus with the trainer's eyes: which samples it would replace, and what the others hold."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mtv.errors import DataError, UsageError
from mtv.shards import Problem, ShardDataset, ShardSample, layout
from mtv.shards.dataset import DatasetInfo
from mtv.train.data.canvas import decode_sample
from mtv.train.data.options import DataOptions

Progress = Callable[[int, int], object]
"""Called with (samples done, samples in all)."""


def pick_labels(info: DatasetInfo) -> tuple[str, ...]:
    """The label sets of a corpus, when there is one per kind.

    Raises:
        UsageError: several of a kind; names them.
    """
    for kind in (layout.DEPTH, layout.REGIONS):
        names = [name for name in info.labels if layout.label_kind(name) == kind]
        if len(names) > 1:
            raise UsageError(f"the corpus has several {kind} label sets: {', '.join(names)}", "Choose with --labels.")
    return tuple(info.labels)


def bad_samples(dataset: ShardDataset, data: DataOptions, *, progress: Progress | None = None) -> Iterator[Problem]:
    """Every sample that a run would replace: read and decoded as the trainer does.

    Args:
        dataset: opened with the label sets in question.
        data: limits of the run.
        progress: called after each sample.
    """
    for shard in dataset.shards:
        tar = layout.image_tar(dataset.root, shard.name)
        for index in range(shard.start, shard.stop):
            try:
                decode_sample(dataset.sample(index), data, depth=True)
            except DataError as e:
                yield Problem(file=tar, key=dataset.key(index), message=e.message)
            if progress is not None:
                progress(index + 1, len(dataset))


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a corpus holds; means are over the samples that were read."""

    samples: int
    """Samples in the corpus."""
    shards: int
    """Shards."""
    labels: dict[str, int]
    """Label set to labelled samples in the whole corpus."""
    read: int
    """Samples that the rest is about, evenly spaced."""
    unreadable: int
    """Of these, samples that could not be read."""
    image_kib: float
    """Mean size of an image file in KiB."""
    short_side: tuple[int, int, int]
    """Shorter side in pixels: least, median, largest."""
    captions: float
    """Captions per sample."""
    caption_words: float
    """Words per caption."""
    distinct_captions: float
    """Share of captions that no other caption equals."""
    with_regions: float
    """Share of samples with at least one region."""
    regions: float
    """Regions per sample that has any."""
    region_area: float
    """Median area of a box as a share of the image."""
    names: int
    """Different region names."""
    top_names: dict[str, int]
    """The ten most frequent names."""
    with_depth: float
    """Share of samples with a depth label that is not constant."""


@dataclass(kw_only=True)
class _Tally:
    bytes: list[int] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    depth: int = 0

    def add(self, sample: ShardSample) -> None:
        self.bytes.append(len(sample.image))
        self.sides.append(min(sample.w, sample.h))
        self.captions += sample.captions
        self.regions.append(len(sample.regions or ()))
        for region in sample.regions or ():
            x0, y0, x1, y1 = region.box
            self.areas.append((x1 - x0) * (y1 - y0))
            self.names[region.name] += 1
        self.depth += sample.disparity is not None


def collect_stats(dataset: ShardDataset, *, limit: int, progress: Progress | None = None) -> Stats:
    """Statistics of a corpus from at most `limit` evenly spaced samples.

    Args:
        dataset: opened with the label sets in question.
        limit: samples to read, at least 1.
        progress: called after each.

    Raises:
        DataError: none of the samples can be read.
    """
    total = min(limit, len(dataset))
    tally, failure = _Tally(), DataError(f"{dataset.root} has no sample")
    for done, index in enumerate(np.linspace(0, len(dataset) - 1, total).round().astype(int).tolist()):
        try:
            tally.add(dataset.sample(index))
        except DataError as e:
            failure = e
        if progress is not None:
            progress(done + 1, total)
    if not (n := len(tally.bytes)):
        raise failure
    counts = Counter(tally.captions)
    labelled = sum(r > 0 for r in tally.regions)
    return Stats(
        samples=len(dataset),
        shards=len(dataset.shards),
        labels={name: entry.samples for name, entry in dataset.info.labels.items()},
        read=n,
        unreadable=total - n,
        image_kib=sum(tally.bytes) / n / 1024,
        short_side=(min(tally.sides), int(statistics.median(tally.sides)), max(tally.sides)),
        captions=len(tally.captions) / n,
        caption_words=sum(len(c.split()) for c in tally.captions) / max(1, len(tally.captions)),
        distinct_captions=sum(c == 1 for c in counts.values()) / max(1, len(tally.captions)),
        with_regions=labelled / n,
        regions=sum(tally.regions) / max(1, labelled),
        region_area=statistics.median(tally.areas) if tally.areas else 0.0,
        names=len(tally.names),
        top_names=dict(tally.names.most_common(10)),
        with_depth=tally.depth / n,
    )
