"""`mtv-eval inspect SPEC`: everything that was resolved about a model, and one picture and two texts through it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from mtv.eval.commands.options import json_option, parse_settings

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder


@click.command()
@click.argument("spec")
@click.option(
    "--set", "settings", multiple=True, metavar="image.FIELD=VALUE", help="Override image.*, text.*, model.*."
)
@click.option("--device", default="cpu", show_default=True, help="Device of the trial pass.")
@click.option(
    "--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True, help="Tower dtype."
)
@click.option("--download", is_flag=True, help="Allow fetching weights from a hub.")
@json_option
def inspect(spec: str, settings: tuple[str, ...], device: str, dtype: str, download: bool, as_json: bool) -> None:
    """Print size, mean/std, resize rule, interpolation, tokenizer, taps, parameters, hashes and keys of SPEC.

    Every field is followed by the rule that decided it: option, config, tag or family.
    """
    from mtv.console import setup_logging
    from mtv.encoders import load

    setup_logging()
    _, overrides = parse_settings(settings, [])
    started = time.perf_counter()
    encoder = load(spec, device=device, dtype=dtype, download=download, overrides=overrides)
    record = {**encoder.info.to_dict(), "taps": _taps(encoder), "load_seconds": round(time.perf_counter() - started, 2)}
    record["trial"] = _trial(encoder)
    if as_json:
        click.echo(json.dumps(record, indent=1))
    else:
        _print(encoder, record)


def _taps(encoder: Encoder) -> dict[str, Any]:
    return {
        "layers": f"0..{encoder.depth - 1}" if encoder.depth else "none",
        "width": encoder.width,
        "patch_size": encoder.patch_size,
        "norm": ["none", "final"],
        "embed_dim": encoder.embed_dim,
    }


def _trial(encoder: Encoder) -> dict[str, Any]:
    """A grey picture and two texts through towers and depth head: shapes and finiteness."""
    import torch

    side = encoder.info.image.size
    pixels = torch.full((1, 3, side, side), 128, dtype=torch.uint8)
    started = time.perf_counter()
    layers = (encoder.depth - 1,) if encoder.depth else ()
    out = encoder.features(encoder.normalize(pixels), layers=layers, norm="final" if layers else None, pooled=True)
    trial: dict[str, Any] = {"image_ms": round(1000 * (time.perf_counter() - started), 1)}
    trial["outputs"] = {f"layer{k}": list(v.shape) for k, v in out.tokens.items()}
    for name, value in (("pooled", out.pooled), ("global", out.global_token)):
        if value is not None:
            trial["outputs"][name] = list(value.shape)
            trial["finite"] = bool(torch.isfinite(value).all())
    if encoder.has_depth:
        depth = encoder.predict_depth(encoder.normalize(pixels))
        trial["outputs"]["depth"] = list(depth.shape)
        trial["depth_finite"] = bool(torch.isfinite(depth).all())
    if encoder.has_text:
        text = encoder.encode_text(["a photo of a cat.", "a photo of a dog."])
        trial["outputs"]["text"] = list(text.shape)
        trial["text_cosine"] = round(float(torch.cosine_similarity(text[:1], text[1:])), 4)
    return trial


def _print(encoder: Encoder, record: dict[str, Any]) -> None:
    info = encoder.info
    sources = info.sources

    def line(name: str, value: Any, source: str = "") -> None:
        click.echo(f"  {name:<22}{value}" + (f"   ({source})" if source else ""))

    click.echo(
        info.spec + (f"  (alias {info.alias})" if info.alias else "") + ("  RANDOM WEIGHTS" if info.random else "")
    )
    for name in ("adapter", "architecture", "family"):
        line(name, getattr(info, name))
    line("activation", info.activation, sources.get("activation", ""))
    towers = ", ".join(f"{k} {v:.2f}" for k, v in info.params_by_tower.items())
    line("parameters", f"{info.params_m:.2f} M ({towers})")
    line("weights sha256", info.weights_sha256)
    line("fingerprint", info.fingerprint)
    line("missing keys", ", ".join(info.keys.missing) or "none")
    line("unexpected keys", ", ".join(info.keys.unexpected) or "none")
    click.echo("image")
    for name, value in info.image.to_dict().items():
        line(name, value, sources.get(f"image.{name}", ""))
    click.echo("text" if info.text else "text: none")
    for name, value in (info.text.to_dict() if info.text else {}).items():
        line(name, value, sources.get(f"text.{name}", ""))
    click.echo("depth head" if info.depth_head else "depth head: none")
    for name, value in (info.depth_head.to_dict() if info.depth_head else {}).items():
        line(name, value, sources.get(f"depth_head.{name}", ""))
    click.echo("taps")
    for name, value in record["taps"].items():
        line(name, value)
    line("position embeddings", info.pos_interp)
    line("pooled vector", info.pooling)
    click.echo("trial")
    for name, value in {**record["trial"].pop("outputs"), **record["trial"]}.items():
        line(name, value)
