"""The text pipeline apart from any tower: ids, padding, truncation, batches, order; vocabularies against libraries."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from mtv.encoders.families_text import resolve_text
from mtv.encoders.text import TextPipeline, build_pipeline
from mtv.encoders.vocabularies import (
    ClipVocabulary,
    FastVocabulary,
    SentencePieceVocabulary,
    clip_vocabulary,
    special_ids,
    vocabulary_of,
)
from mtv.errors import UsageError

CPU = torch.device("cpu")
TEXTS = [
    "a photo of a cat, 2 dogs & the café's naïve owner!",
    "kite (bird of prey) — 100% é ü ß 日本語 😀",
    "it's we'll they're i'd",
    "supercalifragilisticexpialidocious_underscored__name",
    "",
]


@pytest.fixture(name="clip_vocabulary")
def fixture_clip_vocabulary() -> ClipVocabulary:
    return clip_vocabulary()


@pytest.fixture(scope="module")
def hf_clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' CLIPTokenizer on the vocabulary that open_clip bundles."""
    return hf_clip_tokenizer(tmp_path_factory.mktemp("clip"))


class Recorder:
    """A causal 'tower' in closed form: position-weighted sum of the ids up to the first EOT, plus the batch shapes."""

    def __init__(self, *, reads_padding: bool = False) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.reads_padding = reads_padding

    def __call__(self, ids_BL: Tensor) -> Tensor:
        self.shapes.append((ids_BL.shape[0], ids_BL.shape[1]))
        position_L = torch.arange(1, ids_BL.shape[1] + 1, dtype=torch.float32)
        upto_BL = position_L <= ids_BL.argmax(dim=1, keepdim=True) + 1
        keep_BL = torch.ones_like(upto_BL) if self.reads_padding else upto_BL
        return torch.stack([(ids_BL * keep_BL / 49408 * f(position_L)).sum(1) for f in (torch.sin, torch.cos)], dim=1)


def make(vocabulary: Any, forward: Any, *, family: str = "clip", causal: bool = True, **option: Any) -> TextPipeline:
    rows = {"clip": 49408, "siglip": 32000, "siglip2": 256000}[family]
    fields, _ = resolve_text(option=option, config={}, family=family, vocab_size=rows)
    return build_pipeline(
        fields,
        vocabulary,
        forward,
        embed_dim=2,
        embedding_rows=rows,
        causal=causal,
        trim=option.get("trim"),
        device=CPU,
    )


def test_clip_ids_equal_open_clip_on_the_imagenet_prompts(clip_vocabulary: ClipVocabulary) -> None:
    """1,000 names, each under one of the 80 templates, and awkward texts: same ids, padding and truncation."""
    prompts = [OPENAI_IMAGENET_TEMPLATES[i % 80](name) for i, name in enumerate(IMAGENET_CLASSNAMES)]
    texts = [*prompts, *TEXTS, "long " * 200]
    pipeline = make(clip_vocabulary, Recorder())
    assert torch.equal(pipeline.tokenize(texts), SimpleTokenizer()(texts))


@settings(deadline=None)
@given(st.text(max_size=60))
def test_clip_ids_equal_open_clip_on_any_text(text: str) -> None:
    assert torch.equal(make(clip_vocabulary(), Recorder(), trim=False).tokenize([text]), _REFERENCE([text]))


_REFERENCE = SimpleTokenizer()


def test_z1_longest_prompt_has_22_tokens(clip_vocabulary: ClipVocabulary) -> None:
    """The protocol's number for the longest of the 80,000 prompts, start and end included."""
    text = "a jpeg corrupted photo of a Mexican hairless dog (xoloitzcuintli)."
    ids = make(clip_vocabulary, Recorder()).tokenize([text])[0]
    assert int(ids.argmax()) + 1 == 22


def test_hf_clip_tokenizer_gives_the_same_ids(clip_vocabulary: ClipVocabulary, hf_clip: Any) -> None:
    ours, theirs = make(clip_vocabulary, Recorder()), make(vocabulary_of(hf_clip), Recorder())
    assert torch.equal(ours.tokenize(TEXTS), theirs.tokenize(TEXTS))


def test_library_lowercasing_is_off(hf_clip: Any) -> None:
    """The record says cleaning=none, so upper case must reach the vocabulary, whichever library holds it."""
    fast = FastVocabulary(hf_clip)
    assert fast.encode(["A Cat"]) != fast.encode(["a cat"])
    assert fast.encode(["a cat"]) == [hf_clip("A Cat", add_special_tokens=False)["input_ids"]]


def test_special_spellings_in_a_text_are_text(hf_clip: Any) -> None:
    fast = FastVocabulary(hf_clip)
    assert 49407 not in fast.encode(["a <|endoftext|> b"])[0]


def test_special_ids_are_found_by_trying(hf_clip: Any) -> None:
    assert special_ids(hf_clip) == {"bos": 49406, "eos": 49407, "pad": 49407}


