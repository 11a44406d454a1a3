"""Which preprocessing belongs to a model: families, and the precedence of evidence field by field. No torch here.

Explicit option > config beside the weights > the library's entry for the named tag > the family rule of the
architecture > an error that lists what is open. A field never falls back silently.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtv.encoders.image_configs import image_from_hf, image_from_open_clip, image_from_timm
from mtv.encoders.records import Filter, ImageRecord, Resize
from mtv.errors import UsageError

__all__ = [
    "FAMILIES",
    "IMAGE_FIELDS",
    "Family",
    "family_of",
    "image_from_hf",
    "image_from_open_clip",
    "image_from_timm",
    "resolve_image",
]

logger = logging.getLogger(__name__)

Triple = tuple[float, float, float]
OPENAI_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)
ZERO: Triple = (0.0, 0.0, 0.0)
ONE: Triple = (1.0, 1.0, 1.0)

IMAGE_FIELDS = ("size", "mean", "std", "resize", "crop_pct", "filter")


@dataclass(frozen=True, kw_only=True)
class Family:
    """The image rule that weights of one lineage were trained or published with; None leaves a field open."""

    name: str
    """Key in `FAMILIES`."""
    mean: Triple | None = None
    """Channel means."""
    std: Triple | None = None
    """Channel standard deviations."""
    resize: Resize | None = None
    """Geometry."""
    crop_pct: float | None = None
    """Share that the centre crop keeps."""
    filter: Filter | None = None
    """Interpolation."""
    loose: frozenset[str] = frozenset()
    """Fields in which published configs of the family differ, so that another value is no contradiction."""
    why: str
    """Where the rule comes from, or why a field is open."""


def _family(name: str, why: str, *, loose: tuple[str, ...] = (), **rule: Any) -> tuple[str, Family]:
    return name, Family(name=name, why=why, loose=frozenset(loose), **rule)


_CLIP: dict[str, Any] = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "resize": "crop", "crop_pct": 1.0, "filter": "bicubic"}
_SIGLIP: dict[str, Any] = {"mean": HALF, "std": HALF, "resize": "squash", "crop_pct": 1.0, "filter": "bicubic"}
# The evaluation transform of all four repositories: resize to 256, centre crop 224, ImageNet statistics.
_SELF: dict[str, Any] = {
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "resize": "crop",
    "crop_pct": 0.875,
    "filter": "bicubic",
}
_SELF_LOOSE = ("crop_pct", "resize", "filter")

FAMILIES: dict[str, Family] = dict(
    [
        _family("clip", "OpenAI, LAION, DataComp, DFN", **_CLIP),
        _family("coca", "open_clip's CoCa, trained with the CLIP transform", **_CLIP),
        _family("pe", "Perception Encoder", mean=HALF, std=HALF, resize="squash", crop_pct=1.0, filter="bilinear"),
        _family("siglip", "SigLIP: squash", **_SIGLIP),
        _family("siglip2", "SigLIP2; HF configs say bilinear, open_clip bicubic", loose=("filter",), **_SIGLIP),
        _family("mtv", "MTV follows SigLIP", **_SIGLIP),
        _family(
            "clipa", "CLIPA", mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="squash", crop_pct=1.0, filter="bilinear"
        ),
        _family("mobileclip", "MobileCLIP", mean=ZERO, std=ONE, resize="crop", crop_pct=1.0, filter="bilinear"),
        _family(
            "mobileclip2",
            "sizes differ: B, S0, S2 use mean 0, std 1; S3, S4, L-14 the OpenAI statistics",
            loose=("filter",),
            resize="crop",
            crop_pct=1.0,
            filter="bilinear",
        ),
        _family("dino", "DINO", loose=_SELF_LOOSE, **_SELF),
        _family("dinov2", "DINOv2", loose=_SELF_LOOSE, **_SELF),
        _family("dinov3", "DINOv3", loose=_SELF_LOOSE, **_SELF),
        _family("mae", "MAE", loose=_SELF_LOOSE, **_SELF),
        _family(
            "vit",
            "supervised ViTs use mean and std 0.5 or the ImageNet statistics, depending on the tag",
            loose=_SELF_LOOSE,
            resize="crop",
            crop_pct=0.9,
            filter="bicubic",
        ),
        _family(
            "custom",
            "neutral rule for models of a python: spec",
            loose=tuple(IMAGE_FIELDS),
            **{**_SIGLIP, "resize": "crop"},
        ),
    ]
)

# First match wins. Names of open_clip, timm (with tag) and Hugging Face (model_type or class) share one table.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"(^|/)mtv[-_]", "mtv"),
    (r"siglip2|siglip.*v2_webli", "siglip2"),
    (r"siglip", "siglip"),
    (r"[-_]clipa([-_]|$)", "clipa"),
    (r"mobileclip2|mclip2_", "mobileclip2"),
    (r"mobileclip|mclip_|_mci\d*(_|\.|$)", "mobileclip"),
    (r"(^|[-_])pe[-_](core|lang|spatial)", "pe"),
    (r"^coca", "coca"),
    (r"dinov3", "dinov3"),
    (r"dinov2", "dinov2"),
    (r"(^|[-_./])dino([-_]|$)", "dino"),
    (r"(^|[-_./])mae([-_]|$)|vitmae", "mae"),
    (r"clip", "clip"),
    (r"^(vit-|rn\d+(x\d+)?(-quickgelu)?$|eva0[12]-|vitamin-|(xlm-)?roberta-.*vit-|mt5-.*vit-)", "clip"),
    (r"^(vit|deit|deit3|beit|beitv2|eva|eva02|flexivit)(_|$)|^vit(model|for)", "vit"),
)
_OPEN_CLIP_TIMM_TOWERS = r"^(convnext_|swin_|vit_medium_|vit_relpos_)"


def family_of(architecture: str, *, library: str | None = None) -> str | None:
    """The policy family of an architecture name, or None for an unknown one.

    Args:
        architecture: an open_clip architecture, a timm name (with its tag where known), or a Hugging Face `model_type`,
            class or `org/name`.
        library: `open_clip` settles names that exist in timm too (`convnext_base`).
    """
    name = architecture.lower()
    # open_clip's convnext and swin towers keep timm's names, but are contrastive models trained the CLIP way.
    if library == "open_clip" and re.search(_OPEN_CLIP_TIMM_TOWERS, name):
        return "clip"
    return next((family for pattern, family in _PATTERNS if re.search(pattern, name)), None)


def resolve_image(
    *,
    option: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    config_name: str,
    tag: Mapping[str, Any] | None,
    tag_name: str,
    family: str | None,
    native_size: int | None,
) -> tuple[ImageRecord, dict[str, str]]:
    """The image record, and for each field (`image.mean`, ...) the rule that decided it.

    Args:
        option: explicit options, typed, plain keys; keys of other groups are ignored.
        config: fields of the config beside the weights, as `image_from_*` returns them.
        config_name: its file name, for the record.
        tag: fields of the library's entry for the named tag.
        tag_name: the tag.
        family: key of `FAMILIES`, or None.
        native_size: input side that the architecture was built for, or None.

    Raises:
        UsageError: fields that no rule decides, all listed; or a value that is not allowed.
    """
    rule = FAMILIES[family] if family is not None else None
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in IMAGE_FIELDS:
        candidates = (
            (option.get(field), f"option: {field}={_spell(option.get(field))}"),
            ((config or {}).get(field), f"config: {config_name}"),
            ((tag or {}).get(field), f"tag: {tag_name}"),
            (getattr(rule, field, None), f"family: {family}"),
            (native_size if field == "size" else None, "family: native size of the architecture"),
        )
        found = next(((v, s) for v, s in candidates if v is not None), None)
        if found is not None:
            values[field], sources[f"image.{field}"] = found
    missing = [f for f in IMAGE_FIELDS if f not in values]
    if missing:
        raise _unresolved(missing, rule, family)
    if config and rule:
        _warn_contradictions(config, config_name, rule)
    return ImageRecord(**values), sources


def _unresolved(missing: list[str], rule: Family | None, family: str | None) -> UsageError:
    because = (
        f"family {family} leaves them open ({rule.why})" if rule else "the architecture belongs to no known family"
    )
    example = "&".join(f"{f}={_EXAMPLES[f]}" for f in missing)
    return UsageError(
        f"unresolved image fields: {', '.join(missing)}; no option, no config beside the weights and no tag names "
        f"them, and {because}",
        f"Name them in the spec, for example ?{example}, or put the model's config beside the weights.",
    )


_EXAMPLES = {
    "size": "224",
    "mean": "0.5,0.5,0.5",
    "std": "0.5,0.5,0.5",
    "resize": "crop",
    "crop_pct": "1.0",
    "filter": "bicubic",
}


def _warn_contradictions(config: Mapping[str, Any], config_name: str, rule: Family) -> None:
    for field in IMAGE_FIELDS:
        said, expected = config.get(field), getattr(rule, field, None)
        if said is None or expected is None or field in rule.loose or _close(said, expected):
            continue
        logger.warning(
            "%s says image.%s=%s, which contradicts family %s (%s); the config is obeyed",
            config_name,
            field,
            _spell(said),
            rule.name,
            _spell(expected),
        )


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    left, right = (tuple(v) if isinstance(v, (list, tuple)) else (v,) for v in (a, b))
    return len(left) == len(right) and all(abs(x - y) <= 1e-3 for x, y in zip(left, right, strict=True))


def _spell(value: Any) -> str:
    return ",".join(str(v) for v in value) if isinstance(value, (tuple, list)) else str(value)
