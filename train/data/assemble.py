"""From global sample counters to a `HostBatch`: read, decode, replace what is damaged, draw the plan.

Notable choices: this is all that a worker does, and it depends on nothing but the counters; damaged samples are named
in what is returned, and the loader, which sees all of them, decides when there are too many.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mtv.errors import DataError
from mtv.shards import ShardDataset, ShardSample, StaleIndexError
from mtv.train.data.batch import Needs
from mtv.train.data.cache import PixelCache
from mtv.train.data.canvas import DEPTH_OFFSET, Pixels, decode_sample
from mtv.train.data.device import Disparity, HostBatch, LocalColours, LocalViews
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.data.order import Place, SampleOrder
from mtv.train.data.plan import Crops, draw_captions, draw_global, draw_local, draw_masks
from mtv.train.data.regions import RegionLabels, choose_regions
from mtv.train.data.text import TokenCache, Tokenizer, name_id


@dataclass(frozen=True, kw_only=True)
class Labels:
    """All of a sample but its pixels."""

    key: str
    """Sample key."""
    aspect: float
    """True width over height."""
    captions: tuple[str, ...]
    """At least one."""
    regions: RegionLabels | None
    """None without a region label."""
    depth_range: tuple[float, float] | None
    """Label units of the least and the largest disparity; None without a valid label."""


def check_bad(bad: Mapping[int, str], limit: int) -> None:
    """Refuse to go on with too many damaged samples.

    Raises:
        DataError: more than `limit`; names the last.
    """
    if len(bad) > limit:
        raise DataError(
            f"{len(bad)} samples cannot be used, data.max_bad allows {limit}; the last: {list(bad.values())[-1]}",
            "Run `mtv-train data check --full` on the corpus; raise data.max_bad if the loss is acceptable.",
        )


@dataclass(kw_only=True)
class Report:
    """What happened while a batch was assembled."""

    bad: dict[int, str] = field(default_factory=dict)
    """Damaged samples: global index to what is wrong, with key and file."""
    read: float = 0.0
    """Seconds spent on reading."""
    decode: float = 0.0
    """Seconds spent on decoding."""


class Assembler:
    """Makes host batches; one per process.

    Args:
        dataset: the corpus, opened with the labels that `needs` asks for.
        order: the order of its samples.
        data, views, needs: what to make.
        image_size: side of the global view.
        patch_size: side of a patch; masks have (image_size / patch_size)^2 entries.
        seed: seed of the run.
        tokenizer: captions and names to tokens.
        cache: decoded canvases.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        order: SampleOrder,
        *,
        data: DataOptions,
        views: ViewOptions,
        needs: Needs,
        image_size: int,
        patch_size: int,
        seed: int,
        tokenizer: Tokenizer,
        cache: PixelCache | None,
    ) -> None:
        self.dataset, self.order = dataset, order
        self.data, self.views, self.needs = data, views, needs
        self.image_size, self.patches, self.seed = image_size, (image_size // patch_size) ** 2, seed
        self._cache = cache
        self._labels: dict[int, Labels] = {}
        self._captions, self._names = TokenCache(tokenizer), TokenCache(tokenizer)

    def __call__(self, counters: Sequence[int]) -> tuple[HostBatch, Report]:
        """The batch of these global sample counters.

        Raises:
            DataError: too many damaged samples, or a whole block of them.
        """
        report = Report()
        places = [self.order.place(g) for g in counters]
        samples = [self._good(place, report) for place in places]
        epochs = [place.epoch for place in places]
        return self._batch([s[0] for s in samples], [s[1] for s in samples], epochs), report

    def _good(self, place: Place, report: Report) -> tuple[Labels, Pixels]:
        """The sample of a place, or of the first substitute that is not damaged."""
        chosen, attempt = place, 0
        while True:
            try:
                return self._sample(chosen.index, report)
            except StaleIndexError:
                raise
            except DataError as e:
                report.bad[chosen.index] = e.message
                check_bad(report.bad, self.data.max_bad)
                substitute = self.order.substitute(place, attempt)
                if substitute is None:
                    raise DataError(
                        f"no sample of block {place.block} can be used; the last: {e.message}",
                        "Run `mtv-train data check` on the corpus.",
                    ) from e
                chosen, attempt = substitute, attempt + 1

    def _sample(self, index: int, report: Report) -> tuple[Labels, Pixels]:
        slot = self.order.subset.ordinal(index) if self._cache is not None else -1
        pixels = self._cache.get(slot) if self._cache is not None else None
        if pixels is not None and (labels := self._labels.get(slot)) is not None:
            return labels, pixels
        start = time.perf_counter()
        sample = self.dataset.sample(index)
        read = time.perf_counter()
        report.read += read - start
        try:
            pixels = pixels or decode_sample(sample, self.data, depth=self.needs.depth)
        except DataError as e:
            shard = next(s.name for s in self.dataset.shards if s.start <= index < s.stop)
            raise DataError(f"{self.dataset.root}: shard {shard}: key {sample.key!r}: {e.message}") from e
        labels = _labels(sample, self.needs)
        if self._cache is not None and slot < self._cache.slots:
            self._cache.put(slot, pixels)
            self._labels[slot] = labels
        report.decode += time.perf_counter() - read
        return labels, pixels

    def _batch(self, labels: list[Labels], pixels: list[Pixels], epochs: list[int]) -> HostBatch:
        keys = tuple(s.key for s in labels)
        aspect_B = np.array([s.aspect for s in labels])
        canvas = self.data.canvas
        crops = draw_global(self.views, seed=self.seed, epochs=epochs, keys=keys, aspect_B=aspect_B, canvas=canvas)
        local = self._local(epochs, keys, aspect_B) if self.needs.locals else None
        ready = {"text_BT": self._text(labels, epochs, keys)}
        if self.needs.mask:
            mask_BN = draw_masks(self.views, seed=self.seed, epochs=epochs, keys=keys, patches=self.patches)
            ready["mask_BN"] = torch.from_numpy(mask_BN)
        if self.needs.regions:
            ready |= self._regions(labels, epochs, keys, crops)
        return HostBatch(
            keys=keys,
            canvas_BHCW=torch.from_numpy(np.stack([p.canvas_HCW for p in pixels])),
            crop_B4=torch.from_numpy(crops.box),
            flip_B=torch.from_numpy(crops.flip),
            image_size=self.image_size,
            local=local,
            disparity=self._disparity(labels, pixels) if self.needs.depth else None,
            labels=ready,
        )

    def _text(self, labels: list[Labels], epochs: list[int], keys: tuple[str, ...]) -> Tensor:
        texts = [s.captions[0] for s in labels]
        if self.data.caption == "draw":
            texts = draw_captions([s.captions for s in labels], seed=self.seed, epochs=epochs, keys=keys)
        return torch.from_numpy(self._captions(texts))

    def _local(self, epochs: list[int], keys: tuple[str, ...], aspect_B: np.ndarray) -> LocalViews:
        crops, colours = draw_local(
            self.views, seed=self.seed, epochs=epochs, keys=keys, aspect_B=aspect_B, canvas=self.data.canvas
        )
        return LocalViews(
            crop_BM4=torch.from_numpy(crops.box),
            flip_BM=torch.from_numpy(crops.flip),
            colours=LocalColours(
                factor_BM4=torch.from_numpy(colours.factor),
                order_BM4=torch.from_numpy(colours.order),
                grey_BM=torch.from_numpy(colours.grey),
                sigma_BM=torch.from_numpy(colours.sigma),
            ),
            size=self.views.local_size,
            longest=int(crops.box[..., 2:].max()),
        )

    def _regions(
        self, labels: list[Labels], epochs: list[int], keys: tuple[str, ...], crops: Crops
    ) -> dict[str, Tensor]:
        corner_B2, size_B2 = crops.box[:, :2], crops.box[:, 2:]
        chosen = choose_regions(
            [s.regions for s in labels],
            self.views,
            seed=self.seed,
            epochs=epochs,
            keys=keys,
            crop_B4=np.concatenate([corner_B2, corner_B2 + size_B2], axis=1) / self.data.canvas,
            flip_B=crops.flip,
            image_size=self.image_size,
        )
        R = self.views.regions
        texts = [self.views.region_template.format(n) for names in chosen.names for n in names]
        tokens = self._names(["", *texts])
        text_BRT = np.tile(tokens[0], (len(labels), R, 1))
        name_BR = np.zeros((len(labels), R), dtype=np.int64)
        text_BRT[chosen.valid_BR] = tokens[1:]
        name_BR[chosen.valid_BR] = [name_id(row) for row in tokens[1:]]
        return {
            "box_BR4": torch.from_numpy(chosen.box_BR4),
            "region_text_BRT": torch.from_numpy(text_BRT),
            "region_valid_BR": torch.from_numpy(chosen.valid_BR),
            "region_name_BR": torch.from_numpy(name_BR),
        }

    def _disparity(self, labels: list[Labels], pixels: list[Pixels]) -> Disparity:
        side = self.data.depth_canvas
        empty_HW = np.full((side, side), -DEPTH_OFFSET, dtype=np.int16)
        maps = [empty_HW if p.depth_HW is None else p.depth_HW for p in pixels]
        ranges = [(0.0, 0.0) if s.depth_range is None else s.depth_range for s in labels]
        return Disparity(
            code_BHW=torch.from_numpy(np.stack(maps)),
            range_B2=torch.tensor(ranges, dtype=torch.float32),
            valid_B=torch.tensor([s.depth_range is not None for s in labels]),
        )


def _labels(sample: ShardSample, needs: Needs) -> Labels:
    regions = None
    if needs.regions and sample.regions is not None:
        regions = RegionLabels(
            box_K4=np.array([r.box for r in sample.regions], dtype=np.float64).reshape(-1, 4),
            score_K=np.array([r.score for r in sample.regions], dtype=np.float64),
            names=tuple(r.name for r in sample.regions),
        )
    depth = sample.disparity if needs.depth else None
    return Labels(
        key=sample.key,
        aspect=sample.w / sample.h,
        captions=sample.captions,
        regions=regions,
        depth_range=None if depth is None else (depth.min, depth.max),
    )
