"""From raw strings to text embeddings, the same for every backend.

Clean, tokenise each unique string once, put the special ids on, cut so that EOS stays last, pad on the right, encode.
No attention mask is ever made. Towers that are causal and pool at EOT are fed batches cut to their longest text:
nothing behind EOT reaches their output (protocol 4.4), which is verified on probe strings before it is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtv.encoders.base import TextKind
from mtv.encoders.cleaning import clean
from mtv.encoders.families_text import TextFields
from mtv.encoders.records import TextRecord
from mtv.encoders.vocabularies import Vocabulary
from mtv.errors import UsageError

logger = logging.getLogger(__name__)

NO_TEXT = "none"
"""Value of `?tokenizer=` that leaves the text tower unused, for dense tasks where no tokenizer is at hand."""
TRIM_TOLERANCE = 1e-5
PROBES = (
    "a",
    "a cat.",
    "a photo of a dog.",
    "itap of the large, weird tench in the video game!",
    "two people riding a wave on top of surfboards, with a dog watching them from the beach",
    "7 8 9 10",
    "a jpeg corrupted photo of a mexican hairless dog (xoloitzcuintli).",
    "a busy street corner with a bus, three bicycles, a street lamp and a man who carries a very long ladder " * 4,
)


class TextPipeline:
    """Strings to embeddings under one text record.

    Args:
        record: cleaning, length, special ids, whether to trim.
        vocabulary: the bare tokenizer.
        forward: ids B,L (int64) to embeddings B,D; L is `record.length`, or less when `record.trim`.
        embed_dim: D.
    """

    def __init__(
        self, record: TextRecord, vocabulary: Vocabulary, forward: Callable[[Tensor], Tensor], embed_dim: int
    ) -> None:
        self.record = record
        self.vocabulary = vocabulary
        self.forward = forward
        self.embed_dim = embed_dim
        self._ids: dict[str, list[int]] = {}

    def clean(self, strings: Sequence[str], kind: TextKind) -> list[str]:
        """`strings` as the tokenizer sees them."""
        how = self.record.cleaning if kind == "prompt" else self.record.caption_cleaning
        cleaned = {s: clean(s, how) for s in dict.fromkeys(strings)}
        return [cleaned[s] for s in strings]

    def tokenize(self, strings: Sequence[str], kind: TextKind = "prompt") -> Tensor:
        """Ids of every string, N,length, padded on the right: what an untrimmed forward pass sees."""
        return self._pad(self._encode(self.clean(strings, kind)), self.record.length)

    def truncated_share(self, strings: Sequence[str], kind: TextKind = "prompt") -> float:
        """Share of `strings` that lose words to the context length, 0 to 1."""
        if not strings:
            return 0.0
        room = self._room()
        cut = sum(len(ids) > room for ids in self._bare(self.clean(strings, kind)))
        return cut / len(strings)

    @torch.no_grad()
    def encode(
        self, strings: Sequence[str], *, kind: TextKind = "prompt", batch_size: int = 256, device: torch.device
    ) -> Tensor:
        """Embeddings N,D in float32 on `device`, not normalised, in the order of `strings`.

        Equal cleaned strings are encoded once, so they get equal embeddings.

        Args:
            strings: raw texts.
            kind: which cleaning applies.
            batch_size: texts per pass at full length; shorter ones are packed up to the same number of tokens.
            device: where the tower lives.

        Raises:
            UsageError: `batch_size` below 1.
        """
        if batch_size < 1:
            raise UsageError(f"encode_text: batch_size must be at least 1, got {batch_size}")
        cleaned = self.clean(strings, kind)
        position = {text: i for i, text in enumerate(dict.fromkeys(cleaned))}
        ids = self._encode(list(position))
        out_UD = torch.empty(len(ids), self.embed_dim, device=device)
        for rows, length in self._batches(ids, batch_size):
            batch_BL = self._pad([ids[r] for r in rows], length).to(device)
            out_UD[rows] = self.forward(batch_BL).float()
        return out_UD[[position[text] for text in cleaned]]

    def _batches(self, ids: Sequence[Sequence[int]], batch_size: int) -> Iterator[tuple[list[int], int]]:
        """Rows and width of each pass; longest texts first, so that running out of memory shows at once."""
        full = self.record.length
        order = sorted(range(len(ids)), key=lambda r: -len(ids[r])) if self.record.trim else list(range(len(ids)))
        start = 0
        while start < len(order):
            width = len(ids[order[start]]) if self.record.trim else full
            count = max(1, batch_size * full // width)
            yield order[start : start + count], width
            start += count

    def _bare(self, cleaned: Sequence[str]) -> list[list[int]]:
        new = [text for text in dict.fromkeys(cleaned) if text not in self._ids]
        self._ids.update(zip(new, self.vocabulary.encode(new), strict=True))
        return [self._ids[text] for text in cleaned]

    def _room(self) -> int:
        return self.record.length - (1 if self.record.bos is None else 2)

    def _encode(self, cleaned: Sequence[str]) -> list[list[int]]:
        start = [] if self.record.bos is None else [self.record.bos]
        room, end = self._room(), [self.record.eos]
        return [start + ids[:room] + end for ids in self._bare(cleaned)]

    def _pad(self, ids: Sequence[Sequence[int]], length: int) -> Tensor:
        out_NL = torch.full((len(ids), length), self.record.pad, dtype=torch.int64)
        for row, one in enumerate(ids):
            out_NL[row, : len(one)] = torch.tensor(one, dtype=torch.int64)
        return out_NL


def build_pipeline(
    fields: TextFields,
    vocabulary: Vocabulary,
    forward: Callable[[Tensor], Tensor],
    *,
    embed_dim: int,
    embedding_rows: int,
    causal: bool,
    trim: bool | None,
    device: torch.device,
) -> TextPipeline:
    """The pipeline of a tower, with trimming switched on where structure and probes allow it.

    Args:
        fields: resolved text rules.
        vocabulary: bare tokenizer.
        forward: as for `TextPipeline`.
        embed_dim: D.
        embedding_rows: rows of the token embedding.
        causal: the structure allows trimming (causal attention, positions from 0, pooling at EOT).
        trim: explicit wish; None leaves the decision to structure and probes.
        device: where the tower lives.

    Raises:
        UsageError: the vocabulary has more ids than the tower, or trimming was asked for where it would be wrong.
    """
    if vocabulary.size > embedding_rows:
        raise UsageError(
            f"tokenizer {vocabulary.name} has {vocabulary.size} ids, the text tower only {embedding_rows}",
            "Name the tokenizer that the model was trained with: ?tokenizer=DIR.",
        )
    if trim and not causal:
        raise UsageError(
            "text.trim=true: this text tower is not causal with pooling at EOT, so a cut batch is not exact"
        )
    record = TextRecord(**fields, tokenizer=vocabulary.name, causal=causal, trim=False)
    pipeline = TextPipeline(record, vocabulary, forward, embed_dim)
    if causal and trim is not False:
        difference = trim_difference(pipeline, device)
        if difference <= TRIM_TOLERANCE:
            pipeline.record = replace(record, trim=True)
        else:
            logger.warning("text batches are not trimmed: probe strings differ by %.1e (limit 1e-5)", difference)
    return pipeline


def trim_difference(pipeline: TextPipeline, device: torch.device) -> float:
    """Largest difference of the normalised embeddings of 8 probe strings, encoded at full length and cut."""

    def normalised(trim: bool) -> Tensor:
        probe = TextPipeline(
            replace(pipeline.record, trim=trim), pipeline.vocabulary, pipeline.forward, pipeline.embed_dim
        )
        # One text per pass: each is then cut to its own length.
        out_ND = torch.cat([probe.encode([s], batch_size=1, device=device) for s in PROBES])
        return torch.nn.functional.normalize(out_ND, dim=-1)

    return float((normalised(True) - normalised(False)).abs().max())
