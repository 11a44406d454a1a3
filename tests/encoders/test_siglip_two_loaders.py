"""Z9: the same SigLIP weights through `open_clip:` and `hf:`, and SigLIP2's tokenizer at its defaults.

The vocabularies are stand-ins: T5's sentencepiece model for SigLIP's (same size and special ids, other pieces), and a
few letters in Gemma's id layout for SigLIP2's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import save_file

from mtv.encoders import load

WIDTH = 48
VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
}
OPEN_CLIP = {
    "embed_dim": WIDTH,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_test_patch8_siglip_32",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 32000,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": WIDTH,
        "heads": 3,
        "layers": 2,
        "mlp_ratio": 2.0,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
TEXTS = ["a photo of a cat", "A Photo of a  CAT!", "sea_waves & black-footed (albatross).", "long " * 90, ""]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """The model in both ecosystems' own formats: through hf, through open_clip, and the reference in transformers."""
    spiece = request.getfixturevalue("real_data") / "text" / "t5" / "spiece.model"
    model = reference_model()
    hf = tmp_path_factory.mktemp("hf")
    model.save_pretrained(hf)
    transformers.SiglipTokenizer(str(spiece)).save_pretrained(hf)
    folder = tmp_path_factory.mktemp("open_clip")
    shutil.copy(spiece, folder)
    transformers.T5TokenizerFast.from_pretrained(folder, extra_ids=0).save_pretrained(folder)
    (folder / "spiece.model").unlink()
    save_file(to_open_clip(model.state_dict()), folder / "w.safetensors")
    register_tower()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-T-8-SigLIP", OPEN_CLIP)
        model.name_or_path = str(hf)
        return load(f"hf:{hf}"), load(f"open_clip:ViT-T-8-SigLIP@{folder / 'w.safetensors'}"), model


def reference_model() -> Any:
    torch.manual_seed(0)
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)).eval()
    for name, parameter in model.named_parameters():
        # Initialisation gives all-zero biases and unit norms, which would hide a swapped pair.
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter.data.mul_(3.0)
    return model


def register_tower() -> None:
    from timm.models import is_model, register_model
    from timm.models.vision_transformer import VisionTransformer

    def vit_test_patch8_siglip_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
        kwargs = {k: v for k, v in kwargs.items() if not k.startswith("pretrained_cfg") and k != "cache_dir"}
        small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": 3, "num_heads": 3}
        model = VisionTransformer(**{**small, "mlp_ratio": 2.0, "class_token": False, "global_pool": "map", **kwargs})
        model.default_cfg = {}
        return model

    if not is_model("vit_test_patch8_siglip_32"):
        register_model(vit_test_patch8_siglip_32)


