"""The open_clip export: equal through our loader, close in stock open_clip, and its README says how close."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from model_world import NANO, TEXTS, images, lively, mini, small
from torch import nn
from torch.nn import functional as F

from mtv.encoders import load
from mtv.errors import CheckpointError, UsageError
from mtv.model import open_clip_export
from mtv.model.config import SIZES
from mtv.model.model import MtvModel
from mtv.model.open_clip_export import TIMM_TOWERS, export_open_clip, open_clip_config

TOWER = "vit_mtvnano_patch8_siglip_32"


@pytest.fixture(scope="module", autouse=True)
def _nano_tower() -> None:
    """timm has no tower this small, so the test registers one as timm's own SigLIP entries are."""
    from timm.models import is_model, register_model
    from timm.models.vision_transformer import VisionTransformer

    def vit_mtvnano_patch8_siglip_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
        kwargs = {k: v for k, v in kwargs.items() if not k.startswith("pretrained_cfg") and k != "cache_dir"}
        small_size: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2}
        model = VisionTransformer(**{**small_size, "class_token": False, "global_pool": "map", **kwargs})
        model.default_cfg = {}
        return model

    if not is_model(TOWER):
        register_model(vit_mtvnano_patch8_siglip_32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[MtvModel, Path]:
    model = lively(small())
    folder = tmp_path_factory.mktemp("open_clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip_export.TIMM_TOWERS, (64, 4, 2, 8, 32), TOWER)
        export_open_clip(model, folder, tokenizer=mini())
    return model, folder


def test_equal_through_our_loader(exported: tuple[MtvModel, Path]) -> None:
    model, folder = exported
    encoder: Any = load(f"open_clip:{folder}")
    assert encoder.info.activation == "gelu_tanh"
    assert encoder.info.image.resize == "squash"
    assert encoder.info.image.size == 32
    with torch.no_grad():
        out = model.vision(images(3, 32), taps=(1, 4))
        found = encoder.features(images(3, 32), layers=[0, 3], norm="none", pooled=True)
        torch.testing.assert_close(found.pooled, out.pooled_BD, rtol=0, atol=1e-5)
        for tap in (1, 4):
            torch.testing.assert_close(found.tokens[tap - 1].flatten(1, 2), out.taps[tap], rtol=0, atol=1e-5)
        ids = torch.from_numpy(mini().encode(TEXTS))
        ours = model.text(ids)  # type: ignore[misc]
    assert torch.equal(encoder.text.tokenize(TEXTS), ids)
    torch.testing.assert_close(encoder.encode_text(TEXTS), ours, rtol=0, atol=1e-5)


def test_close_in_stock_open_clip_and_the_readme_says_how_close(exported: tuple[MtvModel, Path]) -> None:
    model, folder = exported
    stock, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    stock.eval()
    assert {m.approximate for m in stock.visual.modules() if isinstance(m, nn.GELU)} == {"none"}
    assert {m.approximate for m in stock.text.modules() if isinstance(m, nn.GELU)} == {"tanh"}
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    ids = tokenizer(TEXTS)
    assert torch.equal(ids, torch.from_numpy(mini().encode(TEXTS)))
    assert next(type(t).__name__ for t in preprocess.transforms) == "Resize"
    with torch.no_grad():
        image, text = stock.encode_image(images(8, 32)), stock.encode_text(ids)
        ours = model.vision(images(8, 32)).pooled_BD
        assert ours is not None
        difference = float((image - ours).abs().max())
        cosine = float(F.cosine_similarity(image, ours).min())
        torch.testing.assert_close(text, model.text(ids), rtol=0, atol=1e-5)  # type: ignore[misc]
    assert cosine >= 0.999
    assert difference > 1e-5, "stock open_clip must really differ, or the README speaks of nothing"
    assert model.log_scale is not None
    assert float(stock.logit_scale.detach()) == float(model.log_scale.detach())
    readme = (folder / "README.md").read_text()
    (row,) = [line for line in readme.splitlines() if line.startswith("| image |")]
    assert 0.999 <= float(row.split("|")[2]) <= 1.0


def test_published_sizes_have_the_towers_of_open_clip() -> None:
    for size, name in (("b16", "ViT-B-16-SigLIP"), ("l16", "ViT-L-16-SigLIP-256")):
        ours, theirs = open_clip_config(SIZES[size])["model_cfg"], open_clip.get_model_config(name)
        assert theirs is not None
        assert ours["vision_cfg"]["timm_model_name"] == theirs["vision_cfg"]["timm_model_name"]
        for key in ("embed_dim", "init_logit_bias", "custom_text"):
            assert ours[key] == theirs[key]
        text = {k: v for k, v in ours["text_cfg"].items() if k in theirs["text_cfg"]}
        assert {**text, "hf_tokenizer_name": ""} == {**theirs["text_cfg"], "hf_tokenizer_name": ""}


def test_the_table_names_towers_that_timm_builds_with_exact_gelu() -> None:
    import timm

    for (width, layers, heads, patch, side), name in TIMM_TOWERS.items():
        if name == TOWER:
            continue
        with torch.device("meta"):
            trunk = timm.create_model(name)
        assert (trunk.embed_dim, len(trunk.blocks), trunk.blocks[0].attn.num_heads) == (width, layers, heads)
        assert trunk.patch_embed.patch_size == (patch, patch)
        assert trunk.patch_embed.img_size == (side, side)


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no timm tower has width 64, 4 layers"):
        export_open_clip(small(), tmp_path, tokenizer=mini())
    monkeypatch.setitem(open_clip_export.TIMM_TOWERS, (64, 4, 2, 8, 32), TOWER)
    with pytest.raises(UsageError, match="has no text tower"):
        export_open_clip(small(frozenset({"ssl"})), tmp_path, tokenizer=mini())
    monkeypatch.setattr(open_clip_export, "STOCK_COSINE", 0.999999999)
    model = lively(small())
    with pytest.raises(CheckpointError, match="cosine to stock open_clip"):
        export_open_clip(model, tmp_path, tokenizer=mini())
    assert not list(tmp_path.iterdir())


def test_exact_gelu_stays_where_the_configuration_does_not_ask(exported: tuple[MtvModel, Path], tmp_path: Path) -> None:
    for file in exported[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    del config["model_cfg"]["vision_cfg"]["act_kwargs"]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    exact, tanh = load(f"open_clip:{tmp_path}"), load(f"open_clip:{exported[1]}")
    assert exact.info.activation == "gelu"
    assert exact.info.fingerprint != tanh.info.fingerprint
    assert NANO.vision.width == exact.width
