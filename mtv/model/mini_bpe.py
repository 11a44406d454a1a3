"""The built-in vocabulary `mini-bpe-4096`: CLIP's byte pairs as open_clip bundles them, cut to the first 4,096 merges.

A `tokenizer.json` is made of it, and both the trainer and transformers read that file. Layout of the ids: 0 is a
reserved `<unk>` that no text produces, 1 is `</s>` (end and padding at once, as in SigLIP's vocabulary), then 256 byte
symbols, the same with an end-of-word mark, and the merges in their order. No torch here.
"""

from __future__ import annotations

import functools
import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MERGES = 4096
NAME = f"mini-bpe-{MERGES}"
UNK, EOS = "<unk>", "</s>"
EOS_ID = 1
_END = "</w>"
# What `canonicalize` deletes: ASCII punctuation but `_`, which becomes a space.
_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^`{|}~]"
_WORDS = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@functools.cache
def tokenizer_json() -> dict[str, Any]:
    """The content of `tokenizer.json`: the same ids for a text whether it was canonicalised before or not."""
    merges = _merges()
    symbols = _byte_symbols()
    pieces = [UNK, EOS, *symbols, *(s + _END for s in symbols), *("".join(m) for m in merges)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(0, UNK), _special(EOS_ID, EOS)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
                {"type": "Replace", "pattern": {"Regex": _PUNCTUATION}, "content": ""},
                {"type": "Lowercase"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Strip", "strip_left": True, "strip_right": True},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": EOS, "type_id": 0}}],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
                {"SpecialToken": {"id": EOS, "type_id": 0}},
            ],
            "special_tokens": {EOS: {"id": EOS, "ids": [EOS_ID], "tokens": [EOS]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNK,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": _END,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [list(m) for m in merges],
        },
    }


def _special(index: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, **flags, "special": True}


def _merges() -> list[tuple[str, str]]:
    # Found without importing open_clip, which imports torch.
    package = find_spec("open_clip")
    assert package is not None, "open_clip_torch is a dependency"
    assert package.origin is not None
    file = Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        next(lines)
        pairs = [next(lines).split() for _ in range(MERGES)]
    return [(left, right) for left, right in pairs]


def _byte_symbols() -> list[str]:
    """One printable character per byte, in CLIP's order: bytes that print stand for themselves and come first."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printing)]
    return [chr(b) for b in printing] + [chr(256 + i) for i in range(len(others))]
