"""Text through the same store: each unique string once, and zero-shot classifiers in blocks of classes."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mtv.encoders.base import Encoder, TextKind
from mtv.errors import NumericalError, UsageError
from mtv.eval.features.distributed import DistContext
from mtv.eval.features.feature_set import FeatureSet
from mtv.eval.features.options import Clock, Throttle
from mtv.eval.features.planning import ROW_OVERHEAD
from mtv.eval.features.request import EXTRACTOR_VERSION
from mtv.eval.features.rows import Block, Compute, cached_rows, memory_rows
from mtv.eval.features.store import Store
from mtv.hashing import sha256_json, sha256_text
from mtv.probes.classification import classifier
from mtv.probes.precision import fp32_matmul

log = logging.getLogger(__name__)

BLOCK_STRINGS = 1024
"""Strings per call of the text tower and per progress line; a classifier takes as many classes as give about that."""
_ALONE = DistContext()


class TextEmbedder:
    """Text embeddings and classifiers of one encoder. Under torchrun rank 0 computes, all ranks get the tensor."""

    def __init__(
        self, encoder: Encoder, store: Store | None, dist: DistContext, clock: Clock, progress: Throttle
    ) -> None:
        self._encoder = encoder
        self._store = store
        self._dist = dist
        self._clock = clock
        self._progress = progress

    def embed(self, strings: Sequence[str], kind: TextKind) -> Tensor:
        """See `FeatureProvider.text`."""
        self._require_text()
        return self._dist.on_rank0(lambda: self._embed(list(strings), kind))

    def classifier(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """See `FeatureProvider.classifier`."""
        self._require_text()
        for template in templates:
            if "{}" not in template and "{c}" not in template:
                raise UsageError(f"template {template!r} has no {{}} where the class name goes")
        if not templates or not names:
            raise UsageError(f"a classifier needs names and templates, got {len(names)} and {len(templates)}")
        return self._dist.on_rank0(lambda: self._classifier(list(names), list(templates)))

    def _embed(self, strings: list[str], kind: TextKind) -> Tensor:
        if not strings:
            return torch.empty(0, self._encoder.embed_dim)
        row_ids = [sha256_text(f"{kind}\n{s}") for s in strings]
        texts = dict(zip(row_ids, strings, strict=True))

        def compute(ids: list[str]) -> Generator[Block]:
            for chunk in self._chunks("text", ids, BLOCK_STRINGS):
                rows_ND = self._forward([texts[i] for i in chunk], kind)
                yield Block(ids=chunk, tensors={"text": rows_ND})

        return self._rows(self._key("text"), dict(zip(row_ids, row_ids, strict=True)), compute).stack(row_ids, "text")

    def _classifier(self, names: list[str], templates: list[str]) -> Tensor:
        # Equal names ("missile" stands twice in ImageNet) share one row, so that their columns tie to the last bit.
        digests = {name: sha256_json({"templates": templates, "name": name}) for name in names}
        key = self._key("classifier") | {"templates": sha256_json(templates), "n_templates": len(templates)}

        def compute(ids: list[str]) -> Generator[Block]:
            for chunk in self._chunks("classifier", ids, max(1, BLOCK_STRINGS // len(templates))):
                prompts = [fill(t, name) for name in chunk for t in templates]
                embedded_CTD = self._forward(prompts, "prompt").unflatten(0, (len(chunk), len(templates)))
                yield Block(ids=chunk, tensors={"text": classifier(embedded_CTD)})

        return self._rows(key, digests, compute).stack(names, "text")

    def _forward(self, strings: list[str], kind: TextKind) -> Tensor:
        """Text tower, each unique string once per call, on the CPU in fp32."""
        with fp32_matmul():
            rows_ND = self._encoder.encode_text(strings, kind=kind).detach().float().cpu()
        bad_N = ~torch.isfinite(rows_ND).all(dim=1)
        if bad_N.any():
            raise NumericalError(
                f"the text embedding of {strings[int(bad_N.nonzero()[0])]!r} is not finite ({self._encoder.info.spec})",
                "Check the weights and the tower's dtype (fp16 overflows where bf16 and fp32 do not).",
            )
        return rows_ND

    def _chunks(self, stage: str, ids: list[str], length: int) -> Iterator[list[str]]:
        started = time.perf_counter()
        for start in range(0, len(ids), length):
            yield ids[start : start + length]
            done = min(start + length, len(ids))
            unit = "texts" if stage == "text" else "classes"
            self._progress(stage, done, len(ids), f"{done / max(time.perf_counter() - started, 1e-9):.0f} {unit}/s")

    def _rows(self, key: dict[str, Any], digests: dict[str, str], compute: Compute) -> FeatureSet:
        with self._clock.phase("text"):
            if self._store is None:
                rows = memory_rows(None, digests, compute, outputs=("text",), dist=_ALONE)
            else:
                row_bytes = self._encoder.embed_dim * 4 + ROW_OVERHEAD
                entry = self._store.entry(key, model=self._encoder.info.alias or self._encoder.info.spec)
                rows = cached_rows(entry, digests, compute, outputs=("text",), dist=_ALONE, row_bytes=row_bytes)
        self._clock.add(text_hits=len(rows.places) - rows.computed, text_misses=rows.computed)
        return FeatureSet(rows)

    def _key(self, kind: str) -> dict[str, Any]:
        """What determines a text embedding; the activation too, for it can be overridden on the same weights."""
        info = self._encoder.info
        assert info.text is not None
        return {
            "kind": kind,
            "extractor": EXTRACTOR_VERSION,
            "weights": info.weights_sha256,
            "architecture": info.architecture,
            "adapter": info.adapter,
            "activation": info.activation,
            "text": info.text.to_dict(),
            "dtype": str(self._encoder.dtype).removeprefix("torch."),
        }

    def _require_text(self) -> None:
        if not self._encoder.has_text:
            raise UsageError(
                f"{self._encoder.info.spec} has no text tower",
                "Use tasks without text (knn, spair, navi, sevenscenes).",
            )


def fill(template: str, name: str) -> str:
    """A prompt: the class name in place of `{}` or `{c}`, braces in the name left alone."""
    return template.replace("{c}", "{}").replace("{}", name)
