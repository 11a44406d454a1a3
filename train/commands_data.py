"""`mtv-train data`: index a corpus of shards, check it with the trainer's eyes, and say what it holds."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import click

Root = click.Path(path_type=Path)
_labels = click.option(
    "--labels", default=None, metavar="A,B", help="Label sets to read.  [default: all, one of each kind]"
)
_quiet = click.option("--quiet", is_flag=True, help="No progress on stderr.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")


@click.group()
def data() -> None:
    """Pretraining shards: tars of images with parallel tars of labels, read through an offset index."""


@data.command()
@click.argument("root", type=Root, metavar="DIR")
@_quiet
def index(root: Path, quiet: bool) -> None:
    """Index the shards of DIR (images/*.tar, labels/*/*.tar); what did not change is not read again."""
    from mtv.console import Reporter, setup_logging
    from mtv.shards import build_dataset

    setup_logging(quiet=quiet)
    with Reporter("index", enabled=not quiet) as reporter:
        info = build_dataset(root, on_shard=partial(reporter.tick, "shards"))
    click.echo(f"{root}: {info.samples:,} samples in {len(info.shards)} shards, index {info.index_hash[:12]}")
    for name, entry in info.labels.items():
        click.echo(f"  {name}: {entry.samples:,} labelled ({entry.samples / info.samples:.1%})")


@data.command()
@click.argument("root", type=Root, metavar="DIR")
@click.option("--full", is_flag=True, help="Read every byte and decode every sample as the trainer does.")
@_labels
@_quiet
@_json
def check(root: Path, full: bool, labels: str | None, quiet: bool, as_json: bool) -> int:
    """Find what is wrong with DIR: files that changed since they were indexed; with --full also every sample that a
    run would replace (truncated image, depth of another shape, no caption ...). DIR may be a miniature world.

    Exit code 3 if anything is wrong.
    """
    from mtv.console import Reporter, setup_logging
    from mtv.shards import ShardDataset, verify_dataset
    from mtv.train.corpus import corpus_root
    from mtv.train.data.options import DataOptions
    from mtv.train.data.survey import bad_samples

    setup_logging(quiet=quiet)
    root = corpus_root(root)
    problems = list(verify_dataset(root, full=full))
    # A damaged index or a tar that is gone is named once, not once per sample.
    if full and all(p.key is not None for p in problems):
        dataset = ShardDataset.open(root, labels=_chosen(root, labels))
        known = {p.key for p in problems}
        with Reporter("check", enabled=not quiet) as reporter:
            progress = partial(reporter.tick, "samples")
            problems += [p for p in bad_samples(dataset, DataOptions(), progress=progress) if p.key not in known]
    if as_json:
        rows = [{"file": str(p.file), "key": p.key, "message": p.message} for p in problems]
        click.echo(json.dumps({"ok": not problems, "problems": rows}, indent=1))
    else:
        for problem in problems:
            click.echo(str(problem))
        click.echo(f"{root}: {f'{len(problems)} problems' if problems else 'sound'}")
    return 3 if problems else 0


@data.command()
@click.argument("root", type=Root, metavar="DIR")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Samples to read.")
@_labels
@_quiet
@_json
def stats(root: Path, limit: int, labels: str | None, quiet: bool, as_json: bool) -> None:
    """What DIR holds: sizes, captions, regions and their names, depth, from evenly spaced samples.

    DIR is a folder of indexed shards, or a miniature world.
    """
    from mtv.console import Reporter, setup_logging
    from mtv.shards import ShardDataset
    from mtv.train.corpus import corpus_root
    from mtv.train.data.survey import collect_stats

    setup_logging(quiet=quiet)
    root = corpus_root(root)
    dataset = ShardDataset.open(root, labels=_chosen(root, labels))
    with Reporter("stats", enabled=not quiet) as reporter:
        found = dataclasses.asdict(collect_stats(dataset, limit=limit, progress=partial(reporter.tick, "samples")))
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for name, value in found.items():
        click.echo(f"{name.replace('_', ' '):<18} {_text(value)}")


def _chosen(root: Path, labels: str | None) -> tuple[str, ...]:
    from mtv.shards import read_dataset
    from mtv.train.data.survey import pick_labels

    if labels is not None:
        return tuple(name.strip() for name in labels.split(",") if name.strip())
    return pick_labels(read_dataset(root))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:,}" for k, v in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        return " / ".join(str(v) for v in value)
    return f"{value:,.3g}" if isinstance(value, float) else f"{value:,}"