def to_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' names in open_clip's; attention weights fused."""
    out = {k: state[k].reshape(()) for k in ("logit_scale", "logit_bias")}
    vision, text, trunk = "vision_model.", "text_model.", "visual.trunk."
    for kind in ("weight", "bias"):
        out[f"{trunk}patch_embed.proj.{kind}"] = state[f"{vision}embeddings.patch_embedding.{kind}"]
        out[f"{trunk}norm.{kind}"] = state[f"{vision}post_layernorm.{kind}"]
        out[f"text.ln_final.{kind}"] = state[f"{text}final_layer_norm.{kind}"]
        out[f"text.text_projection.{kind}"] = state[f"{text}head.{kind}"]
        fused = state[f"{vision}head.attention.in_proj_{kind}"]
        out[f"{trunk}attn_pool.q.{kind}"], out[f"{trunk}attn_pool.kv.{kind}"] = fused[:WIDTH], fused[WIDTH:]
        out[f"{trunk}attn_pool.proj.{kind}"] = state[f"{vision}head.attention.out_proj.{kind}"]
        out[f"{trunk}attn_pool.norm.{kind}"] = state[f"{vision}head.layernorm.{kind}"]
        for mlp in ("fc1", "fc2"):
            out[f"{trunk}attn_pool.mlp.{mlp}.{kind}"] = state[f"{vision}head.mlp.{mlp}.{kind}"]
        for i in range(3):
            names = ("norm1", "attn.qkv.{}", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
            out |= block(state, f"{vision}encoder.layers.{i}.", f"{trunk}blocks.{i}.", kind, names)
        for i in range(2):
            names = ("ln_1", "attn.in_proj_{}", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
            out |= block(state, f"{text}encoder.layers.{i}.", f"text.transformer.resblocks.{i}.", kind, names)
    out[f"{trunk}pos_embed"] = state[f"{vision}embeddings.position_embedding.weight"][None]
    out[f"{trunk}attn_pool.latent"] = state[f"{vision}head.probe"]
    out["text.token_embedding.weight"] = state[f"{text}embeddings.token_embedding.weight"]
    out["text.positional_embedding"] = state[f"{text}embeddings.position_embedding.weight"]
    return {k: v.clone().contiguous() for k, v in out.items()}


def block(
    state: dict[str, torch.Tensor], source: str, target: str, kind: str, names: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    norm1, qkv, proj, norm2, fc1, fc2 = names
    return {
        f"{target}{norm1}.{kind}": state[f"{source}layer_norm1.{kind}"],
        target + qkv.format(kind): torch.cat([state[f"{source}self_attn.{p}_proj.{kind}"] for p in "qkv"]),
        f"{target}{proj}.{kind}": state[f"{source}self_attn.out_proj.{kind}"],
        f"{target}{norm2}.{kind}": state[f"{source}layer_norm2.{kind}"],
        f"{target}{fc1}.{kind}": state[f"{source}mlp.fc1.{kind}"],
        f"{target}{fc2}.{kind}": state[f"{source}mlp.fc2.{kind}"],
    }


def both_folder(both: tuple[Any, Any, Any]) -> str:
    return str(both[2].name_or_path)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=-1).min())


def test_z9_equal_ids_and_equal_records(both: tuple[Any, Any, Any]) -> None:
    hf, oc, _ = both
    for kind in ("prompt", "caption"):
        assert torch.equal(hf.text.tokenize(TEXTS, kind), oc.text.tokenize(TEXTS, kind))
    assert hf.info.text == oc.info.text
    assert hf.info.image == oc.info.image
    assert (hf.info.family, oc.info.family) == ("siglip", "siglip")


def test_z9_ids_by_hand(both: tuple[Any, Any, Any]) -> None:
    ids = both[0].text.tokenize(TEXTS)
    assert ids.shape == (5, 64)
    assert torch.equal(ids[0], ids[1])
    assert ids[:, -1].tolist() == [1] * 5
    assert ids[4].tolist() == [1] * 64
    assert ids[3].tolist()[:63] == [ids[3, 0].item()] * 63


def test_z9_text_embeddings_agree(both: tuple[Any, Any, Any]) -> None:
    hf, oc, model = both
    a, b = hf.encode_text(TEXTS), oc.encode_text(TEXTS)
    assert cosine(a, b) >= 0.9999
    with torch.no_grad():
        reference = model.get_text_features(input_ids=hf.text.tokenize(TEXTS)).pooler_output
    assert cosine(a, reference) >= 0.999999
    assert torch.equal(a[0], a[1])
    assert cosine(a[0], a[2]) < 0.999, "the towers must tell texts apart, or the comparison says nothing"


@pytest.mark.parametrize("norm", ["none", "final"])
def test_z9_image_features_agree(both: tuple[Any, Any, Any], norm: Any) -> None:
    hf, oc, _ = both
    x = torch.randn(2, 3, 32, 32)
    a, b = (e.features(x, layers=[0, 2], norm=norm, pooled=True) for e in (hf, oc))
    assert cosine(a.pooled, b.pooled) >= 0.9999
    for layer in (0, 2):
        assert a.tokens[layer].shape == (2, 4, 4, WIDTH)
        assert cosine(a.tokens[layer], b.tokens[layer]) >= 0.9999


def test_z9_other_sizes_differ_by_the_recorded_resampling_only(both: tuple[Any, Any, Any]) -> None:
    hf, oc, model = both
    assert (hf.info.pos_interp, oc.info.pos_interp) == ("bicubic", "bicubic-antialias")
    x = torch.randn(1, 3, 64, 48)
    a, b = (e.features(x, layers=[2], norm="final").tokens[2] for e in (hf, oc))
    with torch.no_grad():
        last = model.vision_model(x, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(a, last.unflatten(1, (8, 6)), rtol=0, atol=1e-5)
    assert cosine(a, b) < 0.999
    same = load(f"hf:{both_folder(both)}?pos_interp=bicubic-antialias")
    assert cosine(same.features(x, layers=[2], norm="final").tokens[2], b) >= 0.9999


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fixed-resolution SigLIP2: model_type siglip, 256,000 ids, a tokenizer that pads left and has no maximum."""
    folder = tmp_path_factory.mktemp("siglip2")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**small, "vocab_size": 256000, "max_position_embeddings": 64}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION | small)
    torch.manual_seed(0)
    transformers.SiglipModel(config).save_pretrained(folder)
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *"abcdefghijklmnopqrstuvwxyz", *"ABC", *".,_!"]
    tokenizer = transformers.Siglip2Tokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(folder)
    return folder


def test_z9_siglip2_tokenizer_at_its_defaults(siglip2: Path) -> None:
    """64 ids, right-padded with 0, EOS 1; the library's own call pads nothing and puts what it pads on the left."""
    library = transformers.AutoTokenizer.from_pretrained(siglip2)
    assert library.padding_side == "left"
    assert len(library("a cat", padding="max_length")["input_ids"]) < 64
    encoder: Any = load(f"hf:{siglip2}")
    assert encoder.info.family == "siglip2"
    ids = encoder.text.tokenize(["A_cat!"])[0].tolist()
    vocab = library.get_vocab()
    assert ids == [*(vocab[c] for c in "a\u2581cat"), 1, *[0] * 58]


def test_z9_siglip2_captions_keep_their_punctuation(siglip2: Path) -> None:
    encoder: Any = load(f"hf:{siglip2}")
    vocab = transformers.AutoTokenizer.from_pretrained(siglip2).get_vocab()
    assert encoder.text.tokenize(["A_cat!"], "caption")[0].tolist()[:7] == [*(vocab[c] for c in "a_cat!"), 1]
    same = load(f"hf:{siglip2}?caption_cleaning=canonicalize")
    assert same.info.text.caption_cleaning == "canonicalize"  # type: ignore[union-attr]
    raw: Any = load(f"hf:{siglip2}?cleaning=none")
    assert raw.text.tokenize(["ABC"])[0].tolist()[:4] == [*(vocab[c] for c in "ABC"), 1]
    assert json.dumps(raw.info.to_dict())


def test_half_precision_towers_run_and_text_stays_fp32(both: tuple[Any, Any, Any]) -> None:
    half = load(f"hf:{both_folder(both)}", dtype="bf16")
    x = torch.randn(1, 3, 48, 32)
    out = half.features(x.bfloat16(), layers=[-1], norm="final", pooled=True)
    assert out.tokens[2].dtype == torch.bfloat16
    assert cosine(out.pooled.float(), both[0].features(x, pooled=True).pooled) > 0.99  # type: ignore[union-attr]
    assert half.encode_text(TEXTS).dtype == torch.float32
    assert cosine(half.encode_text(TEXTS), both[0].encode_text(TEXTS)) > 0.99
