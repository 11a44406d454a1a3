"""Z7 through open_clip: exact trimming, on the real ViT-B/32 and decided from all 144 configurations."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from mtv.encoders import load
from mtv.encoders.open_clip_backend import build_model
from mtv.encoders.open_clip_text import short_pass, why_not_trimmed
from mtv.encoders.spec import parse_spec
from mtv.encoders.text import PROBES
from mtv.errors import UsageError

TEXTS = [*PROBES, "a photo of a cat", "A PHOTO  of a cat", "", "x " * 100]


@pytest.fixture(scope="module")
def vit_b_32() -> Iterator[Any]:
    """The real text tower; the image tower takes no part and is made small."""
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"layers": 1, "width": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", config)
        yield load("open_clip:ViT-B-32@random?seed=1")


def normalised(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x.float(), dim=-1)


def test_z7_trimmed_equals_full_on_vit_b_32(vit_b_32: Any) -> None:
    """Oracle: open_clip's own encode_text at full length on its own tokenizer."""
    assert vit_b_32.info.text.trim
    assert vit_b_32.info.text.causal
    with torch.no_grad():
        full = vit_b_32.module.encode_text(SimpleTokenizer()(TEXTS))
    trimmed = vit_b_32.encode_text(TEXTS)
    assert float((normalised(trimmed) - normalised(full)).abs().max()) <= 1e-6


def test_z7_text_record_of_clip(vit_b_32: Any) -> None:
    text = vit_b_32.info.text
    assert (text.length, text.bos, text.eos, text.pad) == (77, 49406, 49407, 0)
    assert (text.cleaning, text.caption_cleaning) == ("clip", "clip")
    assert text.tokenizer.startswith("clip-bpe-49408#")


def test_z7_counts_over_all_configurations() -> None:
    """Of open_clip's 144 configurations 92 qualify, 39 are bidirectional, 10 have HF text towers, 3 are CoCa."""
    reasons = collections.Counter(why_not_trimmed(open_clip.get_model_config(n)) for n in open_clip.list_models())
    assert reasons == {
        None: 92,
        "bidirectional attention": 39,
        "Hugging Face text tower": 10,
        "class token appended at the end": 3,
    }


@pytest.mark.parametrize(
    "name",
    ["ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "ViT-L-14-CLIPA", "MobileCLIP-S1", "MobileCLIP2-S4", "coca_ViT-B-32"],
)
def test_z7_refused_from_the_configuration(name: str) -> None:
    assert why_not_trimmed(open_clip.get_model_config(name)) is not None


@pytest.mark.parametrize("name", ["ViT-B-16", "PE-Core-B-16", "MobileCLIP-B", "ViT-H-14-worldwide", "EVA02-B-16"])
def test_z7_allowed_from_the_configuration(name: str) -> None:
    assert why_not_trimmed(open_clip.get_model_config(name)) is None


@pytest.mark.parametrize("change", [{"no_causal_mask": True}, {"embed_cls": True}, {"pool_type": "last"}])
def test_z7_the_refused_structures_really_differ(change: dict[str, Any]) -> None:
    """The refusals are needed: cut batches give other embeddings there. Same tower otherwise."""
    config = tiny(custom_text=True)
    config["text_cfg"] |= change
    assert why_not_trimmed(config) is not None
    text = build_model(config, seed=0, spec=parse_spec("open_clip:tiny@random")).eval().text
    # The initialisation of open_clip is too small to see positions at this width.
    torch.nn.init.normal_(text.token_embedding.weight)
    torch.nn.init.normal_(text.positional_embedding)
    ids = SimpleTokenizer()(["a photo of a cat"])
    with torch.no_grad():
        # Towers that carry a causal mask cannot run a cut batch by themselves; ours could, and would be wrong.
        cut = short_pass(text, ids[:, :7]) if change.get("pool_type") else text(ids[:, :7])
        full = text(ids)
    assert float((normalised(full) - normalised(cut)).abs().max()) > 1e-3


@pytest.mark.parametrize("change", [{}, {"pool_type": "eos", "eos_id": 49407}, {"proj_bias": True}])
@pytest.mark.parametrize("custom", [False, True])
def test_z7_short_pass_equals_the_library(custom: bool, change: dict[str, Any]) -> None:
    config = tiny(custom_text=custom)
    config["text_cfg"] |= change
    model = build_model(config, seed=0, spec=parse_spec("open_clip:tiny@random")).eval()
    ids = SimpleTokenizer()(["a photo of a cat", "dog"])
    with torch.no_grad():
        full = model.encode_text(ids)
        short = short_pass(model.text if custom else model, ids[:, :7])
    torch.testing.assert_close(short, full, rtol=1e-5, atol=1e-6)


def test_trim_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", tiny())
    off = load("open_clip:ViT-tiny@random?trim=false&seed=3")
    on = load("open_clip:ViT-tiny@random?seed=3")
    assert (off.info.text.trim, on.info.text.trim) == (False, True)  # type: ignore[union-attr]
    torch.testing.assert_close(off.encode_text(TEXTS), on.encode_text(TEXTS), rtol=0, atol=1e-5)
    assert off.info.fingerprint != on.info.fingerprint
    assert off.info.weights_sha256 == on.info.weights_sha256


def test_length_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", tiny())
    short = load("open_clip:ViT-tiny@random?length=8")
    assert short.info.text.length == 8  # type: ignore[union-attr]
    assert short.info.sources["text.length"] == "option: length=8"
    torch.testing.assert_close(
        short.encode_text(["a cat"]), load("open_clip:ViT-tiny@random").encode_text(["a cat"]), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(UsageError, match=r"text\.length=78 exceeds the 77 positions"):
        load("open_clip:ViT-tiny@random?length=78")


def tiny(*, custom_text: bool = False) -> dict[str, Any]:
    """A configuration of ViT-B/32's structure, small."""
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    return config | ({"custom_text": True} if custom_text else {})
