"""`mtv-eval depth-head`: fits a linear disparity head on an encoder that brings none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mtv.eval.commands.options import DirPath, device_of, verbosity_options


@click.command(name="depth-head")
@click.option("-m", "--model", "spec", required=True, metavar="SPEC", help="Encoder, as for `run`.")
@click.option("--data", type=DirPath, required=True, help="Folder that holds NYUv2, up to two levels below.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write (.safetensors)."
)
@click.option("--layer", type=int, default=-1, show_default=True, help="Block whose patch tokens are read.")
@click.option(
    "--norm",
    type=click.Choice(["final", "none"]),
    default="final",
    show_default=True,
    help="Tap of that block: after the final norm, or the residual stream.",
)
@click.option(
    "--ridge", type=float, default=0.1, show_default=True, help="Penalty on the weights, in channel variances."
)
@click.option("--size", type=int, default=None, help="Input side in pixels.  [default: the model's own]")
@click.option("--limit", type=int, default=None, help="Use N training frames, spread over the scenes.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps; auto takes a GPU.")
@click.option("--download", is_flag=True, help="Allow fetching model weights from a hub; never data.")
@verbosity_options
def depth_head(spec: str, data: Path, out: Path, **options: Any) -> None:
    """Fit a linear head from patch tokens to disparity on the training frames of NYUv2 (ridge, closed form).

    For relative depth of encoders without a depth head; every table says what the head was fitted on.

    \b
    mtv-eval depth-head -m timm:vit_base_patch14_dinov2.lvd142m --data /data --out dinov2.safetensors
    mtv-eval run -m 'timm:vit_base_patch14_dinov2.lvd142m?depth_head=dinov2.safetensors' -t depth --data /data
    """
    from mtv.console import Reporter, setup_logging
    from mtv.encoders import load
    from mtv.encoders.depth_head import save_depth_head
    from mtv.eval.depth_head_fit import HeadFitConfig, fit_depth_head

    setup_logging(verbose=options["verbose"], quiet=options["quiet"])
    config = HeadFitConfig(**{k: options[k] for k in ("layer", "norm", "ridge", "size", "limit")})
    encoder = load(spec, device=device_of(options["device"]), download=options["download"])
    with Reporter(f"{encoder.info.alias or encoder.info.spec} · depth head", enabled=not options["quiet"]) as reporter:
        head = fit_depth_head(encoder, data, config, tick=reporter.tick)
    save_depth_head(out, head)
    click.echo(
        f"{out}: linear disparity head, {len(head.weight_D)} weights on layer {head.layer} ({head.norm} norm), "
        f"fitted on {head.fitted_on}\nuse it with -m '{spec}{'&' if '?' in spec else '?'}depth_head={out}'"
    )
