"""`mtv-eval cache ls|verify|gc`: the feature store. Nothing is ever deleted without `gc`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mtv.eval.commands.options import cache_option, default_cache, json_option
from mtv.eval.commands.output import show_rows


@click.group()
def cache() -> None:
    """List, verify or clean the feature cache."""


@cache.command(name="ls")
@cache_option
@json_option
def list_cache(cache_dir: Path | None, as_json: bool) -> None:
    """Entries with size, model, data set, rows and last use."""
    from mtv.eval.features.admin import list_entries

    rows = [
        {
            "entry": e.name,
            "kind": e.kind,
            "model": e.model,
            "data": e.data,
            "outputs": ", ".join(e.outputs),
            "rows": e.rows,
            "mb": round(e.bytes / 2**20, 1),
            "state": "complete" if e.complete else "partial",
            "last_use": time.strftime("%Y-%m-%d %H:%M", time.localtime(e.last_use)),
        }
        for e in list_entries(cache_dir or default_cache())
    ]
    show_rows(rows, as_json)


@cache.command()
@cache_option
@json_option
def verify(cache_dir: Path | None, as_json: bool) -> int:
    """Check every shard against its recorded hash; exit code 1 if one differs."""
    from mtv.eval.features.admin import verify_entries

    verdicts = verify_entries(cache_dir or default_cache())
    rows = [{"entry": v.name, "shards": v.shards, "problems": "; ".join(v.problems) or "none"} for v in verdicts]
    show_rows(rows, as_json)
    return 1 if any(v.problems for v in verdicts) else 0


@cache.command()
@click.option("--older-than", default=None, metavar="30d", help="Remove entries not used for so many days.")
@click.option(
    "--max-size", default=None, metavar="100GB", help="Remove the least recently used until this much is left."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@cache_option
@json_option
def gc(older_than: str | None, max_size: str | None, dry_run: bool, cache_dir: Path | None, as_json: bool) -> None:
    """Remove entries by age or total size, and debris of interrupted writes."""
    from mtv.eval.features.admin import collect_garbage

    removed = collect_garbage(
        cache_dir or default_cache(),
        older_than_days=_days(older_than),
        max_size_gb=_gigabytes(max_size),
        dry_run=dry_run,
    )
    rows = [{"removed": r.path.name, "mb": round(r.bytes / 2**20, 1), "reason": r.reason} for r in removed]
    show_rows(rows, as_json)


def _days(text: str | None) -> float | None:
    """`30d` or `30` as days."""
    if text is None:
        return None
    try:
        return float(text.lower().removesuffix("d"))
    except ValueError as e:
        raise click.BadParameter(f"{text!r}: expected days, such as 30d", param_hint="--older-than") from e


def _gigabytes(text: str | None) -> float | None:
    """`100GB`, `500MB` or `1.5` (GB) as gigabytes."""
    if text is None:
        return None
    lower = text.lower()
    try:
        if lower.endswith("mb"):
            return float(lower.removesuffix("mb")) / 1024
        return float(lower.removesuffix("gb"))
    except ValueError as e:
        raise click.BadParameter(f"{text!r}: expected a size, such as 100GB", param_hint="--max-size") from e
