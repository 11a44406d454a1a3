"""The hf backend: Z7 and Z8 on CLIP and SigLIP, image towers against the library, strictness, refusals."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file

from mtv.encoders import load
from mtv.errors import CheckpointError, UsageError

TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SQUASH = {
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
IMAGE_CONFIGS: dict[str, tuple[Any, int, str]] = {
    "vit": (transformers.ViTConfig, 1, "bicubic"),
    "vit_mae": (transformers.ViTMAEConfig, 1, "bicubic"),
    "deit": (transformers.DeiTConfig, 2, "bicubic"),
    "vit_msn": (transformers.ViTMSNConfig, 1, "bicubic"),
    "ijepa": (transformers.IJepaConfig, 0, "bicubic"),
    "dinov2": (transformers.Dinov2Config, 1, "bicubic"),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersConfig, 5, "bicubic-antialias"),
    "dinov3_vit": (transformers.DINOv3ViTConfig, 5, "rope"),
    "siglip_vision_model": (transformers.SiglipVisionConfig, 0, "bicubic"),
    "clip_vision_model": (transformers.CLIPVisionConfig, 1, "bicubic"),
}


def save(model: Any, folder: Path, preprocessor: dict[str, Any] | None = SQUASH) -> Path:
    model.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def seeded(build: Any) -> Any:
    torch.manual_seed(0)
    return build().eval()


@pytest.fixture(scope="module", params=sorted(IMAGE_CONFIGS))
def image_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    config = IMAGE_CONFIGS[request.param][0](**TOWER)
    if request.param == "dinov3_vit":
        config.num_register_tokens = 4
    model = seeded(lambda: transformers.AutoModel.from_config(config))
    if request.param == "vit_mae":
        model.config.mask_ratio = 0.0
    return request.param, model, save(model, tmp_path_factory.mktemp(request.param))


def library_pass(kind: str, model: Any, x_B3HW: torch.Tensor) -> Any:
    arguments: dict[str, Any] = {"output_hidden_states": True}
    if not kind.startswith("dino"):
        arguments["interpolate_pos_encoding"] = True
    if kind == "vit_mae":
        count = x_B3HW.shape[2] * x_B3HW.shape[3] // 64
        arguments["noise"] = torch.arange(count).float().expand(len(x_B3HW), -1)
    with torch.no_grad():
        return model(x_B3HW, **arguments)


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_tokens_equal_the_library_at_any_size(image_model: tuple[str, Any, Path], size: tuple[int, int]) -> None:
    """Every block's tokens against the library's own hidden states and its own position resampling."""
    kind, model, folder = image_model
    encoder = load(f"hf:{folder}")
    prefix, interp = IMAGE_CONFIGS[kind][1:]
    assert encoder.info.pos_interp == interp
    x = torch.randn(2, 3, *size)
    expected = library_pass(kind, model, x)
    grid = (size[0] // 8, size[1] // 8)
    out = encoder.features(x, layers=[0, 1, 2], norm="none", pooled=True)
    for i in range(3):
        state_BHWD = expected.hidden_states[i + 1][:, prefix:].unflatten(1, grid)
        torch.testing.assert_close(out.tokens[i], state_BHWD, rtol=0, atol=1e-5)
    final = encoder.features(x, layers=[-1], norm="final").tokens[2]
    last_BND = expected.last_hidden_state
    if kind == "clip_vision_model":
        last_BND = model.post_layernorm(last_BND)
    torch.testing.assert_close(final, last_BND[:, prefix:].unflatten(1, grid), rtol=0, atol=1e-5)


def test_pooled_vector(image_model: tuple[str, Any, Path]) -> None:
    kind, model, folder = image_model
    x = torch.randn(2, 3, 32, 32)
    expected = library_pass(kind, model, x)
    out = load(f"hf:{folder}").features(x, pooled=True)
    if kind == "ijepa":
        want = expected.last_hidden_state.mean(1)
    elif kind in ("siglip_vision_model", "clip_vision_model"):
        want = expected.pooler_output
    else:
        want = expected.last_hidden_state[:, 0]
    torch.testing.assert_close(out.pooled, want, rtol=0, atol=1e-5)
    assert torch.equal(out.pooled, out.global_token)  # type: ignore[arg-type]


def test_mae_is_deterministic_and_in_order(tmp_path: Path) -> None:
    model = seeded(
        lambda: transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**TOWER, decoder_num_hidden_layers=1))
    )
    encoder = load(f"hf:{save(model, tmp_path)}")
    assert encoder.info.family == "mae"
    assert any(k.startswith("decoder.") for k in encoder.info.keys.unexpected)
    x = torch.randn(1, 3, 32, 32)
    one, two = (encoder.features(x, layers=[0], norm="none").tokens[0] for _ in range(2))
    assert torch.equal(one, two)
    y = x.clone()
    y[:, :, 8:16, 24:32] += 3.0
    change = (encoder.features(y, layers=[0], norm="none").tokens[0] - one).norm(dim=-1)[0]
    assert int(change.argmax()) == 1 * 4 + 3


def test_position_resampling_can_be_chosen(tmp_path: Path) -> None:
    folder = save(seeded(lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TOWER))), tmp_path)
    plain, anti = load(f"hf:{folder}"), load(f"hf:{folder}?pos_interp=bicubic-antialias")
    native, smaller = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 16, 16)
    assert torch.equal(plain.features(native, pooled=True).pooled, anti.features(native, pooled=True).pooled)  # type: ignore[arg-type]
    a, b = (e.features(smaller, layers=[0], norm="none").tokens[0] for e in (plain, anti))
    assert not torch.allclose(a, b, atol=1e-4)
    assert anti.info.pos_interp == "bicubic-antialias"
    assert anti.info.fingerprint != plain.info.fingerprint
    with pytest.raises(UsageError, match="pos_interp must be one of"):
        load(f"hf:{folder}?pos_interp=linear")


def test_pooling_option(tmp_path: Path) -> None:
    folder = save(seeded(lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER))), tmp_path)
    x = torch.randn(2, 3, 32, 32)
    encoder = load(f"hf:{folder}?pooling=mean")
    out = encoder.features(x, layers=[-1], norm="final", pooled=True)
    torch.testing.assert_close(out.pooled, out.tokens[2].flatten(1, 2).mean(1))
    with pytest.raises(UsageError, match="pooling must be cls or mean"):
        load(f"hf:{folder}?pooling=max")
    with pytest.raises(UsageError, match="no text tower"):
        load(f"hf:{folder}?cleaning=none")
    with pytest.raises(UsageError, match="no text tower"):
        encoder.encode_text(["a"])


def test_attention_kernels_agree(tmp_path: Path) -> None:
    model = seeded(lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER)))
    encoder = load(f"hf:{save(model, tmp_path)}")
    x = torch.randn(1, 3, 32, 32)
    model.set_attn_implementation("eager")
    assert encoder.module.config._attn_implementation == "sdpa"  # type: ignore[union-attr]
    expected = library_pass("dinov2", model, x).last_hidden_state[:, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(encoder.features(x, layers=[-1], norm="final").tokens[2], expected, rtol=0, atol=1e-5)


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


# --- strictness and refusals ------------------------------------------------------------------------------------------


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    return save(seeded(lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER))), tmp_path / "dinov2")


def test_strict_keys(dinov2: Path) -> None:
    file = dinov2 / "model.safetensors"
    state = load_file(file)
    state.pop("layernorm.weight")
    save_file(state | {"extra.w": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.weight; 1 unexpected: extra\.w"):
        load(f"hf:{dinov2}")
    keys = load(f"hf:{dinov2}?allow_missing=layernorm.*&allow_unexpected=extra.*").info.keys
    assert (keys.missing, keys.unexpected) == (("layernorm.weight",), ("extra.w",))


def test_shapes_that_differ_are_listed(dinov2: Path) -> None:
    config = json.loads((dinov2 / "config.json").read_text())
    (dinov2 / "config.json").write_text(json.dumps(config | {"image_size": 64}))
    with pytest.raises(CheckpointError, match=r"of another shape: embeddings.position_embeddings: file \[1, 17, 32\]"):
        load(f"hf:{dinov2}")


def test_classification_checkpoint_loads_without_its_head(tmp_path: Path) -> None:
    config = transformers.Dinov2Config(**TOWER, num_labels=3)
    encoder = load(f"hf:{save(seeded(lambda: transformers.Dinov2ForImageClassification(config)), tmp_path)}")
    assert set(encoder.info.keys.unexpected) == {"classifier.weight", "classifier.bias"}
    assert encoder.info.keys.missing == ()


def test_safetensors_and_bin_agree_and_pickles_are_refused(dinov2: Path) -> None:
    safe = load(f"hf:{dinov2}").info
    state = load_file(dinov2 / "model.safetensors")
    (dinov2 / "model.safetensors").unlink()
    torch.save(state, dinov2 / "pytorch_model.bin")
    assert load(f"hf:{dinov2}").info.weights_sha256 == safe.weights_sha256
    marker = dinov2 / "executed"
    torch.save({"w": Bomb(str(marker))}, dinov2 / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"dinov2/pytorch_model\.bin"):
        load(f"hf:{dinov2}")
    assert not marker.exists()


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_half_precision_files_become_fp32(dinov2: Path) -> None:
    file = dinov2 / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    config = json.loads((dinov2 / "config.json").read_text())
    (dinov2 / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    assert {p.dtype for p in load(f"hf:{dinov2}").module.parameters()} == {torch.float32}


def test_random_initialisation(dinov2: Path) -> None:
    one, again, other = (load(f"hf:{dinov2}@random?seed={s}").info for s in (1, 1, 2))
    assert one.random
    assert one.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert not load(f"hf:{dinov2}").info.random


def test_truncated_file_is_named(dinov2: Path) -> None:
    file = dinov2 / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"dinov2/model\.safetensors cannot be loaded"):
        load(f"hf:{dinov2}")


def test_naflex_and_unknown_types_are_refused(dinov2: Path) -> None:
    for model_type, match in (("siglip2", "NaFlex"), ("resnet", "unknown Hugging Face model_type 'resnet'")):
        (dinov2 / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(UsageError, match=match):
            load(f"hf:{dinov2}")


def test_remote_code_never_runs(dinov2: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (dinov2 / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass M: pass\n")
    config = json.loads((dinov2 / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.M", "AutoModel": "evil.M"}
    (dinov2 / "config.json").write_text(json.dumps(copy.deepcopy(config) | {"auto_map": auto_map}))
    load(f"hf:{dinov2}")
    (dinov2 / "config.json").write_text(json.dumps(config | {"auto_map": auto_map, "model_type": "evil"}))
    with pytest.raises(UsageError):
        load(f"hf:{dinov2}")
    assert not marker.exists()


def test_missing_pieces_are_named(dinov2: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(CheckpointError, match="facebook/dinov2-base is not in the local hub cache"):
        load("hf:facebook/dinov2-base")
    (dinov2 / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="dinov2 holds no weights"):
        load(f"hf:{dinov2}")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load(f"hf:{tmp_path}")


def test_cached_repository_records_its_commit(dinov2: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "f" * 40
    repo = tmp_path / "hub" / "models--facebook--dinov2-tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(dinov2, repo / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub, local = load("hf:facebook/dinov2-tiny").info, load(f"hf:{dinov2}").info
    assert hub.sources["weights"] == f"hub commit {commit}"
    assert hub.fingerprint == local.fingerprint


def test_size_must_fit_the_patch(dinov2: Path) -> None:
    with pytest.raises(UsageError, match=r"image\.size 60 is no multiple of patch size 8"):
        load(f"hf:{dinov2}?size=60")
    assert load(f"hf:{dinov2}?size=64").info.image.size == 64
