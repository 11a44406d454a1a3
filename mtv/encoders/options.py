"""Options after the `?` of a spec and `--set` overrides: one table of keys, one parser per type. No torch here.

`image.size`, `text.length` and plain `size`, `length` are the same key: backends see the plain form, typed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from mtv.errors import UsageError, unknown

IMAGE_KEYS = ("size", "mean", "std", "resize", "crop_pct", "filter")
TEXT_KEYS = ("cleaning", "caption_cleaning", "length", "tokenizer", "bos", "eos", "pad", "trim")
MODEL_KEYS = ("quick_gelu", "pos_interp", "pooling", "subfolder", "depth_kind", "depth_head", "vision")
LOADING_KEYS = ("seed", "allow_missing", "allow_unexpected")


def _triple(value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else list(value)
    numbers = tuple(float(v) for v in parts)
    if len(numbers) != 3:
        raise ValueError(f"three numbers, got {len(numbers)}")
    return numbers


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    spelled = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in spelled:
        raise ValueError("true or false")
    return spelled[str(value).lower()]


def _globs(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else [str(v) for v in value]
    return tuple(p.strip() for p in parts if p.strip())


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("a whole number")
    return int(value)


def _optional_whole(value: Any) -> int | None:
    return None if value is None or str(value).lower() == "none" else _whole(value)


PARSERS: dict[str, Callable[[Any], Any]] = {
    "size": _whole,
    "mean": _triple,
    "std": _triple,
    "resize": str,
    "crop_pct": float,
    "filter": str,
    "cleaning": str,
    "caption_cleaning": str,
    "length": _whole,
    "tokenizer": str,
    "bos": _optional_whole,
    "eos": _whole,
    "pad": _whole,
    "trim": _boolean,
    "quick_gelu": _boolean,
    "pos_interp": str,
    "pooling": str,
    "subfolder": str,
    "depth_kind": str,
    "depth_head": str,
    "vision": str,
    "seed": _whole,
    "allow_missing": _globs,
    "allow_unexpected": _globs,
}


def plain_key(key: str) -> str:
    """`image.size` and `text.length` without their prefix.

    Raises:
        UsageError: a key that no backend knows, or one under the wrong prefix; gives the nearest spellings.
    """
    prefix, _, rest = key.rpartition(".")
    groups: dict[str, Collection[str]] = {"": PARSERS, "image": IMAGE_KEYS, "text": TEXT_KEYS, "model": MODEL_KEYS}
    if prefix not in groups:
        raise unknown("model option", key, [f"image.{k}" for k in IMAGE_KEYS] + [f"text.{k}" for k in TEXT_KEYS])
    if rest not in groups[prefix]:
        raise unknown("model option", key, [f"{prefix}.{k}" if prefix else k for k in groups[prefix]])
    return rest


def merge_options(*sources: Mapping[str, Any] | None) -> dict[str, Any]:
    """Typed options of all `sources` under plain keys; a later source wins.

    Raises:
        UsageError: an unknown key, or a value that does not parse; names the key and the value.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        for key, value in (source or {}).items():
            name = plain_key(key)
            try:
                merged[name] = PARSERS[name](value)
            except (TypeError, ValueError) as e:
                raise UsageError(f"model option {key}={value!r} does not parse: expected {e}") from e
    return merged


def reject_options(options: Mapping[str, Any], keys: Collection[str], reason: str) -> None:
    """Refuse options that a backend would ignore, so that none is silently without effect.

    Raises:
        UsageError: one of `keys` is set; names it and `reason`.
    """
    for key in options:
        if key in keys:
            raise UsageError(f"model option {key}={options[key]!r} has no effect here: {reason}", "Leave it out.")
