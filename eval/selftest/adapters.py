"""Adapters: text cleaning, token ids, padding, image policy and activation per family, against known answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mtv.encoders.build import activation_of
from mtv.encoders.cleaning import clean
from mtv.encoders.families_text import resolve_text
from mtv.encoders.policy import resolve_image
from mtv.encoders.preprocess import ImageTransform
from mtv.encoders.records import ImageRecord, TextRecord
from mtv.encoders.text import TextPipeline
from mtv.encoders.vocabularies import ClipVocabulary
from mtv.eval.selftest.checks import Check, differing
from mtv.eval.selftest.session import Session

CANONICAL = {
    "kite (bird of prey)": "kite bird of prey",
    "black-footed": "blackfooted",
    "sea_waves": "sea waves",
    "A  Photo,\nof": "a photo of",
}
"""Test Z2."""
LONGEST = "a jpeg corrupted photo of a Mexican hairless dog (xoloitzcuintli)."
"""The longest of ImageNet's 80,000 prompts in CLIP tokens (test Z1)."""
SENTENCES = ("a cat", "Two people, one dog's ball &amp; a kite.", "7 8 9 10", "naïve café — déjà vu", "", LONGEST)


def checks(session: Session) -> list[Check]:
    """Text, then pictures, then activations."""
    del session  # these need no data
    twice = ("canonicalize", "canonicalize")
    return [
        _check("canonicalize (Z2)", list(CANONICAL.values()), lambda: [_canonical(t) for t in CANONICAL]),
        _check(
            "canonicalize twice (Z2)", list(CANONICAL.values()), lambda: [_canonical(_canonical(t)) for t in CANONICAL]
        ),
        _check("clean: clip, lower, none", ("<a cat>", "a cat.", "A Cat."), _cleanings),
        _check("text policy clip: length bos eos pad", (77, 49406, 49407, 0), lambda: _policy("clip", 49408)[:4]),
        _check(
            "text policy siglip: length bos eos pad cleanings",
            (64, None, 1, 1, *twice),
            lambda: _policy("siglip", 32000),
        ),
        _check(
            "text policy siglip2 (Z9)",
            (64, None, 1, 0, "canonicalize", "lower"),
            lambda: _policy("siglip2", 256000),
        ),
        _check(
            "CLIP ids of 'a photo of a cat'",
            (49406, 320, 1125, 539, 320, 2368, 49407),
            lambda: tuple(_clip_ids("A photo of  a cat")[:7].tolist()),
        ),
        _check("CLIP ids: length, padding sum", (77, 0), lambda: (len(_clip_ids("a")), int(_clip_ids("a")[3:].sum()))),
        _check("longest prompt, CLIP tokens (Z1)", 22, lambda: int((_clip_ids(LONGEST) > 0).sum())),
        _check("CLIP ids as open_clip's tokenizer: 6 texts", "0 of 462 differ", _against_open_clip),
        _check("siglip picture: white columns, mean (Z10)", (28, 28, -0.5), _siglip_picture),
        _check("clip picture: white columns, means of black (Z10)", (0, 0, -1.79, -1.75, -1.48), _clip_picture),
        _check("activation of QuickGELU, GELU, tanh GELU", ("quick_gelu", "gelu", "gelu_tanh"), _activations),
    ]


def _check(name: str, expected: Any, measure: Callable[[], Any]) -> Check:
    return Check(layer="adapter", name=name, expected=expected, measure=measure)


def _canonical(text: str) -> str:
    return clean(text, "canonicalize")


def _cleanings() -> tuple[str, ...]:
    return clean("&lt;A  Cat&amp;gt;", "clip"), clean(" A  Cat. ", "lower"), clean(" A  Cat. ", "none")


def _policy(family: str, vocab_size: int) -> tuple[Any, ...]:
    fields, _ = resolve_text(option={}, family=family, vocab_size=vocab_size)
    return tuple(fields[k] for k in ("length", "bos", "eos", "pad", "cleaning", "caption_cleaning"))


@functools.cache
def _clip_vocabulary() -> ClipVocabulary:
    return ClipVocabulary()


def _clip_ids(text: str) -> Tensor:
    fields, _ = resolve_text(option={}, family="clip", vocab_size=49408)
    vocabulary = _clip_vocabulary()
    record = TextRecord(**fields, tokenizer=vocabulary.name, causal=True, trim=False)
    return TextPipeline(record, vocabulary, lambda ids: ids, 1).tokenize([text])[0]


def _against_open_clip() -> str:
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()(list(SENTENCES), context_length=77)
    ours = torch.stack([_clip_ids(text) for text in SENTENCES])
    return differing(theirs.flatten().tolist(), ours.flatten().tolist())


def _image_record(family: str) -> ImageRecord:
    record, _ = resolve_image(
        option={}, config=None, config_name="", tag=None, tag_name="", family=family, native_size=224
    )
    return record


def _prepared(family: str) -> tuple[tuple[int, int], Tensor]:
    """White columns left and right, and the normalised tensor, of a black 640 x 480 picture with white 80-px sides."""
    pixels_HW3 = np.zeros((480, 640, 3), dtype=np.uint8)
    pixels_HW3[:, :80] = pixels_HW3[:, -80:] = 255
    record = _image_record(family)
    image_3HW = ImageTransform(record)(Image.fromarray(pixels_HW3))
    white_W = image_3HW[0, 112] > 127
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (record.mean, record.std))
    return (int(white_W[:112].sum()), int(white_W[112:].sum())), (image_3HW / 255 - mean) / std


def _siglip_picture() -> tuple[int, int, float]:
    """Squashed: the sides keep their share of a quarter, so the mean of -1 and 1 is -0.5, rounded."""
    sides, x_3HW = _prepared("siglip")
    return *sides, round(float(x_3HW.mean()), 2)


def _clip_picture() -> tuple[float, ...]:
    """Cropped: the sides are gone, and black is -mean / std."""
    sides, x_3HW = _prepared("clip")
    return *sides, *(round(float(v), 2) for v in x_3HW[:, :, 20:-20].mean(dim=(1, 2)))


def _activations() -> tuple[str, ...]:
    from open_clip.transformer import QuickGELU

    return tuple(activation_of(m) for m in (QuickGELU(), nn.GELU(), nn.GELU(approximate="tanh")))
