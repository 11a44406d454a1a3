"""From captions and names to token ids, the same in the trainer, in the export and in `mtv-eval`. No torch here.

Canonicalise (lower-case, ASCII punctuation stripped, as SigLIP), encode, cut so that EOS stays last, pad with EOS to a
fixed length. `mini-bpe-4096` is built in; anything else is a directory or a hub name, from the local cache unless
downloading was asked for. There is no fallback from one to the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtv.atomic import atomic_write_json
from mtv.encoders.cleaning import clean
from mtv.encoders.hf_source import read_json
from mtv.errors import CheckpointError, UsageError
from mtv.model import mini_bpe

if TYPE_CHECKING:
    from mtv.encoders.vocabularies import Vocabulary

EOS_ID = 1
"""End and padding at once, in every vocabulary that the text tower takes."""
CONFIG_FILE = "tokenizer_config.json"


class Tokenizer:
    """Strings to ids of a fixed length; picklable, for workers.

    Args:
        name: what was asked for: `mini-bpe-4096`, a directory or a hub name.
        vocabulary: the bare tokenizer.
        positions: length of every row.
        download: whether `save` may fetch files of a hub tokenizer.
    """

    def __init__(self, name: str, vocabulary: Vocabulary, positions: int, *, download: bool = False) -> None:
        if positions < 2:
            raise UsageError(f"text.positions must be at least 2, got {positions}")
        self.name = name
        self.positions = positions
        self._vocabulary = vocabulary
        self._download = download

    @property
    def vocab_size(self) -> int:
        """Number of ids; the token table has at least as many rows."""
        return self._vocabulary.size

    @property
    def fingerprint(self) -> str:
        """Kind, size and hash of the vocabulary: equal wherever the same ids come out."""
        return self._vocabulary.name

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Ids n,positions: words, EOS, and EOS up to the end."""
        rows = np.full((len(texts), self.positions), EOS_ID, dtype=np.int64)
        bare = self._vocabulary.encode([clean(text, "canonicalize") for text in texts])
        for row, ids in zip(rows, bare, strict=True):
            kept = ids[: self.positions - 1]
            row[: len(kept)] = kept
        return rows

    def save(self, directory: Path) -> None:
        """Write the files that `AutoTokenizer.from_pretrained(directory)` reads.

        Raises:
            CheckpointError: the tokenizer's own files are gone.
            CacheError: the directory cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if self.name == mini_bpe.NAME:
            atomic_write_json(directory / "tokenizer.json", mini_bpe.tokenizer_json())
            config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": mini_bpe.UNK}
            config |= {"clean_up_tokenization_spaces": False, "eos_token": mini_bpe.EOS, "pad_token": mini_bpe.EOS}
        else:
            _transformers(self.name, download=self._download).save_pretrained(directory)
            config = read_json(directory / CONFIG_FILE)
        # With a mask among its inputs, current processors would hide the padding that the tower attends to.
        config |= {
            "model_input_names": ["input_ids"],
            "model_max_length": self.positions,
            "padding_side": "right",
            "truncation_side": "right",
        }
        atomic_write_json(directory / CONFIG_FILE, config)


def load_tokenizer(name: str, *, positions: int, download: bool = False) -> Tokenizer:
    """The tokenizer called `name`.

    Args:
        name: `mini-bpe-4096`, a directory with tokenizer files, or `org/name` of a hub.
        positions: tokens per text.
        download: allow fetching from the hub; otherwise only the local cache is read.

    Raises:
        CheckpointError: nothing there under that name.
        UsageError: its texts do not end with id 1, or `positions` leaves no room.
    """
    from mtv.encoders.vocabularies import FastVocabulary, special_ids, vocabulary_of

    if name == mini_bpe.NAME:
        return Tokenizer(name, FastVocabulary(_mini()), positions)
    tokenizer = _transformers(name, download=download)
    eos = special_ids(tokenizer).get("eos")
    if eos != EOS_ID:
        raise UsageError(
            f"text.tokenizer {name}: its texts end with id {eos}, but the text tower pads and ends with id {EOS_ID}",
            f"Use SigLIP's 32k vocabulary, or the built-in {mini_bpe.NAME}.",
        )
    return Tokenizer(name, vocabulary_of(tokenizer), positions, download=download)


def _transformers(name: str, *, download: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=not download, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as e:
        reason = (str(e) or type(e).__name__).splitlines()[0][:200]
        raise CheckpointError(
            f"text.tokenizer {name}: no usable tokenizer there ({reason})",
            f"Name a directory with its files, allow downloading, or use the built-in {mini_bpe.NAME}.",
        ) from e


def _mini() -> Any:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    backend = Backend.from_str(json.dumps(mini_bpe.tokenizer_json()))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=mini_bpe.EOS, pad_token=mini_bpe.EOS)
