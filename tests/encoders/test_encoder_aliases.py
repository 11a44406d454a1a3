"""The alias table against the installed registries and against models built without memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from mtv.encoders.aliases import ALIASES
from mtv.encoders.policy import family_of, image_from_open_clip, image_from_timm
from mtv.encoders.spec import parse_spec

WANTED = [
    "clip-b32",
    "clip-b16",
    "clip-l14",
    "siglip-b16",
    "siglip-l16",
    "siglip2-b16",
    "siglip2-l16",
    "mtv-b16",
    "mtv-l16",
    "dino-b16",
    "mae-b16",
    "mae-l16",
    "dinov2-b14",
    "dinov2-l14",
]


def _open_clip(name: str) -> tuple[nn.Module, dict[str, Any]]:
    from open_clip.factory import get_model_config
    from open_clip.model import CLIP, CustomTextCLIP

    config = get_model_config(name)
    build = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    with torch.device("meta"):
        return build(**config), config


def _count(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_the_table_is_complete() -> None:
    assert list(ALIASES) == WANTED


@pytest.mark.parametrize("name", [n for n, a in ALIASES.items() if a.spec.startswith("open_clip:")])
def test_open_clip_rows(name: str) -> None:
    import open_clip

    row, spec = ALIASES[name], parse_spec(name)
    assert spec.tag in open_clip.list_pretrained_tags_by_model(spec.name)
    model, config = _open_clip(spec.name)
    assert math.isclose(_count(model), row.params_m, abs_tol=0.06)
    assert config["vision_cfg"]["image_size"] == row.size
    patch = config["vision_cfg"].get("patch_size")
    assert patch == row.patch if patch else f"patch{row.patch}_" in config["vision_cfg"]["timm_model_name"]
    assert row.has_text
    family = family_of(spec.name)
    assert family == name.partition("-")[0]
    published = image_from_open_clip(open_clip.get_pretrained_cfg(spec.name, spec.tag))
    from mtv.encoders.policy import FAMILIES

    rule = FAMILIES[family]
    assert {k: getattr(rule, k) for k in published} == published


@pytest.mark.parametrize("name", [n for n, a in ALIASES.items() if a.spec.startswith("timm:")])
def test_timm_rows(name: str) -> None:
    import timm

    row, spec = ALIASES[name], parse_spec(name)
    assert spec.name in timm.list_models(pretrained=True)
    with torch.device("meta"):
        model = timm.create_model(spec.name, pretrained=False, num_classes=0)
    assert math.isclose(_count(model), row.params_m, abs_tol=0.06)
    assert model.patch_embed.patch_size == (row.patch, row.patch)
    assert image_from_timm(timm.get_pretrained_cfg(spec.name).to_dict())["size"] == row.size
    assert not row.has_text
    assert family_of(spec.name) == name.partition("-")[0]


@pytest.mark.parametrize(("name", "params"), [("mtv-b16", 203_155_970), ("mtv-l16", 652_150_786)])
def test_mtv_rows_match_the_published_parameter_counts(name: str, params: int) -> None:
    row = ALIASES[name]
    assert math.isclose(row.params_m, params / 1e6, abs_tol=0.06)
    assert family_of(parse_spec(name).name) == "mtv"
    assert f"patch{row.patch}-{row.size}" in row.spec
