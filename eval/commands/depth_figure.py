"""`mtv-eval depth-figure`: predictions of several models beside the truth, as in the paper's Figure 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from mtv.eval.commands.options import DirPath, device_of, parse_settings, verbosity_options


@click.command(name="depth-figure")
@click.option(
    "-m", "--model", "models", multiple=True, required=True, metavar="SPEC", help="[NAME=]SPEC, repeatable: columns."
)
@click.option("--data", type=DirPath, required=True, help="Folder that holds the data set, up to two levels below.")
@click.option(
    "-t",
    "--task",
    type=click.Choice(["rel_nyu", "rel_kitti"]),
    default="rel_nyu",
    show_default=True,
    help="Whose frames, crop and scored pixels.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG file to write.")
@click.option("--ids", multiple=True, metavar="ID", help="Frame by its id, repeatable: rows.")
@click.option("--n", type=int, default=4, show_default=True, help="Frames, evenly spread, where no --ids are given.")
@click.option("--protocol", default="paper", show_default=True, help="Preset of the task (`mtv-eval ls protocols`).")
@click.option("--set", "settings", multiple=True, metavar="TASK.FIELD=VALUE", help="Override a field of the task.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps; auto takes a GPU.")
@click.option("--download", is_flag=True, help="Allow fetching model weights from a hub; never data.")
@verbosity_options
def depth_figure(models: tuple[str, ...], data: Path, task: str, out: Path, **options: Any) -> None:
    """Draw image, prediction of every MODEL, ground truth and error side by side; one range of colours per row.

    \b
    mtv-eval depth-figure -m mtv=mtv:runs/b16 -m hf:depth-anything/Depth-Anything-V2-Base-hf --data /data --out f.png
    mtv-eval depth-figure -m da=hf:./depth-anything -t rel_kitti --protocol native --n 2 --data /data --out k.png
    """
    from mtv.atomic import atomic_write
    from mtv.console import Reporter, setup_logging
    from mtv.encoders.spec import expand_specs
    from mtv.eval.depth_figure import depth_figure as draw
    from mtv.eval.protocols import protocol_for
    from mtv.eval.protocols_rel import RelDepthProtocol

    setup_logging(verbose=options["verbose"], quiet=options["quiet"])
    fields = parse_settings(options["settings"], [task])[0].get(task)
    protocol = cast(RelDepthProtocol, protocol_for(task, options["protocol"], fields))
    with Reporter(f"{task} figure", enabled=not options["quiet"]) as reporter:
        figure = draw(
            expand_specs(list(models)),
            data,
            protocol,
            ids=options["ids"],
            n=options["n"],
            device=device_of(options["device"]),
            download=options["download"],
            tick=reporter.tick,
        )
    atomic_write(out, lambda path: figure.save(path, format="PNG"))
    click.echo(f"{out}: {figure.width} x {figure.height}")
