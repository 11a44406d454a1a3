"""Encoders: `load(spec)` gives any vision model behind one interface. Importing this package imports no torch.

A new backend is a function `load_xxx(spec, *, options, download) -> Encoder` (on the CPU, fp32, frozen), named in
`BACKENDS` or under the entry-point group `mtv.encoders`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from mtv.encoders.base import Encoder, Features
    from mtv.encoders.records import DepthHeadRecord, EncoderInfo, ImageRecord, KeyReport, TextRecord
    from mtv.encoders.spec import ModelSpec, expand_specs, parse_spec

__all__ = [
    "BACKENDS",
    "DepthHeadRecord",
    "Encoder",
    "EncoderInfo",
    "Features",
    "ImageRecord",
    "KeyReport",
    "ModelSpec",
    "TextRecord",
    "expand_specs",
    "load",
    "parse_spec",
]

BACKENDS: dict[str, str] = {
    "open_clip": "mtv.encoders.open_clip_backend:load_open_clip",
    "timm": "mtv.encoders.timm_backend:load_timm",
    "hf": "mtv.encoders.hf_backend:load_hf",
    "mtv": "mtv.encoders.mtv_run:load_run",
    "python": "mtv.encoders.python_backend:load_python",
}

_HOME = {
    "Encoder": "base",
    "Features": "base",
    "DepthHeadRecord": "records",
    "EncoderInfo": "records",
    "ImageRecord": "records",
    "KeyReport": "records",
    "TextRecord": "records",
    "ModelSpec": "spec",
    "expand_specs": "spec",
    "parse_spec": "spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def load(
    spec: str | ModelSpec,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    download: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Encoder:
    """Load one model: frozen, checked, on `device`.

    Args:
        spec: spec string or parsed spec (one model; `expand_specs` handles lists and directories).
        device: where the towers go.
        dtype: tower dtype, `fp32`, `bf16`, `fp16` or a torch dtype; fp32 where left open.
        download: allow fetching from a hub; otherwise only the local cache is read.
        overrides: explicit options such as `image.size`, `text.cleaning`, `quick_gelu`, `depth_head`; they count as
            those in the spec, and win over them.

    Raises:
        UsageError: a spec, option, device or dtype that does not exist, or preprocessing that nothing decides.
        CheckpointError: weights that are missing, damaged, not finite or made for another architecture.
    """
    from mtv.encoders.checkpoint import check_finite
    from mtv.encoders.options import merge_options, reject_options
    from mtv.encoders.placement import resolve_device, resolve_dtype
    from mtv.encoders.spec import parse_spec

    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    target, kind = resolve_device(device), resolve_dtype(dtype)
    options = merge_options(parsed.options, overrides)
    if not parsed.random:
        reject_options(options, ("seed",), "only random weights have a seed (NAME@random?seed=0)")
    if parsed.scheme != "mtv":
        reject_options(options, ("vision",), "only checkpoints of a run (mtv:RUN) have a student and a teacher")
    head = options.pop("depth_head", None)
    encoder = _backend(parsed.scheme)(parsed, options=options, download=download)
    check_finite(encoder.module.state_dict(), parsed.public)
    if head is not None:
        from mtv.encoders.depth_head import attach_depth_head

        encoder = attach_depth_head(encoder, Path(head))
    return encoder.to(target, kind)


def _backend(scheme: str) -> Any:
    """The loading function of a scheme; built-in ones cannot be replaced by an entry point."""
    if scheme in BACKENDS:
        module, _, attribute = BACKENDS[scheme].partition(":")
        return getattr(importlib.import_module(module), attribute)
    from importlib.metadata import entry_points

    found = [e for e in entry_points(group="mtv.encoders") if e.name == scheme]
    if not found:
        from mtv.errors import unknown

        raise unknown("model scheme", scheme, BACKENDS)
    return found[0].load()
