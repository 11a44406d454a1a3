"""The built-in vocabulary and SigLIP-like ones: the same ids from the trainer, transformers and `mtv-eval`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from model_world import TEXTS, mini
from open_clip.tokenizer import SimpleTokenizer

from mtv.encoders.cleaning import clean
from mtv.encoders.vocabularies import load_tokenizer as load_for_eval
from mtv.errors import CheckpointError, UsageError
from mtv.model.config import MINI_VOCABULARY
from mtv.model.mini_bpe import NAME, tokenizer_json
from mtv.model.tokenizer import load_tokenizer

ALPHABET = st.characters(codec="latin-1", exclude_categories=["Cc"], exclude_characters="&\xa0\xad\xb5\xdf")
SENTENCES = st.lists(st.text(ALPHABET, max_size=40), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    mini().save(folder)
    return folder


@pytest.fixture(scope="module")
def library(saved: Path) -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(saved)


def test_layout() -> None:
    vocabulary = tokenizer_json()["model"]["vocab"]
    assert len(vocabulary) == MINI_VOCABULARY == mini().vocab_size
    assert (vocabulary["<unk>"], vocabulary["</s>"], vocabulary["!"]) == (0, 1, 2)
    assert sorted(vocabulary.values()) == list(range(MINI_VOCABULARY))
    # CLIP's own ids begin with the bytes, ours two later; merges keep their order
    theirs = SimpleTokenizer().encoder
    kept = [p for p, i in theirs.items() if i < MINI_VOCABULARY - 2]
    assert all(vocabulary[p] == theirs[p] + 2 for p in kept)
    assert len(kept) == MINI_VOCABULARY - 2


def test_ids_are_those_of_clip_with_fewer_merges() -> None:
    """CLIP's own algorithm with its table of ranks cut."""
    reference = SimpleTokenizer(clean="canonicalize")
    reference.bpe_ranks = {pair: rank for pair, rank in reference.bpe_ranks.items() if rank < 4096}
    for text in (*TEXTS, "it is 12 o'clock; don't!", "\u00e9\u00e8 \u72ac \U0001f600 end"):
        expected = [i + 2 for i in reference.encode(text)][:15]
        row = mini().encode([text])[0].tolist()
        assert row == expected + [1] * (16 - len(expected))


def test_fixed_length_ends_with_eos() -> None:
    rows = mini().encode([*TEXTS, "word " * 100])
    assert rows.shape == (len(TEXTS) + 1, 16)
    assert rows.dtype == np.int64
    assert (rows[:, -1] == 1).all()
    assert (rows[2] == 1).all()
    assert (rows[-1, :15] != 1).all()
    assert not (rows == 0).any()
    assert mini().encode([]).shape == (0, 16)
    assert (mini().encode(["A  Red_chair."]) == mini().encode(["a red chair"])).all()
    assert mini(64).encode(TEXTS).shape == (len(TEXTS), 64)
    # text that spells the end of the sequence is text
    assert mini().encode(["</s>"])[0, 0] == mini().encode(["s"])[0, 0] != 1


def ids_of(library: transformers.PreTrainedTokenizerBase, texts: list[str]) -> np.ndarray:
    out = library(texts, padding="max_length", truncation=True, return_tensors="np")
    assert list(out) == ["input_ids"], "a mask would hide the padding"
    return np.asarray(out["input_ids"])


def test_transformers_gives_the_same_ids(library: transformers.PreTrainedTokenizerBase) -> None:
    assert (library.pad_token_id, library.eos_token_id, library.model_max_length) == (1, 1, 16)
    texts = [t.replace("&", "and") for t in TEXTS]
    assert (ids_of(library, texts) == mini().encode(texts)).all()


@settings(max_examples=60, deadline=None)
@given(texts=SENTENCES)
def test_transformers_gives_the_same_ids_for_any_latin_text(texts: list[str], saved: Path) -> None:
    library = _cached(saved)
    cleaned = [clean(t, "canonicalize") for t in texts]
    assert (ids_of(library, cleaned) == mini().encode(texts)).all()
    # without ftfy, transformers agrees on every text that needs no repair
    whole = [t for t, c in zip(texts, cleaned, strict=True) if _needs_no_repair(t)]
    if whole:
        assert (ids_of(library, whole) == mini().encode(whole)).all()


def _needs_no_repair(text: str) -> bool:
    import ftfy

    return ftfy.fix_text(text) == text


_LIBRARY: dict[Path, transformers.PreTrainedTokenizerBase] = {}


def _cached(saved: Path) -> transformers.PreTrainedTokenizerBase:
    if saved not in _LIBRARY:
        _LIBRARY[saved] = transformers.AutoTokenizer.from_pretrained(saved)
    return _LIBRARY[saved]


def test_mtv_eval_gives_the_same_ids(saved: Path) -> None:
    vocabulary, special = load_for_eval(str(saved), download=False)
    assert special == {"pad": 1, "bos": None, "eos": 1}
    assert vocabulary.name == mini().fingerprint
    rows = vocabulary.encode([clean(t, "canonicalize") for t in TEXTS])
    for ids, row in zip(rows, mini().encode(TEXTS), strict=True):
        assert [*ids[:15], *[1] * 16][:16] == row.tolist()


def test_a_saved_tokenizer_loads_and_saves_again(saved: Path, tmp_path: Path) -> None:
    again = load_tokenizer(str(saved), positions=16)
    assert again.fingerprint == mini().fingerprint
    assert (again.encode(TEXTS) == mini().encode(TEXTS)).all()
    again.save(tmp_path)
    third = load_tokenizer(str(tmp_path), positions=16)
    assert (third.encode(TEXTS) == mini().encode(TEXTS)).all()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["model_input_names"] == ["input_ids"]
    assert config["padding_side"] == "right"


def test_workers_get_an_equal_copy() -> None:
    copy = pickle.loads(pickle.dumps(mini()))
    assert (copy.encode(TEXTS) == mini().encode(TEXTS)).all()


def test_a_siglip_tokenizer_from_a_directory(real_data: Path, tmp_path: Path) -> None:
    """T5's sentencepiece model stands in for SigLIP's: same class, size and special ids."""
    folder = tmp_path / "siglip"
    transformers.SiglipTokenizer(str(real_data / "text" / "t5" / "spiece.model")).save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder), positions=64)
    assert tokenizer.vocab_size == 32_000
    texts = ["A photo of a cat", "two dogs, running", ""]
    ids = tokenizer.encode(texts)
    library = transformers.AutoTokenizer.from_pretrained(folder)
    expected = library([t.replace(",", "") for t in texts], padding="max_length", truncation=True, max_length=64)
    assert ids.tolist() == expected["input_ids"]
    exported = tmp_path / "export"
    tokenizer.save(exported)
    assert (load_tokenizer(str(exported), positions=64).encode(texts) == ids).all()
    config = json.loads((exported / "tokenizer_config.json").read_text())
    assert (config["model_input_names"], config["model_max_length"]) == (["input_ids"], 64)


def test_nothing_is_silently_replaced(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"text\.tokenizer nobody/nothing: no usable tokenizer"):
        load_tokenizer("nobody/nothing", positions=16)
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        load_tokenizer(str(tmp_path), positions=16)
    with pytest.raises(UsageError, match=r"text\.positions must be at least 2, got 1"):
        load_tokenizer(NAME, positions=1)
    backend = transformers.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 2, "a</w>": 3}, merges=[])
    backend.save_pretrained(tmp_path / "clip")
    with pytest.raises(UsageError, match="its texts end with id 2, but the text tower pads and ends with id 1"):
        load_tokenizer(str(tmp_path / "clip"), positions=16)
