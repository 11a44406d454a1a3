"""`mtv-eval data make-mini` and `data show`: make a miniature world, and look at it."""

from __future__ import annotations

from pathlib import Path

import click

from mtv.eval.commands.options import DirPath, json_option
from mtv.eval.commands.output import show_rows


@click.command(name="make-mini")
@click.option("--out", type=DirPath, required=True, help="Folder of the world; holds one world, whole or in part.")
@click.option(
    "--size",
    type=int,
    default=96,
    show_default=True,
    help="Shorter side of ordinary pictures, 32 to 512 px; pretraining pictures have that square's area.",
)
@click.option(
    "--scale",
    default="small",
    show_default=True,
    help="How many pictures: small (2,000 for pretraining), medium (10,000), large (100,000); tiny for tests.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed; other seeds share no scene.")
@click.option("--shift", is_flag=True, help="Harder tests: patterns and settings that the training splits never show.")
@click.option("--sets", default=None, metavar="A,B", help="Only these sets, comma-separated.  [default: all]")
@click.option(
    "--workers", type=int, default=None, help="Processes; the files do not depend on it.  [default: min(8, cores)]"
)
@click.option("--device", default="cpu", show_default=True, help="Where pictures are rendered: cpu or cuda.")
@click.option("--quiet", is_flag=True, help="No progress; only errors on stderr.")
@json_option
def make_mini(
    out: Path,
    size: int,
    scale: str,
    seed: int,
    shift: bool,
    sets: str | None,
    workers: int | None,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a miniature world: every benchmark and the pretraining shards, generated, in their original layouts.

    What is there and whole stays: a second call only verifies, an interrupted one goes on, and missing or damaged files
    are found by their hashes and made again. A folder with another world is refused.
    """
    from mtv.console import Reporter, setup_logging
    from mtv.miniworld.make import make_world
    from mtv.miniworld.spec import WorldSpec

    setup_logging(quiet=quiet)
    with Reporter("make-mini", enabled=not quiet) as reporter:
        made = make_world(
            out,
            WorldSpec(seed=seed, size=size, shift=shift),
            scale=scale,
            sets=_names(sets),
            workers=workers,
            device=device,
            progress=reporter.tick,
        )
    rows = [
        {
            "set": m.name,
            "chunks": m.chunks,
            "made": m.made,
            "repaired": len(m.repaired),
            "counts": m.counts if as_json else ", ".join(f"{n} {what}" for what, n in m.counts.items()),
        }
        for m in made
    ]
    show_rows(rows, as_json)


@click.command()
@click.argument("data", type=DirPath)
@click.option("--out", type=DirPath, required=True, help="The sheet, .png or .jpg.")
@click.option("--sets", default=None, metavar="A,B", help="Only these sets, comma-separated.  [default: all found]")
@click.option("--items", type=click.IntRange(2, 64), default=6, show_default=True, help="Pictures per set.")
@click.option("--width", type=click.IntRange(480, 8192), default=1480, show_default=True, help="Width in pixels.")
def show(data: Path, out: Path, sets: str | None, items: int, width: int) -> None:
    """Draw a contact sheet of the data sets below DATA: pictures with masks, boxes, keypoints, depth, captions."""
    from mtv.atomic import atomic_write
    from mtv.errors import DataError, UsageError
    from mtv.eval.contact_rows import rows_below
    from mtv.eval.contact_sheet import compose

    kinds = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
    if out.suffix.lower() not in kinds:
        raise UsageError(f"--out {out}: expected a name that ends in .png or .jpg")
    rows = list(rows_below(data, names=_names(sets), items=items))
    if not rows:
        raise DataError(f"{data}: no data set found", "Name a folder that make-mini wrote, or one with data sets.")
    sheet = compose(rows, width=width)
    atomic_write(out, lambda path: sheet.save(path, kinds[out.suffix.lower()]))
    click.echo(f"{out}: {', '.join(row.title for row in rows)}")


def _names(sets: str | None) -> list[str] | None:
    return None if sets is None else [name.strip() for name in sets.split(",") if name.strip()]
