"""The three libraries' preprocessing configs in our words: what each file says, and nothing that it leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtv.errors import UsageError

_PIL_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def image_from_open_clip(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of open_clip's `preprocess_cfg` (from `open_clip_config.json` or a tag's entry).

    Raises:
        UsageError: an interpolation or resize mode that the image record cannot express.
    """
    out = _statistics(cfg, "mean", "std")
    if cfg.get("size") is not None:
        out["size"] = _side(cfg["size"], "size")
    if cfg.get("interpolation") is not None:
        out["filter"] = _filter(cfg["interpolation"])
    mode = cfg.get("resize_mode")
    if mode is not None:
        if mode not in ("shortest", "squash"):
            raise _inexpressible("resize_mode", mode, "resize")
        out["resize"], out["crop_pct"] = ("crop" if mode == "shortest" else "squash"), 1.0
    return out


def image_from_timm(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of timm's `pretrained_cfg` (from `config.json` or a tag's entry).

    Raises:
        UsageError: a non-square input, an interpolation or crop mode that the image record cannot express.
    """
    out = _statistics(cfg, "mean", "std")
    if cfg.get("input_size") is not None:
        out["size"] = _side(cfg["input_size"][1:], "input_size")
    if cfg.get("interpolation") is not None:
        out["filter"] = _filter(cfg["interpolation"])
    if cfg.get("crop_pct") is not None:
        out["crop_pct"] = float(cfg["crop_pct"])
    mode = cfg.get("crop_mode")
    if mode is not None:
        if mode not in ("center", "squash", "border"):
            raise _inexpressible("crop_mode", mode, "resize")
        out["resize"] = "crop" if mode == "center" else mode
    return out


def image_from_hf(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Hugging Face `preprocessor_config.json`.

    Raises:
        UsageError: a geometry, filter or value range that the image record cannot express.
    """
    out = _hf_statistics(cfg)
    if cfg.get("resample") is not None:
        if cfg["resample"] not in _PIL_FILTERS:
            raise _inexpressible("resample", cfg["resample"], "filter")
        out["filter"] = _PIL_FILTERS[cfg["resample"]]
    out.update(_hf_geometry(cfg))
    return out


def _hf_statistics(cfg: Mapping[str, Any]) -> dict[str, Any]:
    factor = cfg.get("rescale_factor")
    if cfg.get("do_rescale", True) is False or (factor is not None and abs(factor * 255 - 1) > 1e-6):
        raise UsageError(
            f"the preprocessor scales pixels by {factor!r} (do_rescale={cfg.get('do_rescale', True)}), not by 1/255",
            "Such a model needs a python: spec with its own preprocessing.",
        )
    if cfg.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return _statistics(cfg, "image_mean", "image_std")


def _hf_geometry(cfg: Mapping[str, Any]) -> dict[str, Any]:
    size, crops = cfg.get("size"), bool(cfg.get("do_center_crop", False))
    if size is None or cfg.get("do_resize") is False:
        return {}
    crop = _hf_side(cfg.get("crop_size")) if crops else None
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else (size if crops else None)
    if shorter is not None:
        # Without a crop the output is not square, so the record stays open.
        return {} if crop is None else {"size": crop, "resize": "crop", "crop_pct": _share(crop, int(shorter))}
    side = _hf_side(size)
    if side is None:
        return {}
    return {"size": crop or side, "resize": "squash", "crop_pct": _share(crop or side, side)}


def _share(crop: int, resized: int) -> float:
    if crop > resized:
        raise UsageError(f"the preprocessor crops {crop} px out of {resized} px", "Set image.size and image.resize.")
    return crop / resized


def _hf_side(size: Any) -> int | None:
    if isinstance(size, Mapping):
        if "height" not in size or "width" not in size:
            return None
        size = (size["height"], size["width"])
    return None if size is None else _side(size, "size")


def _statistics(cfg: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    pairs = ((ours, cfg.get(theirs)) for ours, theirs in (("mean", mean), ("std", std)))
    return {ours: tuple(float(v) for v in value) for ours, value in pairs if value is not None}


def _side(size: Any, name: str) -> int:
    sides = {int(v) for v in (size if isinstance(size, (tuple, list)) else [size])}
    if len(sides) != 1:
        raise UsageError(f"{name} {size} is not square", "Set image.size to one side.")
    return sides.pop()


def _filter(name: str) -> str:
    if name not in _PIL_FILTERS.values():
        raise _inexpressible("interpolation", name, "filter")
    return name


def _inexpressible(key: str, value: Any, field: str) -> UsageError:
    return UsageError(
        f"the config's {key}={value!r} has no counterpart in the image record",
        f"Set image.{field} explicitly (?{field}=...).",
    )
