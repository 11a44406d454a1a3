"""The door of the room: `FeatureProvider` turns requests into features, one forward pass per unique picture.

    provider = FeatureProvider(encoder, ExtractOptions(cache_dir=Path("cache"), progress=bar))
    features = provider.get(request)            # FeatureSet: .get(id), .stack(ids, "pooled")
    weights_CD = provider.classifier(names, templates)
    captions_ND = provider.text(strings, kind="caption")

Under torchrun every rank calls the same methods in the same order; all get the same answer or the same error.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from mtv.encoders.base import Encoder, TextKind
from mtv.errors import UsageError
from mtv.eval.features.content import ContentIndex, content_sha256
from mtv.eval.features.distributed import DistContext, dist_context, shard_filter
from mtv.eval.features.extract import Extraction
from mtv.eval.features.feature_set import FeatureSet
from mtv.eval.features.options import Clock, ExtractOptions, Plan, Progress, Stats, Throttle
from mtv.eval.features.planning import check_memory, make_plan
from mtv.eval.features.request import FeatureRequest
from mtv.eval.features.rows import Rows, cached_rows, memory_rows
from mtv.eval.features.store import Entry, Store
from mtv.eval.features.text import TextEmbedder

__all__ = [
    "ContentIndex",
    "DistContext",
    "ExtractOptions",
    "FeatureProvider",
    "FeatureSet",
    "Plan",
    "Progress",
    "Stats",
    "content_sha256",
    "dist_context",
    "shard_filter",
]


class FeatureProvider:
    """Features of one loaded model, from the store where they are, from the model where they are not.

    Args:
        encoder: the model, on its device and in the dtype of the requests.
        options: cache, batch, workers, progress.
        dist: process group; by default the one torchrun announces, else none.
    """

    def __init__(self, encoder: Encoder, options: ExtractOptions, *, dist: DistContext | None = None) -> None:
        self.encoder = encoder
        self.options = options
        self._dist = dist or dist_context()
        self._clock = Clock()
        self._progress = Throttle(options.progress)
        self._store = Store(options.cache_dir, options) if options.cache_dir is not None else None
        self._content = ContentIndex(options.cache_dir) if options.cache_dir is not None else None
        self._text = TextEmbedder(encoder, self._store, self._dist, self._clock, self._progress)

    @property
    def stats(self) -> Stats:
        """Counters since this provider was made; subtract an earlier reading to get those of one task."""
        return self._clock.stats

    def alone(self) -> FeatureProvider:
        """This provider for one rank by itself: nothing it does waits for the others. Shares counters and store."""
        solo = copy.copy(self)
        solo._dist = DistContext()
        solo._text = TextEmbedder(self.encoder, self._store, solo._dist, self._clock, self._progress)
        return solo

    def plan(self, request: FeatureRequest) -> Plan:
        """What `get` would do: hits, misses, bytes, shapes. Hashes changed files and decodes one missing picture.

        Raises:
            UsageError: the request does not fit the encoder.
            DataError: a file cannot be read.
        """
        digests = self._digests(request)
        return self._dist.on_rank0(lambda: self._plan(request, digests))

    def get(self, request: FeatureRequest) -> FeatureSet:
        """All rows of `request`, computing those that are missing.

        Raises:
            UsageError: the request does not fit the encoder, or the features fit neither disk limit nor memory.
            DataError: a picture cannot be read or decoded, or changed during the run.
            NumericalError: NaN, infinity, or a token that fp16 cannot hold; names the sample.
            CacheError: the store cannot be written or locked.
        """
        digests = self._digests(request)
        plan = self._dist.on_rank0(lambda: self._plan(request, digests))
        extraction = Extraction(
            request=request,
            encoder=self.encoder,
            options=self.options,
            digests=digests,
            clock=self._clock,
            progress=self._progress,
            dist=self._dist,
        )
        if plan.total == 0:
            return FeatureSet(Rows(outputs=request.outputs, places={}, computed=0, stale=0))
        entry = self._entry(request)
        if entry is not None and plan.placement == "disk":
            rows = cached_rows(
                entry, digests, extraction.blocks, outputs=request.outputs, dist=self._dist, row_bytes=plan.row_bytes
            )
        else:
            self._dist.on_rank0(lambda: check_memory(request.data, plan, self.options))
            rows = memory_rows(entry, digests, extraction.blocks, outputs=request.outputs, dist=self._dist)
        self._clock.add(hits=len(rows.places) - rows.computed, misses=rows.computed, stale=rows.stale)
        return FeatureSet(rows)

    def text(self, strings: Sequence[str], kind: TextKind = "prompt") -> Tensor:
        """Text embeddings N,D, float32 on the CPU, not normalised; each unique string goes through the model once.

        Raises:
            UsageError: the model has no text tower.
            NumericalError: a string whose embedding is not finite; names it.
        """
        return self._text.embed(strings, kind)

    def classifier(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Zero-shot weights C,D, float32, unit length (see `mtv.probes.classification.classifier`).

        Args:
            names: one class name per row.
            templates: prompts with `{}` (or `{c}`) where the name goes.

        Raises:
            UsageError: no text tower, or a template without placeholder.
        """
        return self._text.classifier(names, templates)

    def _digests(self, request: FeatureRequest) -> dict[str, str]:
        """Sample id to the digest of its bytes; empty digests without a store, where nothing is compared."""
        index = self._content
        if index is None:
            return dict.fromkeys(request.files, "")
        with self._clock.phase("load"):
            return self._dist.on_rank0(
                lambda: index.digests(request.files, verify=self.options.verify, progress=self._progress)
            )

    def _entry(self, request: FeatureRequest) -> Entry | None:
        info = self.encoder.info
        return self._store.entry(request.key(info), model=info.alias or info.spec) if self._store else None

    def _plan(self, request: FeatureRequest, digests: dict[str, str]) -> Plan:
        if not request.files:
            if self.options.shard is None:
                raise UsageError(f"{request.data}: a feature request without samples")
            return Plan(  # a small set may leave a share empty
                total=0, cached=0, stale=0, bytes_to_store=0, row_bytes=0, output_shapes={}, placement="disk"
            )
        return make_plan(request, self.encoder, self._entry(request), digests, self.options)
