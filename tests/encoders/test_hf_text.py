"""Text towers of the hf backend: Z7 on CLIP with both EOS conventions, Z8 on SigLIP, their policies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_world import TEXT, TOWER, save, seeded
from open_clip.tokenizer import SimpleTokenizer

from mtv.encoders import load
from mtv.errors import CheckpointError

# --- CLIP -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    reference = SimpleTokenizer()
    vocab = dict(reference.encoder)
    for ours, theirs in (("<start_of_text>", "<|startoftext|>"), ("<end_of_text>", "<|endoftext|>")):
        vocab[theirs] = vocab.pop(ours)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = [" ".join(pair) for pair in reference.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def clip_folder(folder: Path, tokenizer: Path, eos: int) -> tuple[Any, Path]:
    text = TEXT | {"eos_token_id": eos, "bos_token_id": 49406, "pad_token_id": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=TOWER, projection_dim=24)
    model = seeded(lambda: transformers.CLIPModel(config))
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return model, save(model, folder, None)


TEXTS = ["a photo of a cat.", "dog", "A  photo of a CAT.", "two people riding a wave on top of a surfboard", "w " * 100]


@pytest.mark.parametrize("eos", [2, 49407])
def test_z7_hf_clip_trimmed_equals_full(clip_tokenizer: Path, tmp_path: Path, eos: int) -> None:
    """Oracle: the library at full length, padded with 49407 as its own tokenizer does."""
    model, folder = clip_folder(tmp_path, clip_tokenizer, eos)
    encoder = load(f"hf:{folder}")
    text = encoder.info.text
    assert text is not None
    assert (text.causal, text.trim, text.pad, text.length) == (True, True, 0, 77)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        full = model.get_text_features(input_ids=ids).pooler_output
    ours = encoder.encode_text(TEXTS)
    assert ours.shape == (5, 24)
    difference = torch.nn.functional.normalize(ours, dim=-1) - torch.nn.functional.normalize(full, dim=-1)
    assert float(difference.abs().max()) <= 1e-6
    x = torch.randn(2, 3, 32, 32)
    out = encoder.features(x, layers=[-1], norm="final", pooled=True)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=x).pooler_output
    torch.testing.assert_close(out.pooled, expected, rtol=0, atol=1e-5)
    assert out.global_token is not None
    assert out.global_token.shape == (2, 32)
    assert encoder.embed_dim == 24


def test_clip_without_preprocessor_takes_the_family_rule(clip_tokenizer: Path, tmp_path: Path) -> None:
    info = load(f"hf:{clip_folder(tmp_path, clip_tokenizer, 49407)[1]}").info
    assert (info.family, info.activation, info.image.resize, info.image.size) == ("clip", "quick_gelu", "crop", 32)
    assert info.sources["image.mean"] == "family: clip"
    assert info.sources["activation"] == "config: config.json"
    plain = load(f"hf:{tmp_path}?quick_gelu=false").info
    assert (plain.activation, plain.sources["activation"]) == ("gelu", "option: quick_gelu=false")
    assert plain.weights_sha256 == info.weights_sha256
    assert plain.fingerprint != info.fingerprint


def test_eos_that_the_tower_would_not_find_is_an_error(clip_tokenizer: Path, tmp_path: Path) -> None:
    _, folder = clip_folder(tmp_path, clip_tokenizer, 7)
    with pytest.raises(CheckpointError, match=r"pools at text_config\.eos_token_id=7"):
        load(f"hf:{folder}")


def test_clip_vision_tower_with_projection(clip_tokenizer: Path, tmp_path: Path) -> None:
    config = transformers.CLIPVisionConfig(**TOWER, projection_dim=24)
    model = seeded(lambda: transformers.CLIPVisionModelWithProjection(config))
    encoder = load(f"hf:{save(model, tmp_path)}")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x).image_embeds
    torch.testing.assert_close(encoder.features(x, pooled=True).pooled, expected, rtol=0, atol=1e-5)
    assert (encoder.embed_dim, encoder.width, encoder.has_text) == (24, 32, False)


# --- SigLIP -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def siglip(real_data_module: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small SigLIP with the T5 vocabulary as stand-in for SigLIP's own, which has the same size and special ids."""
    folder = tmp_path_factory.mktemp("siglip")
    config = transformers.SiglipConfig(
        text_config=TEXT | {"vocab_size": 32000, "max_position_embeddings": 64}, vision_config=TOWER
    )
    model = seeded(lambda: transformers.SiglipModel(config))
    # The library's position initialisation is larger than its attention, so padding would hardly show.
    for name, parameter in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter.data.mul_(3.0)
    tokenizer = transformers.SiglipTokenizer(str(real_data_module / "text" / "t5" / "spiece.model"))
    tokenizer.save_pretrained(folder)
    return model, save(model, folder, None)


@pytest.fixture(scope="module")
def real_data_module(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("real_data")


def test_z8_a_text_is_independent_of_its_neighbours(siglip: tuple[Any, Path]) -> None:
    encoder = load(f"hf:{siglip[1]}")
    long = " ".join(["a very long caption about many things"] * 9)
    alone, beside = encoder.encode_text(["a cat"]), encoder.encode_text([long, "a cat"])[1:]
    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-5)
    assert not encoder.info.text.trim  # type: ignore[union-attr]


def test_z8_no_mask_although_the_tokenizer_returns_one(siglip: tuple[Any, Path]) -> None:
    """stand-in. With the mask the embedding would be another one; without it, it is the library's unmasked one."""
    model, folder = siglip
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["a cat"], padding="max_length", max_length=64, return_tensors="pt")
    assert "attention_mask" in batch
    with torch.no_grad():
        unmasked = model.get_text_features(input_ids=batch.input_ids).pooler_output
        masked = model.get_text_features(**batch).pooler_output
    ours = load(f"hf:{folder}").encode_text(["A  cat!"])
    torch.testing.assert_close(ours, unmasked, rtol=0, atol=1e-5)
    assert float(torch.nn.functional.cosine_similarity(ours, masked)) < 0.99


def test_siglip_policy(siglip: tuple[Any, Path]) -> None:
    info = load(f"hf:{siglip[1]}").info
    text = info.text
    assert text is not None
    assert (text.cleaning, text.caption_cleaning) == ("canonicalize", "canonicalize")
    assert (text.length, text.bos, text.eos, text.pad) == (64, None, 1, 1)
    assert (info.family, info.image.mean, info.image.resize) == ("siglip", (0.5, 0.5, 0.5), "squash")
    assert (info.activation, info.architecture) == ("gelu_tanh", "SiglipModel")
    assert str(siglip[1]) not in json.dumps(info.to_dict())
