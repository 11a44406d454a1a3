"""Tokenizers reduced to what a model sees: strings in, ids out, without special ids, padding, truncation or cleaning.

Libraries differ in exactly those four (protocol table 4.3), so they are taken off here and put back, by the text
record, in `mtv.encoders.text`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mtv.encoders.hf_quiet import quiet
from mtv.errors import CheckpointError
from mtv.hashing import sha256_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Vocabulary(Protocol):
    """A bare tokenizer."""

    name: str
    """Kind and size with a hash of the pieces, such as `unigram-32000#1f0c99aa`; never a path."""
    size: int
    """Number of ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added and nothing cut."""
        ...


class ClipVocabulary:
    """CLIP's byte BPE from the file that open_clip bundles; equal to `open_clip.SimpleTokenizer` on cleaned text.

    A cache per word makes it several times faster than the library's loop, which joins and splits strings per text.
    """

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._bpe = SimpleTokenizer()
        self._words: dict[str, tuple[int, ...]] = {}
        self.size = len(self._bpe.encoder)
        self.name = _name("clip-bpe", self.size, list(self._bpe.encoder))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added and nothing cut."""
        return [[i for word in self._bpe.pat.findall(text) for i in self._word(word)] for text in texts]

    def _word(self, word: str) -> tuple[int, ...]:
        ids = self._words.get(word)
        if ids is None:
            symbols = "".join(self._bpe.byte_encoder[b] for b in word.encode("utf-8"))
            ids = tuple(self._bpe.encoder[piece] for piece in self._bpe.bpe(symbols).split(" "))
            self._words[word] = ids
        return ids


@functools.cache
def clip_vocabulary() -> ClipVocabulary:
    """The one `ClipVocabulary` of this process: it takes a quarter of a second to build and never changes."""
    return ClipVocabulary()


class FastVocabulary:
    """A `tokenizers` model taken out of a transformers tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers import Tokenizer

        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        spec["normalizer"] = _without_lowercase(spec["normalizer"])
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        self._tokenizer = Tokenizer.from_str(json.dumps(spec))
        # A caption that spells "</s>" is text, not the end of the sequence.
        self._tokenizer.encode_special_tokens = True
        vocab: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=False)
        pieces: list[Any] = sorted(vocab, key=lambda piece: vocab[piece])
        self.size = max(vocab.values()) + 1
        self.name = _name(spec["model"]["type"].lower(), len(vocab), pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added and nothing cut."""
        return [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


class SentencePieceVocabulary:
    """A sentencepiece model file, read without the wrapper that deletes punctuation and underscores."""

    def __init__(self, file: str | Path) -> None:
        from sentencepiece import SentencePieceProcessor
        from sentencepiece.sentencepiece_model_pb2 import ModelProto

        self._processor = SentencePieceProcessor(model_file=str(file))
        proto = ModelProto.FromString(self._processor.serialized_model_proto())
        kind = ModelProto.TrainerSpec if hasattr(ModelProto, "TrainerSpec") else type(proto.trainer_spec)
        self.size = self._processor.get_piece_size()
        model_type = kind.ModelType.Name(proto.trainer_spec.model_type).lower()
        self.name = _name(model_type, self.size, [p.piece for p in proto.pieces])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added and nothing cut."""
        return [list(ids) for ids in self._processor.encode(list(texts), out_type=int)]


def load_tokenizer(
    source: str, *, download: bool, revision: str | None = None
) -> tuple[Vocabulary, dict[str, int | None]]:
    """Vocabulary and own special ids of a tokenizer directory or hub id.

    Args:
        source: directory with tokenizer files, or `org/name` in the local hub cache.
        download: fetch from the hub when not cached.
        revision: hub revision.

    Returns:
        The bare vocabulary, and `bos`, `eos`, `pad` as far as the files define them.

    Raises:
        CheckpointError: no tokenizer there; says how to provide one.
    """
    from transformers import AutoTokenizer

    try:
        with quiet(bars=download):
            tokenizer = AutoTokenizer.from_pretrained(
                source, local_files_only=not download, revision=revision, trust_remote_code=False
            )
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as e:
        where = f"directory {Path(source).name}" if Path(source).is_dir() else f"hub id {source}"
        reason = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        raise CheckpointError(
            f"no usable tokenizer in {where}: {reason}",
            "Put its files (tokenizer.json or spiece.model, tokenizer_config.json) beside the weights, name a "
            "directory with ?tokenizer=DIR, allow fetching with --download, or do without text with ?tokenizer=none.",
        ) from e
    return vocabulary_of(tokenizer), special_ids(tokenizer)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The bare vocabulary inside a transformers tokenizer.

    Raises:
        CheckpointError: neither a `tokenizers` nor a sentencepiece model inside.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        return FastVocabulary(tokenizer)
    file = getattr(tokenizer, "vocab_file", None)
    if getattr(tokenizer, "sp_model", None) is not None and file:
        return SentencePieceVocabulary(file)
    raise CheckpointError(
        f"tokenizer {type(tokenizer).__name__} is neither a tokenizers nor a sentencepiece model",
        "Save it as tokenizer.json.",
    )


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """What the tokenizer itself puts around a text (`bos`, `eos`) and behind it (`pad`), found by trying it."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    ids: dict[str, int | None] = {}
    if tokenizer.pad_token_id is not None:
        ids["pad"] = tokenizer.pad_token_id
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            before, after = full[:start], full[start + len(bare) :]
            if len(before) <= 1:
                ids["bos"] = before[0] if before else None
            if len(after) == 1:
                ids["eos"] = after[0]
            break
    return ids


def _without_lowercase(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if normalizer is None or normalizer["type"] == "Lowercase":
        return None
    if normalizer["type"] != "Sequence":
        return normalizer
    kept = [n for n in map(_without_lowercase, normalizer["normalizers"]) if n is not None]
    return {**normalizer, "normalizers": kept} if kept else None


def _name(kind: str, size: int, pieces: list[Any]) -> str:
    return f"{kind}-{size}#{sha256_json(pieces)[:8]}"