def hf_clip_tokenizer(folder: Path) -> Any:
    """transformers' CLIPTokenizer on the vocabulary that open_clip bundles."""
    from transformers import CLIPTokenizer

    reference = SimpleTokenizer()
    vocab = dict(reference.encoder)
    for ours, theirs in (("<start_of_text>", "<|startoftext|>"), ("<end_of_text>", "<|endoftext|>")):
        vocab[theirs] = vocab.pop(ours)
    merges = [" ".join(pair) for pair in reference.bpe_ranks]
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def test_order_duplicates_and_uniqueness(clip_vocabulary: ClipVocabulary) -> None:
    """R7: equal cleaned strings are encoded once and get the same bits; the order is the caller's."""
    tower = Recorder()
    pipeline = make(clip_vocabulary, tower)
    tower.shapes.clear()
    texts = ["A dog.\n", "a very long sentence about a cat and a bird", "a  dog.", "cat"]
    out = pipeline.encode(texts, batch_size=256, device=CPU)
    assert sum(rows for rows, _ in tower.shapes) == 3
    assert torch.equal(out[0], out[2])
    alone = torch.cat([pipeline.encode([t], device=CPU) for t in texts])
    torch.testing.assert_close(out, alone, rtol=0, atol=1e-6)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_batches_keep_the_token_budget(clip_vocabulary: ClipVocabulary, batch_size: int, trim: bool) -> None:
    tower = Recorder()
    pipeline = make(clip_vocabulary, tower, trim=trim)
    tower.shapes.clear()
    texts = [f"{'word ' * (i % 11)}{i}" for i in range(50)]
    out = pipeline.encode(texts, batch_size=batch_size, device=CPU)
    assert all(rows * width <= batch_size * 77 for rows, width in tower.shapes)
    assert all((width < 77) == trim for _, width in tower.shapes)
    assert sum(rows for rows, _ in tower.shapes) == 50
    full = make(clip_vocabulary, Recorder(), trim=False).encode(texts, batch_size=50, device=CPU)
    torch.testing.assert_close(out, full, rtol=0, atol=1e-6)


def test_truncation_keeps_eos_last_and_is_counted(clip_vocabulary: ClipVocabulary) -> None:
    pipeline = make(clip_vocabulary, Recorder(), length=10)
    fits, cut = " ".join("abcdefgh"), " ".join("abcdefghi")
    ids = pipeline.tokenize([fits, cut, "x"])
    assert ids.shape == (3, 10)
    assert ids[:2, -1].tolist() == [49407, 49407]
    assert torch.equal(ids[0], ids[1])
    assert ids[2].tolist() == [49406, *clip_vocabulary.encode(["x"])[0], 49407, *[0] * 7]
    assert pipeline.truncated_share([fits, cut, "x", cut]) == 0.5
    assert pipeline.truncated_share([]) == 0.0


def test_a_tower_that_reads_padding_switches_trimming_off(
    clip_vocabulary: ClipVocabulary, caplog: pytest.LogCaptureFixture
) -> None:
    assert make(clip_vocabulary, Recorder()).record.trim
    with caplog.at_level(logging.WARNING):
        pipeline = make(clip_vocabulary, Recorder(reads_padding=True), pad=7)
    assert not pipeline.record.trim
    assert pipeline.record.causal
    assert "not trimmed" in caplog.text


def test_trimming_is_refused_where_the_structure_forbids_it(clip_vocabulary: ClipVocabulary) -> None:
    assert not make(clip_vocabulary, Recorder(), causal=False).record.trim
    with pytest.raises(UsageError, match=r"text\.trim=true"):
        make(clip_vocabulary, Recorder(), causal=False, trim=True)


def test_a_vocabulary_larger_than_the_tower_is_refused(clip_vocabulary: ClipVocabulary) -> None:
    with pytest.raises(UsageError, match="49408 ids, the text tower only 32000"):
        make(clip_vocabulary, Recorder(), family="siglip")


def test_no_strings_give_no_rows(clip_vocabulary: ClipVocabulary) -> None:
    assert make(clip_vocabulary, Recorder()).encode([], device=CPU).shape == (0, 2)
    with pytest.raises(UsageError, match="batch_size"):
        make(clip_vocabulary, Recorder()).encode(["a"], batch_size=0, device=CPU)


def test_sentencepiece_equals_siglip_tokenizer_on_clean_text(real_data: Path) -> None:
    """Stand-in: T5's vocabulary. The wrapper deletes `_` and punctuation; on cleaned text nothing differs."""
    from transformers import SiglipTokenizer

    file = real_data / "text" / "t5" / "spiece.model"
    theirs, ours = SiglipTokenizer(str(file)), SentencePieceVocabulary(file)
    pipeline = make(ours, Recorder(), family="siglip", causal=False)
    texts = [OPENAI_IMAGENET_TEMPLATES[i % 80](name) for i, name in enumerate(IMAGENET_CLASSNAMES[:200])] + TEXTS[:4]
    cleaned = pipeline.clean(texts, "prompt")
    expected = theirs(cleaned, padding="max_length", max_length=64, truncation=True)["input_ids"]
    assert pipeline.tokenize(texts).tolist() == expected
    # Without cleaning first, the wrapper glues what the protocol separates.
    assert theirs("sea_waves")["input_ids"][:-1] == ours.encode(["seawaves"])[0]
    assert pipeline.tokenize(["sea_waves"])[0, :-1].tolist() != theirs("sea_waves", padding="max_length")["input_ids"]


def test_vocabulary_names_carry_no_path_and_agree_between_forms(real_data: Path, tmp_path: Path) -> None:
    from transformers import T5TokenizerFast

    file = real_data / "text" / "t5" / "spiece.model"
    shutil.copy(file, tmp_path)
    fast = vocabulary_of(T5TokenizerFast.from_pretrained(tmp_path, extra_ids=0))
    plain = SentencePieceVocabulary(file)
    assert plain.name == fast.name
    assert plain.name.startswith("unigram-32000#")
    assert fast.encode(["a cat on sea waves"]) == plain.encode(["a cat on sea waves"])
