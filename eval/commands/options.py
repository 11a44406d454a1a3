"""Options that several commands share, and the parsing of `--set`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mtv.errors import UsageError

DirPath = click.Path(path_type=Path)


def default_cache() -> Path:
    """Where features are kept unless --cache says otherwise: MTV_CACHE, else the user's cache directory."""
    if "MTV_CACHE" in os.environ:
        return Path(os.environ["MTV_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtv" / "features"


def results_option(f: Callable[..., Any]) -> Callable[..., Any]:
    """`--results DIR` of every command that reads results."""
    option = click.option(
        "--results",
        "results_dir",
        type=DirPath,
        default=Path("results"),
        show_default=True,
        help="Result store: what `run --out` wrote.",
    )
    return option(f)


def json_option(f: Callable[..., Any]) -> Callable[..., Any]:
    """`--json` for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")(f)


def cache_option(f: Callable[..., Any]) -> Callable[..., Any]:
    """`--cache DIR`."""
    option = click.option(
        "--cache",
        "cache_dir",
        type=DirPath,
        default=None,
        help="Feature cache directory.  [default: $MTV_CACHE or ~/.cache/mtv/features]",
    )
    return option(f)


def verbosity_options(f: Callable[..., Any]) -> Callable[..., Any]:
    """`--verbose` and `--quiet`."""
    f = click.option("--quiet", is_flag=True, help="No progress; only errors on stderr.")(f)
    return click.option("--verbose", is_flag=True, help="Log details on stderr.")(f)


def device_of(name: str) -> str:
    """`auto` and `cuda` as the device of this process: under torchrun each has its own GPU.

    Raises:
        UsageError: no such device.
    """
    import torch

    from mtv.encoders.placement import resolve_device

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return str(resolve_device(name))


def parse_settings(settings: tuple[str, ...], tasks: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """`task.field=value`, `image.field=value`, `text.field=value` into protocol overrides and model overrides.

    Raises:
        UsageError: no `=`, no `.`, or a name before the dot that is neither a task of this run nor image, text, model.
    """
    protocols: dict[str, dict[str, Any]] = {}
    model: dict[str, Any] = {}
    for text in settings:
        left, equals, value = text.partition("=")
        scope, dot, name = left.strip().partition(".")
        if not equals or not dot or not name:
            raise UsageError(f"--set {text}: expected task.field=value, for example spair.mode=centered")
        if scope in ("image", "text"):
            model[f"{scope}.{name}"] = value
        elif scope == "model":
            model[name] = value
        elif scope in tasks:
            if name in ("tower_dtype", "limit"):
                option = "--dtype" if name == "tower_dtype" else "--limit"
                raise UsageError(f"--set {text}: use {option}, which holds for all tasks of a run")
            protocols.setdefault(scope, {})[name] = value
        else:
            raise UsageError(
                f"--set {text}: {scope!r} is not a task of this run",
                f"Tasks: {', '.join(tasks)}. Model fields: image.*, text.*, model.quick_gelu, ...",
            )
    return protocols, model
