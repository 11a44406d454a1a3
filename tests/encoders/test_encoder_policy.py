"""Preprocessing policy: families, precedence field by field, the three libraries' configs (Z10, Z11)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mtv.encoders.policy import (
    FAMILIES,
    IMAGE_FIELDS,
    family_of,
    image_from_hf,
    image_from_open_clip,
    image_from_timm,
    resolve_image,
)
from mtv.errors import UsageError

FULL = {"size": 32, "mean": (0.1,) * 3, "std": (0.2,) * 3, "resize": "crop", "crop_pct": 0.5, "filter": "nearest"}


def resolve(**given: Any) -> Any:
    base: dict[str, Any] = {
        "option": {},
        "config": None,
        "config_name": "preprocessor_config.json",
        "tag": None,
        "tag_name": "webli",
        "family": None,
        "native_size": None,
    }
    return resolve_image(**{**base, **given})


@pytest.mark.parametrize("field", IMAGE_FIELDS)
def test_each_field_follows_the_precedence(field: str) -> None:
    other = {"size": 48, "mean": (0.3,) * 3, "std": (0.4,) * 3, "resize": "squash", "crop_pct": 0.75}
    layers = [{**FULL, field: v} for v in ({**other, "filter": "bilinear"}[field], FULL[field])]
    record, sources = resolve(option={field: layers[0][field]}, config=layers[1], tag=layers[1], family="clip")
    assert getattr(record, field) == layers[0][field]
    assert sources[f"image.{field}"].startswith(f"option: {field}=")
    record, sources = resolve(config=layers[0], tag=layers[1], family="clip", native_size=7)
    assert getattr(record, field) == layers[0][field]
    assert sources[f"image.{field}"] == "config: preprocessor_config.json"
    partial = {k: v for k, v in layers[1].items() if k != field}
    record, sources = resolve(config=partial, tag=layers[0], family="clip")
    assert getattr(record, field) == layers[0][field]
    assert sources[f"image.{field}"] == "tag: webli"
    record, sources = resolve(config=partial, family="clip", native_size=7)
    assert getattr(record, field) == (7 if field == "size" else getattr(FAMILIES["clip"], field))
    assert sources[f"image.{field}"].startswith("family: ")


def test_z11_config_contradicting_the_family_wins_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = image_from_open_clip(
        {"size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    )
    with caplog.at_level(logging.WARNING):
        record, sources = resolve(config=config, family="siglip", config_name="open_clip_config.json")
    assert (record.resize, sources["image.resize"]) == ("crop", "config: open_clip_config.json")
    assert "contradicts family siglip" in caplog.text
    assert "image.resize=crop" in caplog.text
    assert "image.mean" not in caplog.text


def test_agreeing_and_loose_configs_warn_not(caplog: pytest.LogCaptureFixture) -> None:
    rounded = {**FULL, "mean": (0.4815, 0.4578, 0.4082), "std": (0.2686, 0.2613, 0.2758), "crop_pct": 1.0}
    resolve(config={**rounded, "filter": "bicubic"}, family="clip")
    siglip = {**FULL, "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": "squash", "crop_pct": 1.0}
    resolve(config={**siglip, "filter": "bilinear"}, family="siglip2")
    assert not caplog.records


def test_z11_unknown_architecture_without_config_names_the_fields() -> None:
    with pytest.raises(UsageError, match="unresolved image fields: size, mean, std, resize, crop_pct, filter"):
        resolve(family=None)
    with pytest.raises(UsageError, match=r"unresolved image fields: mean, std;.*\n.*mean=0.5,0.5,0.5&std="):
        resolve(family="vit", native_size=224)


def test_z10_local_siglip_gets_the_family_rule() -> None:
    record, sources = resolve(family=family_of("ViT-B-16-SigLIP"), native_size=224)
    assert (record.mean, record.std, record.resize) == ((0.5,) * 3, (0.5,) * 3, "squash")
    assert sources["image.mean"] == "family: siglip"


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ("ViT-B-16 ViT-B-16-quickgelu RN50x4 ViT-bigG-14-worldwide EVA02-L-14 ViTamin-L-256 CLIPModel", "clip"),
        ("xlm-roberta-base-ViT-B-32 vit_base_patch16_clip_224.openai clip_vision_model", "clip"),
        ("ViT-B-16-SigLIP-256 ViT-SO400M-14-SigLIP-384 vit_base_patch16_siglip_224.webli SiglipModel", "siglip"),
        ("vit_base_patch16_siglip_224 nllb-clip-base-siglip ViT-B-16-SigLIP-i18n-256 siglip_vision_model", "siglip"),
        ("ViT-B-16-SigLIP2 ViT-gopt-16-SigLIP2-384 vit_base_patch16_siglip_224.v2_webli Siglip2Model", "siglip2"),
        ("Becomebright/MTV-base-patch16-224", "mtv"),
        ("ViT-H-14-CLIPA-336 ViT-L-14-CLIPA", "clipa"),
        ("MobileCLIP-S1 fastvit_mci0.apple_mclip vit_base_mci_224.apple_mclip", "mobileclip"),
        ("MobileCLIP2-B fastvit_mci0.apple_mclip2_dfndr2b", "mobileclip2"),
        ("PE-Core-B-16 vit_pe_core_base_patch16_224.fb", "pe"),
        ("coca_ViT-B-32", "coca"),
        ("vit_base_patch14_dinov2.lvd142m Dinov2Model dinov2_with_registers", "dinov2"),
        ("vit_base_patch16_dinov3.lvd1689m dinov3_vit", "dinov3"),
        ("vit_base_patch16_224.dino", "dino"),
        ("vit_base_patch16_224.mae vit_mae ViTMAEModel", "mae"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k vit deit3_base_patch16_224 eva02_base_patch14_224 ViTModel", "vit"),
    ],
)
def test_family_names(names: str, family: str) -> None:
    assert {n: family_of(n) for n in names.split()} == dict.fromkeys(names.split(), family)


def test_unknown_names_have_no_family() -> None:
    assert family_of("resnet50.a1_in1k") is None
    assert family_of("convnext_base") is None
    assert family_of("convnext_base", library="open_clip") == "clip"


def test_every_open_clip_entry_agrees_with_its_family() -> None:
    """The family rule is what the library publishes for the tags of that family, apart from the known exceptions."""
    import open_clip

    disagreeing = set()
    for model, tag in open_clip.list_pretrained():
        family = family_of(model, library="open_clip")
        assert family is not None, model
        published = image_from_open_clip(open_clip.get_pretrained_cfg(model, tag))
        rule = FAMILIES[family]
        wrong = [
            f for f, v in published.items() if f != "size" and getattr(rule, f) not in (None, v) and f not in rule.loose
        ]
        if wrong:
            disagreeing.add(f"{model}/{tag}: {','.join(wrong)}")
    assert disagreeing == EXCEPTIONS


# Trained outside the family's recipe. The tag decides for them, which ranks above the family.
EXCEPTIONS = {
    "ViT-L-14/laion2b_s32b_b82k: mean,std",
    "ViT-H-14/dfn5b: resize",
    "ViT-H-14-quickgelu/dfn5b: resize",
    "ViT-H-14-378/dfn5b: resize",
    "ViT-H-14-378-quickgelu/dfn5b: resize",
    "ViT-H-14-worldwide-378/metaclip2_worldwide: resize",
    "ViT-bigG-14-worldwide-378/metaclip2_worldwide: resize",
}


def test_every_timm_entry_is_expressible() -> None:
    import timm

    from mtv.encoders.records import ImageRecord

    entries = [timm.get_pretrained_cfg(n).to_dict() for n in timm.list_models(pretrained=True)]
    square = [c for c in entries if c["input_size"][1] == c["input_size"][2]]
    assert len(square) > 1500
    for cfg in square:
        fields = image_from_timm(cfg)
        # VOLO asks for a crop larger than the resized image, which pads; the record has no such geometry.
        if cfg["architecture"].startswith("volo_") and cfg["crop_pct"] > 1:
            with pytest.raises(UsageError, match="crop_pct"):
                ImageRecord(**fields)
        else:
            ImageRecord(**fields)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # CLIP, new and old spelling
        (
            {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            {"size": 224, "resize": "crop", "crop_pct": 1.0},
        ),
        ({"size": 224, "do_center_crop": True, "crop_size": 224}, {"size": 224, "resize": "crop", "crop_pct": 1.0}),
        # SigLIP; ViT in the old spelling
        ({"size": {"height": 256, "width": 256}, "resample": 3}, {"size": 256, "resize": "squash", "crop_pct": 1.0}),
        ({"size": 224, "resample": 2}, {"size": 224, "resize": "squash", "crop_pct": 1.0}),
        # DINOv2
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            {"size": 224, "resize": "crop", "crop_pct": 0.875},
        ),
        # nothing square can be read from these
        ({"size": {"shortest_edge": 224}}, {}),
        ({"size": {"height": 224, "width": 224}, "do_resize": False}, {}),
        ({"do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    ],
)
def test_hf_configs(config: dict[str, Any], expected: dict[str, Any]) -> None:
    out = image_from_hf(config)
    assert out.pop("filter", None) == {2: "bilinear", 3: "bicubic", None: None}[config.get("resample")]
    assert out == expected


@pytest.mark.parametrize(
    ("convert", "config", "fragment"),
    [
        (image_from_hf, {"resample": 1}, "resample=1"),
        (image_from_hf, {"rescale_factor": 1 / 127.5}, "not by 1/255"),
        (image_from_hf, {"size": {"height": 2, "width": 3}}, "not square"),
        (image_from_open_clip, {"resize_mode": "longest"}, "longest"),
        (image_from_timm, {"crop_mode": "tencrop"}, "tencrop"),
        (image_from_timm, {"input_size": (3, 2, 3)}, "not square"),
        (image_from_timm, {"interpolation": "random"}, "random"),
    ],
)
def test_configs_that_the_record_cannot_express(convert: Any, config: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UsageError, match=fragment):
        convert(config)
