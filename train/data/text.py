"""Strings to tokens, once per string, and names to ids.

Notable choice: the id of a region name is a hash of its tokens, not of its spelling, so that two names which the text
tower cannot tell apart (`Mug`, `mug`) are one name for the grounding loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np

MAX_KEPT = 1 << 16
"""Strings whose tokens a `TokenCache` keeps: all 4,585 tags, all captions of a small corpus, 20 MB at worst."""


class Tokenizer(Protocol):
    """Text to a fixed number of token ids."""

    def encode(self, texts: list[str], /) -> np.ndarray:
        """int64 [n, positions]: canonicalised, cut and padded; equal strings give equal rows."""
        ...


class TokenCache:
    """A tokenizer that encodes every string once.

    Args:
        tokenizer: the tokenizer; called with the new strings of a batch together.
        kept: strings whose tokens are kept; later ones are encoded each time.
    """

    def __init__(self, tokenizer: Tokenizer, *, kept: int = MAX_KEPT) -> None:
        self.tokenizer = tokenizer
        self.kept = kept
        self._rows: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n, positions], one row per text.

        Args:
            texts: at least one.
        """
        new = [t for t in dict.fromkeys(texts) if t not in self._rows]
        rows = dict(zip(new, self.tokenizer.encode(new), strict=True)) if new else {}
        found = np.stack([self._rows[t] if t in self._rows else rows[t] for t in texts]).astype(np.int64, copy=False)
        for text in new[: max(0, self.kept - len(self._rows))]:
            self._rows[text] = rows[text].astype(np.int32)
        return found


def name_id(tokens_T: np.ndarray) -> int:
    """A stable id of a name from its tokens: 64 bits, never 0, as a signed integer."""
    digest = blake2b(np.ascontiguousarray(tokens_T, dtype="<i8").tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1
